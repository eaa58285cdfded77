"""Where images come from: what every source can do.

A source is named by the configuration, lists what it holds on the driver, and is opened where the
work is done. It is a small record that travels by pickle and holds no handle; a reader holds the
handle, one per worker, and returns one image by its key to any of the worker's decode threads.

To add a source: a module with the two classes below and one line in `opening.SOURCES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np

from cnnvis_ray.config import Images
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.images.entries import Entry, Listing
from cnnvis_ray.images.labels import (
    FindLabel,
    Labels,
    find_in_table,
    is_table,
    no_label,
    read_names,
)

Raw = bytes | np.ndarray
"""An image before decoding: a file's bytes, or pixels (height width, or height width 1 or 3)."""


@runtime_checkable
class Reader(Protocol):
    """An open source, closed on leaving its block; may be used from several threads at once."""

    def fetch(self, key: str) -> Raw:
        """Read one image, undecoded.

        Raises:
            ImageRejectedError: this one image cannot be read; stage ``read``.
            OSError: the source itself is gone or fails; the work unit should be tried again.
            MemoryError: the machine has no memory now; the work unit should be tried again.
        """

    def close(self) -> None:
        """Close the handle."""

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Source(ABC):
    """A place that holds images, as the configuration names it.

    Attributes:
        identity: kind and absolute place: two runs of one identity may be continued. Which images
            of it are used (indices, limit) and what it holds today are not part of it.
    """

    identity: str

    @abstractmethod
    def list(self) -> Listing:
        """List the images that the source holds now, in order.

        Raises:
            RefusedError: nothing in it can be used.
        """

    @abstractmethod
    def open(self) -> Reader:
        """Open it for reading, in the process that reads."""

    def find_labels(self, name: str, entries: Iterable[Entry]) -> FindLabel | None:
        """Return what finds the labels that ``images.labels`` names in the source itself.

        Args:
            name: ``folder`` for what the source carries; otherwise what only this source knows.
            entries: what was listed; empty where nobody listed yet.

        Returns:
            A function of the key, which travels by pickle, or None where the name means nothing
            here. ``folder`` means no labels where a source carries none.

        Raises:
            RefusedError: the name means something here and cannot be used.
        """
        return no_label if name == "folder" else None

    def read_labels(self, images: Images, listing: Listing | None = None) -> Labels:
        """Read what ``images.labels`` and ``images.label_names`` name, and check it.

        Args:
            images: the section of the configuration.
            listing: what `list` returned, so that a check of a table need not list again.

        Raises:
            RefusedError: there is no such table, column or data set, it does not fit the source,
                or a table names none of its images.
        """
        name = images.labels
        find: FindLabel | None
        if name is None:
            find = no_label
        elif is_table(name):
            find = find_in_table(name, images.source, (listing or self.list()).keys())
        else:
            find = self.find_labels(name, listing.entries if listing else ())
        if find is None:
            raise RefusedError(
                f"images.labels {name!r}: allowed are folder, null, or a .csv or .parquet table "
                "of key and label; parent for images in folders, a data set's name for an HDF5 "
                "source, a column's for Parquet"
            )
        return Labels(find, read_names(images.label_names))
