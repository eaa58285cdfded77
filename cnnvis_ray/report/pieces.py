"""Pieces: the data files of a report, each one call of `piece(name, value)` in a classic script.

A browser refuses fetch, modules and workers on file://, and runs classic scripts. JSON is written
in ASCII, so that no text of the data can end a line or a string of the script. Numbers of many
images go as base64 of little-endian arrays.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cnnvis_ray.storage import ShardFile, Store, write_bytes

FORMAT = 3  # a change of any file's form raises it, which makes every part be written again
FOLDER = "report"


@dataclass(frozen=True, slots=True)
class Part:
    """One unit of work: what is written together and skipped together.

    Attributes:
        kind: the maker, a key of `MAKERS`.
        subject: a work unit's number or a layer.
        inputs: digest of everything that the part reads.
        files: shards of the run that it reads.
        ids: the images to keep of a work unit; None is all.
    """

    kind: str
    subject: str
    inputs: str
    files: tuple[str, ...] = ()
    ids: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """The part's name in the record of what is written."""
        return f"{self.kind}/{self.subject}"


def digest(*inputs: object) -> str:
    """Digest inputs that JSON can hold, and the format."""
    text = json.dumps([FORMAT, *inputs], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def slug(name: str) -> str:
    """Return a file name for any text: itself where its characters are harmless."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80]
    if plain == name and not name.startswith("."):
        return name
    return f"{plain.lstrip('.')}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def write_piece(store: Store, name: str, value: object) -> ShardFile:
    """Write one data file, ``report/data/NAME.js``."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    script = f"piece({json.dumps(name)},{text});\n"
    return write_bytes(store, f"{FOLDER}/data/{name}.js", script.encode())


def pack(values: Iterable[float] | np.ndarray, dtype: str) -> str:
    """Encode numbers as base64 of a little-endian array."""
    array = np.asarray(values).astype(np.dtype(dtype).newbyteorder("<"))
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def short(value: float | None) -> float | None:
    """Return five significant digits of a number, None for one that is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def shorts(values: np.ndarray) -> list[float | None]:
    """Return five significant digits of each number."""
    return [short(float(value)) for value in values]
