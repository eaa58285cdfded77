"""The stage ``reduce``: features to positions, and positions to a map that opens anywhere.

Positions are kept without labels. The map, embedding/LAYER.parquet, joins keys, labels and
thumbnails to them shard by shard, so a renamed class costs a join and not a t-SNE.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cnnvis_ray import ledger
from cnnvis_ray.cluster import Session
from cnnvis_ray.config import recipe_of
from cnnvis_ray.errors import IncompleteError, Refusals, RefusedError
from cnnvis_ray.ledger import LABELS, Marker, Pass, digest_files
from cnnvis_ray.ledger.view import PRODUCT
from cnnvis_ray.reduction import (
    MapBlocks,
    PcaOptions,
    affinity_neighbours,
    as_dict,
    displacements,
    fit_pca,
    in_threads,
    in_turn,
    indices_of,
    judge_labels,
    map_bytes,
    pca_to_bytes,
    query_rows,
)
from cnnvis_ray.reduction.layer import (
    LayerFiles,
    LayerRequest,
    build_search,
    feature_blocks,
    read_labels,
    read_plane,
    reduce_layer,
)
from cnnvis_ray.reduction.neighbours import NUM_KEPT
from cnnvis_ray.reduction.searching import Search, search_bytes, search_range
from cnnvis_ray.reduction.tsne import FEWEST_IMAGES
from cnnvis_ray.stages.extract import write_labels
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.stages.units import map_items
from cnnvis_ray.storage import ShardFile, Store, read_table, shard_writer

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

FEW_IMAGES = 20_000  # of all layers together: below, starting workers takes longer than the maps
SEARCHED_IN_TASKS = 50_000  # images of a layer; fewer neighbours are searched in its own task
LARGE_NUMBERS = 2**27  # of a layer's features: above, its components are found on the cluster

THUMBNAIL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
EMBEDDING = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("image", THUMBNAIL),
        ("trust", pa.float32()),  # share of its 10 nearest images that the map keeps
        ("agreement", pa.float32()),  # share of those near it on the map that a second seed keeps
        ("displacement", pa.float32()),  # from its place on the first layer's map, in deviations
    ]
)


@dataclass(slots=True)
class Reduction:
    """The maps that are due; whether they are is known once the features are."""

    job: Job
    layers: tuple[str, ...]
    units: None = None

    def do(self, session: Session, summary: Summary) -> None:
        """Make the map of each layer whose features or recipe are new.

        Raises:
            IncompleteError: a map keeps fewer neighbours than ``min_knn_preservation``.
        """
        job = self.job
        made = make_maps(job, session, self.layers)
        if self.layers:
            write_labels(job)
        joined = join_maps(job, session, self.layers)
        known = summary.fields.get("quality", {})
        due = [each for each in self.layers if {each} & {*made, *joined} or each not in known]
        requests = [measure_request(job, layer) for layer in due]
        for layer, figures in zip(
            due, run_on(job, session, len(due))(measure_map, requests), strict=True
        ):
            summary.note("quality", **{layer: figures})
        if made or joined or summary.unfinished:
            job.ledger.sweep(("search",), ["search"])
            job.ledger.sweep(("reduce",), ["reduction"])
            job.ledger.sweep(("neighbours",), ["neighbours"])
            job.ledger.sweep(("embedding",), ["embedding"])
        check_quality(job, self.layers, summary)


def check_quality(job: Job, layers: Sequence[str], summary: Summary) -> None:
    """Hold the maps against the smallest share of neighbours that was asked for.

    Raises:
        IncompleteError: names the layers below it.
    """
    bar = job.config.reduce.min_knn_preservation
    if bar is None:
        return
    low = []
    for layer in layers:
        quality = summary.fields["quality"][layer]
        assert isinstance(quality, Mapping)
        kept = float(str(quality["knn_preservation"]))
        low += [f"{layer} keeps {kept:.3f}"] if kept < bar else []
    if low:
        raise IncompleteError(
            f"reduce: {'; '.join(low)} of its nearest neighbours, below "
            f"reduce.min_knn_preservation {bar:g}; the maps are kept"
        )


def decide(job: Job) -> Reduction:
    """Check recipes, and that there are features of enough images.

    Raises:
        RefusedError: a recipe changed, a layer has no finished features, or too few images.
    """
    refusals = Refusals()
    layers = tuple(layer.name for layer in job.chosen(job.config.reduce.layers))
    refusals.attempt(lambda: check_init(job.config.reduce.init_from))
    again = "reduce" in job.replace
    live = {unit.name for unit in ledger.read_plan(job.store).units() if len(unit)}
    for layer in layers:
        with refusals.gather():
            if "extract" not in job.stages:
                check_features(job, layer, live)
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


def check_init(path: str | None) -> None:
    """Refuse a start that is not a map of a run.

    Raises:
        RefusedError: says what to name.
    """
    if path is None:
        return
    folder, _, name = path.rpartition("/")
    if not name.endswith(".parquet") or not Store(folder or ".").exists(name):
        raise RefusedError(
            f"reduce.init_from: {path} is not there; name the embedding/LAYER.parquet of another "
            "run"
        )


def check_features(job: Job, layer: str, live: set[str]) -> None:
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


def due_layers(job: Job, layers: Sequence[str]) -> list[tuple[str, Pass, Pass]]:
    """Return the layers whose map or neighbours are due, with the passes of both."""
    due = []
    for layer in layers:
        files = job.ledger.files("extract", f"features/{layer}")
        digest = digest_files(files)
        wanted = reduce_pass(job, layer, digest)
        keys = ("reduce.pca_components", "reduce.whiten", "reduce.metric", "seed")
        recipe = {key: wanted.recipe[key] for key in keys}
        neighbours = Pass("neighbours", recipe, (layer,), digest)
        again = "reduce" in job.replace
        if again or not (job.ledger.is_made(wanted) and job.ledger.is_made(neighbours)):
            due.append((layer, wanted, neighbours))
    return due


def make_maps(job: Job, session: Session, layers: Sequence[str]) -> list[str]:
    """Find neighbours and maps of the layers where they are due, side by side if they are large.

    The first layer's map is the start of the others, so that they can be compared.

    Returns:
        The layers of which anything was made.
    """
    due = due_layers(job, layers)
    if not due:
        return []
    first = f"reduction/{layers[0]}/positions.parquet"
    again = "reduce" in job.replace
    requests = {}
    owners: dict[str, tuple[Pass, ...]] = {}
    for layer, wanted, neighbours in due:
        with_map = again or not job.ledger.is_made(wanted)
        claimed = [neighbours, wanted] if with_map else [neighbours]
        claims = [job.ledger.claim(each, again, remake=True) for each in claimed]
        start = None if layer == layers[0] else first
        owners[layer] = tuple(owner for claim in claims for owner in job.ledger.open(claim))
        search = open_search(job, layer, neighbours, again)
        requests[layer] = request_layer(job, session, layer, start, with_map, search)
    search_in_tasks(job, session, [each for each in requests.values() if each.search])
    leading = [requests.pop(layers[0])] if layers[0] in requests else []
    for batch in (leading, list(requests.values())):
        for request, found in zip(batch, run_requests(job, session, batch), strict=True):
            for note in found.notes:
                log.info("reduce %s: %s", request.layer, note)
            if found.left_out:
                log.warning(
                    "reduce %s: %d images with features that are not finite are left out",
                    request.layer,
                    found.left_out,
                )
            for owner, files in zip(
                owners[request.layer], (found.neighbours, found.map), strict=False
            ):
                job.ledger.drop_markers(owner)
                job.ledger.commit(owner, Marker(PRODUCT, files))
            for owner in search_passes(job, request.layer):
                job.ledger.drop(owner)
    return list(owners)


def search_passes(job: Job, layer: str) -> list[Pass]:
    """Return the search of a layer that goes on, in a list."""
    return [owner for owner in job.ledger.passes("search") if owner.layers == (layer,)]


def open_search(job: Job, layer: str, neighbours: Pass, again: bool) -> Search | None:
    """Open or continue the search of a large layer in tasks; None where it has few images."""
    rows = num_rows(job, layer)
    if rows <= SEARCHED_IN_TASKS:
        return None
    count = max(NUM_KEPT, affinity_neighbours(job.config.reduce, rows))
    wanted = replace(neighbours, stage="search", recipe={**neighbours.recipe, "count": count})
    job.ledger.open(job.ledger.claim(wanted, again, remake=True))
    return Search(job.config.run_dir, layer, count)


def search_in_tasks(job: Job, session: Session, requests: Sequence[LayerRequest]) -> None:
    """Build the indices of large layers and search them, each range a task that is done once."""
    owners = {each.layer: search_passes(job, each.layer)[0] for each in requests}
    new = [each for each in requests if PRODUCT not in job.ledger.done(owners[each.layer])]
    memory = max((layer_bytes(job, each) for each in requests), default=0)
    for request, files in zip(
        new, map_on(job, session, memory)(build_search, new) if new else (), strict=True
    ):
        job.ledger.commit(owners[request.layer], Marker(PRODUCT, files))
    due: list[tuple[Search, int]] = []
    for request in requests:
        done = job.ledger.markers(owners[request.layer])
        points, index = done[PRODUCT].files[:2]
        assert request.search is not None
        search = replace(request.search, digest=index.sha256)
        numbers = range(1, len(query_rows(points.rows)) + 1)
        due.extend((search, each) for each in numbers if f"{each:06d}.r0" not in done)
    found = map_on(job, session, memory)(search_one, due) if due else ()
    for count, ((search, number), file) in enumerate(zip(due, found, strict=True), 1):
        job.ledger.commit(owners[search.layer], Marker(f"{number:06d}.r0", (file,)))
        log.info("reduce %s: neighbours of %d of %d ranges", search.layer, count, len(due))


def search_one(task: tuple[Search, int]) -> ShardFile:
    """Search one range of rows."""
    return search_range(*task)


def layer_bytes(job: Job, request: LayerRequest) -> int:
    """Estimate the memory of a layer's search beside the interpreter."""
    rows = num_rows(job, request.layer)
    return search_bytes(rows, request.config.pca_components or request.num_features)


def request_layer(
    job: Job,
    session: Session,
    layer: str,
    start: str | None,
    with_map: bool,
    search: Search | None,
) -> LayerRequest:
    """Fit a layer's components and write down what its task needs."""
    config = job.config.reduce
    files = job.ledger.files("extract", f"features/{layer}")
    with job.store.open(files[0].path) as file:
        schema = pq.ParquetFile(file, pre_buffer=False).schema_arrow
    width = int(schema.field("feature").type.list_size)
    shards = tuple(file.path for file in files)
    pca = None
    kept = job.ledger.files("search", f"search/{layer}")
    known = [file.path for file in kept if file.path.endswith("/pca.npz")]
    if known:
        pca = job.store.read(known[0])
    elif config.pca_components is not None:
        shape = (num_rows(job, layer), width)
        options = PcaOptions(config.pca_components, job.config.seed)
        blocks = feature_blocks(job.store, shards)
        large = shape[0] * shape[1] > LARGE_NUMBERS
        mapped = map_on(job, session) if large else in_threads
        pca = pca_to_bytes(fit_pca(blocks, shape, options, mapped))
    return LayerRequest(
        job.config.run_dir,
        layer,
        shards,
        width,
        config,
        job.config.seed,
        pca,
        start,
        with_map,
        search,
    )


def run_requests(
    job: Job, session: Session, requests: Sequence[LayerRequest]
) -> Iterator[LayerFiles]:
    """Reduce layers in this process, or as tasks of the cluster where they are large."""
    if not requests:
        return iter(())
    width = max(each.config.pca_components or each.num_features for each in requests)
    rows = num_rows(job)
    memory = map_bytes(rows, width, job.config.reduce.perplexity)
    return run_on(job, session, len(requests), memory)(reduce_layer, requests)


def num_rows(job: Job, layer: str = "") -> int:
    """Count the images of the run, or those with features of a layer."""
    stage, folder = ("extract", f"features/{layer}") if layer else ("images", "images")
    return sum(file.rows for file in job.ledger.files(stage, folder))


def run_on(job: Job, session: Session, num_layers: int, memory: int = 0) -> MapBlocks:
    """Return how a function is applied per layer: here, or by tasks where images are many."""
    if num_layers * num_rows(job) <= FEW_IMAGES:
        return in_turn
    return map_on(job, session, memory)


def map_on(job: Job, session: Session, memory: int = 0, cpus: int | None = None) -> MapBlocks:
    """Return a map over the workers of the cluster, each with so many bytes and CPUs."""
    cluster = job.config.cluster
    if cpus and cluster.cpus_per_worker == "auto":
        cluster = cluster.model_copy(update={"cpus_per_worker": cpus})

    def mapped(
        function: Callable[[ItemT], ResultT], items: Sequence[ItemT], /
    ) -> Iterator[ResultT]:
        return map_items(function, items, job.config.run_dir, cluster, session, memory)

    return mapped


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    """What measuring a map needs: its layer and the shards of its neighbours."""

    run_dir: str
    layer: str
    seed: int
    neighbours: tuple[str, ...]


def measure_request(job: Job, layer: str) -> MeasureRequest:
    """Return what measuring a map needs."""
    files = job.ledger.files("neighbours", f"neighbours/{layer}")
    paths = tuple(file.path for file in files)
    return MeasureRequest(job.config.run_dir, layer, job.config.seed, paths)


def measure_map(request: MeasureRequest) -> dict[str, ledger.Value]:
    """Return a map's figures, with how well it keeps labels together."""
    store, layer = Store(request.run_dir), request.layer
    quality = json.loads(store.read(f"reduction/{layer}/quality.json"))
    path = f"reduction/{layer}/positions.parquet"
    table = read_table(store, path, ["image_id", "x", "y"])
    ids = table["image_id"].to_numpy()
    positions = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    labels = read_labels(store, ids) or [None] * len(ids)
    tables = [read_table(store, each) for each in request.neighbours]
    near = indices_of(ids, tables) if tables else None
    named = judge_labels(positions, labels, near, read_plane(store, path), request.seed)
    controls = quality.pop("controls", {})
    figures: dict[str, ledger.Value] = dict(as_dict([named], **quality))
    found = figures["controls"]
    assert isinstance(found, Mapping)
    beside = {name: dict(values) for name, values in controls.items()}
    for name, values in found.items():
        assert isinstance(values, Mapping)
        beside[name] = {**beside.get(name, {}), **values}
    figures["controls"] = beside
    return figures


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """What joining a run's images to some layers' maps needs.

    Attributes:
        positions: by layer, the file of its positions and of those that it moved from.
        images: shards of image rows.
    """

    run_dir: str
    positions: dict[str, tuple[str, str]]
    images: tuple[str, ...]


def join_maps(job: Job, session: Session, layers: Sequence[str]) -> list[str]:
    """Write maps with keys, present labels and thumbnails, where they are not written.

    In this process the image shards are read once for all layers together; of many images each
    layer's map is a task, so that no thumbnail passes the driver.

    Returns:
        The layers whose map was written now.
    """
    images = job.ledger.files("images", "images")
    labels = job.image_labels()
    owners: dict[str, Pass] = {}
    for layer in layers:
        positions = [f.sha256 for f in position_files(job, layer)]
        inputs: list[object] = [*positions, digest_files(images), labels]
        if layer != layers[0]:
            inputs.extend(f.sha256 for f in job.ledger.files("reduce", f"reduction/{layers[0]}"))
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        wanted = Pass("embedding", {}, (layer,), digest)
        if not job.ledger.is_made(wanted):
            (owners[layer],) = job.ledger.open(job.ledger.claim(wanted, remake=True))
    if not owners:
        return []
    paths = {
        layer: (position_files(job, layer)[0].path, reference_of(job, layers[0], layer))
        for layer in owners
    }
    whole = JoinRequest(job.config.run_dir, paths, tuple(f.path for f in images))
    mapped = run_on(job, session, len(owners))
    if mapped is in_turn:
        requests = [whole]
    else:
        requests = [replace(whole, positions={layer: pair}) for layer, pair in paths.items()]
    written = [file for files in mapped(join_layers, requests) for file in files]
    for (_, owner), file in zip(owners.items(), written, strict=True):
        job.ledger.commit(owner, Marker(PRODUCT, (file,)))
    return list(owners)


def join_layers(request: JoinRequest) -> list[ShardFile]:
    """Write the maps of some layers, reading the image shards once."""
    store = Store(request.run_dir)
    labels = read_table(store, LABELS)
    places = {
        layer: read_places(store, path, reference)
        for layer, (path, reference) in request.positions.items()
    }
    writers = {}
    with ExitStack() as stack:
        for layer in places:
            opened = shard_writer(store, f"embedding/{layer}.parquet", EMBEDDING)
            writers[layer] = stack.enter_context(opened)
        for path in request.images:
            rows = read_table(store, path, ["image_id", "key", "thumbnail"])
            for layer, writer in writers.items():
                writer.write(join_rows(labels, places[layer], rows))
    return [writers[layer].shard for layer in places]


def position_files(job: Job, layer: str) -> list[ShardFile]:
    """Return the file of a layer's positions, in a list."""
    files = job.ledger.files("reduce", f"reduction/{layer}")
    return [file for file in files if file.path.endswith("/positions.parquet")]


def reference_of(job: Job, first: str, layer: str) -> str:
    """Return the file of the positions that a layer's map moved from."""
    if layer == first:
        files = job.ledger.files("reduce", f"reduction/{layer}")
        started = [file.path for file in files if file.path.endswith("/start.parquet")]
        if started:
            return started[0]
    return position_files(job, first)[0].path


def read_places(store: Store, path: str, reference: str) -> pa.Table:
    """Read positions with how far each image is from its place on the reference map.

    Maps of earlier versions have no trust; maps of other images have no displacement.
    """
    table = read_table(store, path)
    for name in ("trust", "agreement"):
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.float32()))
    moved = pa.nulls(table.num_rows, pa.float32())
    other = read_table(store, reference, ["image_id", "x", "y"])
    if other["image_id"].equals(table["image_id"]):
        here, there = (
            np.stack([each["x"].to_numpy(), each["y"].to_numpy()], axis=1)
            for each in (table, other)
        )
        moved = pa.array(displacements(here, there), pa.float32())
    return table.append_column("displacement", moved).sort_by("image_id")


def join_rows(labels: pa.Table, places: pa.Table, rows: pa.Table) -> pa.Table:
    """Join keys, labels and thumbnails of one image shard to the positions of its images.

    Args:
        labels: of all images, by ascending id.
        places: positions of all images, by ascending id.
        rows: of the shard.
    """
    ids = rows["image_id"].combine_chunks()
    known = places["image_id"].to_numpy()
    first, stop = (
        np.searchsorted(known, [ids[0].as_py(), ids[-1].as_py() + 1]) if len(ids) else (0, 0)
    )
    own = places.slice(first, stop - first).combine_chunks()
    rows = rows.take(pc.index_in(own["image_id"], value_set=ids))
    names = rows["key"].combine_chunks()
    at = np.searchsorted(labels["image_id"].to_numpy(), own["image_id"].to_numpy())
    label = labels["label"].take(pa.array(at)).combine_chunks()
    pictures = pa.StructArray.from_arrays(
        [rows["thumbnail"].combine_chunks(), names], fields=list(THUMBNAIL)
    )
    floats = [own[name] for name in ("x", "y", "trust", "agreement", "displacement")]
    columns = [own["image_id"], names, label, *floats[:2], pictures, *floats[2:]]
    return pa.table(columns, schema=EMBEDDING)
