"""A store: one folder, local or in an object store, in which files appear whole or not at all.

Local files are written beside their place under a hidden name, flushed and renamed. Object stores
receive one upload under the final name, of a file that was written and closed on this machine: a
store publishes what an interrupted stream has sent so far. Names inside a store use ``/`` and are
relative. Requests to busy stores are retried (`addresses`); a store or disk that fails for good is
one `StoreError` (`store_errors`), and what was committed before stays.
"""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

import fsspec

from cnnvis_ray.storage.addresses import is_local, locate
from cnnvis_ray.storage.store_errors import error_code, is_disk_full, store_error, store_errors

LEFTOVER = ".part-"  # hidden, so that a reader's glob over a folder never meets it
AT_ONCE = 32
"""Requests for small files in flight at a time."""

NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""File systems without hard links (exFAT, some FUSE mounts): there a reader may meet a part of a
new file for an instant."""

TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")


@dataclass(frozen=True, slots=True)
class Store:
    """A folder by path or URI; small and picklable, opened again wherever it is used."""

    root: str

    @property
    def file_system(self) -> fsspec.AbstractFileSystem:
        """The file system behind the root (fsspec keeps one instance a protocol)."""
        return locate(self.root)[0]

    @property
    def is_local(self) -> bool:
        """Whether files lie in this machine's own tree."""
        return is_local(self.file_system)

    def path(self, name: str) -> str:
        """Name a file as the file system does."""
        root = locate(self.root)[1]
        return f"{root.rstrip('/')}/{name}" if name else root

    def read(self, name: str) -> bytes:
        """Read a whole file; `FileNotFoundError` if there is none."""
        with store_errors(self.root):
            return bytes(self.file_system.cat_file(self.path(name)))

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read many small files, in parallel where they lie in an object store.

        Returns:
            The bytes of each file, in the order of the names. Files that do not exist (any more)
            are left out, so that ``get(name)`` is None for them.
        """
        wanted = list(names)
        if self.is_local or len(wanted) < 2:
            read = [self.read_if_present(name) for name in wanted]
        else:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="read") as pool:
                read = list(pool.map(self.read_if_present, wanted))
        return {name: d for name, d in zip(wanted, read, strict=True) if d is not None}

    def read_if_present(self, name: str) -> bytes | None:
        """Read a whole file, or return None if there is none."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading at any position."""
        with store_errors(self.root), self.file_system.open(self.path(name), "rb") as file:
            yield file

    def exists(self, name: str) -> bool:
        """Whether a file or folder of that name exists."""
        with store_errors(self.root):
            return bool(self.file_system.exists(self.path(name)))

    def names(self, folder: str) -> list[str]:
        """List the names directly in a folder, sorted; an absent folder is empty."""
        path = self.path(folder)
        with store_errors(self.root):
            try:
                found = self.file_system.ls(path, detail=False)
            except (FileNotFoundError, NotADirectoryError) as absent:
                if error_code(absent) == "NoSuchBucket":
                    raise
                return []
        return sorted({PurePosixPath(name).name for name in found} - {PurePosixPath(path).name})

    def files(self, folder: str) -> list[str]:
        """List every file below a folder, relative to the store, sorted."""
        if not self.is_local:
            return list(self.sizes(folder))
        start = len(self.path("").rstrip("/")) + 1
        with store_errors(self.root):
            walked = os.walk(self.path(folder), onerror=raise_unless_absent)
            return sorted(f"{at}/{name}"[start:] for at, _, names in walked for name in names)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of every file below a folder, by name, sorted.

        In an object store this is one listing (a request for each 1,000 files) and reads nothing.
        """
        start = len(self.path("").rstrip("/")) + 1
        with store_errors(self.root):
            found = self.file_system.find(self.path(folder), detail=True)
        return {name[start:]: int(info["size"]) for name, info in sorted(found.items())}

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those already gone are passed over."""

        def delete_one(name: str) -> None:
            with store_errors(self.root), suppress(FileNotFoundError):
                self.file_system.rm_file(self.path(name))

        with ThreadPoolExecutor(1 if self.is_local else AT_ONCE) as pool:
            for _ in pool.map(delete_one, names):
                pass

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, replacing any earlier one at once."""
        with self.writing(name) as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a whole file unless there is one of that name; of several writers one wins.

        Object stores get a conditional request (``If-None-Match``). One whose answer was lost and
        that was repeated may find its own file: read it where that matters.

        Returns:
            Whether this call wrote it.
        """
        with store_errors(self.root):
            try:
                if self.is_local:
                    self.link_new(name, data)
                else:
                    self.file_system.pipe_file(self.path(name), data, mode="create")
            except OSError as failure:
                if isinstance(failure, FileExistsError) or error_code(failure) in TAKEN:
                    return False
                raise
        return True

    def link_new(self, name: str, data: bytes) -> None:
        """Link a finished file to its name, unless that is taken; raises `FileExistsError`."""
        temporary = self.scratch(name)
        try:
            write_through(temporary, data, "wb")
            try:
                os.link(temporary, self.path(name))
            except FileExistsError:
                if temporary.stat().st_nlink != 2:  # 2: NFS repeated a request that had succeeded
                    raise
            except OSError as failure:
                if failure.errno not in NO_LINKS:
                    raise
                write_through(Path(self.path(name)), data, "xb")
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file that appears under its name when the block ends without an error.

        The block's own errors pass as they are, but for a disk that the file filled.
        """
        try:
            with self.renamed(name) if self.is_local else self.uploaded(name) as file:
                yield file
        except OSError as failure:
            if not is_disk_full(failure):
                raise
            raise store_error(failure, self.root) or failure from None

    @contextmanager
    def renamed(self, name: str) -> Iterator[IO[bytes]]:
        """Write beside the final name and rename."""
        with store_errors(self.root):
            temporary = self.scratch(name)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            with store_errors(self.root):
                temporary.replace(self.path(name))
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def uploaded(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file without a name, which a killed worker cannot leave, and upload it once."""
        with tempfile.TemporaryFile() as file:
            yield file
            file.flush()
            with store_errors(self.root):
                self.file_system.put_file(path_to(file), self.path(name))

    def scratch(self, name: str) -> Path:
        """Return the path of a hidden file to write first, in the same folder."""
        folder = Path(self.path(name)).parent
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{LEFTOVER}{secrets.token_hex(4)}-{PurePosixPath(name).name}"


def write_through(path: Path, data: bytes, mode: str) -> None:
    """Write a file and wait until the disk has it."""
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def raise_unless_absent(failure: OSError) -> None:
    """Pass over a folder that is absent, or deleted while it was walked."""
    if not isinstance(failure, FileNotFoundError | NotADirectoryError):
        raise failure


def path_to(file: IO[bytes]) -> str:
    """Return a path to an open file in this process, also one without a name."""
    return file.name if isinstance(file.name, str) else f"/dev/fd/{file.fileno()}"
