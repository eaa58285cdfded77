"""cnnvis_ray: shows what convolutional networks see, over image sets of any size.

>>> import cnnvis_ray
>>> run = cnnvis_ray.open_run("runs/quickstart")
>>> keys, features = run.features("features.13")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnvis_ray.ledger.reading import Run

__version__ = "0.1.0"
__all__ = ["open_run"]


def open_run(path: str) -> "Run":
    """Open a run directory for reading.

    Args:
        path: folder or URI.

    Raises:
        RefusedError: there is no run.
    """
    from cnnvis_ray.ledger.reading import open_run as opened  # keeps --help instant

    return opened(path)
