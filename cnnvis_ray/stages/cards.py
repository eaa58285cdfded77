"""What explaining joins: cards, mean heat maps per class, weight sheets and linear probes.

Each is a product of one unit, made again when its inputs change.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cnnvis_ray import ledger
from cnnvis_ray.explanation import (
    PROBE,
    ClassMeans,
    ExplanationSetup,
    build_cards,
    chosen_channels,
    draw_card_sheets,
    draw_class_heat,
    measure_classes,
    plots,
    probe_rows,
    summarize_heat,
)
from cnnvis_ray.explanation.classes import Labelled
from cnnvis_ray.ledger import SLOTS, Pass, Run, digest_files, read_features
from cnnvis_ray.maximization import describe_recipe
from cnnvis_ray.network import Layer, build_module
from cnnvis_ray.stages.extract import statistics_digest
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes, write_table

log = logging.getLogger(__name__)

LARGEST = 2**28  # numbers of a layer's features that a probe reads into memory: 1 GiB

Written = Iterator[ShardFile]


def write_products(job: Job, setup: ExplanationSetup, summary: Summary) -> None:
    """Bring cards, class maps, weight sheets and probes up to what they are made from."""
    write_class_maps(job, setup, summary)
    made = [write_cards(job, layer) for layer in setup.shown]
    if any(made):
        folders = ["explanation/cards", "explanation/selectivity"]
        job.ledger.sweep(("cards",), folders)
    write_weights(job, setup.shown)
    if job.config.explain.probe:
        write_probe(job, setup.shown, summary)


def write_class_maps(job: Job, setup: ExplanationSetup, summary: Summary) -> None:
    """Average heat maps by class, draw them, and note the areas under deletion and insertion.

    Classes are the labels; images without one count for what the network calls them.
    """
    files = job.ledger.files("explain", "explanation/heat")
    labels = job.image_labels()
    digest = hashlib.sha256(json.dumps([digest_files(files), labels]).encode()).hexdigest()

    def build() -> Written:
        shards = (read_table(job.store, file.path) for file in files)
        heat = summarize_heat(shards, job.images.labels.of)
        summary.note("explain", target=str(setup.kind), **heat.fidelity())
        if not heat.means:
            return
        yield write_table(job.store, "explanation/classes.parquet", heat.table())
        needs = job.vision.network.preprocess
        for method in heat.methods:
            sheet = draw_class_heat(heat, method, partial(read_thumbnails, job), needs)
            yield write_bytes(job.store, f"explanation/classes-{method}.png", sheet)

    job.ledger.make(Pass("classes", {}, (), digest), build)


def read_thumbnails(job: Job, image_ids: set[int]) -> dict[int, bytes]:
    """Read the thumbnails of some images, each shard once."""
    units = {image // SLOTS for image in image_ids}
    found: dict[int, bytes] = {}
    for file in job.ledger.files("images", "images"):
        if int(file.path.split("/")[1][:6]) in units:
            table = read_table(job.store, file.path, ["image_id", "thumbnail"])
            kept = table.filter(pc.is_in(table["image_id"], pa.array(sorted(image_ids))))
            ids, data = kept["image_id"].to_pylist(), kept["thumbnail"].to_pylist()
            found.update(zip(ids, data, strict=True))
    return found


def write_cards(job: Job, layer: Layer) -> bool:
    """Bring a layer's cards up to its crops, pictures, statistics and labels.

    Returns:
        Whether they were written now.
    """
    records, name = job.ledger, layer.name
    files = records.files("crops", f"explanation/crops/{name}")
    if not files:
        return False
    pictures = read_pictures(job, name)
    activations: dict[int, float] = {}
    if pictures is not None:
        columns = (pictures[column].to_pylist() for column in ("channel", "activation"))
        for channel, activation in zip(*columns, strict=True):
            activations.setdefault(channel, activation)
    features = records.files("extract", f"features/{name}")
    inputs = [
        digest_files(files),
        statistics_digest(records, name),
        [[channel, activation] for channel, activation in sorted(activations.items())],
        digest_files(features),
        job.image_labels(),
        str(job.config.explain.channels),
    ]
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()

    def build() -> Written:
        means = read_classes(job, features)
        table = build_cards(
            chosen_channels(job.config.explain.channels, layer.channels, name),
            Run(job.store, records).statistics(name),
            (read_table(job.store, file.path) for file in files),
            pictures,
            means,
        )
        yield write_table(job.store, f"explanation/cards/{name}.parquet", table)
        sees = layer.receptive_field
        field = "the whole image" if sees is None else f"{sees[0]:g} x {sees[1]:g} pixels"
        shown = "what it saw" if layer.first_token is None else "the patch of its token"
        notes = [
            f"a neuron sees {field}; crops show {shown}, best first, and its maximum; "
            "histograms on a log scale"
        ]
        for owner in records.passes("maximize"):
            if (owner.subject, owner.layers) == (job.config.maximize.name, (name,)):
                notes.append(f"pictures of {owner.subject}: {describe_recipe(owner.recipe)}")
        sheets = draw_card_sheets(
            table,
            job.title_of(name),
            job.config.extract.exemplars,
            notes,
            job.class_names(name),
        )
        for number, sheet in enumerate(sheets):
            yield write_bytes(job.store, f"explanation/cards/{name}-{number:03d}.png", sheet)
        if means is not None:
            path = f"explanation/selectivity/{name}.parquet"
            yield write_table(job.store, path, means.table())

    return records.make(Pass("cards", {}, (name,), digest), build)[1]


def read_pictures(job: Job, layer: str) -> pa.Table | None:
    """Read the layer's pictures in the run's catalogue; None where it has none."""
    path = f"maximization/{job.config.maximize.name}/{layer}.parquet"
    return read_table(job.store, path) if job.store.exists(path) else None


def read_classes(job: Job, files: Sequence[ShardFile]) -> ClassMeans | None:
    """Average a layer's channels by label, from the features; None where that cannot be."""
    if not files:
        return None
    pooling, shape = read_shape(job.store, files[0].path)
    ids = job.image_keys()["image_id"].to_pylist()
    label_of = dict(zip(ids, job.image_labels(), strict=True))

    def blocks() -> Iterator[Labelled]:
        for file in files:
            found, features = read_features(job.store, file.path)
            yield [label_of[image] for image in found.tolist()], features

    return measure_classes(blocks(), pooling, shape)


def read_shape(store: Store, path: str) -> tuple[str, list[int]]:
    """Read from a shard's metadata how its features were pooled, and of what shape."""
    with store.open(path) as file:
        metadata = pq.read_schema(file).metadata
    return metadata[b"pooling"].decode(), [int(side) for side in metadata[b"shape"].split()]


def write_weights(job: Job, layers: Sequence[Layer]) -> None:
    """Draw the weights of the shown layers that are convolutions, and of the first one."""
    scale = job.config.explain.scale
    recipe: ledger.Recipe = {"weights": job.vision.network.state_hash, "scale": scale}
    inputs = ledger.fingerprint(recipe)
    convolutions = [layer for layer in job.vision.table.layers if layer.kind == "Conv2d"]
    shown = {layer.name for layer in (*convolutions[:1], *layers)}
    module = build_module(job.vision.network)
    for name in [layer.name for layer in convolutions if layer.name in shown]:
        kernels = plots.kernels_of(module.get_submodule(name))
        if kernels is None:
            continue

        def build(name: str = name, kernels: np.ndarray = kernels) -> Written:
            sheet = plots.draw_kernels(name, kernels, scale == "shared")
            yield write_bytes(job.store, f"explanation/weights/{name}.png", sheet)

        job.ledger.make(Pass("weights", {}, (name,), inputs), build)


def write_probe(job: Job, layers: Sequence[Layer], summary: Summary) -> None:
    """Probe every layer with features and draw the accuracies beside one another."""
    rows = []
    for layer in layers:
        for row in probe_layer(job, layer.name):
            quality = summary.fields.get("quality", {}).get(layer.name)
            agreement = quality.get("label_agreement") if isinstance(quality, dict) else None
            rows.append({**row, "map_agreement": agreement})
    if not rows:
        log.info("explain: no linear probe: it needs features and two classes of two images")
        return
    table = pa.Table.from_pylist(rows, schema=PROBE)
    write_table(job.store, "explanation/probe.parquet", table)
    write_bytes(job.store, "explanation/probe.png", plots.draw_probe(table))


def probe_layer(job: Job, layer: str) -> list[dict[str, object]]:
    """Probe one layer, unless that is done; return its row, if it has one."""
    files = job.ledger.files("extract", f"features/{layer}")
    if not files:
        return []
    recipe: ledger.Recipe = {
        "features": digest_files(files),
        "labels": job.image_labels(),
        "seed": job.config.seed,
    }
    path = f"explanation/probe/{layer}.parquet"

    def build() -> Written:
        yield write_table(job.store, path, probe(job, layer))

    job.ledger.make(Pass("probe", {}, (layer,), ledger.fingerprint(recipe)), build)
    rows: list[dict[str, object]] = read_table(job.store, path).to_pylist()
    return rows


def probe(job: Job, layer: str) -> pa.Table:
    """Probe one layer: a row, or none where its features do not fit or classes are too few."""
    run = Run(job.store, job.ledger)
    size = sum(values.size for _, values in run.feature_blocks(layer))
    if size > LARGEST:
        log.info(
            "explain %s: no linear probe: %d numbers do not fit in memory; extract with "
            "pooling mean or sketch:256",
            layer,
            size,
        )
        return PROBE.empty_table()
    keys, features = run.features(layer)
    labels = [job.images.labels.of(key) for key in keys]
    return probe_rows(layer, np.asarray(features), labels, job.config.seed)
