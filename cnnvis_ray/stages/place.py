"""The verb ``place``: a night of new images on the frozen map of a run, and what changed.

A night, ``placed/NAME``, is a run of its own with the run's network, layers and recipes: its
images are extracted as work units, resumable, exactly once in effect. Placing reads the run and
writes nothing of it.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from cnnvis_ray import ledger, monitoring
from cnnvis_ray.cluster import interrupt, session, snapshot, stoppable
from cnnvis_ray.config import Config, Maximize, check_name
from cnnvis_ray.errors import IncompleteError, RefusedError
from cnnvis_ray.images import cut
from cnnvis_ray.ledger import Pass, Run, by_number, open_run, read_plan
from cnnvis_ray.monitoring.pages import ChannelCrops
from cnnvis_ray.network import make_pooling
from cnnvis_ray.pictures import draw_scatter
from cnnvis_ray.reduction import pca_from_bytes, project_block
from cnnvis_ray.reduction.blocks import gather
from cnnvis_ray.reduction.layer import feature_blocks
from cnnvis_ray.stages import extract
from cnnvis_ray.stages.cards import read_shape
from cnnvis_ray.stages.job import Job, open_job
from cnnvis_ray.stages.run import check_cluster, check_run_dir
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes, write_table

MOST_NOVEL = 0.15  # of a night: three times what the reference itself has by definition
LEAST_KEPT = 0.9  # of the neighbours that the run's own images keep
CROPS = 4  # best images of a moved channel on either side of its card
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
FAILS = {"changed": {"changed"}, "not judged": {"changed", "not judged"}, None: set()}

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


def place(run_dir: str, config: Config, source: str, name: str) -> list[str]:
    """Place a night's images.

    Args:
        run_dir: the run, whose map stays as it is.
        config: the run's.
        source: of the night's images; the run's own source places what was added to it.
        name: of the night.

    Returns:
        The last screen.

    Raises:
        RefusedError: the run has no map, or the night has another recipe.
        IncompleteError: units failed, or the verdict is one that ``place.fail_on`` names.
        HeldError: another driver places this night.
    """
    try:
        check_name(name)
    except ValueError as failure:
        raise RefusedError(f"place --name: {failure}") from None
    check_run_dir(run_dir)
    run = open_run(run_dir)
    layers = [owner.layers[0] for owner in run.passes("reduce") if run.ledger.done(owner)]
    if not layers:
        raise RefusedError(f"place: {run_dir!r} has no map; first: cnnvis reduce {run_dir}")
    layers = sorted(set(layers) & set(run.layers()), key=by_number)
    night = night_config(config, run_dir, source, name, layers)
    store = Store(night.run_dir)
    with session(night.cluster) as opened, ledger.hold(store, snapshot, interrupt):
        job = open_job(night, ("extract",))
        check_recipe(run, job)
        job = leave_out_known(run, job)
        if not job.images.listing.entries:
            return [f"nothing new in {source}: every image is in the run"]
        work = extract.decide(job)
        check_cluster(job, {"extract": work}, opened)
        job.ledger.heal()
        summary = Summary(store)
        with summary.ending():
            job.write()
            with summary.timed("extract"), stoppable():
                work.do(opened, summary)
            with summary.timed("place"), stoppable():
                changes = compare(run, job, layers)
            verdict = str(changes["verdict"])
            summary.note("place", verdict=verdict)
            if verdict in FAILS[night.place.fail_on]:
                raise IncompleteError(
                    f"place: the verdict on {name} is {verdict!r} (place.fail_on); see "
                    f"{store.root}/changes.json"
                )
    return describe(store, changes)


def night_config(
    config: Config, run_dir: str, source: str, name: str, layers: Sequence[str]
) -> Config:
    """Return the configuration of a night: the run's recipes over another source."""
    images = config.images.model_copy(
        update={"source": source, "indices": None, "limit": None, "max_reject_fraction": 1.0}
    )
    return config.model_copy(
        update={
            "run_dir": f"{run_dir.rstrip('/')}/placed/{name}",
            "images": images,
            "layers": list(layers),
            "maximize": Maximize(layers=[]),
        }
    )


def check_recipe(run: Run, job: Job) -> None:
    """Refuse a night whose features cannot be compared with the run's.

    Raises:
        RefusedError: names each key that differs.
    """
    known = ledger.read_identity(run.store) or {}
    own = job.identity
    wanted = extract.features_recipe(job)
    old: dict[str, ledger.Value] = {key: v for key, v in known.items() if key != "images.source"}
    new: dict[str, ledger.Value] = {key: own[key] for key in old}
    for owner in run.passes("extract"):
        if {layer.name for layer in job.vision.layers} & set(owner.layers):
            for key in set(wanted) - {"root", "images.unit_size"}:
                old[key], new[key] = owner.recipe.get(key), wanted[key]
    changed = ledger.differences(old, json.loads(json.dumps(new)))
    if changed:
        raise RefusedError(
            f"place: {'; '.join(changed)}; a night needs the network and recipe of its run"
        )


def leave_out_known(run: Run, job: Job) -> Job:
    """Keep only what the run has not seen, where the night's source is the run's own."""
    known = ledger.read_identity(run.store) or {}
    if str(known.get("images.source")) != job.images.source.identity:
        return job
    listing = job.images.listing
    size = job.config.images.unit_size
    plan = read_plan(run.store)
    units, _ = ledger.grow(
        plan,
        listing.entries,
        lambda entries: cut(entries, size, listing.chunk_rows),
    )
    fresh = [row.entry for unit in units if unit.number >= plan.next_unit for row in unit.planned]
    job.images = replace(job.images, listing=replace(listing, entries=tuple(fresh)))
    return job


def compare(run: Run, job: Job, layers: Sequence[str]) -> dict[str, object]:
    """Place the night's images in every layer and write what changed, unless it is written."""
    files = [
        f.sha256 for layer in layers for f in job.ledger.files("extract", f"features/{layer}")
    ]
    maps = [f.sha256 for f in run.files("reduce", "reduction")]
    labels = job.image_labels()
    inputs = ledger.fingerprint({"files": files, "maps": maps, "labels": labels})
    recipe: ledger.Recipe = {"seed": job.config.seed}
    wanted = Pass("place", recipe, tuple(layers), inputs)
    job.ledger.make(wanted, lambda: write_night(run, job, layers))
    return dict(json.loads(job.store.read("changes.json")))


def write_night(run: Run, job: Job, layers: Sequence[str]) -> Iterator[ShardFile]:
    """Write a night's maps, rows of change, pictures and, last, changes.json."""
    night = Run(job.store, job.ledger)
    known, new = read_rows(run), read_rows(night)
    before: dict[str, Floats] = {}
    after: dict[str, Floats] = {}
    quality: dict[str, object] = {}
    tops: list[monitoring.NewTop] = []
    fields: dict[str, object] = {}
    for layer in layers:
        old_side, new_side = read_side(run, layer, run), read_side(night, layer, run)
        positions = read_positions(run, layer, old_side.ids)
        if not len(new_side.ids):
            continue
        near = monitoring.find_neighbours(old_side.points, new_side.points)
        placed = monitoring.place_images(positions, near)
        distances = near.distances[:, min(4, near.distances.shape[1] - 1)]
        yield write_map(job, layer, new_side.ids, new, placed, distances)
        judged = monitoring.judge_placement(
            old_side.points,
            positions,
            new_side.points,
            placed,
            [known.labels[each] for each in old_side.ids.tolist()],
            [new.labels[each] for each in new_side.ids.tolist()],
            job.config.seed,
        )
        quality[layer] = asdict(judged) if judged else None
        if old_side.values is not None and new_side.values is not None:
            rows = monitoring.draw_reference(len(old_side.ids), job.config.seed)
            before[layer], after[layer] = old_side.values[rows], new_side.values
        tops.extend(find_tops(run, night, layer, new_side.ids))
        title = f"{layer}  {len(placed):,} new images among {len(positions):,}"
        yield write_mosaic(
            job, layer, (known, old_side.ids, positions), (new, new_side.ids, placed), title
        )
        if layer == layers[-1]:  # the deepest layer tells kinds of things apart
            novelty = monitoring.find_novelty(read_fifths(run, layer, old_side), distances)
            keys = [new.keys[each] for each in new_side.ids.tolist()]
            cells = monitoring.compare_cells(positions, placed)
            classes = monitoring.compare_classes(
                list(known.labels.values()), list(new.labels.values())
            )
            fields = monitoring.novelty_fields(novelty, classes, cells, tops, keys)
            if novelty is not None:
                pictures = [new.thumbnails.get(each) for each in new_side.ids.tolist()]
                yield from write_picture(
                    job, "strangest", monitoring.draw_strangest(novelty, keys, pictures)
                )
    drift = judge(before, after, job, len(new.keys))
    document = {
        **monitoring.drift_fields(drift),
        **fields,
        "arrived": describe_arrival(night),
        "predictions": compare_predictions(known, new),
        "placement": quality,
    }
    for layer_drift in drift.layers[:1]:
        cards = list(find_crops(run, night, layer_drift.layer, layer_drift.channels, known, new))
        picture = monitoring.draw_channels(layer_drift.layer, cards)
        yield from write_picture(job, "channels", picture)
    rows_ = [
        {"layer": each.layer, **asdict(channel)}
        for each in drift.layers
        for channel in each.channels
    ]
    if rows_:
        yield write_table(job.store, "changes/channels.parquet", pa.Table.from_pylist(rows_))
    names, nights = read_nights(run, job)
    trends = monitoring.collect_trends([*nights, document])
    yield from write_picture(job, "trends", monitoring.draw_trends(trends, names))
    yield write_bytes(job.store, "changes.json", ledger.dump(document))


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
        fifths: Floats = flat.reshape(-1, 12)[:, 4]
        return fifths[np.isfinite(fifths)]
    near = monitoring.find_neighbours(side.points, side.points, 6)
    return near.distances[:, -1]


def write_map(
    job: Job,
    layer: str,
    ids: NDArray[np.int64],
    rows: Rows,
    placed: Floats,
    distances: Floats,
) -> ShardFile:
    """Write where the new images are."""
    table = pa.Table.from_pylist(
        [
            {
                "image_id": image,
                "key": rows.keys[image],
                "label": rows.labels[image],
                "x": float(x),
                "y": float(y),
                "image": {"bytes": rows.thumbnails[image], "path": rows.keys[image]},
                "distance": float(distance),
            }
            for image, (x, y), distance in zip(ids.tolist(), placed, distances, strict=True)
        ],
        schema=PLACED,
    )
    return write_table(job.store, f"embedding/{layer}.parquet", table)


Placed = tuple[Rows, NDArray[np.int64], Floats]


def write_mosaic(job: Job, layer: str, old: Placed, new: Placed, title: str) -> ShardFile:
    """Draw the map of old and new images, the new ones framed."""
    thumbnails: list[bytes] = []
    labels: list[str | None] = []
    positions: list[Floats] = []
    for mark, (rows, ids, where) in ((None, old), ("new", new)):
        thumbnails.extend(rows.thumbnails[image] for image in ids.tolist())
        labels.extend([mark] * len(ids))
        positions.append(where)
    mosaic = job.config.mosaic.model_copy(update={"colour": "label", "frame": "label"})
    picture = draw_scatter(thumbnails, np.concatenate(positions), labels, mosaic, title)
    return write_bytes(job.store, f"mosaic/{layer}-placed.png", encode(picture))


def encode(picture: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def write_picture(job: Job, name: str, picture: Image.Image | None) -> Iterator[ShardFile]:
    """Write a sheet, if there is anything on it."""
    if picture is not None:
        yield write_bytes(job.store, f"changes/{name}.png", encode(picture))


def best_images(of: Run, layer: str) -> list[list[dict[str, object]]]:
    """Return the exemplars of each channel of a layer, best first."""
    path = f"channels/{layer}.parquet"
    if not of.store.exists(path):
        return []
    found: list[list[dict[str, object]]] = of.statistics(layer)["exemplars"].to_pylist()
    return found


def find_tops(
    run: Run, night: Run, layer: str, ids: NDArray[np.int64]
) -> tuple[monitoring.NewTop, ...]:
    """Find the channels that a new image excites more than any image of the run."""
    before, now = best_images(run, layer), best_images(night, layer)
    row_of = {image: row for row, image in enumerate(ids.tolist())}
    if len(before) != len(now):
        return ()

    def values(side: list[list[dict[str, object]]]) -> Floats:
        return np.array([float(str(each[0]["value"])) if each else np.nan for each in side])

    rows = [row_of.get(int(str(each[0]["image_id"])), 0) if each else 0 for each in now]
    return monitoring.find_new_tops(layer, values(before), values(now), rows)


def find_crops(
    run: Run,
    night: Run,
    layer: str,
    channels: Sequence[monitoring.MovedChannel],
    known: Rows,
    new: Rows,
) -> Iterator[ChannelCrops]:
    """Return the best images of moved channels, of the night beside the run's."""
    before, now = best_images(run, layer), best_images(night, layer)

    def pictures(side: list[list[dict[str, object]]], channel: int, rows: Rows) -> list[bytes]:
        best = side[channel][:CROPS] if side else []
        images = [int(str(each["image_id"])) for each in best]
        return [rows.thumbnails[image] for image in images if image in rows.thumbnails]

    for moved in channels:
        yield ChannelCrops(
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


def compare_predictions(known: Rows, new: Rows) -> dict[str, object]:
    """Compare predicted classes and confidence with the run's."""
    classes = monitoring.compare_classes(
        list(known.predicted.values()), list(new.predicted.values())
    )
    return {
        "p_value": classes.p_value if classes else None,
        "confidence": monitoring.compare_confidence(
            np.array(list(known.confidence.values())), np.array(list(new.confidence.values()))
        ),
    }


def read_nights(run: Run, job: Job) -> tuple[list[str], list[Mapping[str, object]]]:
    """Read what earlier nights found, by name, and return all names with this one's last."""
    own = job.config.run_dir.rstrip("/").rpartition("/")[2]
    names, found = [], []
    for name in run.store.names("placed"):
        path = f"placed/{name}/changes.json"
        if name != own and run.store.exists(path):
            with suppress(ValueError):
                found.append(json.loads(run.store.read(path)))
                names.append(name)
    return [*names, own], found


def describe(store: Store, changes: Mapping[str, object]) -> list[str]:
    """Write the verdict, the layer, and where to look."""
    lines = [
        f"verdict   {changes['verdict']}"
        + (f" ({changes['reason']})" if changes["reason"] else "")
    ]
    layers = changes["layers"]
    assert isinstance(layers, list)
    for layer in layers:
        lines.append(
            f"{layer['layer']}: score {layer['score']:.2f} of {layer['threshold']:.2f}, largest "
            f"shift {layer['largest_shift']:.2f} standard deviations"
        )
    smallest = changes.get("smallest_change")
    if isinstance(smallest, float):
        lines.append(f"smallest change that would show: {smallest:.0%} of the images")
    novelty, placement = changes.get("novelty"), changes.get("placement")
    refit = False
    if isinstance(novelty, Mapping):
        share = float(novelty["share"])
        refit = share > MOST_NOVEL
        lines.append(f"novel images: {share:.0%}, 5 % are expected")
    for layer, judged in placement.items() if isinstance(placement, Mapping) else ():
        if judged:
            kept, usual = judged["kept"], judged["reference_kept"]
            refit |= kept < LEAST_KEPT * usual
            lines.append(
                f"{layer}: {kept:.3f} of the neighbours kept, {usual:.3f} in the run itself"
            )
    if refit:
        lines.append("the map does not fit these images well: fit it again over run and nights")
    lines.append(f"changes   {store.root}/changes.json")
    lines.append(f"pictures  {store.root}/changes")
    return lines
