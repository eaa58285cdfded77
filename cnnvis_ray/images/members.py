"""The members of a tar archive: where each image's bytes lie, and which label belongs to it.

WebDataset's form: members that share a path up to the first dot of the base name are one sample
(``a/0001.jpg``, ``a/0001.cls``, ``a/0001.json``). What counts as an image is what counts in a
folder (`names`). Nothing is ever unpacked to disk, so no member's path can lead outside, and
links and devices are passed over. Headers are bounded before they are read. Of two members of one
path the later counts, as in unpacking.

Compressed archives are refused: each unit would decompress all that stands before it, and a small
file can expand without bound.
"""

import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.images.names import is_hidden, is_image_name, key_of

BLOCK = 512
MAX_HEADER_BYTES = 1 << 20
"""Of a long name or a pax header; a path takes a few kB at most."""

MAX_LABEL_BYTES = 1 << 20
LABEL_SUFFIXES = ("cls", "json")
COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


@dataclass(frozen=True, slots=True)
class Index:
    """Where members lie: first byte and length of each.

    Attributes:
        images: by path.
        labels: by sample and suffix.
        num_others: members that are neither.
    """

    images: dict[str, tuple[int, int]]
    labels: dict[tuple[str, str], tuple[int, int]]
    num_others: int


class Headers:
    """A file from which `tarfile` may read no more at a time than a header takes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        """Read a header, not a bomb."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)

    def seek(self, position: int) -> int:
        """Go to a byte."""
        return self.file.seek(position)

    def tell(self) -> int:
        """Return the position."""
        return self.file.tell()


def index_of(file: BinaryIO, name: str) -> Index:
    """Read an archive's headers.

    Raises:
        RefusedError: it is compressed, damaged, truncated, or not a tar archive.
    """
    begin = file.read(BLOCK)
    for magic, kind in COMPRESSIONS.items():
        if begin.startswith(magic):
            raise RefusedError(
                f"images.source: {name!r} is compressed with {kind}, which has no random access; "
                "unpack it to a plain .tar (images hardly compress)"
            )
    file.seek(0)
    index = Index({}, {}, 0)
    try:
        return indexed(file, index)
    except (tarfile.TarError, ValueError, OverflowError) as failure:
        text = " ".join(str(failure).split())[:160]
        raise RefusedError(
            f"images.source: {name!r} is not a tar archive, truncated or damaged: {text}"
        ) from None


def indexed(file: BinaryIO, index: Index) -> Index:
    """Fill an index from an archive's headers and check that it ends well."""
    num_others = 0
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tarfile.open(fileobj=Headers(file), mode="r:") as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            if member.isreg() and not member.issparse():
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"it ends within {member.name!r}")
                num_others += not add_member(index, member)
            archive.members.clear()
        end = archive.offset
    file.seek(end)
    if file.read(BLOCK) != bytes(BLOCK):
        raise tarfile.ReadError(f"no header and no end at byte {end}")
    return Index(index.images, index.labels, num_others)


def add_member(index: Index, member: tarfile.TarInfo) -> bool:
    """Add a member to an index if it is an image or a label; return whether it is."""
    raw = member.name.encode("utf-8", "surrogateescape").removeprefix(b"./")
    *folders, last = raw.split(b"/")
    if is_hidden((*folders, last)):
        return False
    path, place = key_of(raw), (member.offset_data, member.size)
    if is_image_name(last):
        index.images[path] = place
        return True
    sample, suffix = split_sample(path)
    if suffix in LABEL_SUFFIXES and member.size <= MAX_LABEL_BYTES:
        index.labels[sample, suffix] = place
        return True
    return False


def split_sample(path: str) -> tuple[str, str]:
    """Split a member's path at the first dot of its base name: sample and suffix."""
    pure = PurePosixPath(path)
    stem, _, suffix = pure.name.partition(".")
    return path[: len(path) - len(pure.name)] + stem, suffix.lower()


def label_in(data: bytes, suffix: str) -> str | None:
    """Return the label in a ``.cls`` (text) or ``.json`` (``label`` or ``cls``) member."""
    if suffix == "cls":
        return data.decode("utf-8", "replace").strip() or None
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    found = fields.get("label", fields.get("cls")) if isinstance(fields, dict) else None
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None
