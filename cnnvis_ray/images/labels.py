"""The class of an image by its key: from the source itself, an HDF5 data set or a table.

``folder`` means what the source carries: the first sub-folder, the digit's class, a Parquet
file's column ``label``, a tar sample's ``.cls`` or ``.json``; an HDF5 stack carries none unless a
data set is named. ``label_names`` renames classes; a class that it does not name keeps its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import h5py
import yaml

from cnnvis_ray.config import Images
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.images import digits, shards
from cnnvis_ray.images.digits import DigitsSource
from cnnvis_ray.images.folder import FolderSource
from cnnvis_ray.images.hdf5 import Hdf5Source
from cnnvis_ray.images.label_tables import is_table, read_table
from cnnvis_ray.images.names import first_folder
from cnnvis_ray.images.parquet import ParquetSource
from cnnvis_ray.images.remote import RemoteFolderSource
from cnnvis_ray.images.rows import KEY, row_of
from cnnvis_ray.images.shard_labels import parquet_labels, tar_labels
from cnnvis_ray.images.sources import Source
from cnnvis_ray.images.stacks import describe, find, opened
from cnnvis_ray.images.tars import TarSource
from cnnvis_ray.storage import StoreError

FindLabel = Callable[[str], str | None]


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
        """Say the label of an image, or None where it has none."""
        label = self.find(key)
        return None if label is None else self.names.get(label, label)


def read_labels(config: Images, source: Source) -> Labels:
    """Read what ``images.labels`` and ``images.label_names`` name.

    Raises:
        RefusedError: there is no such table or data set, or it does not fit the source.
    """
    return Labels(choose(config, source), read_names(config.label_names))


def check_labels(config: Images, labels: Labels, keys: Iterable[str]) -> None:
    """Check that a table of labels is about these images.

    Raises:
        RefusedError: it names none of them.
    """
    if config.labels is None or not is_table(config.labels):
        return
    first = None
    for key in keys:
        if labels.find(key) is not None:
            return
        first = first or key
    if first is not None:
        raise RefusedError(
            f"images.labels {config.labels!r} names none of the images of {config.source!r}; "
            f"its column key must hold keys such as {first!r}"
        )


def choose(config: Images, source: Source) -> FindLabel:
    """Choose where labels are looked up."""
    if config.labels is None:
        return no_label
    if config.labels == "folder":
        return carried(source)
    if is_table(config.labels):
        return partial(label_in_table, read_table(config.labels))
    if isinstance(source, ParquetSource):
        return parquet_labels(source, config.labels) or no_label
    if isinstance(source, Hdf5Source):
        return partial(label_of_row, read_dataset(source, config.labels))
    raise RefusedError(
        f"images.labels {config.labels!r}: allowed are folder, null, or a .csv or .parquet table "
        "of key and label; a data set's name only for an HDF5 source, a column's for Parquet"
    )


def carried(source: Source) -> FindLabel:
    """Look labels up where the source itself has them."""
    if isinstance(source, FolderSource | RemoteFolderSource):
        return first_folder
    if isinstance(source, ParquetSource):
        return parquet_labels(source, None) or no_label
    if isinstance(source, TarSource):
        return tar_labels(source)
    if isinstance(source, DigitsSource):
        return partial(label_of_row, [str(digit) for digit in digits.load()[1]])
    return no_label


def no_label(key: str) -> None:
    """Know no image's label."""


def label_of_row(labels: Sequence[str], key: str) -> str:
    """Look up a row's label; a repeat has that of its row."""
    return labels[row_of(key)]


def label_in_table(table: Mapping[str, str], key: str) -> str | None:
    """Look up a key's label; a repeat that is not named has that of its row."""
    label = table.get(key)
    if label is None and (match := KEY.fullmatch(key)):
        return table.get(match[1])
    return label


def read_dataset(source: Hdf5Source, name: str) -> list[str]:
    """Read labels, strings or whole numbers, that stand row by row beside an HDF5 stack."""
    with opened(source.path) as file:
        dataset = find(file, name)
        num_rows = find(file, source.dataset).shape[0]
        text = h5py.check_string_dtype(dataset.dtype) is not None
        if dataset.shape != (num_rows,) or not (text or dataset.dtype.kind in "iu"):
            raise RefusedError(
                f"images.labels {name!r} is {describe(dataset)}; "
                f"allowed are {num_rows} strings or whole numbers, one a row of {source.dataset}"
            )
        values = dataset.asstr(errors="replace")[:] if text else dataset[:]
    return [str(value) for value in values]


def read_names(names: Mapping[str, str] | str | None) -> Mapping[str, str]:
    """Read the renaming of classes, from the configuration or a YAML file of it."""
    if not isinstance(names, str):
        return dict(names or {})
    try:
        with shards.opened(names) as file:
            read = yaml.safe_load(file.read().decode())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as failure:
        reason = failure.strerror if isinstance(failure, StoreError) else failure
        text = " ".join(str(reason).split())
        raise RefusedError(f"cannot read images.label_names {names!r}: {text}") from None
    if not isinstance(read, dict) or any(isinstance(name, dict | list) for name in read.values()):
        raise RefusedError(
            f"images.label_names {names!r} is no YAML mapping of class to name, like cane: dog"
        )
    return {str(label): str(name) for label, name in read.items()}
