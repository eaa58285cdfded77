"""Images in a folder tree: the key is the relative path, the class a sub-folder.

What counts as an image is defined in `names`. Links to files count as files, under the link's own
name. Links to folders are followed, unless they lead back to a folder that contains them: those
would never end. What has an image's name and cannot be read (a link to nothing, a pipe) is listed
and becomes a reject, so that it is reported and not lost. Folders that are run directories are
passed over: their pictures are results and not images of the source.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images.entries import Entry, Listing
from cnnvis_ray.images.labels import FindLabel, label_by_folder
from cnnvis_ray.images.names import SKIPPED_FOLDERS, SUFFIXES, is_image_name, key_of, path_of
from cnnvis_ray.images.sources import Reader, Source

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 2**30
"""A larger file is not read: no picture within any sensible max_pixels needs it."""

RUN_MARKS = frozenset({b"run.json", b"passes"})
"""A folder that holds both is a run directory."""

FAULTS_OF_ONE = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EIO,
        errno.ENXIO,
    }
)
"""What the system reports of one file. Anything else (stale handle, too many open files) may pass
by itself: it must not turn good images into rejects, so the unit is tried again."""

FolderId = tuple[int, int]
"""Device and inode: the same folder whatever path leads to it."""


@dataclass(frozen=True, slots=True)
class FolderSource(Source):
    """A folder tree of image files.

    Attributes:
        root: the folder, absolute, since workers have working directories of their own.
        limit: how many of the first images are used, or None for all.
        run_dir: the run's own folder, passed over if it lies in the tree; may be empty.
    """

    root: Path
    limit: int | None = None
    run_dir: str = ""

    def list(self) -> Listing:
        """List the image files, sorted by path."""
        tree = Tree(self.root, self.run_dir)
        tree.walk()
        if not tree.images:
            raise RefusedError(
                f"images.source {str(self.root)!r} holds no image ({tree.num_others} other "
                f"files); image files end in {' '.join(sorted(SUFFIXES))}"
            )
        if tree.num_others:
            logger.info("%s: passed over %d files that are not images", self.root, tree.num_others)
        for folder in tree.runs:
            logger.warning("%s: passed over the run directory %s in it", self.root, folder)
        chosen = sorted(tree.images)[: self.limit]
        return Listing(tuple(Entry(key_of(path), version) for path, version in chosen))

    def open(self) -> "FolderReader":
        """Open for reading."""
        return FolderReader(self.root)

    def find_labels(self, name: str, entries: Iterable[Entry]) -> FindLabel | None:
        """Find labels in the path: ``folder`` is the first sub-folder, ``parent`` the last."""
        return label_by_folder(name, (entry.key for entry in entries))


@dataclass(slots=True)
class Tree:
    """A walk through a folder tree, fast enough for a million files.

    Attributes:
        images: relative path and version (size and time) of each image file.
        num_others: how many other files were passed over.
        runs: run directories that were passed over, relative.
    """

    root: Path
    run_dir: str
    images: list[tuple[bytes, str]] = field(default_factory=list)
    num_others: int = 0
    runs: list[str] = field(default_factory=list)

    def walk(self) -> None:
        """List the whole tree.

        Raises:
            RefusedError: a folder cannot be read.
        """
        real = self.root.resolve()
        above = frozenset(folder_id(folder.stat()) for folder in (real, *real.parents))
        run_dir = Path(self.run_dir)
        own = folder_id(run_dir.stat()) if self.run_dir and run_dir.is_dir() else None
        folders = [(b"", above)]
        while folders:
            prefix, above = folders.pop()
            children = self.children(prefix)
            marks = {entry.name for entry in children} & RUN_MARKS
            if prefix and marks == RUN_MARKS:
                self.runs.append(os.fsdecode(prefix))
                continue
            for entry in children:
                if is_folder(entry):
                    here = folder_id(entry.stat())
                    if here == own:
                        self.runs.append(os.fsdecode(prefix + entry.name))
                    elif here not in above:
                        folders.append((prefix + entry.name + b"/", above | {here}))
                elif is_image_name(entry.name):
                    self.images.append((prefix + entry.name, version_of(entry)))
                else:
                    self.num_others += 1

    def children(self, prefix: bytes) -> list[os.DirEntry[bytes]]:
        """List a folder without what is hidden."""
        root = os.fsencode(self.root)
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:  # noqa: PTH118 - names are bytes
                return [
                    entry
                    for entry in entries
                    if not entry.name.startswith(b".") and entry.name not in SKIPPED_FOLDERS
                ]
        except OSError as failure:
            raise RefusedError(
                f"cannot read folder {os.fsdecode(prefix) or '.'!r} of images.source "
                f"{os.fsdecode(root)!r}: {failure.strerror}"
            ) from None


def folder_id(status: os.stat_result) -> FolderId:
    """Return what identifies a folder."""
    return status.st_dev, status.st_ino


def is_folder(entry: os.DirEntry[bytes]) -> bool:
    """Whether something is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def version_of(entry: os.DirEntry[bytes]) -> str:
    """Return size and time of a file, or that it is missing."""
    try:
        status = entry.stat()
    except OSError:
        return "missing"
    return f"{status.st_size}-{status.st_mtime_ns}"


class FolderReader(Reader):
    """Reads one file after the other; holds no handle between them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fetch(self, key: str) -> bytes:
        """Read one file whole."""
        try:
            return read_file(f"{self.root}/{os.fsdecode(path_of(key))}")
        except OSError as failure:
            if failure.errno in FAULTS_OF_ONE and self.root.is_dir():
                raise ImageRejectedError("read", str(failure.strerror)) from None
            raise

    def close(self) -> None:
        """Do nothing: no handle is held."""


def read_file(path: str) -> bytes:
    """Read a regular file of at most `MAX_FILE_BYTES`."""
    with open(path, "rb", opener=open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageRejectedError("read", "not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageRejectedError(
                "read", f"a file of {status.st_size} bytes; at most {MAX_FILE_BYTES} are read"
            )
        return file.read()


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe without a writer would otherwise block here for ever."""
    return os.open(path, flags | os.O_NONBLOCK)
