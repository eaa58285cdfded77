"""The stage ``reduce``: features to positions, and positions to a map that opens anywhere.

Positions are kept without labels. The map, embedding/LAYER.parquet, joins keys, labels and
thumbnails to them shard by shard, so a renamed class costs a join and not a t-SNE.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cnnvis_ray import ledger
from cnnvis_ray.cluster import Session
from cnnvis_ray.config import recipe_of
from cnnvis_ray.errors import Refusals, RefusedError
from cnnvis_ray.ledger import Pass, digest_files, read_features
from cnnvis_ray.reduction import (
    Pca,
    PcaOptions,
    embed,
    fit_pca,
    gather,
    judge_map,
    label_agreement,
    label_chance,
    pca_to_bytes,
    project,
)
from cnnvis_ray.reduction.tsne import FEWEST_IMAGES
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import (
    ShardFile,
    Store,
    read_table,
    shard_writer,
    write_bytes,
    write_table,
)

log = logging.getLogger(__name__)

POSITIONS = pa.schema([("image_id", pa.int64()), ("x", pa.float32()), ("y", pa.float32())])
THUMBNAIL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
EMBEDDING = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("image", THUMBNAIL),
    ]
)


@dataclass(slots=True)
class Reduction:
    """The maps that are due; whether they are is known once the features are."""

    job: Job
    layers: tuple[str, ...]
    units: None = None

    def do(self, session: Session, summary: Summary) -> None:
        """Make the map of each layer whose features or recipe are new."""
        made = False
        for layer in self.layers:
            made |= make_map(self.job, layer, summary)
        if made or summary.unfinished:
            self.job.ledger.sweep(("reduce",), ["reduction"])
            self.job.ledger.sweep(("embedding",), ["embedding"])


def decide(job: Job) -> Reduction:
    """Check recipes, and that there are features of enough images.

    Raises:
        RefusedError: a recipe changed, a layer has no finished features, or too few images.
    """
    refusals = Refusals()
    layers = tuple(layer.name for layer in job.chosen(job.config.reduce.layers))
    again = "reduce" in job.replace
    for layer in layers:
        with refusals.gather():
            if "extract" not in job.stages:
                check_features(job, layer)
            check_recipe(job, layer, again)
    extracting = "extract" in job.stages
    count = job.images.listing.num_images if extracting else job.image_keys().num_rows
    if layers and count < FEWEST_IMAGES:
        refusals.messages.append(
            f"reduce: a map needs at least {FEWEST_IMAGES} images, there are {count}; add images, "
            "or set reduce.layers=[]"
        )
    refusals.raise_all()
    return Reduction(job, layers)


def check_features(job: Job, layer: str) -> None:
    """Refuse a layer without features, or with features of a part of the images.

    Raises:
        RefusedError: says which stage to run first.
    """
    owners = [owner for owner in job.ledger.passes("extract") if layer in owner.layers]
    if not owners:
        known = sorted({each for owner in job.ledger.passes("extract") for each in owner.layers})
        raise RefusedError(
            f"reduce: {layer} has no features; layers with features: "
            f"{', '.join(known) or 'none'}; extract it first: cnnvis extract {job.store.root}"
        )
    live = {unit.name for unit in ledger.read_plan(job.store).units() if len(unit)}
    missing = live - set().union(*(job.ledger.done(owner) for owner in owners))
    if missing:
        raise RefusedError(
            f"reduce: the features of {layer} are not finished, {len(missing)} of {len(live)} "
            f"units are missing; finish them first: cnnvis extract {job.store.root}"
        )


def check_recipe(job: Job, layer: str, again: bool) -> None:
    """Refuse a changed recipe, whatever the features are by then."""
    wanted = reduce_pass(job, layer, "")
    for old in job.ledger.passes("reduce"):
        if old.covers(wanted) and old.recipe != wanted.recipe and not again:
            raise RefusedError(job.ledger.refusal(old, wanted))


def reduce_pass(job: Job, layer: str, inputs: str) -> Pass:
    """Return the pass of a layer's positions."""
    values = recipe_of(job.config.reduce, {"layers", "min_knn_preservation"})
    recipe = {f"reduce.{key}": value for key, value in values.items()}
    return Pass("reduce", {**recipe, "seed": job.config.seed}, (layer,), inputs)


def make_map(job: Job, layer: str, summary: Summary) -> bool:
    """Place a layer's images and join what a reader wants beside their positions.

    Returns:
        Whether anything was made.
    """
    files = job.ledger.files("extract", f"features/{layer}")
    wanted = reduce_pass(job, layer, digest_files(files))
    marker, placed = job.ledger.make(
        wanted, partial(place_features, job, layer, files), "reduce" in job.replace
    )
    positions = marker.files[0]
    joined = join_map(job, layer, positions)
    if placed or joined or layer not in summary.fields.get("quality", {}):
        summary.note("quality", **{layer: measure_map(job, layer)})
    return placed or joined


def measure_map(job: Job, layer: str) -> dict[str, ledger.Value]:
    """Return a map's figures, with how well it keeps labels together."""
    quality = json.loads(job.store.read(f"reduction/{layer}/quality.json"))
    table = read_table(job.store, f"embedding/{layer}.parquet", ["label", "x", "y"])
    positions = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    labels = table["label"].to_pylist()
    quality["label_agreement"] = label_agreement(positions, labels)
    quality["label_chance"] = label_chance(labels)
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in quality.items()
    }


def place_features(job: Job, layer: str, files: Sequence[ShardFile]) -> Iterator[ShardFile]:
    """Run PCA and t-SNE over a layer's shards; write positions, quality and components."""
    config = job.config.reduce
    ids = [read_table(job.store, file.path, ["image_id"])["image_id"].to_numpy() for file in files]
    image_ids = np.concatenate(ids)
    points, pca = find_points(job, files, len(image_ids))
    placed = embed(points, config, job.config.seed)
    for note in (*(pca.notes if pca else ()), *placed.notes):
        log.info("reduce %s: %s", layer, note)
    judged = judge_map(points, placed.positions, [None] * len(image_ids), config.metric)
    quality = {
        "kl_divergence": placed.kl_divergence,
        "knn_preservation": judged.knn_preservation,
        "trustworthiness": judged.trustworthiness,
        "judged_images": judged.num_judged,
    }
    folder = f"reduction/{layer}"
    columns = [image_ids, *np.asarray(placed.positions, np.float32).T]
    table = pa.table(columns, schema=POSITIONS)
    yield write_table(job.store, f"{folder}/positions.parquet", table)
    text = json.dumps(quality, indent=1).encode()
    yield write_bytes(job.store, f"{folder}/quality.json", text)
    if pca is not None:
        yield write_bytes(job.store, f"{folder}/pca.npz", pca_to_bytes(pca))


def find_points(
    job: Job, files: Sequence[ShardFile], num_images: int
) -> tuple[NDArray[np.floating], Pca | None]:
    """Project a layer's features onto their components; without PCA take them as they are."""
    config = job.config.reduce
    blocks = [partial(read_values, job.store, file.path) for file in files]
    with job.store.open(files[0].path) as file:
        width = int(pq.read_schema(file).field("feature").type.list_size)
    if config.pca_components is None:
        return gather(blocks, (num_images, width), np.float32), None
    options = PcaOptions(config.pca_components, job.config.seed)
    pca = fit_pca(blocks, (num_images, width), options)
    return np.concatenate([project(pca, block(), config.whiten) for block in blocks]), pca


def read_values(store: Store, path: str) -> NDArray[np.floating]:
    """Read the features of one shard, ``image feature``."""
    return read_features(store, path)[1]


def join_map(job: Job, layer: str, positions: ShardFile) -> bool:
    """Write a layer's map with keys, present labels and thumbnails, unless it is written."""
    images = job.ledger.files("images", "images")
    labels = job.image_labels()
    text = json.dumps([positions.sha256, digest_files(images), labels])
    wanted = Pass("embedding", {}, (layer,), hashlib.sha256(text.encode()).hexdigest())

    def build() -> Iterator[ShardFile]:
        with shard_writer(job.store, f"embedding/{layer}.parquet", EMBEDDING) as writer:
            for block in joined(job, positions, images, labels):
                writer.write(block)
        yield writer.shard

    return job.ledger.make(wanted, build)[1]


def joined(
    job: Job, positions: ShardFile, images: Sequence[ShardFile], labels: Sequence[str | None]
) -> Iterator[pa.Table]:
    """Join keys, labels and thumbnails to positions, an image shard at a time."""
    keys = job.image_keys()
    label_of = pa.table([keys["image_id"], pa.array(labels, pa.string())], names=["id", "label"])
    known = label_of["id"].combine_chunks()
    places = read_table(job.store, positions.path)
    for file in images:
        rows = read_table(job.store, file.path, ["image_id", "key", "thumbnail"])
        own = places.filter(
            pc.is_in(places["image_id"], value_set=rows["image_id"].combine_chunks())
        )
        rows = rows.take(pc.index_in(own["image_id"], value_set=rows["image_id"].combine_chunks()))
        names = rows["key"].combine_chunks()
        label = label_of["label"].take(pc.index_in(own["image_id"], value_set=known))
        pictures = pa.StructArray.from_arrays(
            [rows["thumbnail"].combine_chunks(), names], fields=list(THUMBNAIL)
        )
        yield pa.table(
            [own["image_id"], names, label, own["x"], own["y"], pictures], schema=EMBEDDING
        )
