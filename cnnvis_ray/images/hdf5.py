"""Images stacked in one HDF5 data set, one image per row.

Allowed are uint8 pixels as N H W 3, N 3 H W, N H W (grey), N H W 1 or N 1 H W. Where both ends
could be the channels (N 3 H 3) the last axis is taken, the form that the configuration names
first. Everything is checked before any work starts.

A worker opens the file once, for all its threads, with a cache that holds one row of chunks, so
that each chunk is decompressed once. The file is not locked: it is only read, and network file
systems often cannot lock.
"""

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from cnnvis_ray.errors import ImageRejectedError, RefusedError, near
from cnnvis_ray.images.entries import Entry, Listing
from cnnvis_ray.images.labels import FindLabel, label_of_row, no_label
from cnnvis_ray.images.memory import allocate_once, lacks_memory
from cnnvis_ray.images.rows import choose_rows, entries_of, row_of
from cnnvis_ray.images.sources import Reader, Source

DISK_FAILED = "file read failed"
"""HDF5's words where the disk or the mount fails, against content that cannot be understood
(``H5FD__sec2_read``): not a fault of one image, so the unit is tried again."""

ALLOWED = "allowed are uint8 pixels, N H W 3, N 3 H W or N H W"
CHANNELS = (3, 1)

MIN_CACHE_BYTES, MAX_CACHE_BYTES = 2**20, 2**30
SLOTS_A_CHUNK = 100
"""Hash slots per cached chunk: h5py's documentation of ``rdcc_nslots`` asks for about 100."""

MAX_LISTED = 20
"""How many data sets a refusal names."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The geometry of one data set.

    Attributes:
        dataset: its name in the file.
        num_rows: how many images it holds.
        channels_first: pixels are stored as channels height width.
        chunk_rows: rows stored together; 1 where it is not chunked.
        cache_bytes: what holds all chunks that one row touches.
        cache_slots: hash slots of that cache.
    """

    dataset: str
    num_rows: int
    channels_first: bool
    chunk_rows: int
    cache_bytes: int
    cache_slots: int


@dataclass(frozen=True, slots=True)
class Hdf5Source(Source):
    """A stack of uint8 images in an HDF5 file.

    Attributes:
        path: the file, absolute.
        dataset: the data set's name in it.
        indices: which rows, as configured.
        limit: how many of the first of these are used, or None for all.
    """

    path: Path
    dataset: str
    indices: tuple[int, ...] | str | None = None
    limit: int | None = None

    def list(self) -> Listing:
        """Check the file and list the chosen rows."""
        stack = inspect(self.path, self.dataset)
        status = self.path.stat()
        rows = choose_rows(self.indices, self.limit, stack.num_rows)
        version = f"{status.st_size}-{status.st_mtime_ns}"
        return Listing(entries_of(rows, version), stack.chunk_rows)

    def open(self) -> "Hdf5Reader":
        """Open the file, in the process that reads."""
        return Hdf5Reader(self.path, inspect(self.path, self.dataset))

    def find_labels(self, name: str, entries: Iterable[Entry]) -> FindLabel | None:
        """Read labels, strings or whole numbers, of a data set with one value per row."""
        if name == "folder":
            return no_label
        with opened(self.path) as file:
            dataset = find(file, name, "images.labels")
            num_rows = find(file, self.dataset).shape[0]
            text = h5py.check_string_dtype(dataset.dtype) is not None
            if dataset.shape != (num_rows,) or not (text or dataset.dtype.kind in "iu"):
                raise RefusedError(
                    f"images.labels {name!r} is {describe(dataset)}; allowed are {num_rows} "
                    f"strings or whole numbers, one per row of {self.dataset}"
                )
            values = dataset.asstr(errors="replace")[:] if text else dataset[:]
        return partial(label_of_row, [str(value) for value in values])


class Hdf5Reader(Reader):
    """One handle, used by one thread at a time."""

    def __init__(self, path: Path, stack: Stack) -> None:
        self.lock = threading.Lock()
        self.channels_first = stack.channels_first
        self.cache_bytes = stack.cache_bytes
        self.file = h5py.File(
            path,
            "r",
            locking=False,
            rdcc_nbytes=stack.cache_bytes,
            rdcc_nslots=stack.cache_slots,
        )
        self.dataset = self.file[stack.dataset]

    def fetch(self, key: str) -> np.ndarray:
        """Read one row as height width 3, or height width where it is grey."""
        row = row_of(key)
        with self.lock:
            try:
                pixels = self.read(row)
            except (OSError, MemoryError) as failure:
                if not lacks_memory(failure):
                    raise
                allocate_once(self.cache_bytes)
                try:
                    pixels = self.read(row)
                except (OSError, MemoryError):
                    reason = f"row {row}: it requests more memory than its chunk needs"
                    raise ImageRejectedError("read", reason) from None
        return np.moveaxis(pixels, 0, -1) if self.channels_first else pixels

    def read(self, row: int) -> np.ndarray:
        """Read one row as it is stored."""
        try:
            pixels: np.ndarray = self.dataset[row]
        except (OSError, IndexError, ValueError) as failure:
            text = " ".join(str(failure).split())
            if DISK_FAILED in text or lacks_memory(failure):
                raise
            raise ImageRejectedError("read", f"row {row}: {text}"[:200]) from None
        return pixels

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.file.close()


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file to look into it.

    Raises:
        RefusedError: it is not an HDF5 file, is truncated or cannot be read.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as failure:
        text = " ".join(str(failure).split())
        raise RefusedError(f"cannot open {str(path)!r} as HDF5: {text}") from None
    with file:
        yield file


def inspect(path: Path, name: str) -> Stack:
    """Check a stack and return its geometry.

    Raises:
        RefusedError: the file, the data set, its type, its shape or its compression cannot work.
    """
    with opened(path) as file:
        dataset = find(file, name)
        check_filters(dataset)
        return geometry(dataset, name)


def find(file: h5py.File, name: str, option: str = "images.hdf5_dataset") -> h5py.Dataset:
    """Return a data set by name; refuse with the names there are."""
    found = file.get(name)
    if isinstance(found, h5py.Dataset):
        return found
    known: list[str] = []
    file.visititems(
        lambda key, item: known.append(key) if isinstance(item, h5py.Dataset) else None
    )
    listed = ", ".join(f"{key} ({describe(file[key])})" for key in known[:MAX_LISTED])
    guess = near(name, known, at_most=1)
    raise RefusedError(
        f"no data set {name!r} in {Path(file.filename).name!r}; it holds: {listed or 'none'}"
        + (f"; did you mean {option}: {guess[0]}?" if guess else "")
    )


def describe(dataset: h5py.Dataset) -> str:
    """Return shape and type of a data set as text."""
    if dataset.shape is None:
        return "empty"
    return f"{'x'.join(str(length) for length in dataset.shape)} {dataset.dtype}"


def geometry(dataset: h5py.Dataset, name: str) -> Stack:
    """Return the layout of a data set, or refuse it."""
    problem = f"data set {name!r} is {describe(dataset)}"
    if dataset.dtype != np.uint8:
        raise RefusedError(f"{problem}; {ALLOWED}")
    shape: tuple[int, ...] = dataset.shape or ()
    last = len(shape) == 3 or (len(shape) == 4 and shape[3] in CHANNELS)
    first = not last and len(shape) == 4 and shape[1] in CHANNELS
    if not (first or last):
        raise RefusedError(f"{problem}; {ALLOWED}")
    if 0 in shape:
        raise RefusedError(f"{problem}: it holds no pixels")
    chunks: tuple[int, ...] = dataset.chunks or (1, *shape[1:])
    nbytes, slots = cache_for(shape, chunks)
    return Stack(name, shape[0], first, chunks[0], nbytes, slots)


def cache_for(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, int]:
    """Return bytes and slots of a cache for the chunks that one row touches, and one more."""
    num_chunks = 1 + math.prod(
        -(-length // chunk) for length, chunk in zip(shape[1:], chunks[1:], strict=True)
    )
    wanted = num_chunks * math.prod(chunks)
    return min(max(wanted, MIN_CACHE_BYTES), MAX_CACHE_BYTES), SLOTS_A_CHUNK * num_chunks + 1


def check_filters(dataset: h5py.Dataset) -> None:
    """Refuse a compression that this machine's HDF5 cannot decompress."""
    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            raise RefusedError(
                f"data set {dataset.name!r} is compressed with {name.decode(errors='replace')} "
                f"(HDF5 filter {code}), which is not installed; write it again with gzip"
            )
