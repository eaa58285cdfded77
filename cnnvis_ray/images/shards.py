"""Shards: the files that a Parquet or tar source consists of, given as one, a list or a glob.

A shard's name stands before the row or member in an image's key: ``shard-0001.parquet/17``. It is
the file's base name, or, for a glob over several folders, the path below the part of the pattern
that has no wildcard. Two shards of one name are refused: their images would have the same keys.
"""

import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, TypeVar

from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images.labels import FindLabel
from cnnvis_ray.images.names import is_hidden, key_of
from cnnvis_ray.storage import StoreError, is_local, locate, redact, store_errors, version_of
from cnnvis_ray.storage.store_errors import CODES

logger = logging.getLogger(__name__)

T = TypeVar("T")

WILDCARDS = frozenset("*?[")
AT_ONCE = 16
"""Shards that are looked into at a time."""

KEPT_SHARDS = 4
"""Shards whose labels are kept: images are looked up in order, so each shard is read once."""

CONFIGURED = frozenset(number for number, _ in CODES.values())
"""Errors of a wrong configuration, against failures that may pass by themselves."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a source.

    Attributes:
        name: stands before the images' own part of their keys.
        address: absolute path or URI.
    """

    name: str
    address: str


def find_shards(sources: Sequence[str], run_dir: str = "") -> tuple[Shard, ...]:
    """Find the files that paths, URIs and globs name, in order; those of a glob sorted.

    A glob passes over hidden files and folders, and over the run directory's own files.

    Raises:
        RefusedError: an item names nothing, or two shards have one name.
    """
    shards = tuple(shard for source in sources for shard in find_matching(source, run_dir))
    names = Counter(shard.name for shard in shards)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise RefusedError(
            f"images.source names two shards {twice!r}, whose images would have the same keys; "
            "name each once, and shards of several folders by one glob, like data/*/*.tar"
        )
    return shards


def find_matching(source: str, run_dir: str) -> Iterator[Shard]:
    """Find the shards of one path, URI or glob."""
    with refusing(source):
        file_system, path = locate(source)
        if not is_glob(source):
            yield Shard(name_of(path, str(PurePosixPath(path).parent)), address_of(source, path))
            return
        found = sorted(file_system.glob(path))
    base = fixed_part(path)
    hidden_too = is_hidden(os.fsencode(path.removeprefix(base)).split(b"/"))
    visible = [
        one
        for one in found
        if hidden_too or not is_hidden(os.fsencode(one.removeprefix(base)).split(b"/"))
    ]
    if run_dir:
        own = locate(run_dir)[1].rstrip("/") + "/"
        mine = {one for one in visible if one.startswith(own)}
        if mine:
            logger.warning("%s: passed over %d files of the run directory", source, len(mine))
            visible = [one for one in visible if one not in mine]
    if not visible:
        raise RefusedError(f"images.source {redact(source)!r} matches no file")
    for one in visible:
        yield Shard(name_of(one, base), address_of(source, one))


def is_glob(source: str) -> bool:
    """Whether a source is a pattern; the name of an existing local file is not."""
    if not WILDCARDS & set(source):
        return False
    file_system, path = locate(source)
    return not (is_local(file_system) and file_system.exists(path))


def fixed_part(pattern: str) -> str:
    """Return the folder of a pattern above its first wildcard."""
    parts = pattern.split("/")
    wild = next(index for index, part in enumerate(parts) if WILDCARDS & set(part))
    return "/".join(parts[:wild])


def name_of(path: str, base: str) -> str:
    """Return a shard's name: its path below a folder, as UTF-8."""
    return key_of(os.fsencode(path.removeprefix(base).lstrip("/")))


def address_of(source: str, path: str) -> str:
    """Return a path of a file system as an address that any worker can open."""
    file_system, _ = locate(source)
    return path if is_local(file_system) else str(file_system.unstrip_protocol(path))


def version_at(address: str) -> str:
    """Return what changes with a shard's content: size and time, or ETag."""
    with store_errors(address):
        file_system, path = locate(address)
        if is_local(file_system):
            status = os.stat(path)  # noqa: PTH116 - nanoseconds, as for files of a folder
            return f"{status.st_size}-{status.st_mtime_ns}"
        return version_of(file_system.info(path))


@contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """Open a shard for reading at any position."""
    file_system, path = locate(address)
    with store_errors(address), file_system.open(path, "rb") as file:
        yield file


@contextmanager
def refusing(address: str) -> Iterator[None]:
    """Refuse an address that does not exist or is not allowed; other failures pass through.

    Raises:
        RefusedError: it does not exist, or the store has no such bucket or refuses access.
    """
    try:
        with store_errors(address):
            yield
    except StoreError as failure:
        if failure.errno not in CONFIGURED:
            raise
        raise RefusedError(f"images.source {redact(address)!r}: {failure.strerror}") from None
    except OSError as failure:
        reason = "it does not exist" if isinstance(failure, FileNotFoundError) else failure
        raise RefusedError(f"images.source {redact(address)!r}: {reason}") from None


def look_into(shards: Sequence[Shard], look: Callable[[Shard], T]) -> list[T]:
    """Look into each shard, several at once; results in order."""
    with ThreadPoolExecutor(min(AT_ONCE, len(shards)), thread_name_prefix="list") as pool:
        return list(pool.map(look, shards))


def shard_of(key: str, names: dict[str, str]) -> tuple[str, str]:
    """Split a key into the shard's name and the image's own part.

    Raises:
        ImageRejectedError: the key belongs to no shard that the source has now.
    """
    end = key.find("/")
    while end >= 0:
        if key[:end] in names:
            return key[:end], key[end + 1 :]
        end = key.find("/", end + 1)
    raise ImageRejectedError("read", "the source does not have this shard any more")


class ShardLabels:
    """Finds an image's label by its key; a shard's labels are read when one of them is needed."""

    def __init__(self, shards: Sequence[Shard], read: Callable[[Shard], FindLabel]) -> None:
        self.addresses = {shard.name: shard.address for shard in shards}
        self.read = read
        self.kept: OrderedDict[str, FindLabel] = OrderedDict()

    def __reduce__(self) -> tuple[type, tuple[tuple[Shard, ...], Callable[[Shard], FindLabel]]]:
        """Pickle without what was read."""
        return type(self), (tuple(Shard(*pair) for pair in self.addresses.items()), self.read)

    def __call__(self, key: str) -> str | None:
        """Return the label of an image, or None where it has none."""
        name, own = shard_of(key, self.addresses)
        find = self.kept.pop(name, None)
        if find is None:
            shard = Shard(name, self.addresses[name])
            with refusing(shard.address):
                find = self.read(shard)
        self.kept[name] = find
        if len(self.kept) > KEPT_SHARDS:
            self.kept.popitem(last=False)
        return find(own)
