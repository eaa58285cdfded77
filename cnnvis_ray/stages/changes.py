"""What a night writes: maps of the new images, rows of change, pictures, and changes.json."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from cnnvis_ray import ledger, monitoring
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import Pass, Run
from cnnvis_ray.pictures import draw_scatter, encode_png
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.sides import (
    Floats,
    Rows,
    Side,
    best_images,
    read_fifths,
    read_nights,
    read_positions,
    read_rows,
    read_side,
)
from cnnvis_ray.storage import ShardFile, write_bytes, write_table

CROPS = 4  # best images of a moved channel on either side of its card
MOST_NIGHTS = 30
LISTED = 24  # of a list in changes.json; the tables have all
PLACED = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("distance", pa.float32()),  # to the fifth nearest image of the run, in feature units
    ]
)


@dataclass(frozen=True, slots=True)
class PlacedLayer:
    """One layer of a night on the run's map.

    Attributes:
        name: of the layer.
        old: the run's images.
        new: the night's images.
        positions: of the run's images on the map.
        placed: where the night's images are.
        distances: of each new image to its fifth nearest image of the run.
    """

    name: str
    old: Side
    new: Side
    positions: Floats
    placed: Floats
    distances: Floats


def compare(run: Run, job: Job, layers: Sequence[str]) -> dict[str, object]:
    """Place the night's images in every layer and write what changed, unless it is written."""
    files = [
        f.sha256 for layer in layers for f in job.ledger.files("extract", f"features/{layer}")
    ]
    maps = [f.sha256 for f in run.files("reduce", "reduction")]
    inputs = ledger.fingerprint({"files": files, "maps": maps, "labels": job.image_labels()})
    wanted = Pass("place", {"seed": job.config.seed}, tuple(layers), inputs)
    job.ledger.make(wanted, lambda: write_night(run, job, layers))
    return dict(json.loads(job.store.read("changes.json")))


def write_night(run: Run, job: Job, layers: Sequence[str]) -> Iterator[ShardFile]:
    """Write a night's maps, rows of change, pictures and, last, changes.json."""
    night = Run(job.store, job.ledger)
    sides = read_rows(run), read_rows(night)
    known, new = sides
    before: dict[str, Floats] = {}
    after: dict[str, Floats] = {}
    quality: dict[str, object] = {}
    tops: list[dict[str, object]] = []
    usual_tops = 0.0
    deepest: PlacedLayer | None = None  # deep layers tell kinds of things apart
    for name in layers if new.keys else ():
        layer = deepest = place_layer(run, night, name)
        yield write_map(job, layer, new.images(layer.new.ids))
        judged = monitoring.judge_placement(
            layer.old.points,
            layer.positions,
            layer.new.points,
            layer.placed,
            known.images(layer.old.ids).labels,
            new.images(layer.new.ids).labels,
            job.config.seed,
        )
        quality[name] = asdict(judged) if judged else None
        if layer.old.values is not None and layer.new.values is not None:
            rows = monitoring.draw_reference(len(layer.old.ids), job.config.seed)
            before[name], after[name] = layer.old.values[rows], layer.new.values
        found, usual = find_tops(run, night, layer, new)
        tops.extend(found)
        usual_tops += usual
        yield write_mosaic(job, layer, known, new)
    drift = judge(before, after, job, len(new.keys))
    document: dict[str, object] = {
        **monitoring.drift_fields(drift),
        "arrived": describe_arrival(night),
        "placement": quality,
        "new_tops": tops[:LISTED],
        "num_new_tops": len(tops),
        "expected_new_tops": usual_tops,
    }
    yield from write_channels(run, night, job, drift, sides)
    yield from write_predictions(job, known, new, document)
    yield from write_novelty(run, job, deepest, sides, document)
    yield from write_tops(job, tops, usual_tops, new)
    yield from write_trends(run, job, document)
    yield write_bytes(job.store, "changes.json", ledger.dump(document))


def night_name(job: Job) -> str:
    """Return NAME of placed/NAME."""
    return job.config.run_dir.rstrip("/").rpartition("/")[2]


def place_layer(run: Run, night: Run, name: str) -> PlacedLayer:
    """Find where a night's images are on the run's map of a layer."""
    old, new = read_side(run, name, run), read_side(night, name, run)
    positions = read_positions(run, name, old.ids)
    near = monitoring.find_neighbours(old.points, new.points)
    fifth = near.distances[:, min(4, near.distances.shape[1] - 1)]
    return PlacedLayer(name, old, new, positions, monitoring.place_images(positions, near), fifth)


def judge(
    before: Mapping[str, Floats], after: Mapping[str, Floats], job: Job, num_images: int
) -> monitoring.Drift:
    """Compare the night with the run, or state why it cannot be judged."""
    if not before:
        reason = (
            "no image of the night can be used"
            if not num_images
            else "no layer has a value per channel; extract with pooling mean, max or grid:K"
        )
        return monitoring.not_judged(reason, 0.01, num_images, 0)
    return monitoring.compare_night(before, after, seed=job.config.seed)


def write_map(job: Job, layer: PlacedLayer, images: monitoring.Images) -> ShardFile:
    """Write where the new images are."""
    table = pa.Table.from_pydict(
        {
            "image_id": images.image_ids,
            "key": images.keys,
            "label": images.labels,
            "x": layer.placed[:, 0],
            "y": layer.placed[:, 1],
            "image": [
                {"bytes": picture, "path": key}
                for picture, key in zip(images.thumbnails, images.keys, strict=True)
            ],
            "distance": layer.distances.astype(np.float32),
        },
        schema=PLACED,
    )
    return write_table(job.store, f"embedding/{layer.name}.parquet", table)


def write_mosaic(job: Job, layer: PlacedLayer, known: Rows, new: Rows) -> ShardFile:
    """Draw the map of old and new images, the new ones framed."""
    old_ids, new_ids = layer.old.ids.tolist(), layer.new.ids.tolist()
    thumbnails = [known.thumbnails[each] for each in old_ids]
    thumbnails += [new.thumbnails[each] for each in new_ids]
    labels = [None] * len(old_ids) + ["new"] * len(new_ids)
    mosaic = job.config.mosaic.model_copy(update={"colour": "label", "frame": "label"})
    title = f"{layer.name}  {len(new_ids):,} new images among {len(old_ids):,}"
    positions = np.concatenate([layer.positions, layer.placed])
    picture = draw_scatter(thumbnails, positions, labels, mosaic, title)
    return write_bytes(job.store, f"mosaic/{layer.name}-placed.png", encode_png(picture))


def write_picture(job: Job, name: str, picture: Image.Image | None) -> Iterator[ShardFile]:
    """Write a picture, if there is anything on it."""
    if picture is not None:
        yield write_bytes(job.store, f"changes/{name}.png", encode_png(picture))


def write_rows(
    job: Job, name: str, rows: Sequence[Mapping[str, object]], schema: pa.Schema
) -> ShardFile:
    """Write rows of change."""
    table = pa.Table.from_pylist(list(rows), schema=schema)
    return write_table(job.store, f"changes/{name}.parquet", table)


def write_channels(
    run: Run, night: Run, job: Job, drift: monitoring.Drift, rows: tuple[Rows, Rows]
) -> Iterator[ShardFile]:
    """Write the most moved channels of all layers, and the cards of the most changed one."""
    moved = [
        {"layer": each.layer, **asdict(channel)}
        for each in drift.layers
        for channel in each.channels
    ]
    yield write_rows(job, "channels", moved, monitoring.MOVED_CHANNELS)
    for layer in drift.layers[:1]:
        cards = list(find_crops(run, night, layer.layer, layer.channels, *rows))
        picture = monitoring.draw_channels(layer.layer, cards)
        yield from write_picture(job, "channels", picture)


def write_predictions(
    job: Job, known: Rows, new: Rows, document: dict[str, object]
) -> Iterator[ShardFile]:
    """Write the counts of labels and of predicted classes, and how confident predictions are."""
    labels = monitoring.compare_classes(list(known.labels.values()), list(new.labels.values()))
    predicted = monitoring.compare_classes(
        list(known.predicted.values()), list(new.predicted.values())
    )
    before, now = (np.array(list(side.confidence.values())) for side in (known, new))
    document["classes"] = monitoring.class_fields(labels)
    document["predictions"] = {
        "p_value": None,
        "unknown": {},
        "counts": {},
        **(monitoring.class_fields(predicted) or {}),
        "confidence": monitoring.compare_confidence(before, now),
    }
    rows = [
        {"kind": kind, "name": name, "images": count, "expected": expected, "known": known_class}
        for kind, classes in (("label", labels), ("prediction", predicted))
        if classes is not None
        for known_class, counts in (
            (True, classes.counts),
            (False, {name: (count, 0.0) for name, count in classes.unknown.items()}),
        )
        for name, (count, expected) in counts.items()
    ]
    yield write_rows(job, "predictions", rows, monitoring.CLASS_CHANGES)
    shown = predicted or labels
    if shown is not None:
        what = "Predicted classes" if predicted else "Labels"
        picture = monitoring.draw_classes(shown, (before, now), what)
        yield from write_picture(job, "predictions", picture)


def write_novelty(
    run: Run,
    job: Job,
    layer: PlacedLayer | None,
    sides: tuple[Rows, Rows],
    document: dict[str, object],
) -> Iterator[ShardFile]:
    """Write what is novel, what the run has already, and the cells that grew or emptied."""
    known, new = sides
    novelty = None
    cells: tuple[monitoring.CellChange, ...] = ()
    rows: list[dict[str, object]] = []
    duplicates = monitoring.KNOWN_DUPLICATES.empty_table()
    images = monitoring.Images([], [], [])
    if layer is not None:
        images = new.images(layer.new.ids)
        novelty = monitoring.find_novelty(read_fifths(run, layer.name, layer.old), layer.distances)
        cells = monitoring.compare_cells(layer.positions, layer.placed)
        features = [
            side.points if side.values is None else side.values for side in (layer.old, layer.new)
        ]
        duplicates = monitoring.find_known(known.images(layer.old.ids), images, *features)
        picture = monitoring.draw_cells(layer.positions, layer.placed, cells, layer.name)
        yield from write_picture(job, "cells", picture)
    if novelty is not None:
        rows = monitoring.novelty_rows(novelty, images)
        strangest = monitoring.draw_strangest(novelty, images.keys, images.thumbnails)
        yield from write_picture(job, "strangest", strangest)
    yield write_rows(job, "novelty", rows, monitoring.NOVEL_IMAGES)
    cell_rows = [{"layer": layer.name if layer else "", **asdict(cell)} for cell in cells]
    yield write_rows(job, "cells", cell_rows, monitoring.CELL_CHANGES)
    yield write_table(job.store, "changes/duplicates.parquet", duplicates)
    sheet = monitoring.draw_known(duplicates, new.thumbnails, known.thumbnails)
    yield from write_picture(job, "duplicates", sheet)
    document["novelty"] = monitoring.novelty_fields(novelty, images.keys)
    document["cells"] = [asdict(cell) for cell in cells]
    found = duplicates.select(["key", "known_key", "score"]).to_pylist()
    document["duplicates"] = {
        "images": len({row["key"] for row in found}),
        "pairs": len(found),
        "first": found[:LISTED],
    }


def write_tops(
    job: Job, tops: Sequence[Mapping[str, object]], usual: float, new: Rows
) -> Iterator[ShardFile]:
    """Write the channels that a new image excites more than any image of the run."""
    yield write_rows(job, "tops", tops, monitoring.NEW_TOPS)
    table = pa.Table.from_pylist(list(tops), schema=monitoring.NEW_TOPS)
    yield from write_picture(job, "tops", monitoring.draw_tops(table, new.thumbnails, usual))


def write_trends(run: Run, job: Job, document: dict[str, object]) -> Iterator[ShardFile]:
    """Write the figures of this night and of those before it."""
    names, nights = read_nights(run, night_name(job))
    trends = monitoring.collect_trends([*nights, document], MOST_NIGHTS)
    names = [*names, night_name(job)][-MOST_NIGHTS:]
    document["trends"] = {"nights": names, "figures": trends}
    yield from write_picture(job, "trends", monitoring.draw_trends(trends, names))


def find_tops(
    run: Run, night: Run, layer: PlacedLayer, new: Rows
) -> tuple[list[dict[str, object]], float]:
    """Find the channels that a new image excites more than any image of the run.

    Returns:
        Rows, largest relative excess first, and how many a night like the run brings.
    """
    before, now = best_images(run, layer.name), best_images(night, layer.name)
    if len(before) != len(now):
        return [], 0.0

    def values(side: list[list[dict[str, object]]]) -> Floats:
        return np.array([float(str(each[0]["value"])) if each else np.nan for each in side])

    ids = [int(str(each[0]["image_id"])) if each else -1 for each in now]
    found = monitoring.find_new_tops(layer.name, values(before), values(now), ids)
    usual = monitoring.expected_new_tops(len(now), len(layer.old.ids), len(layer.new.ids))
    rows = [
        {
            "layer": top.layer,
            "channel": top.channel,
            "value": top.value,
            "before": top.before,
            "image_id": top.image,
            "key": new.keys[top.image],
        }
        for top in found
        if top.image in new.keys
    ]
    return rows, usual


def find_crops(
    run: Run,
    night: Run,
    layer: str,
    channels: Sequence[monitoring.MovedChannel],
    known: Rows,
    new: Rows,
) -> Iterator[monitoring.ChannelCrops]:
    """Return the best images of moved channels, of the night beside the run's."""
    before, now = best_images(run, layer), best_images(night, layer)

    def pictures(side: list[list[dict[str, object]]], channel: int, rows: Rows) -> list[bytes]:
        best = side[channel][:CROPS] if side else []
        images = [int(str(each["image_id"])) for each in best]
        return [rows.thumbnails[image] for image in images if image in rows.thumbnails]

    for moved in channels:
        yield monitoring.ChannelCrops(
            moved, pictures(now, moved.channel, new), pictures(before, moved.channel, known)
        )


def describe_arrival(night: Run) -> dict[str, object]:
    """Count what arrived and what was rejected, by reason."""
    reasons: dict[str, int] = {}
    with suppress(RefusedError):
        for reject in night.rejects().to_pylist():
            name = f"{reject['stage']}: {reject['error']}"
            reasons[name] = reasons.get(name, 0) + 1
    rows = sum(file.rows for file in night.files("images", "images"))
    return {"images": rows, "rejects": sum(reasons.values()), "reasons": reasons}
