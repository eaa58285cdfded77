"""The neighbours of a large layer in tasks: one builds the index, the others search some rows.

What tasks find lies in files below ``search/LAYER`` until the layer's map is made. Each file
belongs to one unit of a pass, so a search that was killed goes on where it was::

    build_search(request)           # unit 0: points.parquet, index.npz
    search_range(request, number)   # unit 1, 2, ...: QUERY_ROWS rows each
    read_search(request)            # the map's task: everything that was found
"""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cnnvis_ray.ledger.reading import read_features
from cnnvis_ray.reduction.blocks import Ids
from cnnvis_ray.reduction.neighbours import (
    Distances,
    Index,
    Indices,
    Metric,
    Points,
    build_index,
    query_rows,
    search_index,
)
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes, write_table

LEFT_OUT = b"left_out"


@dataclass(frozen=True, slots=True)
class Search:
    """Where the neighbours of one layer are searched.

    Attributes:
        count: neighbours of each point.
        digest: of the index, so that a worker does not search in an earlier one.
    """

    run_dir: str
    layer: str
    count: int
    digest: str = ""

    def path(self, name: str) -> str:
        """Name a file of this search."""
        return f"search/{self.layer}/{name}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: of all points, in their order."""

    ids: Ids
    points: Points
    neighbours: tuple[Indices, Distances]
    recall: float
    left_out: int


def search_bytes(num_images: int, num_components: int) -> int:
    """Estimate the memory of a search beside its interpreter.

    The points are held as read, as searched, as archived and as an index; to these come the
    differences of one piece of queries from their neighbours.
    """
    return 4 * num_images * (4 * num_components + 8) + (64 << 20)


def write_search(
    search: Search, ids: Ids, points: Points, left_out: int, metric: Metric, seed: int
) -> tuple[ShardFile, ShardFile]:
    """Write points and their index."""
    store = Store(search.run_dir)
    width = points.shape[1]
    values = pa.array(np.ascontiguousarray(points, np.float32).ravel())
    table = pa.table(
        {"image_id": ids, "feature": pa.FixedSizeListArray.from_arrays(values, width)}
    )
    table = table.replace_schema_metadata({LEFT_OUT: str(left_out)})
    written = write_table(store, search.path("points.parquet"), table)
    index = build_index(points, metric, seed)
    memory = io.BytesIO()
    np.savez(
        memory,
        archive=index.archive,
        metric=index.metric,
        recall=index.recall,
        num_probes=index.num_probes,
    )
    return written, write_bytes(store, search.path("index.npz"), memory.getvalue())


def search_range(search: Search, number: int) -> ShardFile:
    """Search one range of rows, the first is number 1, and write its indices and distances."""
    index, points = read_index(search)
    rows = query_rows(len(points))[number - 1]
    indices, distances = search_index(index, points, search.count, rows)
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), search.count)
        for name, values in (("near", indices.astype(np.int32)), ("distances", distances))
    }
    path = search.path(f"{number:06d}.parquet")
    return write_table(Store(search.run_dir), path, pa.table(columns))


@lru_cache(maxsize=1)
def read_index(search: Search) -> tuple[Index, Points]:
    """Read an index with its points; a worker searches in one after another."""
    store = Store(search.run_dir)
    _, points = read_features(store, search.path("points.parquet"))
    with store.open(search.path("index.npz")) as file, np.load(file, allow_pickle=False) as held:
        metric: Metric = str(held["metric"])  # type: ignore[assignment]  # as it was written
        recall, probes = float(held["recall"]), int(held["num_probes"])
        return Index(held["archive"], metric, recall, probes), points


def read_search(search: Search) -> Found:
    """Read what all tasks found."""
    store, path = Store(search.run_dir), search.path("points.parquet")
    ids, points = read_features(store, path)
    with store.open(path) as file:
        metadata = pq.ParquetFile(file, pre_buffer=False).schema_arrow.metadata
    with store.open(search.path("index.npz")) as file, np.load(file, allow_pickle=False) as held:
        recall = float(held["recall"])
    near: Indices = np.empty((len(ids), search.count), np.int32)
    distances = np.empty((len(ids), search.count), np.float32)
    for number, rows in enumerate(query_rows(len(ids)), 1):
        table = read_table(store, search.path(f"{number:06d}.parquet"))
        near[rows], distances[rows] = (lists_of(table, name) for name in ("near", "distances"))
    return Found(ids, points, (near, distances), recall, int(metadata[LEFT_OUT]))


def lists_of(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    """Return a column of lists of one length as ``[rows, length]``."""
    values = table[name].combine_chunks().flatten().to_numpy()
    return np.asarray(values).reshape(table.num_rows, -1)
