"""Nearest neighbours of points, through faiss.

The search is exact up to `MOST_EXACT` points. Above, points are sorted into ``4 sqrt(N)`` cells
(IVF) and a query looks into as many of the nearest cells as a sample needs for the recall asked;
the recall measured there is returned with the index. What is found is ranked again by differences
of points, since faiss forms distances from inner products, where equal points end up apart.

An index is bytes, so that queries can be searched in tasks of `QUERY_ROWS` each. Cosine neighbours
are Euclidean ones of points scaled to length 1 (a zero point stays zero): the order is the same.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cnnvis_ray.reduction.blocks import Ids
from cnnvis_ray.reduction.resources import num_threads, one_thread_each

if TYPE_CHECKING:
    import faiss

Metric = Literal["euclidean", "cosine", "manhattan"]
Points = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float32]

# An exact search of 20,000 points of 50 features takes 6 s of one core and grows with the square:
# 50 s at 60,000, as long as a whole map, where cells with a recall of 0.99 take a tenth.
MOST_EXACT = 30_000
RECALL, FINE_RECALL = 0.95, 0.99
MOST_FINE = 100_000  # points up to which the finer recall is asked
RECALL_ROWS = 1_000  # of the sample on which the recall is measured
TRAIN_PER_CELL = 40  # points per cell that the cells are found with (faiss asks for 39)
TRAIN_ROUNDS = 10
QUERY_ROWS = 16_384
PIECE = 1_024  # queries that one thread searches at a time
MOST_NUMBERS = 2**26  # of differences ranked together: 256 MiB, fewer rows where features are wide
SPARE = 4  # neighbours found beyond those asked for, so that ranking again can exchange the last

NUM_KEPT = 12
MISSING = -1  # stands for a neighbour where there are fewer than 13 images; its distance is inf
NEIGHBOURS = pa.schema(
    [
        ("image_id", pa.int64()),
        ("neighbours", pa.list_(pa.int64(), NUM_KEPT)),
        ("distances", pa.list_(pa.float32(), NUM_KEPT)),
    ]
)


@dataclass(frozen=True, slots=True)
class Index:
    """Points that can be searched; small enough to send: ``4 N D`` bytes.

    Attributes:
        archive: what faiss serializes.
        metric: of the distances returned.
        recall: share of the 12 nearest that a sample found, 1 for an exact index.
        num_probes: cells that a query looks into; 0 for an exact index.
    """

    archive: npt.NDArray[np.uint8]
    metric: Metric
    recall: float
    num_probes: int


def prepare(points: Points, metric: Metric) -> npt.NDArray[np.float32]:
    """Return points as an index holds them: contiguous, of length 1 for cosine."""
    exact: npt.NDArray[np.float32] = np.array(points, dtype=np.float32, order="C")
    if metric != "cosine":
        return exact
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    exact /= np.where(lengths > 0, lengths, 1).astype(np.float32)
    return exact


def build_index(points: Points, metric: Metric = "euclidean", seed: int = 0) -> Index:
    """Make an index of points, with as many probes as the recall needs.

    Args:
        points: ``[N, D]``.
        metric: cosine distance is 1 - cosine.
        seed: of the cells and of the sample.
    """
    import faiss

    prepared = prepare(points, metric)
    kind = faiss.METRIC_L1 if metric == "manhattan" else faiss.METRIC_L2
    flat = faiss.IndexFlat(prepared.shape[1], kind)
    if len(prepared) <= MOST_EXACT:
        flat.add(prepared)
        return Index(faiss.serialize_index(flat), metric, 1.0, 0)
    cells = int(4 * np.sqrt(len(prepared)))
    index = faiss.IndexIVFFlat(flat, prepared.shape[1], cells, kind)
    index.cp.seed, index.cp.niter = seed + 1, TRAIN_ROUNDS
    index.cp.max_points_per_centroid = TRAIN_PER_CELL
    generator = np.random.default_rng(seed)
    few = min(len(prepared), TRAIN_PER_CELL * cells)
    with one_thread_each():
        index.train(prepared[np.sort(generator.choice(len(prepared), few, replace=False))])
        index.add(prepared)
        rows = generator.choice(len(prepared), min(RECALL_ROWS, len(prepared)), replace=False)
        recall, probes = raise_probes(index, prepared, np.sort(rows))
    return Index(faiss.serialize_index(index), metric, recall, probes)


def raise_probes(
    index: "faiss.IndexIVFFlat", points: npt.NDArray[np.float32], rows: Indices
) -> tuple[float, int]:
    """Double the probes of an index until a sample of its points finds enough true neighbours."""
    import faiss

    truth = faiss.IndexFlat(points.shape[1], index.metric_type)
    truth.add(points)
    reach = search_pieces(truth, points[rows], NUM_KEPT + 1)[0][:, -1]
    truth.reset()
    wanted = FINE_RECALL if len(points) <= MOST_FINE else RECALL
    probes = 4
    while True:
        index.nprobe = probes
        found = search_pieces(index, points[rows], NUM_KEPT + 1)[0]
        # By distance and not by name: equal points are as good as one another.
        recall = float((found <= reach[:, None] * (1 + 1e-5) + 1e-9).mean())
        if recall >= wanted or probes >= index.nlist:
            return recall, probes
        probes = min(2 * probes, index.nlist)


def search_pieces(
    index: "faiss.Index", queries: npt.NDArray[np.float32], count: int
) -> tuple[Distances, Indices]:
    """Search queries in pieces of a fixed size spread over threads: always the same results."""

    def search_piece(first: int) -> tuple[Distances, Indices]:
        with one_thread_each():  # OpenMP's limit holds in the thread that sets it alone
            found: tuple[Distances, Indices] = index.search(queries[first : first + PIECE], count)
            return found

    with one_thread_each(), ThreadPoolExecutor(num_threads()) as pool:
        pieces = list(pool.map(search_piece, range(0, len(queries), PIECE)))
    return np.concatenate([each[0] for each in pieces]), np.concatenate(
        [each[1] for each in pieces]
    )


def search_index(
    index: Index, points: Points, count: int, rows: slice | None = None
) -> tuple[Indices, Distances]:
    """Find the nearest other points of some points of an index.

    Args:
        index: of all points.
        points: ``[N, D]`` the points that the index was made of, in the same order.
        count: neighbours per point.
        rows: of the points that are searched; all without it.

    Returns:
        ``[n, count]`` indices of neighbours, nearest first and lower index first among equals,
        and distances. The point itself is not among them. Where there are fewer others, or where
        the probed cells hold fewer, the rest is `MISSING` at infinity.
    """
    import faiss

    searched = faiss.deserialize_index(index.archive)
    if index.num_probes:
        faiss.extract_index_ivf(searched).nprobe = index.num_probes
    prepared = prepare(points, index.metric)
    own = np.arange(len(prepared))[rows or slice(None)]
    found = search_pieces(searched, prepared[own], min(count + 1 + SPARE, len(prepared)))[1]
    indices = np.full((len(own), count), MISSING, dtype=np.int64)
    distances = np.full((len(own), count), np.inf, dtype=np.float32)
    width = min(count, found.shape[1])
    step = max(1, min(PIECE, MOST_NUMBERS // max(1, found.shape[1] * prepared.shape[1])))
    for first in range(0, len(own), step):
        part = slice(first, first + step)
        near, far = rank(prepared, own[part], found[part], index.metric)
        indices[part, :width], distances[part, :width] = near[:, :width], far[:, :width]
    return indices, distances


def rank(
    points: npt.NDArray[np.float32], own: Indices, found: Indices, metric: Metric
) -> tuple[Indices, Distances]:
    """Sort neighbours by distance, then by index; the point itself comes last."""
    difference = points[found] - points[own, None]
    if metric == "manhattan":
        distances = np.abs(difference).sum(axis=2)
    else:
        squared = np.einsum("nkd,nkd->nk", difference, difference)
        distances = squared / 2 if metric == "cosine" else np.sqrt(squared)
    none = (found == own[:, None]) | (found == MISSING)
    distances[none] = np.inf
    order = np.lexsort((found, distances), axis=1)
    indices = np.where(none, MISSING, found)
    return (
        np.take_along_axis(indices, order, axis=1),
        np.take_along_axis(distances, order, axis=1),
    )


def nearest(
    points: Points, count: int, metric: Metric = "euclidean", seed: int = 0
) -> tuple[Indices, Distances]:
    """Find the nearest other points of every point: an index and its search in one."""
    return search_index(build_index(points, metric, seed), points, count)


def query_rows(num_points: int) -> list[slice]:
    """Cut all points into the ranges that are searched in one task each."""
    starts = range(0, num_points, QUERY_ROWS)
    return [slice(first, min(first + QUERY_ROWS, num_points)) for first in starts]


def neighbours_table(
    ids: Ids, indices: Indices, distances: Distances, rows: slice | None = None
) -> pa.Table:
    """Name the 12 nearest images of each image, of the schema `NEIGHBOURS`.

    Args:
        ids: of all images, in the order of the points.
        indices: ``[n, k]`` of neighbours; further ones than 12 are dropped.
        distances: ``[n, k]``.
        rows: whose neighbours these are; all without it.

    Returns:
        A row per image. With fewer than 13 images a row ends in `MISSING` (-1) at infinity.
    """
    own = ids[rows or slice(None)]
    near = np.full((len(own), NUM_KEPT), MISSING, dtype=np.int64)
    far = np.full((len(own), NUM_KEPT), np.inf, dtype=np.float32)
    width = min(NUM_KEPT, indices.shape[1])
    known = indices[:, :width] != MISSING
    near[:, :width] = np.where(known, ids[indices[:, :width]], MISSING)
    far[:, :width] = distances[:, :width]
    lists = [
        pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), NUM_KEPT)
        for values in (near, far)
    ]
    return pa.table([pa.array(own), *lists], schema=NEIGHBOURS)


def indices_of(ids: Ids, tables: Sequence[pa.Table]) -> Indices:
    """Read ``[N, 12]`` indices into ids from tables of neighbours; `MISSING` stays.

    Raises:
        ValueError: the tables are not of these images.
    """
    table = pa.concat_tables(tables).sort_by("image_id")
    order = np.argsort(ids)
    if not np.array_equal(table["image_id"].to_numpy(), ids[order]):
        raise ValueError(f"neighbours of {table.num_rows} images for {len(ids)} images")
    near = table["neighbours"].combine_chunks().flatten().to_numpy().reshape(-1, NUM_KEPT)
    places = order[np.searchsorted(ids[order], np.maximum(near, ids.min()))]
    found: Indices = np.empty_like(near)
    found[order] = np.where(near == MISSING, MISSING, places)
    return found
