"""The verb ``extract``: list, cut, work through what is due, reconcile, merge the statistics."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnnvis_ray import ledger
from cnnvis_ray.cluster import Outcome, Progress, Seat, Session, place, work
from cnnvis_ray.errors import IncompleteError
from cnnvis_ray.extraction import (
    ExtractionReport,
    ExtractionSetup,
    ExtractionTask,
    Extractor,
    ImageDivider,
)
from cnnvis_ray.images import Entry, cut
from cnnvis_ray.ledger import Changes, ImageUnit, Marker, Pass, Plan
from cnnvis_ray.ledger.fingerprints import Value
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.merging import merge_statistics
from cnnvis_ray.stages.reaching import check_seen
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import read_table

log = logging.getLogger(__name__)

ExtractionOutcome = Outcome[ExtractionTask, ExtractionReport]


@dataclass(frozen=True, slots=True)
class Due:
    """What extraction has to do.

    Attributes:
        plan: all live units.
        images: the pass of rows and rejects.
        features: the passes of features.
        finished: by pass name, the names of the live units that are done.
    """

    plan: Plan
    images: Pass
    features: tuple[Pass, ...]
    finished: dict[str, set[str]]

    def passes_due(self, unit: ImageUnit) -> tuple[Pass | None, tuple[Pass, ...]]:
        """Say which passes have not done a unit."""
        images = None if unit.name in self.finished[self.images.name] else self.images
        return images, tuple(
            owner for owner in self.features if unit.name not in self.finished[owner.name]
        )

    def units(self) -> Iterator[ImageUnit]:
        """Give the units that any pass has not done."""
        for unit in self.plan.units():
            images, features = self.passes_due(unit)
            if len(unit) and (images or features):
                yield unit


def extract(job: Job, session: Session, summary: Summary) -> None:
    """Extract what is due and merge what it left.

    Raises:
        RefusedError: a recipe changed, or the cluster cannot offer what was asked.
        IncompleteError: units failed, or too many images were rejected; what is done is kept.
    """
    due = find_due(job, summary)
    num_due = sum(1 for _ in due.units())
    failed = work_through(job, session, due, num_due) if num_due else []
    if not num_due:
        log.info("extract: nothing is due, all %d images are done", due.plan.num_images)
    for layer in job.vision.layers:
        merge_statistics(job.store, due.features, layer.name, job.config.extract.exemplars)
    folders = [f"{kind}/{layer}" for kind in ("features", "channels") for layer in layers_of(due)]
    ledger.sweep(job.store, ("images", "extract"), ["images", "rejects", *folders])
    reconcile(job, due, failed, summary)


def layers_of(due: Due) -> list[str]:
    """List the layers of all passes."""
    return [layer for owner in due.features for layer in owner.layers]


def find_due(job: Job, summary: Summary) -> Due:
    """Hold the source against the plan and the plan against the markers."""
    images = claim_images(job)
    features = ledger.claim(job.store, features_pass(job), "extract" in job.replace)
    plan, changes = update_plan(job)
    summary.note("source", new=changes.new, gone=changes.gone, changed=changes.changed)
    live = {unit.name for unit in plan.units() if len(unit)}
    finished = {owner.name: ledger.retire(job.store, owner, live) for owner in (images, *features)}
    return Due(plan, images, tuple(features), finished)


def claim_images(job: Job) -> Pass:
    """Find or open the pass of rows and rejects."""
    config = job.config
    recipe: ledger.Recipe = {
        "root": job.root,
        "images.unit_size": config.images.unit_size,
        "images.max_pixels": config.images.max_pixels,
        "images.thumbnail": config.images.thumbnail,
        "extract.predictions": job.vision.predictions,
    }
    replace = bool({"images", "extract"} & job.replace)
    return ledger.claim(job.store, Pass("images", recipe), replace)[0]


def features_pass(job: Job) -> Pass:
    """Say by which recipe which layers are wanted."""
    extract = job.config.extract
    recipe: ledger.Recipe = {
        "root": job.root,
        "images.unit_size": job.config.images.unit_size,
        "extract.pooling": extract.pooling,
        "extract.dtype": extract.dtype,
        "extract.precision": extract.precision,
        "extract.exemplars": extract.exemplars,
        "seed": job.config.seed if extract.pooling.startswith("sketch") else None,
    }
    return Pass("extract", recipe, tuple(layer.name for layer in job.vision.layers))


def update_plan(job: Job) -> tuple[Plan, Changes]:
    """Bring the plan up to what the source holds now."""
    plan = ledger.read_plan(job.store)
    listing = job.images.listing

    def cut_units(entries: Sequence[Entry]) -> list[list[Entry]]:
        return cut(entries, job.config.images.unit_size, listing.chunk_rows)

    unit_size = job.config.images.unit_size
    if plan.unit_size not in (None, unit_size):
        units, changes = ledger.recut(plan, listing.entries, cut_units), Changes(0, 0, 0)
    else:
        units, changes = ledger.grow(plan, listing.entries, cut_units)
    return (ledger.append(job.store, plan, units, unit_size) if units else plan), changes


def tasks(job: Job, due: Due) -> Iterator[ExtractionTask]:
    """Give each due unit with what of it is due, one by one."""
    for unit in due.units():
        images, features = due.passes_due(unit)
        labels = tuple(job.images.labels.of(key) for _, key in unit.images())
        rejects: frozenset[int] = frozenset()
        if images is None:
            rejects = frozenset(ledger.read_markers(job.store, due.images, [unit.name])[0].rejects)
        yield ExtractionTask(unit, labels, images, features, rejects)


def make_extractor(setup: ExtractionSetup, seat: Seat) -> Extractor:
    """Build the worker where it sits."""
    check_seen(setup.run_dir)
    return Extractor(setup, seat.device, seat.threads)


def work_through(job: Job, session: Session, due: Due, num_due: int) -> list[ExtractionOutcome]:
    """Do every due unit on the cluster; give the units that could not be done."""
    config = job.config
    vision = job.vision
    setup = ExtractionSetup(
        config.run_dir,
        config.seed,
        job.images.source,
        config.images,
        config.extract,
        vision.network,
        {layer.name: layer for layer in vision.table.layers},
        vision.predictions,
    )
    placement = place(config.cluster, session.offers(), num_due)
    num_images = due.plan.num_images
    done = num_images - sum(len(unit) for unit in due.units())
    progress = Progress("extract", "images", num_images, done)
    failed: list[ExtractionOutcome] = []
    outcomes = work(
        tasks(job, due), make_extractor, setup, placement, config.cluster, ImageDivider()
    )
    for outcome in outcomes:
        unit, report = outcome.task.unit, outcome.result
        for slot, key in unit.images():
            if slot in outcome.task.crashed:
                log.error("unit %s: image %r ends its worker: rejected", unit.name, key)
        if report is None:
            log.error("unit %s failed: %s", unit.name, outcome.error)
            failed.append(outcome)
        else:
            log.debug("unit %s done: %s", unit.name, report)
            progress.add(len(unit), report.rejects)
    progress.end()
    return failed


def reconcile(job: Job, due: Due, failed: Sequence[ExtractionOutcome], summary: Summary) -> None:
    """Count: images = rows + rejects + those of failed units; say how it ended."""
    markers = ledger.read_markers(job.store, due.images)
    rows = sum(marker.files[0].rows for marker in markers)
    rejects = sum(len(marker.rejects) for marker in markers)
    listed = due.plan.num_images
    summary.note(
        "images", listed=listed, rows=rows, rejects=rejects, missing=listed - rows - rejects
    )
    summary.fields["failed_units"] = {o.task.unit.name: o.error for o in failed}
    summary.fields["crashed_images"] = crashed_images(job, markers)
    check_rows(job, due, markers)
    if failed:
        first = failed[0]
        raise IncompleteError(
            f"{len(failed)} units failed, {listed - rows - rejects} images are missing; first "
            f"{first.task.unit.name}: {first.error}; run again to try them again"
        )
    bound = job.config.images.max_reject_fraction
    if rejects > bound * listed:
        raise IncompleteError(
            f"{rejects} of {listed} images were rejected, above max_reject_fraction {bound:g}; "
            f"the {rows} rows are kept; see {job.store.root}/rejects"
        )


def crashed_images(job: Job, markers: Sequence[Marker]) -> dict[str, Value]:
    """Name the images that ended their workers' processes, with their units."""
    found: dict[str, Value] = {}
    for marker in markers:
        if marker.rejects:
            for reject in read_table(job.store, marker.files[1].path).to_pylist():
                if reject["stage"] == "worker":
                    found[reject["key"]] = marker.unit
    return found


def check_rows(job: Job, due: Due, images: Sequence[Marker]) -> None:
    """Check that every pass holds the rows that the images pass holds.

    Raises:
        IncompleteError: a finished unit has another number of rows in some layer.
    """
    expected = {marker.unit: marker.files[0].rows for marker in images}
    for owner in due.features:
        for marker in ledger.read_markers(job.store, owner):
            rows = {file.rows for file in marker.files if file.path.startswith("features/")}
            if rows != {expected.get(marker.unit)}:
                raise IncompleteError(
                    f"unit {marker.unit} of {owner.name} holds {sorted(rows)} rows where its "
                    f"images hold {expected.get(marker.unit)}: run with --replace extract"
                )
