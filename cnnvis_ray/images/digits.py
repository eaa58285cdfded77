"""The embedded default: 1,797 handwritten digits that scikit-learn ships, 8 x 8 pixels each.

They need no network, no disk and no data of the user's. Source: E. Alpaydin and C. Kaynak, 1998,
Optical Recognition of Handwritten Digits, doi:10.24432/C50P49 (its test half).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from cnnvis_ray.images.entries import Entry, Listing
from cnnvis_ray.images.labels import FindLabel, label_of_row
from cnnvis_ray.images.rows import choose_rows, entries_of, row_of
from cnnvis_ray.images.sources import Reader, Source

NUM_DIGITS = 1797
LARGEST_VALUE = 16
"""The data set counts inked pixels in 4 x 4 blocks, 0 to 16."""

VERSION = "1998"


@dataclass(frozen=True, slots=True)
class DigitsSource(Source):
    """The digits; rows are chosen as in an HDF5 stack."""

    identity: str = "digits"
    indices: tuple[int, ...] | str | None = None
    limit: int | None = None

    def list(self) -> Listing:
        """List the chosen rows."""
        return Listing(entries_of(choose_rows(self.indices, self.limit, NUM_DIGITS), VERSION))

    def open(self) -> "DigitsReader":
        """Load the pixels, 115 kB."""
        return DigitsReader()

    def find_labels(self, name: str, entries: Iterable[Entry]) -> FindLabel | None:
        """Find the digit that a row shows."""
        if name != "folder":
            return None
        return partial(label_of_row, [str(digit) for digit in load()[1]])


class DigitsReader(Reader):
    """All digits in memory."""

    def __init__(self) -> None:
        self.pixels, _ = load()

    def fetch(self, key: str) -> np.ndarray:
        """Return one digit, white on black, height width 3."""
        return np.repeat(self.pixels[row_of(key), :, :, None], 3, axis=2)

    def close(self) -> None:
        """Do nothing: no handle is held."""


def load() -> tuple[np.ndarray, np.ndarray]:
    """Load pixels (uint8) and digits (int64)."""
    # scikit-learn takes a second to import, which most runs need not spend.
    from sklearn.datasets import load_digits

    values, digits = load_digits(return_X_y=True)
    pixels = np.rint(values * 255 / LARGEST_VALUE).astype(np.uint8)
    return pixels.reshape(-1, 8, 8), digits
