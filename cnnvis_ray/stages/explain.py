"""The stage ``explain``: heat maps and crops of exemplars, then cards, class maps and sheets."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from cnnvis_ray import ledger
from cnnvis_ray.cluster import Session
from cnnvis_ray.config import Config, recipe_of
from cnnvis_ray.errors import IncompleteError, Refusals, RefusedError
from cnnvis_ray.explanation import (
    CropTask,
    Explainer,
    ExplanationSetup,
    HeatTask,
    Wanted,
    by_unit,
    chosen_channels,
    decide_setup,
)
from cnnvis_ray.explanation.occlusion import step_of
from cnnvis_ray.ledger import SLOTS, Claim, Pass, Run
from cnnvis_ray.network import Layer
from cnnvis_ray.stages.cards import write_products
from cnnvis_ray.stages.catalogue import look_recipe
from cnnvis_ray.stages.extract import statistics_digest
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.stages.units import Units

log = logging.getLogger(__name__)

Task = HeatTask | CropTask


@dataclass(slots=True)
class Explanation:
    """What explaining does.

    Attributes:
        claims: of heat maps and, per layer, of crops.
        tasks: what is due.
        finished: by pass name, the units that are done and wanted.
    """

    job: Job
    setup: ExplanationSetup
    claims: list[Claim]
    tasks: list[Task]
    finished: dict[str, set[str]]
    units: Units[ExplanationSetup, Task]

    def do(self, session: Session, summary: Summary) -> None:
        """Make what is due of heat maps and crops, and join cards and sheets.

        Raises:
            IncompleteError: units failed, or images could not be read; what is done is kept.
        """
        job, records = self.job, self.job.ledger
        if not self.claims:
            log.info("explain: explain.images is 0, so there is nothing to do")
            return
        owners = [owner for claim in self.claims for owner in records.open(claim)]
        for owner in owners:
            records.retire(owner, self.finished[owner.name])
        failed = []
        if self.tasks:
            failed = self.units.run(self.tasks, job.config.cluster, session)
            records.refresh(owners)
        if self.tasks or summary.unfinished:
            due = [failure.task.unit for failure in failed]
            records.sweep(("explain",), ["explanation/heat", "explanation/images"], due)
            records.sweep(("crops",), ["explanation/crops"], due)
        write_products(job, self.setup, summary)
        if failed:
            raise IncompleteError(
                f"explain: {len(failed)} tasks failed; first {failed[0]}; run again to retry them"
            )
        gone = {
            (marker.unit[:6], slot)
            for owner in owners
            for marker in records.markers(owner).values()
            for slot in marker.rejects
        }
        if gone:
            raise IncompleteError(
                f"explain: {len(gone)} images that were extracted cannot be read any more (see "
                "the log); restore them and run again"
            )


def decide(job: Job) -> Explanation:
    """Find what can be explained of this network, and what of it is due.

    Raises:
        RefusedError: nothing is extracted yet, a recipe changed, or the configuration asks for
            what the network does not have.
    """
    vision, config = job.vision, resolve_stride(job)
    shown = job.chosen(job.config.explain.layers)
    setup = decide_setup(config, job.images.source, vision.network, vision.table, shown)
    claims: list[Claim] = []
    tasks: list[Task] = []
    finished: dict[str, set[str]] = {}
    refusals = Refusals()
    if job.config.explain.images != 0:
        with refusals.gather():
            wanted = Pass("explain", find_recipe(job, setup))
            claims.append(job.ledger.claim(wanted, "explain" in job.replace))
            (owner,) = claims[-1].passes
            planned: dict[str, Task] = {task.name: task for task in heat_tasks(job, owner)}
            tasks.extend(find_due(job, claims[-1], planned, finished))
        for layer in setup.shown:
            with refusals.gather():
                claim, planned = crop_tasks(job, layer)
                if claim is not None:
                    claims.append(claim)
                    tasks.extend(find_due(job, claim, planned, finished))
    refusals.raise_all()
    units = Units("explain", "tasks", Explainer, setup, len(tasks), len(tasks))
    return Explanation(job, setup, claims, tasks, finished, units)


def find_due(
    job: Job, claim: Claim, planned: dict[str, Task], finished: dict[str, set[str]]
) -> list[Task]:
    """Return the tasks that are due. Units with images that could not be read are tried again."""
    (owner,) = claim.passes
    (done,) = job.ledger.finished(claim).values()
    whole = {unit for unit in done if not job.ledger.markers(owner)[unit].rejects}
    finished[owner.name] = {task.unit for task in planned.values() if task.unit in whole}
    return [task for task in planned.values() if task.unit not in whole]


def resolve_stride(job: Job) -> Config:
    """Return the configuration with occlusion's stride as a number.

    ``auto`` is what the run's heat maps have, so that another default does not refuse an earlier
    run; without any, half of the patch.
    """
    explain = job.config.explain
    stride = step_of(explain)
    for old in job.ledger.passes("explain"):
        same = old.recipe.get("explain.patch") == explain.patch
        if explain.stride == "auto" and same and "explain" not in job.replace:
            stride = int(str(old.recipe["explain.stride"]))
    resolved = explain.model_copy(update={"stride": stride})
    return job.config.model_copy(update={"explain": resolved})


def find_recipe(job: Job, setup: ExplanationSetup) -> ledger.Recipe:
    """Return what heat maps and image sheets depend on."""
    outside = {
        "images",
        "sheets",
        "curves",
        "layers",
        "channels",
        "probe",
        "batch_size",
        "kernels",
    }
    values = recipe_of(setup.explain, outside)
    look = look_recipe(
        job.config.pictures, ("channels", "occluded"), "heat", "channels", "first_channel"
    )
    return {
        "root": job.root,
        **look,
        **{f"explain.{key}": value for key, value in values.items()},
        "explain.methods": list(setup.methods),
        "explain.cam_layer": setup.cam_layer,
        "explain.layers": [layer.name for layer in setup.shown],
    }


def heat_tasks(job: Job, owner: Pass) -> list[HeatTask]:
    """Choose the images and cut them along the image units."""
    names = {unit.number: unit.name for unit in ledger.read_plan(job.store).units()}
    units: dict[int, list[Wanted]] = {}
    for image in choose_images(job):
        units.setdefault(image.image_id // SLOTS, []).append(image)
    return [
        HeatTask(f"{names[number]}.{digest_of(images)}", owner, tuple(images))
        for number, images in sorted(units.items())
    ]


def digest_of(images: Sequence[Wanted]) -> str:
    """Return a digest of which images of a unit are wanted, and what of them."""
    text = " ".join(f"{image.image_id}{image.sheet:d}{image.curves:d}" for image in images)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def choose_images(job: Job) -> list[Wanted]:
    """Spread the wanted number of images evenly over the rows; sheets and curves over those.

    Raises:
        RefusedError: the run has no rows.
    """
    explain, rows = job.config.explain, job.image_keys()
    if not rows.num_rows:
        raise RefusedError(
            f"explain: the run has no usable image yet; first: cnnvis extract {job.store.root}"
        )
    chosen = spread(rows.num_rows, rows.num_rows if explain.images == "all" else explain.images)
    sheets = set(spread(len(chosen), explain.sheets))
    curves = set(spread(len(chosen), explain.curves))
    picked = rows.take(chosen)
    pairs = zip(picked["image_id"].to_pylist(), picked["key"].to_pylist(), strict=True)
    return [
        Wanted(image_id, key, number in sheets, number in curves, job.images.labels.of(key))
        for number, (image_id, key) in enumerate(pairs)
    ]


def spread(total: int, count: int) -> list[int]:
    """Choose so many of ``total`` positions, evenly spread; all where there are not as many."""
    count = min(total, count)
    return [number * total // count for number in range(count)]


def crop_tasks(job: Job, layer: Layer) -> tuple[Claim | None, dict[str, Task]]:
    """Claim a layer's crops and cut them along the image units; None without statistics."""
    digest = statistics_digest(job.ledger, layer.name)
    if digest is None or not job.store.exists(f"channels/{layer.name}.parquet"):
        log.info("explain %s: it has no statistics, so no cards; extract it first", layer.name)
        return None, {}
    channels = chosen_channels(job.config.explain.channels, layer.channels, layer.name)
    inputs = f"{digest} {' '.join(map(str, channels))}"
    is_masked = job.config.pictures.crops == "mask"  # a box is drawn on the card alone
    masked: ledger.Recipe = {"pictures.crops": "mask"} if is_masked else {}
    wanted = Pass("crops", {"root": job.root, **masked}, (layer.name,), inputs)
    claim = job.ledger.claim(wanted, "explain" in job.replace, remake=True)
    (owner,) = claim.passes
    statistics = Run(job.store, job.ledger).statistics(layer.name).sort_by("channel")
    return claim, {
        f"{layer.name} {unit:06d}": CropTask(f"{unit:06d}", owner, layer.name, tuple(exemplars))
        for unit, exemplars in sorted(by_unit(statistics, channels).items())
    }
