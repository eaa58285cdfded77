"""Channel cards: what is due of them, and what is written."""

import hashlib
import json
from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq

from cnnvis_ray import ledger
from cnnvis_ray.explanation import ClassMeans, build_cards, draw_card_sheets, measure_classes
from cnnvis_ray.explanation.classes import Labelled
from cnnvis_ray.explanation.crops import chosen_channels
from cnnvis_ray.ledger import Marker, Pass, Run
from cnnvis_ray.ledger.reading import read_features
from cnnvis_ray.network import Layer
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.merging import digest_files, layer_files, merged_digest
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes, write_table

UNIT = "000000.r0"  # a layer's cards are one unit


def draw_cards(job: Job, layers: Sequence[Layer]) -> None:
    """Bring each layer's cards up to its crops, pictures, statistics and labels."""
    for layer in layers:
        passes = ledger.read_passes(job.store, "crops")
        files = layer_files(job.store, passes, "explanation/crops", layer.name)
        if files:
            draw_layer(job, layer, files)
    ledger.sweep(job.store, ("cards",), ["explanation/cards", "explanation/selectivity"])


def draw_layer(job: Job, layer: Layer, files: Sequence[ShardFile]) -> None:
    """Write one layer's cards unless they are written."""
    path = f"maximization/{job.config.maximize.name}/{layer.name}.parquet"
    pictures = read_table(job.store, path) if job.store.exists(path) else None
    activations: dict[int, float] = {}
    if pictures is not None:
        pairs = zip(
            *(pictures[name].to_pylist() for name in ("channel", "activation")), strict=True
        )
        for channel, activation in pairs:
            activations.setdefault(channel, activation)
    passes = ledger.read_passes(job.store, "extract")
    features = layer_files(job.store, passes, "features", layer.name)
    keys = Run(job.store).images(["key"])["key"].to_pylist()
    inputs = [
        digest_files(files),
        merged_digest(job.store, f"channels/{layer.name}.parquet"),
        [[channel, activation] for channel, activation in sorted(activations.items())],
        digest_files(features),
        [job.images.labels.of(key) for key in keys],
        str(job.config.explain.channels),
    ]
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    (owner,) = ledger.claim(job.store, Pass("cards", {}, (layer.name,), digest))
    if ledger.done(job.store, owner):
        return
    means = read_classes(job, layer, features)
    table = build_cards(
        chosen_channels(job.config.explain.channels, layer.channels, layer.name),
        Run(job.store).statistics(layer.name),
        (read_table(job.store, file.path) for file in files),
        pictures,
        means,
    )
    written = [write_table(job.store, f"explanation/cards/{layer.name}.parquet", table)]
    sees = layer.receptive_field
    field = "the whole image" if sees is None else f"{sees[0]:g} x {sees[1]:g} pixels"
    notes = [
        f"{job.vision.network.name}; a neuron sees {field}; crops show what it saw, best first"
    ]
    sheets = draw_card_sheets(table, layer.name, job.config.extract.exemplars, notes)
    for number, sheet in enumerate(sheets):
        path = f"explanation/cards/{layer.name}-{number:03d}.png"
        written.append(write_bytes(job.store, path, sheet))
    if means is not None:
        path = f"explanation/selectivity/{layer.name}.parquet"
        written.append(write_table(job.store, path, means.table()))
    ledger.commit(job.store, owner, Marker(UNIT, tuple(written)))


def read_classes(job: Job, layer: Layer, files: Sequence[ShardFile]) -> ClassMeans | None:
    """Average the layer's channels by label, from the features; None where that cannot be."""
    if not files:
        return None
    pooling, shape = read_shape(job.store, files[0].path)
    rows = Run(job.store).images(["image_id", "key"])
    keys = dict(zip(rows["image_id"].to_pylist(), rows["key"].to_pylist(), strict=True))

    def blocks() -> Iterator[Labelled]:
        for file in files:
            ids, features = read_features(job.store, file.path)
            yield [job.images.labels.of(keys[image]) for image in ids.tolist()], features

    return measure_classes(blocks(), pooling, shape)


def read_shape(store: Store, path: str) -> tuple[str, list[int]]:
    """Read from a shard's metadata how its features were pooled, and of what shape."""
    with store.open(path) as file:
        metadata = pq.read_schema(file).metadata
    return metadata[b"pooling"].decode(), [int(s) for s in metadata[b"shape"].split()]
