"""The stage ``extract``: list, cut, do what is due, reconcile, merge the statistics."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from cnnvis_ray import channels, ledger
from cnnvis_ray.cluster import Session, SingleThread
from cnnvis_ray.config import Config
from cnnvis_ray.errors import IncompleteError, Refusals, RefusedError
from cnnvis_ray.extraction import (
    ExtractionSetup,
    ExtractionTask,
    Extractor,
    ImageDivider,
    batch_size,
    worker_bytes,
)
from cnnvis_ray.images import Entry, cut
from cnnvis_ray.ledger import (
    LABELS,
    Changes,
    Claim,
    ImageUnit,
    Ledger,
    Marker,
    Pass,
    Plan,
    Recipe,
    digest_files,
)
from cnnvis_ray.network import Layer, check_coverage, make_pooling
from cnnvis_ray.stages.job import Images, Job, Vision, tokens_recipe
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.stages.units import Failure, Units
from cnnvis_ray.storage import ShardFile, read_table, shard_writer, write_table

log = logging.getLogger(__name__)

LONGEST_FEATURE = 2**24  # numbers per image that one row may hold
LABEL_ROWS = pa.schema([("image_id", pa.int64()), ("label", pa.string())])
BLOCK_ROWS = 65536

Failures = list[Failure[ExtractionTask]]


@dataclass(slots=True)
class Extraction:
    """What extraction does.

    Attributes:
        images: the claim of rows and rejects.
        features: the claim of the layers.
        forgotten: passes of other layers whose images are done again by another recipe.
        plan: every live unit, those of this invocation's listing included.
        segment: what the plan grows by, if it does.
        finished: by pass name, the live units that are done.
    """

    job: Job
    images: Claim
    features: Claim
    forgotten: tuple[Pass, ...]
    plan: Plan
    changes: Changes
    segment: pa.Table | None
    finished: dict[str, set[str]]
    units: Units[ExtractionSetup, ExtractionTask] = field(init=False)

    def __post_init__(self) -> None:
        job = self.job
        due = list(self.due())
        total = self.plan.num_images
        self.units = Units(
            "extract",
            "images",
            Extractor,
            extraction_setup(job.config.run_dir, job.config, job.images, job.vision),
            len(due),
            total,
            total - sum(len(unit) for unit in due),
            ImageDivider(),
            single_thread(job.config, job.vision, sum(1 for u in self.plan.units() if len(u))),
        )

    def passes_due(self, unit: ImageUnit) -> tuple[Pass | None, tuple[Pass, ...]]:
        """Return the passes that have not done a unit: of images, and of features."""
        (images,) = self.images.passes
        return (
            None if unit.name in self.finished[images.name] else images,
            tuple(
                owner
                for owner in self.features.passes
                if unit.name not in self.finished[owner.name]
            ),
        )

    def due(self) -> Iterator[ImageUnit]:
        """Return the units that any pass has not done."""
        for unit in self.plan.units():
            if len(unit) and any(self.passes_due(unit)):
                yield unit

    def tasks(self) -> Iterator[ExtractionTask]:
        """Return each due unit with what of it is due, one by one."""
        done = self.job.ledger.markers(self.images.passes[0])
        for unit in self.due():
            images, features = self.passes_due(unit)
            labels = tuple(self.job.images.labels.of(key) for _, key in unit.images())
            rejects = frozenset(done[unit.name].rejects) if images is None else frozenset()
            yield ExtractionTask(unit, labels, images, features, rejects)

    def do(self, session: Session, summary: Summary) -> None:
        """Extract what is due and merge what it left.

        Raises:
            IncompleteError: units failed, or too many images were rejected; what is done is kept.
        """
        job, records = self.job, self.job.ledger
        self.open()
        changes = self.changes
        summary.note("source", new=changes.new, gone=changes.gone, changed=changes.changed)
        passes = (*self.images.passes, *self.features.passes)
        failed: Failures = []
        if self.units.num_tasks:
            note_threads(job, passes, self.units.place(job.config.cluster, session).cpus)
            failed = self.units.run(self.tasks(), job.config.cluster, session)
            records.refresh(passes)
            job.keys = job.labels = None
        else:
            log.info("extract: nothing is due, all %d images are done", self.plan.num_images)
        for layer in layers_of(self.features.passes):
            merge_statistics(records, layer, job.config.extract.exemplars)
        write_labels(job)
        if self.units.num_tasks or summary.unfinished:
            names = [name for name in job.store.names("channels") if not name.endswith(".parquet")]
            folders = ["images", "rejects", "features", *(f"channels/{name}" for name in names)]
            due = [failure.task.unit.name for failure in failed]
            records.sweep(("images", "extract"), folders, due)  # forgotten layers' too
        self.reconcile(failed, summary)

    def open(self) -> None:
        """Write the decision: passes, the plan's segment, and what is due again."""
        records = self.job.ledger
        gone = layers_of([*self.features.dropped, *self.forgotten])
        for owner in self.forgotten:
            log.warning(
                "extract: the features of %s are dropped, since their images are done again by "
                "another recipe; name them in layers to have them again",
                ", ".join(owner.layers),
            )
            records.drop(owner)
        records.open(self.images)
        records.open(self.features)
        stale = [layer for layer in gone if layer not in layers_of(records.passes("extract"))]
        for owner in [
            each for each in records.passes("statistics") if set(each.layers) & set(stale)
        ]:
            records.drop(owner)
        self.job.store.delete(f"channels/{layer}.parquet" for layer in stale)
        if self.segment is not None:
            plan = ledger.read_plan(self.job.store)
            ledger.append(self.job.store, plan, self.segment)
        live = {unit.name for unit in self.plan.units() if len(unit)}
        for owner in (*self.images.passes, *self.features.passes):
            self.finished[owner.name] = records.retire(owner, live)

    def reconcile(self, failed: Failures, summary: Summary) -> None:
        """Count: images = rows + rejects + those of failed units; raise what is missing."""
        config, records = self.job.config, self.job.ledger
        markers = records.markers(self.images.passes[0])
        rows = sum(marker.files[0].rows for marker in markers.values())
        rejects = sum(len(marker.rejects) for marker in markers.values())
        listed = self.plan.num_images
        missing = listed - rows - rejects
        summary.note("images", listed=listed, rows=rows, rejects=rejects, missing=missing)
        summary.fields["failed_units"] = {each.task.unit.name: each.error for each in failed}
        if self.units.num_tasks:
            summary.fields["crashed_images"] = self.crashed_images(markers.values())
            summary.note("notes", threads=mixed_threads(records))
        self.check_rows(markers)
        if failed:
            raise IncompleteError(
                f"{len(failed)} units failed, {missing} images are missing; first {failed[0]}; "
                "run again to retry them"
            )
        bound = config.images.max_reject_fraction
        if rejects > bound * listed:
            raise IncompleteError(
                f"{rejects} of {listed} images were rejected, above max_reject_fraction "
                f"{bound:g}; the {rows} rows are kept; see {self.job.store.root}/rejects"
            )

    def crashed_images(self, markers: Iterable[Marker]) -> dict[str, ledger.Value]:
        """Return the images that ended their workers' processes, with their units."""
        return {
            reject["key"]: marker.unit
            for marker in markers
            if marker.rejects
            for reject in read_table(self.job.store, marker.files[1].path).to_pylist()
            if reject["stage"] == "worker"
        }

    def check_rows(self, images: dict[str, Marker]) -> None:
        """Check that every pass has the rows that the images pass has.

        Raises:
            IncompleteError: a finished unit has another number of rows in some layer.
        """
        for owner in self.features.passes:
            for marker in self.job.ledger.markers(owner).values():
                expected = images[marker.unit].files[0].rows if marker.unit in images else None
                rows = {file.rows for file in marker.files if file.path.startswith("features/")}
                if rows != {expected}:
                    raise IncompleteError(
                        f"unit {marker.unit} of {owner.name} has {sorted(rows)} rows where its "
                        f"images have {expected}: run with --replace images, which does both again"
                    )


def decide(job: Job) -> Extraction:
    """Compare the source with the plan and the plan with the markers.

    Raises:
        RefusedError: a recipe changed, weights do not reach a layer, a feature is too long.
    """
    refusals = Refusals()
    vision = job.vision
    refusals.attempt(lambda: check_coverage(vision.network, vision.table, vision.layers))
    refusals.attempt(lambda: check_pooling(job.config, vision.layers))
    plan = ledger.read_plan(job.store)
    again = "images" in job.replace
    claims: list[Claim] = []
    with refusals.gather():
        recipe: Recipe = {
            "root": job.root,
            "images.unit_size": job.config.images.unit_size,
            "images.max_pixels": job.config.images.max_pixels,
            "images.thumbnail": job.config.images.thumbnail,
            "extract.predictions": vision.predictions,
        }
        wanted = Pass("images", recipe)
        again = again or ("extract" in job.replace and changed(job.ledger, wanted))
        claims.append(job.ledger.claim(wanted, again))
    others, forgotten = shared_layers(job, again)
    with refusals.gather():
        layers = tuple(layer.name for layer in vision.layers)
        wanted = Pass("extract", features_recipe(job), (*layers, *others))
        claims.append(job.ledger.claim(wanted, again or "extract" in job.replace))
    refusals.raise_all()
    grown, changes, segment = grow_plan(job, plan)
    live = {unit.name for unit in grown.units() if len(unit)}
    finished = {
        name: done & live for claim in claims for name, done in job.ledger.finished(claim).items()
    }
    images, features = claims
    return Extraction(job, images, features, forgotten, grown, changes, segment, finished)


def changed(records: Ledger, wanted: Pass) -> bool:
    """Whether a stage was done by another recipe."""
    return any(old.recipe != wanted.recipe for old in records.passes(wanted.stage))


def shared_layers(job: Job, again: bool) -> tuple[tuple[str, ...], tuple[Pass, ...]]:
    """Find what shares its units with images that are done again.

    Returns:
        Layers of the run's recipe that are done again with them although they were not asked
        for, and passes by other recipes, which are dropped.
    """
    if not again:
        return (), ()
    asked = {layer.name for layer in job.vision.layers}
    size = {"images.unit_size": job.config.images.unit_size}
    wanted = features_recipe(job)
    others, forgotten = [], []
    for owner in job.ledger.passes("extract"):
        rest = [layer for layer in owner.layers if layer not in asked]
        if rest and {**owner.recipe, **size} == wanted:
            others.extend(rest)
        elif rest and not asked & set(owner.layers):
            forgotten.append(owner)
    return tuple(others), tuple(forgotten)


def features_recipe(job: Job) -> Recipe:
    """Return what features depend on."""
    extract = job.config.extract
    return {
        "root": job.root,
        "images.unit_size": job.config.images.unit_size,
        "extract.pooling": extract.pooling,
        "extract.dtype": extract.dtype,
        "extract.precision": extract.precision,
        "extract.exemplars": extract.exemplars,
        "seed": job.config.seed if extract.pooling.startswith("sketch") else None,
        **tokens_recipe(job),
    }


def check_pooling(config: Config, layers: Sequence[Layer]) -> None:
    """Refuse features too long for one row, by layer."""
    extract = config.extract
    pooling = make_pooling(extract.pooling, config.seed)
    refusals = Refusals()
    for layer in layers:
        with refusals.gather():
            width = pooling.width(layer.channels, layer.height, layer.width)
            if width > LONGEST_FEATURE:
                raise RefusedError(
                    f"extract.pooling: {extract.pooling!r} makes {width:,} numbers per image at "
                    f"{layer.name}, at most {LONGEST_FEATURE:,} are allowed; use mean or "
                    "sketch:256"
                )
    refusals.raise_all()


def grow_plan(job: Job, plan: Plan) -> tuple[Plan, Changes, pa.Table | None]:
    """Bring the plan up to what the source has now, in memory."""
    listing, unit_size = job.images.listing, job.config.images.unit_size

    def cut_units(entries: Sequence[Entry]) -> list[list[Entry]]:
        return cut(entries, unit_size, listing.chunk_rows)

    if plan.unit_size not in (None, unit_size):
        units, changes = ledger.recut(plan, listing.entries, cut_units), Changes(0, 0, 0)
    else:
        units, changes = ledger.grow(plan, listing.entries, cut_units)
    if not units:
        return plan, changes, None
    grown, segment = ledger.extend(plan, units, unit_size)
    return grown, changes, segment


def extraction_setup(
    run_dir: str, config: Config, images: Images, vision: Vision
) -> ExtractionSetup:
    """Return what the workers of an extraction share."""
    return ExtractionSetup(
        run_dir,
        config.seed,
        images.source,
        config.images,
        config.extract,
        vision.network,
        {layer.name: layer for layer in vision.table.layers},
        vision.predictions,
    )


def single_thread(config: Config, vision: Vision, num_units: int) -> SingleThread:
    """Describe the workers of an extraction on CPUs, for placement."""
    size = batch_size(config.extract, "cpu")
    return SingleThread(worker_bytes(vision.network, vision.table.layers, size), num_units)


def layers_of(passes: Sequence[Pass]) -> list[str]:
    """List the layers of some passes."""
    return [layer for owner in passes for layer in owner.layers]


def merge_statistics(records: Ledger, layer: str, best: int) -> None:
    """Merge a layer's statistics in the order of units, unless the merged table is of these."""
    files = records.files("extract", f"channels/{layer}")
    if not files:
        return
    store, digest = records.store, digest_files(files)

    def build() -> Iterator[ShardFile]:
        pieces = (channels.from_table(read_table(store, file.path), best) for file in files)
        table = channels.merged_table(channels.merge_all(pieces))
        yield write_table(
            store, f"channels/{layer}.parquet", table.replace_schema_metadata({"units": digest})
        )

    records.make(Pass("statistics", {}, (layer,), digest), build)


def statistics_digest(records: Ledger, layer: str) -> str | None:
    """Return of which units a layer's merged statistics are; None where it has none."""
    files = records.files("extract", f"channels/{layer}")
    return digest_files(files) if files else None


def write_labels(job: Job) -> None:
    """Write the present label of every usable image where labels or images changed."""
    keys, labels = job.image_keys(), job.image_labels()
    text = json.dumps([digest_files(job.ledger.files("images", "images")), labels])

    def build() -> Iterator[ShardFile]:
        with shard_writer(job.store, LABELS, LABEL_ROWS) as writer:
            for first in range(0, len(labels), BLOCK_ROWS):
                ids = keys["image_id"].slice(first, BLOCK_ROWS).combine_chunks()
                block = pa.array(labels[first : first + BLOCK_ROWS], pa.string())
                writer.write(pa.table([ids, block], schema=LABEL_ROWS))
        yield writer.shard

    job.ledger.make(Pass("labels", {}, (), ledger.fingerprint({"labels": text})), build)


def note_threads(job: Job, passes: Sequence[Pass], threads: int) -> None:
    """Keep with each pass how many threads its workers had: values depend on it by a last bit."""
    for owner in passes:
        path = f"passes/{owner.name}/threads.json"
        known = read_threads(job.ledger, owner)
        if threads not in known:
            job.store.write(path, ledger.dump(sorted({*known, threads})))


def read_threads(records: Ledger, owner: Pass) -> list[int]:
    """Return the numbers of threads that a pass was made with."""
    try:
        return [
            int(each)
            for each in json.loads(records.store.read(f"passes/{owner.name}/threads.json"))
        ]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def mixed_threads(records: Ledger) -> str:
    """Return a note where features were made with several numbers of threads; else empty."""
    for owner in records.passes("extract"):
        threads = read_threads(records, owner)
        if len(threads) > 1:
            numbers = " and ".join(map(str, threads))
            return (
                f"features of {', '.join(owner.layers)} were made by workers of {numbers} "
                "threads: values may differ in their last bits (up to 1e-3 of the largest)"
            )
    return ""
