"""The verb ``explain``: heat maps, crops of exemplars, then cards, class maps and sheets."""

import hashlib
import logging
from collections.abc import Sequence

from cnnvis_ray import ledger
from cnnvis_ray.cluster import Progress, Seat, Session, place, work
from cnnvis_ray.errors import IncompleteError, RefusedError
from cnnvis_ray.explanation import (
    CropTask,
    Explainer,
    ExplanationSetup,
    HeatTask,
    Wanted,
    decide_setup,
)
from cnnvis_ray.ledger import Pass, Run
from cnnvis_ray.ledger.units import SLOTS
from cnnvis_ray.stages.cards import draw_cards
from cnnvis_ray.stages.crops import crop_tasks
from cnnvis_ray.stages.heat_maps import join_heat
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.kernels import draw_kernels
from cnnvis_ray.stages.probing import probe_layers
from cnnvis_ray.stages.reaching import check_seen
from cnnvis_ray.stages.summary import Summary

log = logging.getLogger(__name__)

Task = HeatTask | CropTask


def explain(job: Job, session: Session, summary: Summary) -> None:
    """Make what is due of heat maps and crops, and join cards and sheets.

    Raises:
        RefusedError: nothing is extracted yet, a recipe changed, or the network's output cannot
            be aimed at.
        IncompleteError: units failed, or images could not be read; what is done is kept.
    """
    if job.config.explain.images == 0:
        log.info("explain: explain.images is 0, so there is nothing to do")
        return
    setup = make_setup(job)
    tasks: list[Task] = [*heat_tasks(job, setup), *crop_tasks(job, setup.shown)]
    failed = work_through(job, session, setup, tasks) if tasks else []
    ledger.sweep(job.store, ("explain",), ["explanation/heat", "explanation/images"])
    ledger.sweep(job.store, ("crops",), ["explanation/crops"])
    join_heat(job, setup, summary)
    draw_cards(job, setup.shown)
    draw_kernels(job, setup.shown)
    if job.config.explain.probe:
        probe_layers(job, setup.shown, summary)
    reconcile(job, failed)


def reconcile(job: Job, failed: Sequence[str]) -> None:
    """Say how it ended, also of images that an earlier invocation could not read.

    Raises:
        IncompleteError: tasks failed, or images that were extracted cannot be read any more.
    """
    if failed:
        raise IncompleteError(
            f"explain: {len(failed)} tasks failed; first {failed[0]}; run again to try them again"
        )
    gone = {
        (marker.unit[:6], slot)
        for stage in ("explain", "crops")
        for owner in ledger.read_passes(job.store, stage)
        for marker in ledger.read_markers(job.store, owner)
        for slot in marker.rejects
    }
    if gone:
        raise IncompleteError(
            f"explain: {len(gone)} images that were extracted cannot be read any more (see the "
            "log of the first time); restore them and run with --replace explain"
        )


def make_setup(job: Job) -> ExplanationSetup:
    """Decide what can be explained of this network."""
    shown = job.chosen(job.config.explain.layers)
    vision = job.vision
    return decide_setup(job.config, job.images.source, vision.network, vision.table, shown)


def heat_tasks(job: Job, setup: ExplanationSetup) -> list[HeatTask]:
    """Choose the images and cut them along the image units."""
    (owner,) = ledger.claim(
        job.store, Pass("explain", recipe_of(job, setup)), "explain" in job.replace
    )
    revisions = {unit.number: unit.name for unit in ledger.read_plan(job.store).units()}
    units: dict[int, list[Wanted]] = {}
    for image in chosen_images(job):
        units.setdefault(image.image_id // SLOTS, []).append(image)
    tasks = {}
    for number, images in sorted(units.items()):
        name = f"{revisions[number]}.{digest_of(images)}"
        tasks[name] = HeatTask(name, owner, tuple(images))
    finished = ledger.retire(job.store, owner, set(tasks))
    return [task for name, task in tasks.items() if name not in finished]


def recipe_of(job: Job, setup: ExplanationSetup) -> ledger.Recipe:
    """Say what heat maps and image sheets depend on."""
    outside = {"images", "sheets", "curves", "layers", "channels", "probe", "batch_size"}
    values = job.config.explain.model_dump(mode="json", exclude=outside)
    return {
        "root": job.root,
        **{f"explain.{key}": value for key, value in values.items()},
        "explain.methods": list(setup.methods),
        "explain.cam_layer": setup.cam_layer,
        "explain.layers": [layer.name for layer in setup.shown],
    }


def digest_of(images: Sequence[Wanted]) -> str:
    """Digest which images of a unit are wanted, and what of them."""
    text = " ".join(f"{image.image_id}{image.sheet:d}{image.curves:d}" for image in images)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def chosen_images(job: Job) -> list[Wanted]:
    """Spread the wanted number of images evenly over the rows; sheets and curves over those.

    Raises:
        RefusedError: the run has no rows.
    """
    explain = job.config.explain
    rows = Run(job.store).images(["image_id", "key"]).sort_by("image_id")
    if not rows.num_rows:
        raise RefusedError("explain: the run has no usable image")
    count = rows.num_rows if explain.images == "all" else explain.images
    places = evenly(rows.num_rows, count)
    sheets = set(evenly(len(places), explain.sheets))
    curves = set(evenly(len(places), explain.curves))
    chosen = rows.take(places)
    pairs = zip(chosen["image_id"].to_pylist(), chosen["key"].to_pylist(), strict=True)
    return [
        Wanted(image_id, key, place in sheets, place in curves)
        for place, (image_id, key) in enumerate(pairs)
    ]


def evenly(total: int, count: int) -> list[int]:
    """Choose so many of ``total`` positions, evenly spread, all where there are not as many."""
    count = min(total, count)
    return [place * total // count for place in range(count)]


def make_explainer(setup: ExplanationSetup, seat: Seat) -> Explainer:
    """Build the worker where it sits."""
    check_seen(setup.run_dir)
    return Explainer(setup, seat.device, seat.threads)


def work_through(
    job: Job, session: Session, setup: ExplanationSetup, tasks: Sequence[Task]
) -> list[str]:
    """Do every task on the cluster; say what could not be done."""
    config = job.config
    placement = place(config.cluster, session.offers(), len(tasks))
    progress = Progress("explain", "tasks", len(tasks))
    failed = []
    for outcome in work(tasks, make_explainer, setup, placement, config.cluster):
        if outcome.result is None:
            log.error("explain unit %s failed: %s", outcome.task.unit, outcome.error)
            failed.append(f"unit {outcome.task.unit}: {outcome.error}")
            continue
        progress.add(1, len(outcome.result.unreadable))
        for key in outcome.result.unreadable:
            log.warning("explain: image %r cannot be read any more", key)
    progress.end()
    return failed
