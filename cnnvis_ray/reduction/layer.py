"""One layer of a run from shards to files: neighbours, map and quality, as one task.

The task reads the layer's shards block by block, so that features never pass the driver; it holds
the projected points (``4 N K`` bytes) and what t-SNE needs (`map_bytes`). The neighbours of a
large layer were searched in tasks before it (`searching`).
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cnnvis_ray.config import Reduce
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger.reading import LABELS, open_run, read_features
from cnnvis_ray.reduction.alignment import align, displacements
from cnnvis_ray.reduction.blocks import BLOCK_BYTES, Block, Features, Ids, gather
from cnnvis_ray.reduction.neighbours import (
    MISSING,
    NUM_KEPT,
    Indices,
    Points,
    build_index,
    neighbours_table,
    search_index,
)
from cnnvis_ray.reduction.pca import pca_from_bytes, project_block
from cnnvis_ray.reduction.quality import as_dict, compare_seeds, judge_map, trust_of
from cnnvis_ray.reduction.searching import Found, Search, read_search, write_search
from cnnvis_ray.reduction.tsne import affinity_neighbours, embed, principal_plane
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes, write_table

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
POSITIONS = pa.schema(
    [
        ("image_id", pa.int64()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("trust", pa.float32()),  # share of the 10 nearest images that the map keeps
        ("agreement", pa.float32()),  # share of the map's 10 nearest that a second seed keeps near
        ("plane_x", pa.float32()),  # the first two principal components: the map's control
        ("plane_y", pa.float32()),
    ]
)


@dataclass(frozen=True, slots=True)
class LayerRequest:
    """What the task of one layer is given.

    Attributes:
        shards: of features, in the order of units.
        num_features: numbers per image.
        pca: components as `pca_to_bytes` writes them; None where there is no PCA.
        start: a table of positions that the map starts from, by path; None: the PCA plane.
        with_map: whether the map is due, and not only the neighbours.
        search: where the neighbours were searched; None: in this task.
    """

    run_dir: str
    layer: str
    shards: tuple[str, ...]
    num_features: int
    config: Reduce
    seed: int
    pca: bytes | None
    start: str | None
    with_map: bool
    search: Search | None = None


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """What the task of one layer wrote.

    Attributes:
        map: positions, quality and components, in this order; empty where only neighbours were
            due.
        left_out: how many images have features that are not finite.
    """

    neighbours: tuple[ShardFile, ...]
    map: tuple[ShardFile, ...]
    left_out: int
    notes: tuple[str, ...]


def reduce_layer(request: LayerRequest) -> LayerFiles:
    """Find neighbours, map and quality of one layer and write them."""
    store, config, layer = Store(request.run_dir), request.config, request.layer
    notes = pca_from_bytes(request.pca).notes if request.pca else ()
    found = read_search(request.search) if request.search else search_here(request)
    table = neighbours_table(found.ids, *found.neighbours)
    neighbours = (write_table(store, f"neighbours/{layer}/000000.parquet", table),)
    if not request.with_map:
        return LayerFiles(neighbours, (), found.left_out, notes)
    ids, points = found.ids, found.points
    start = read_start(store, request.start, ids)
    if request.start is None and config.init_from is not None:
        start = read_other_map(request, ids, found.neighbours[0])
    labels = read_labels(store, ids)
    placed = embed(
        points, config, request.seed, start, found.neighbours, labels, progress_of(layer)
    )
    positions = placed.positions if start is None else align(placed.positions, start, scale=False)
    plane = points[:, :2] if request.pca else principal_plane(points, request.seed)
    quality = judge_map(points, positions, plane, config.metric, request.seed)
    second = compare_seeds(points, positions, config, request.seed)
    chance = displacements(second.positions, positions[second.sample])
    moved = None if start is None else float(displacements(positions, start).mean())
    figures = as_dict(
        [quality],
        kl_divergence=placed.kl_divergence,
        neighbour_recall=found.recall,
        displacement=moved,
        seed_displacement=float(chance.mean()),
        left_out=found.left_out,
    )
    table = positions_table(found, positions, second.agreement, plane)
    folder = f"reduction/{layer}"
    written = [
        write_table(store, f"{folder}/positions.parquet", table),
        write_bytes(store, f"{folder}/quality.json", json.dumps(figures, indent=1).encode()),
    ]
    if request.pca is not None:
        written.append(write_bytes(store, f"{folder}/pca.npz", request.pca))
    if request.start is None and start is not None:
        columns = [ids, *start.astype(np.float32).T]
        table = pa.table(columns, names=["image_id", "x", "y"])
        written.append(write_table(store, f"{folder}/start.parquet", table))
    return LayerFiles(neighbours, tuple(written), found.left_out, (*notes, *placed.notes))


def positions_table(
    found: Found, positions: Points, agreement: np.ndarray, plane: Points
) -> pa.Table:
    """Return a map as rows of `POSITIONS`, with its control."""
    columns = [
        found.ids,
        *positions.astype(np.float32).T,
        trust_of(found.neighbours[0], positions),
        agreement,
        *pad_plane(plane).T,
    ]
    arrays = [pa.array(c, field.type) for c, field in zip(columns, POSITIONS, strict=True)]
    return pa.table(arrays, schema=POSITIONS)


def read_points(request: LayerRequest) -> tuple[Ids, Points, int]:
    """Read a layer's points, projected where it has components; count what is left out."""
    blocks = feature_blocks(Store(request.run_dir), request.shards)
    if request.pca is None:
        rows = gather(blocks, request.num_features)
        return rows.ids, rows.features, len(rows.left_out)
    pca = pca_from_bytes(request.pca)
    parts = [project_block(block, pca, request.config.whiten) for block in blocks]
    ids, points = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return ids, points, len(pca.left_out)


def search_here(request: LayerRequest) -> Found:
    """Search the neighbours of a layer in this process."""
    ids, points, left_out = read_points(request)
    index = build_index(points, request.config.metric, request.seed)
    count = max(NUM_KEPT, affinity_neighbours(request.config, len(points)))
    return Found(ids, points, search_index(index, points, count), index.recall, left_out)


def build_search(request: LayerRequest) -> tuple[ShardFile, ...]:
    """Write points, index and components of a layer whose neighbours are searched in tasks."""
    assert request.search is not None
    ids, points, left_out = read_points(request)
    config = request.config
    files = write_search(request.search, ids, points, left_out, config.metric, request.seed)
    if request.pca is None:
        return files
    path = request.search.path("pca.npz")
    return (*files, write_bytes(Store(request.run_dir), path, request.pca))


def feature_blocks(store: Store, shards: tuple[str, ...]) -> list[Block]:
    """Return a reader per range of rows of at most `BLOCK_BYTES` as stored."""
    blocks: list[Block] = []
    for path in shards:
        with store.open(path) as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            kind = parquet.schema_arrow.field("feature").type
            rows = parquet.metadata.num_rows
            group = parquet.metadata.row_group(0).num_rows if parquet.num_row_groups else 1
        row_bytes = max(1, kind.list_size * kind.value_type.bit_width // 8)
        step = max(group, BLOCK_BYTES // row_bytes // group * group)
        if rows <= step:
            blocks.append(partial(read_features, store, path))
        else:
            blocks.extend(
                partial(read_rows_of, store, path, first, min(first + step, rows), group)
                for first in range(0, rows, step)
            )
    return blocks


def read_rows_of(
    store: Store, path: str, first: int, stop: int, group: int
) -> tuple[Ids, Features]:
    """Read some rows of a shard whose row groups all have ``group`` rows, but for the last.

    One row group after another, so that no more than one is held twice.
    """
    with store.open(path) as file:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        kind = parquet.schema_arrow.field("feature").type
        features = np.empty((stop - first, kind.list_size), kind.value_type.to_pandas_dtype())
        ids = np.empty(stop - first, np.int64)
        done = 0
        for number in range(first // group, -(-stop // group)):
            table = parquet.read_row_group(number)
            ids[done : done + table.num_rows] = table["image_id"].to_numpy()
            for values in table["feature"].chunks:
                numbers = values.flatten().to_numpy()
                features[done : done + len(values)] = numbers.reshape(-1, kind.list_size)
                done += len(values)
    return ids, features


def pad_plane(plane: Points) -> np.ndarray:
    """Return a plane with two columns, also where there is one component."""
    padded = np.zeros((len(plane), 2), np.float32)
    padded[:, : plane.shape[1]] = plane
    return padded


def read_start(store: Store, path: str | None, ids: Ids) -> np.ndarray | None:
    """Read the positions that a map starts from; None where they are not of the same images."""
    if path is None or not store.exists(path):
        return None
    table = read_table(store, path, ["image_id", "x", "y"])
    if not np.array_equal(table["image_id"].to_numpy(), ids):
        return None
    return np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)


def read_other_map(request: LayerRequest, ids: Ids, near: Indices) -> np.ndarray:
    """Read the start of the images from a map of another run, by their keys.

    An image that the other map lacks starts on its nearest neighbour that it has.

    Raises:
        RefusedError: the other map has none of the images.
    """
    path = str(request.config.init_from)
    folder, _, name = path.rpartition("/")
    table = read_table(Store(folder or "."), name, ["key", "x", "y"])
    rows = open_run(request.run_dir).images(["image_id", "key"])
    own = rows["key"].take(pc.index_in(pa.array(ids), value_set=rows["image_id"]))
    found = pc.index_in(own, value_set=table["key"]).combine_chunks()
    missing = found.is_null().to_numpy(zero_copy_only=False)
    if missing.all():
        raise RefusedError(
            f"reduce.init_from: {path} has none of this run's images; name the "
            "embedding/LAYER.parquet of a run on the same source"
        )
    known = table.take(found.fill_null(0))
    start = np.stack([known["x"].to_numpy(), known["y"].to_numpy()], axis=1)
    start[missing] = start[~missing].mean(axis=0)
    for image in np.flatnonzero(missing):
        others = [each for each in near[image] if each != MISSING and not missing[each]]
        start[image] = start[others[0]] if others else start[image]
    return start


def read_labels(store: Store, ids: Ids) -> list[str | None] | None:
    """Read the present labels of images, for a sample that is spread over them."""
    if not store.exists(LABELS):
        return None
    table = read_table(store, LABELS)
    known = table["image_id"].to_numpy()
    order = np.searchsorted(known, ids)
    if not len(known) or not np.array_equal(known[np.minimum(order, len(known) - 1)], ids):
        return None
    labels: list[str | None] = table["label"].take(pa.array(order)).to_pylist()
    return labels


def progress_of(layer: str) -> Callable[[int, float], None]:
    """Return what logs how far t-SNE is, every few seconds: a small map needs no lines."""
    last = time.monotonic()

    def log_progress(iteration: int, divergence: float) -> None:
        nonlocal last
        if time.monotonic() - last < PROGRESS_SECONDS:
            return
        last = time.monotonic()
        log.info("reduce %s: t-SNE iteration %d, KL divergence %.4f", layer, iteration, divergence)

    return log_progress


def read_plane(store: Store, path: str) -> np.ndarray | None:
    """Read the control plane beside a map's positions; None in maps of earlier versions."""
    names = ("plane_x", "plane_y")
    with store.open(path) as file:
        known = pq.ParquetFile(file, pre_buffer=False).schema_arrow.names
    if not set(names) <= set(known):
        return None
    table = read_table(store, path, list(names))
    return np.stack([table[name].to_numpy() for name in names], axis=1)
