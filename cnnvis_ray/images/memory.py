"""Telling a machine without memory from an image that requests too much.

Lack of memory passes when other work ends, so it must not turn good images into rejects. But a
damaged header may request gigabytes for one pixel, each time it is read. So what ran out of memory
is done once more, after the memory that it is entitled to was allocated and freed: if that fails,
the machine lacks memory and the unit is tried again; if the second attempt fails, the image is to
blame.
"""

from typing import Final

import numpy as np

SIGNS: Final = ("out of memory", "memory allocation failed", "allocate")
"""What PIL's decoders ("out of memory error when reading image file") and HDF5 ("memory allocation
failed for raw data chunk", "unable to allocate") write into an `OSError`."""


def lacks_memory(failure: BaseException) -> bool:
    """Whether something failed for lack of memory; Arrow's error is a `MemoryError`."""
    return isinstance(failure, MemoryError) or (
        isinstance(failure, OSError) and any(sign in str(failure).lower() for sign in SIGNS)
    )


def allocate_once(num_bytes: int) -> None:
    """Allocate memory and free it again.

    Raises:
        MemoryError: there is not as much.
    """
    try:
        np.empty(num_bytes, np.uint8)
    except MemoryError:
        raise MemoryError(
            f"no memory for an image that needs up to {num_bytes >> 20} MB; use fewer workers or "
            "lower images.max_pixels"
        ) from None
