"""File names as keys, and which names are those of images.

A key is the path relative to the source with ``/`` between its parts. Every path has one key,
every key one path, and all keys are UTF-8: bytes that are not UTF-8 are written as ``//FF``, which
no other name can look like, since a relative path has no empty part.

An image is a file whose suffix is in `SUFFIXES`, in any case, in a folder at any depth. Hidden
names, files and folders alike, and `SKIPPED_FOLDERS` are passed over. The same holds for folders,
object stores and archives.
"""

import re
from collections.abc import Iterable

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
SKIPPED_FOLDERS = frozenset({b"__MACOSX"})
"""Copies of metadata under the images' own names, as macOS packs them into archives."""

ESCAPED = re.compile(r"//([0-9A-F]{2})")


def key_of(path: bytes) -> str:
    """Write a relative path as a key."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        text = path.decode("utf-8", "surrogateescape")
        return re.sub("[\udc80-\udcff]", lambda match: f"//{ord(match[0]) - 0xDC00:02X}", text)


def path_of(key: str) -> bytes:
    """Return the relative path that a key was made of."""
    text = ESCAPED.sub(lambda match: chr(0xDC00 + int(match[1], 16)), key)
    return text.encode("utf-8", "surrogateescape")


def first_folder(key: str) -> str | None:
    """Return the first folder of a key, or None for a file in no sub-folder."""
    folder, slash, _ = path_of(key).partition(b"/")
    return folder.decode("utf-8", "backslashreplace") if slash else None


def last_folder(key: str) -> str | None:
    """Return the folder that holds a key's file, or None for a file in no sub-folder."""
    folders, slash, _ = path_of(key).rpartition(b"/")
    return folders.rpartition(b"/")[2].decode("utf-8", "backslashreplace") if slash else None


def is_image_name(name: bytes) -> bool:
    """Whether a file counts as an image by its suffix."""
    stem, dot, suffix = name.rpartition(b".")
    return bool(stem) and (dot + suffix.lower()).decode("latin-1") in SUFFIXES


def is_hidden(parts: Iterable[bytes]) -> bool:
    """Whether a path leads through a hidden or skipped name; ``.`` and ``..`` are not hidden."""
    return any(
        part in SKIPPED_FOLDERS or (part.startswith(b".") and part not in (b".", b".."))
        for part in parts
    )
