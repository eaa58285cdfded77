"""Reading a run: features, images, statistics, maps and pictures, by the markers.

>>> run = cnnvis_ray.open_run("runs/quickstart")
>>> keys, features = run.features("conv3_1")
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cnnvis_ray.errors import RefusedError, near
from cnnvis_ray.ledger.identity import read_identity
from cnnvis_ray.ledger.passes import Pass
from cnnvis_ray.ledger.view import Ledger
from cnnvis_ray.storage import ShardFile, Store, read_table

LABELS = "labels.parquet"
"""Present labels by image id, written when they change; the image shards keep the first ones."""


class Run:
    """A run directory, read only, as it was when it was opened."""

    def __init__(self, store: Store, ledger: Ledger | None = None) -> None:
        self.store = store
        self.ledger = ledger or Ledger(store)

    def layers(self) -> list[str]:
        """Return the layers that have features, by name."""
        return sorted({layer for owner in self.passes("extract") for layer in owner.layers})

    def passes(self, stage: str) -> list[Pass]:
        """Return the passes of a stage."""
        return self.ledger.passes(stage)

    def files(self, stage: str, folder: str) -> list[ShardFile]:
        """List the winning files of a stage in one folder, by unit."""
        return self.ledger.files(stage, folder)

    def images(self, columns: list[str] | None = None) -> pa.Table:
        """Read the image rows: image_id, key, label, width, height, thumbnail, top5.

        The labels are the present ones: those that the last invocation joined.
        """
        joined = (columns is None or "label" in columns) and self.store.exists(LABELS)
        if not joined:
            return self.rows("images", "images", columns)
        asked = columns and list(dict.fromkeys([*columns, "image_id"]))
        rows = self.rows("images", "images", asked)
        labels = read_table(self.store, LABELS)
        order = pc.index_in(rows["image_id"], value_set=labels["image_id"].combine_chunks())
        present = labels["label"].combine_chunks().take(order.combine_chunks())
        rows = rows.set_column(rows.column_names.index("label"), "label", present)
        return rows.select(columns) if columns else rows

    def rejects(self) -> pa.Table:
        """Read what could not be used: image_id, key, stage, error."""
        return self.rows("images", "rejects", None)

    def rows(self, stage: str, folder: str, columns: list[str] | None) -> pa.Table:
        """Read and join all shards of one folder.

        Raises:
            RefusedError: there is none.
        """
        tables = [read_table(self.store, file.path, columns) for file in self.files(stage, folder)]
        if not tables:
            raise RefusedError(
                f"{self.store.root!r} has no finished {folder}; run cnnvis status on it"
            )
        return pa.concat_tables(tables)

    def features(self, layer: str) -> tuple[list[str], NDArray[np.floating]]:
        """Read a layer's features.

        Returns:
            Keys, and the features as ``image feature`` in the stored dtype, by image id.

        Raises:
            RefusedError: the layer has no features, or none of its units is finished.
        """
        blocks = list(self.feature_blocks(layer))
        if not blocks:
            raise RefusedError(
                f"{self.store.root!r}: no unit of {layer} is finished yet; continue the "
                f"extraction with: cnnvis extract {self.store.root}"
            )
        ids = np.concatenate([ids for ids, _ in blocks])
        rows = self.images(["image_id", "key"])
        order = pc.index_in(pa.array(ids), value_set=rows["image_id"].combine_chunks())
        keys = rows["key"].take(order).to_pylist()
        return keys, np.concatenate([values for _, values in blocks])

    def feature_blocks(
        self, layer: str
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating]]]:
        """Read a layer's features shard by shard: image ids, ``image feature``.

        Raises:
            RefusedError: the layer has no features; names near ones.
        """
        known = self.layers()
        if layer not in known:
            hints = near(layer, known) or known
            raise RefusedError(
                f"{self.store.root!r} has no features of {layer!r}; layers: "
                f"{', '.join(hints) or 'none'}"
            )
        for file in self.files("extract", f"features/{layer}"):
            yield read_features(self.store, file.path)

    def statistics(self, layer: str) -> pa.Table:
        """Read a layer's merged channel statistics, a row per channel."""
        return self.table(f"channels/{layer}.parquet")

    def embedding(self, layer: str, columns: list[str] | None = None) -> pa.Table:
        """Read a layer's map: image_id, key, label, x, y, image."""
        return self.table(f"embedding/{layer}.parquet", columns)

    def pictures(self, layer: str, name: str = "default") -> pa.Table:
        """Read a layer's pictures in one catalogue, a row per channel and variant."""
        return self.table(f"maximization/{name}/{layer}.parquet")

    def table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Read one table, or some of its columns.

        Raises:
            RefusedError: it is not there.
        """
        if not self.store.exists(path):
            raise RefusedError(f"{self.store.root!r} has no {path}")
        return read_table(self.store, path, columns)


def by_number(layer: str) -> list[tuple[int, str]]:
    """Return a sort key that puts ``features.3`` before ``features.12``."""
    return [(int(part), "") if part.isdigit() else (1 << 30, part) for part in layer.split(".")]


def read_features(store: Store, path: str) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Read one shard of features: image ids, and ``image feature``."""
    table = read_table(store, path)
    width = table.schema.field("feature").type.list_size
    values = table["feature"].combine_chunks().flatten().to_numpy()
    return table["image_id"].to_numpy(), values.reshape(-1, width)


def read_shape(store: Store, path: str) -> tuple[str, list[int]]:
    """Read from a shard's metadata how its features were pooled, and the activations' shape."""
    with store.open(path) as file:
        metadata = pq.read_schema(file).metadata
    return metadata[b"pooling"].decode(), [int(side) for side in metadata[b"shape"].split()]


def open_run(path: str) -> Run:
    """Open a run directory for reading.

    Args:
        path: folder or URI.

    Raises:
        RefusedError: there is no run, or its run.json is damaged.
    """
    store = Store(str(path))
    if read_identity(store) is None:
        raise RefusedError(f"{str(path)!r} is not a run: it has no run.json")
    return Run(store)
