"""What explaining joins: cards, class maps, an image per class, weights and linear probes.

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

from cnnvis_ray import ledger
from cnnvis_ray.config import recipe_of
from cnnvis_ray.explanation import (
    PROBE,
    ClassMeans,
    ExplanationSetup,
    build_cards,
    chosen_channels,
    draw_card_sheets,
    draw_class_heat,
    draw_examples,
    measure_classes,
    plots,
    probe_rows,
    summarize_heat,
)
from cnnvis_ray.explanation.classes import Labelled
from cnnvis_ray.ledger import SLOTS, Pass, Run, digest_files, read_features, read_shape
from cnnvis_ray.maximization import describe_recipe
from cnnvis_ray.network import Layer, build_module
from cnnvis_ray.pictures import write_sheet
from cnnvis_ray.stages.catalogue import look_recipe
from cnnvis_ray.stages.extract import statistics_digest
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile, read_table, write_bytes, write_table

log = logging.getLogger(__name__)

LARGEST = 2**28  # numbers of a layer's features that a probe reads into memory: 1 GiB

MOST_CLASSES = 40  # on the sheet with an image of each

Written = Iterator[ShardFile]


def write_products(job: Job, setup: ExplanationSetup, summary: Summary) -> None:
    """Bring cards, class maps, weight sheets and probes up to what they are made from."""
    write_class_maps(job, setup, summary)
    write_examples(job)
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
    look = job.config.pictures
    recipe = look_recipe(look, ("classes",), "heat")

    def build() -> Written:
        shards = (read_table(job.store, file.path) for file in files)
        heat = summarize_heat(shards, job.images.labels.of)
        summary.note("explain", target=str(setup.kind), **heat.fidelity())
        if not heat.means:
            return
        yield write_table(job.store, "explanation/classes.parquet", heat.table())
        needs = job.vision.network.preprocess
        for method in heat.methods:
            sheet = draw_class_heat(heat, method, partial(read_thumbnails, job), needs, look)
            yield from write_sheet(job.store, f"explanation/classes-{method}", sheet, look)

    job.ledger.make(Pass("classes", recipe, (), digest), build)


def write_examples(job: Job) -> None:
    """Draw one image of each class, the first that the run has, classes by name."""
    first: dict[str, int] = {}
    ids = job.image_keys()["image_id"].to_pylist()
    for image, label in zip(ids, job.image_labels(), strict=True):
        if label is not None:
            first.setdefault(label, image)
    shown = {label: first[label] for label in sorted(first)[:MOST_CLASSES]}
    if len(shown) < 2:
        return
    look = job.config.pictures
    recipe = look_recipe(look, ("examples",))

    def build() -> Written:
        thumbnails = read_thumbnails(job, set(shown.values()))
        examples = {label: thumbnails[image] for label, image in shown.items()}
        sheet = draw_examples(examples, look)
        yield from write_sheet(job.store, "explanation/examples", sheet, look)

    inputs = ledger.fingerprint({"images": list(shown.items())})
    job.ledger.make(Pass("examples", recipe, (), inputs), build)


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
    crops = records.files("crops", f"explanation/crops/{name}")
    if not crops:
        return False
    pictures = read_pictures(job, name)
    features = records.files("extract", f"features/{name}")
    inputs = [
        digest_files(crops),
        statistics_digest(records, name),
        [] if pictures is None else first_activations(pictures),
        digest_files(features),
        job.image_labels(),
        str(job.config.explain.channels),
    ]
    look = look_recipe(job.config.pictures, (), "crops")
    catalogue = job.config.maximize.name
    if catalogue != "default" and pictures is not None:
        look = {**look, "catalogue": catalogue}
    drawn = [look] if look else []  # earlier versions had none of this
    digest = hashlib.sha256(json.dumps([*inputs, *drawn]).encode()).hexdigest()
    build = partial(build_layer, job, layer, crops, pictures, features)
    return records.make(Pass("cards", {}, (name,), digest), build)[1]


def first_activations(pictures: pa.Table) -> list[list[float]]:
    """Return channel and activation of the first picture of each channel."""
    first: dict[int, float] = {}
    for row in pictures.select(["channel", "activation"]).to_pylist():
        first.setdefault(row["channel"], row["activation"])
    return [[channel, activation] for channel, activation in sorted(first.items())]


def build_layer(
    job: Job,
    layer: Layer,
    crops: Sequence[ShardFile],
    pictures: pa.Table | None,
    features: Sequence[ShardFile],
) -> Written:
    """Write one layer's table of cards, their sheets and the channels' selectivity."""
    config, name = job.config, layer.name
    means = read_classes(job, features)
    table = build_cards(
        chosen_channels(config.explain.channels, layer.channels, name),
        Run(job.store, job.ledger).statistics(name),
        (read_table(job.store, file.path) for file in crops),
        pictures,
        means,
        layer,
        job.vision.network.preprocess.crop,
    )
    yield write_table(job.store, f"explanation/cards/{name}.parquet", table)
    title = job.title_of(name)
    if pictures is not None:
        title += f", catalogue {config.maximize.name}"
    notes, classes = describe_cards(job, layer), job.class_names(name)
    most = config.extract.exemplars
    sheets = draw_card_sheets(table, title, most, notes, classes, config.pictures)
    for number, sheet in enumerate(sheets):
        stem = f"explanation/cards/{name}-{number:03d}"
        yield from write_sheet(job.store, stem, sheet, config.pictures)
    if means is not None:
        yield write_table(job.store, f"explanation/selectivity/{name}.parquet", means.table())


def describe_cards(job: Job, layer: Layer) -> list[str]:
    """Return what stands below the title of a layer's cards."""
    sees = layer.receptive_field
    field = "the whole image" if sees is None else f"{sees[0]:g} x {sees[1]:g} pixels"
    shown = "what it saw" if layer.first_token is None else "the patch of its token"
    drawn = {
        "box": "; box: the neuron's place",
        "mask": "; dark: the channel is below half of its maximum",
        "none": "",
    }[job.config.pictures.crops]
    notes = [
        f"a neuron sees {field}; crops show {shown}, best first, and its maximum{drawn}; "
        "histograms on a log scale"
    ]
    for owner in job.ledger.passes("maximize"):
        if (owner.subject, owner.layers) == (job.config.maximize.name, (layer.name,)):
            notes.append(f"pictures of {owner.subject}: {describe_recipe(owner.recipe)}")
    return notes


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


def write_weights(job: Job, layers: Sequence[Layer]) -> None:
    """Draw the weights of the shown layers that are convolutions, and of the first one."""
    explain, look = job.config.explain, job.config.pictures
    outside = set(type(explain).model_fields) - {"kernels"}
    recipe: ledger.Recipe = {
        "weights": job.vision.network.state_hash,
        "scale": explain.scale,
        **recipe_of(explain, outside),
        **look_recipe(look, ("weights",)),
    }
    inputs = ledger.fingerprint(recipe)
    convolutions = [layer for layer in job.vision.table.layers if layer.kind == "Conv2d"]
    shown = {layer.name for layer in (*convolutions[:1], *layers)}
    module = build_module(job.vision.network)
    for name in [layer.name for layer in convolutions if layer.name in shown]:
        kernels = plots.kernels_of(module.get_submodule(name))
        if kernels is None:
            continue

        def build(name: str = name, kernels: np.ndarray = kernels) -> Written:
            stem = f"explanation/weights/{name}"
            sheet = plots.draw_kernels(name, kernels, explain, look)
            yield from write_sheet(job.store, stem, sheet, look)
            if kernels.shape[1] == 3:
                sheet = plots.draw_kernels(name, kernels, explain, look, grey=True)
                yield from write_sheet(job.store, f"{stem}-grey", sheet, look)

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
    for kind, data in plots.draw_probe(table, job.config.pictures).items():
        write_bytes(job.store, f"explanation/probe.{kind}", data)


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
