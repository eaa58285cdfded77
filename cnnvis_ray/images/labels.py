"""The class of an image by its key: from the source itself or from a table of key and label.

``folder`` means what the source carries: the first sub-folder, the digit's class, a Parquet file's
column ``label``, a tar sample's ``.cls`` or ``.json``; ``parent`` is the last sub-folder. An HDF5
stack carries none unless a data set is named. Tables are CSV or Parquet, at a path or URI.
``label_names`` renames classes; a class that it does not name keeps its own name.
"""

import csv
import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.images.names import first_folder, last_folder
from cnnvis_ray.images.rows import row_of
from cnnvis_ray.storage import StoreError, locate, store_errors

logger = logging.getLogger(__name__)

FindLabel = Callable[[str], str | None]
Pairs = Iterator[tuple[object, object]]

COLUMNS = ("key", "label")
REPEAT = re.compile(r"(.*\d)#\d+", re.DOTALL)
"""The key of a repeated row, in an archive or alone; a file's key ends with its suffix."""

SPLITS = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing"])


@dataclass(frozen=True, slots=True)
class Labels:
    """What images are called; travels by pickle.

    Attributes:
        find: the label that an image carries, by its key.
        names: what to call the labels instead.
    """

    find: FindLabel
    names: Mapping[str, str]

    def of(self, key: str) -> str | None:
        """Return the label of an image, or None where it has none."""
        label = self.find(key)
        return None if label is None else self.names.get(label, label)


def no_label(key: str) -> None:
    """Return None: no image has a label."""


def label_of_row(labels: Sequence[str], key: str) -> str:
    """Return a row's label; a repeat has that of its row."""
    return labels[row_of(key)]


def label_in_table(table: Mapping[str, str], key: str) -> str | None:
    """Return a key's label; a repeat that the table does not name has that of its row."""
    label = table.get(key)
    if label is None and (match := REPEAT.fullmatch(key)):
        return table.get(match[1])
    return label


def label_by_folder(name: str, keys: Iterable[str]) -> FindLabel | None:
    """Return the label that ``images.labels: folder`` or ``parent`` takes from a path.

    Args:
        name: ``images.labels``.
        keys: paths of the images below their source, to warn of sub-folders that are splits.
    """
    if name == "parent":
        return last_folder
    if name != "folder":
        return None
    firsts: set[str] = set()
    deeper = False
    for key in keys:
        firsts.add(first_folder(key) or "")
        deeper = deeper or key.count("/") > 1
    if deeper and firsts and {first.lower() for first in firsts} <= SPLITS:
        logger.warning(
            "images.labels: folder takes the first sub-folders (%s), which look like splits; "
            "images.labels: parent takes the last ones",
            ", ".join(sorted(firsts)),
        )
    return first_folder


def is_table(name: str) -> bool:
    """Whether ``images.labels`` names a table."""
    return PurePosixPath(name).suffix.lower() in TABLES


def find_in_table(name: str, source: object, keys: Iterable[str]) -> FindLabel:
    """Read a table of labels and check that it is about these images.

    Raises:
        RefusedError: it cannot be read, contradicts itself, or names none of the images.
    """
    find = partial(label_in_table, read_table(name))
    first = None
    for key in keys:
        if find(key) is not None:
            return find
        first = first or key
    if first is not None:
        raise RefusedError(
            f"images.labels {name!r} names none of the images of {source!r}; "
            f"its column key must hold keys such as {first!r}"
        )
    return find


def read_table(address: str) -> dict[str, str]:
    """Read a table; keys without a label are left out.

    Raises:
        RefusedError: the file cannot be read, has no such columns, or contradicts itself.
    """
    labels: dict[str, str] = {}
    with reading("images.labels", address) as file:
        for key, label in TABLES[PurePosixPath(address).suffix.lower()](file, address):
            if key is None or label is None or label == "":
                continue
            if labels.setdefault(str(key), str(label)) != str(label):
                raise RefusedError(f"images.labels {address!r} has two labels for key {key!r}")
    return labels


def read_csv(file: BinaryIO, address: str) -> Pairs:
    """Read key and label from a CSV with a header."""
    rows = csv.DictReader(io.StringIO(file.read().decode("utf-8-sig"), newline=""))
    check_columns(rows.fieldnames or (), address)
    for row in rows:
        yield row["key"], row["label"]


def read_parquet(file: BinaryIO, address: str) -> Pairs:
    """Read key and label from a Parquet file."""
    # read whole: a Python file that pyarrow's threads hold can abort the interpreter at its end
    with pq.ParquetFile(pa.BufferReader(file.read()), pre_buffer=False) as table:
        check_columns(table.schema_arrow.names, address)
        for batch in table.iter_batches(columns=list(COLUMNS)):
            yield from zip(batch["key"].to_pylist(), batch["label"].to_pylist(), strict=True)


TABLES: dict[str, Callable[[BinaryIO, str], Pairs]] = {".csv": read_csv, ".parquet": read_parquet}
"""The reader of each kind of table, by the file's suffix."""


def check_columns(columns: Iterable[str], address: str) -> None:
    """Refuse a table without the two columns."""
    present = list(columns)
    if not set(COLUMNS) <= set(present):
        raise RefusedError(
            f"images.labels {address!r} has columns {', '.join(present) or 'none'}; "
            f"needed are {' and '.join(COLUMNS)}"
        )


@contextmanager
def reading(key: str, address: str) -> Iterator[BinaryIO]:
    """Open a file that the configuration names; what cannot be read is refused in one line."""
    try:
        file_system, path = locate(address)
        with store_errors(address), file_system.open(path, "rb") as file:
            yield file
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException, yaml.YAMLError) as failure:
        reason = failure.strerror if isinstance(failure, StoreError) else failure
        raise RefusedError(
            f"cannot read {key} {address!r}: {' '.join(str(reason).split())}"
        ) from None


def read_names(names: Mapping[str, str] | str | None) -> Mapping[str, str]:
    """Return the renaming of classes, from the configuration or a YAML file of it."""
    if not isinstance(names, str):
        return dict(names or {})
    with reading("images.label_names", names) as file:
        read = yaml.safe_load(file.read().decode())
    if not isinstance(read, dict) or any(isinstance(name, dict | list) for name in read.values()):
        raise RefusedError(
            f"images.label_names {names!r} is not a YAML mapping of class to name, like cane: dog"
        )
    return {str(label): str(name) for label, name in read.items()}
