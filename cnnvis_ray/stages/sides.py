"""Both sides of a night: what the run and the night hold of each layer and image."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cnnvis_ray import ledger, monitoring
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import Run, read_shape
from cnnvis_ray.network import make_pooling
from cnnvis_ray.reduction import pca_from_bytes, project_block
from cnnvis_ray.reduction.blocks import gather
from cnnvis_ray.reduction.layer import feature_blocks
from cnnvis_ray.reduction.neighbours import NUM_KEPT
from cnnvis_ray.storage import read_table

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Side:
    """The images of the run, or of the night, in one layer.

    Attributes:
        points: what neighbours are measured between, ``image component``.
        values: a number per image and channel; None where the pooling mixes channels.
    """

    ids: NDArray[np.int64]
    points: Floats
    values: Floats | None


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of images besides features, by image id."""

    keys: dict[int, str]
    labels: dict[int, str | None]
    thumbnails: dict[int, bytes]
    predicted: dict[int, str | None]
    confidence: dict[int, float]

    def images(self, ids: NDArray[np.int64]) -> monitoring.Images:
        """Return what is compared of some images."""
        own = ids.tolist()
        return monitoring.Images(
            own,
            [self.keys[each] for each in own],
            [self.labels[each] for each in own],
            [self.thumbnails.get(each) for each in own],
        )


def read_side(of: Run, layer: str, run: Run) -> Side:
    """Read a layer's images as points of the run's map and as values per channel."""
    files = of.files("extract", f"features/{layer}")
    shards = tuple(file.path for file in files)
    pooling, shape = read_shape(of.store, shards[0])
    known = make_pooling(pooling, 0)
    path = f"reduction/{layer}/pca.npz"
    blocks = feature_blocks(of.store, shards)
    width = known.width(shape[0], *(shape[1:] or (None, None)))
    rows = gather(blocks, width)
    values = known.channel_values(rows.features, shape) if known.per_channel else None
    if not run.store.exists(path):
        return Side(rows.ids, rows.features, values)
    pca = pca_from_bytes(run.store.read(path))
    whiten = bool(reduce_recipe(run, layer).get("reduce.whiten", False))
    points = [project_block(block, pca, whiten)[1] for block in blocks]
    return Side(rows.ids, np.concatenate(points), values)


def reduce_recipe(run: Run, layer: str) -> ledger.Recipe:
    """Return the recipe of a layer's map."""
    return next(owner.recipe for owner in run.passes("reduce") if layer in owner.layers)


def read_positions(run: Run, layer: str, ids: NDArray[np.int64]) -> Floats:
    """Read the frozen positions in the order of some ids."""
    table = read_table(run.store, f"reduction/{layer}/positions.parquet", ["image_id", "x", "y"])
    known = table["image_id"].to_numpy()
    order = np.argsort(known)
    rows = order[np.searchsorted(known[order], ids)]
    return np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)[rows]


def read_rows(of: Run) -> Rows:
    """Read keys, labels, thumbnails and best predictions of all images of a run or night."""
    with suppress(RefusedError):
        table = of.images(["image_id", "key", "label", "thumbnail", "top5"])
        ids = table["image_id"].to_pylist()
        best = [guesses[0] if guesses else None for guesses in table["top5"].to_pylist()]
        return Rows(
            dict(zip(ids, table["key"].to_pylist(), strict=True)),
            dict(zip(ids, table["label"].to_pylist(), strict=True)),
            dict(zip(ids, table["thumbnail"].to_pylist(), strict=True)),
            {i: guess and guess["name"] for i, guess in zip(ids, best, strict=True)},
            {i: guess["probability"] for i, guess in zip(ids, best, strict=True) if guess},
        )
    return Rows({}, {}, {}, {}, {})


def read_fifths(run: Run, layer: str, side: Side) -> Floats:
    """Return the distance of each image of the run to its fifth nearest other one."""
    files = run.files("neighbours", f"neighbours/{layer}")
    if files:
        tables = [read_table(run.store, file.path, ["distances"]) for file in files]
        flat = pa.concat_tables(tables)["distances"].combine_chunks().flatten().to_numpy()
        fifths: Floats = flat.reshape(-1, NUM_KEPT)[:, 4]
        return fifths[np.isfinite(fifths)]
    near = monitoring.find_neighbours(side.points, side.points, 6)
    return near.distances[:, -1]


def best_images(of: Run, layer: str) -> list[list[dict[str, object]]]:
    """Return the exemplars of each channel of a layer, best first."""
    path = f"channels/{layer}.parquet"
    if not of.store.exists(path):
        return []
    found: list[list[dict[str, object]]] = of.statistics(layer)["exemplars"].to_pylist()
    return found


def read_nights(run: Run, own: str) -> tuple[list[str], list[Mapping[str, object]]]:
    """Read what other nights found, ordered by name: names and documents."""
    names, found = [], []
    for name in run.store.names("placed"):
        path = f"placed/{name}/changes.json"
        if name != own and run.store.exists(path):
            with suppress(ValueError):
                found.append(json.loads(run.store.read(path)))
                names.append(name)
    return names, found
