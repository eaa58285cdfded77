"""Images in tar archives in WebDataset's form; the key is archive's name and member's path.

The archive's headers say where each member lies; members are then read by place, from any thread.
An archive in an object store is first copied to an unnamed temporary file, once per worker and
archive, since reading headers one by one would cost a request per image: `TMPDIR` needs room for
two archives per worker, and listing reads each archive once.

Every image has the version of its archive: a changed archive is done again.
"""

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images.entries import Entry, Listing
from cnnvis_ray.images.folder import MAX_FILE_BYTES
from cnnvis_ray.images.labels import FindLabel, label_by_folder
from cnnvis_ray.images.members import Index, index_of, label_in, split_sample
from cnnvis_ray.images.shards import (
    Shard,
    ShardLabels,
    look_into,
    opened,
    refusing,
    shard_of,
    version_at,
)
from cnnvis_ray.images.sources import Reader, Source
from cnnvis_ray.storage import is_local, locate, store_errors

COPY_BYTES = 8 << 20
OPEN_ARCHIVES = 2


@dataclass(frozen=True, slots=True)
class TarSource(Source):
    """Tar archives.

    Attributes:
        shards: the archives, in order.
        limit: how many of the first images are used, or None for all.
    """

    shards: tuple[Shard, ...]
    limit: int | None = None

    def list(self) -> Listing:
        """List the archives' images, in the order of the archives and of the members in them."""
        entries = [entry for found in look_into(self.shards, entries_in) for entry in found]
        if not entries:
            raise RefusedError(f"images.source {self.identity!r} holds no image")
        return Listing(tuple(entries[: self.limit]))

    def open(self) -> "TarReader":
        """Open for reading; archives are opened when they are needed."""
        return TarReader(self.shards)

    def find_labels(self, name: str, entries: Iterable[Entry]) -> FindLabel | None:
        """Find labels in samples' ``.cls`` and ``.json``, else in the first or last folder."""
        names = {shard.name: shard.address for shard in self.shards}
        folder = label_by_folder(name, (shard_of(entry.key, names)[1] for entry in entries))
        if folder is None:
            return None
        return ShardLabels(self.shards, partial(read_labels, folder=folder))


def entries_in(shard: Shard) -> list[Entry]:
    """List the images of one archive."""
    with refusing(shard.address):
        version = version_at(shard.address)
        with local_file(shard.address) as file:
            index = index_of(file, shard.name)
    return [Entry(f"{shard.name}/{path}", version) for path in index.images]


@contextmanager
def local_file(address: str) -> Iterator[BinaryIO]:
    """Open an archive on this machine: where it lies, or as a copy without a name."""
    file_system, path = locate(address)
    if is_local(file_system):
        with Path(path).open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        with opened(address) as remote:
            while block := remote.read(COPY_BYTES):
                copy.write(block)
        copy.seek(0)
        yield copy


class OpenArchive:
    """An archive's file and where its members lie."""

    def __init__(self, shard: Shard) -> None:
        self.context = local_file(shard.address)
        self.file = self.context.__enter__()
        try:
            self.index: Index = index_of(self.file, shard.name)
        except BaseException:
            self.close()
            raise

    def read(self, place: tuple[int, int]) -> bytes:
        """Read a member; any thread may."""
        start, size = place
        parts = []
        while size:
            part = os.pread(self.file.fileno(), size, start)
            if not part:
                raise ImageRejectedError("read", "the archive ends within this member")
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file and delete the copy."""
        self.context.__exit__(None, None, None)


class TarReader(Reader):
    """The archives last used, open."""

    def __init__(self, shards: tuple[Shard, ...]) -> None:
        self.lock = threading.Lock()
        self.shards = {shard.name: shard.address for shard in shards}
        self.archives: OrderedDict[str, OpenArchive] = OrderedDict()

    def fetch(self, key: str) -> bytes:
        """Read one member whole."""
        name, path = shard_of(key, self.shards)
        with self.lock, store_errors(self.shards[name]):
            archive = self.archive(name)
            place = archive.index.images.get(path)
            if place is None:
                raise ImageRejectedError("read", "the archive does not have this member any more")
            if place[1] > MAX_FILE_BYTES:
                raise ImageRejectedError(
                    "read", f"a member of {place[1]} bytes; at most {MAX_FILE_BYTES} are read"
                )
            return archive.read(place)

    def archive(self, name: str) -> OpenArchive:
        """Return an open archive; close the least recently used one above `OPEN_ARCHIVES`."""
        found = self.archives.pop(name, None)
        if found is None:
            try:
                found = OpenArchive(Shard(name, self.shards[name]))
            except RefusedError as damaged:
                raise ImageRejectedError("read", str(damaged)) from None
        self.archives[name] = found
        if len(self.archives) > OPEN_ARCHIVES:
            self.archives.popitem(last=False)[1].close()
        return found

    def close(self) -> None:
        """Close all."""
        with self.lock:
            while self.archives:
                self.archives.popitem()[1].close()


def read_labels(shard: Shard, folder: FindLabel) -> FindLabel:
    """Read the labels of one archive; other images have that of their folder."""
    archive = OpenArchive(shard)
    try:
        labels: dict[str, str] = {}
        for (sample, suffix), place in sorted(archive.index.labels.items(), reverse=True):
            label = label_in(archive.read(place), suffix)
            if label is not None:
                labels[sample] = label  # cls comes after json in this order, and wins
    finally:
        archive.close()

    return lambda own: labels.get(split_sample(own)[0]) or folder(own)
