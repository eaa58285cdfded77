"""The verb ``maximize``: layers x channels as a work list, then catalogues."""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np

from cnnvis_ray import ledger
from cnnvis_ray.cluster import Progress, Seat, Session, place, work
from cnnvis_ray.config import Maximize
from cnnvis_ray.errors import ImageRejectedError, IncompleteError, RefusedError
from cnnvis_ray.images import decode
from cnnvis_ray.ledger import ChannelUnit, Pass, Run
from cnnvis_ray.ledger.units import CHANNELS_PER_UNIT
from cnnvis_ray.maximization import (
    ImageEvidence,
    MaximizationTask,
    Maximizer,
    MaximizerSetup,
    measure_spectrum,
    resolve_precision,
    select_channels,
)
from cnnvis_ray.network import Layer
from cnnvis_ray.stages.catalogue import join_catalogues
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.reaching import check_seen
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import write_bytes

log = logging.getLogger(__name__)

SPECTRUM_IMAGES = 500  # the mean magnitude of so many photos varies by a few percent
NOT_IN_RECIPE = {"name", "layers", "channels", "batch_size", "overrides"}


def maximize(job: Job, session: Session, summary: Summary) -> None:
    """Make the pictures that are due and bring the catalogues up to date.

    Raises:
        RefusedError: a recipe changed, or the cluster cannot offer what was asked.
        IncompleteError: units failed; what is done is kept.
    """
    tasks = [task for layer in job.pictured for task in layer_tasks(job, layer)]
    failed = work_through(job, session, tasks) if tasks else []
    name = job.config.maximize.name
    folders = [f"maximization/{name}/{layer.name}" for layer in job.pictured]
    ledger.sweep(job.store, ("maximize",), folders)
    join_catalogues(job.store, summary)
    if failed:
        raise IncompleteError(
            f"{len(failed)} batches of channels failed; first: {failed[0]}; run again to try "
            "them again"
        )


def layer_tasks(job: Job, layer: Layer) -> Iterator[MaximizationTask]:
    """Cut a layer's channels that are due into tasks of a batch each."""
    recipe = job.recipe_for(layer)
    wanted = Pass("maximize", recipe_of(job, recipe), (layer.name,), subject=recipe.name)
    (owner,) = ledger.claim(job.store, wanted, "maximize" in job.replace)
    channels = set(select_channels(layer, recipe))
    units = ledger.channel_units(channels, ledger.done(job.store, owner))
    if not units:
        log.info("maximize %s: all %d channels are done", layer.name, len(channels))
        return
    evidence = find_evidence(job, layer)
    magnitude = find_spectrum(job, recipe) if recipe.parametrization == "maco" else None
    for group in grouped(units, recipe.batch_size // recipe.pictures):
        yield MaximizationTask(group, owner, layer, recipe, evidence, magnitude)


def recipe_of(job: Job, recipe: Maximize) -> ledger.Recipe:
    """Say what a picture depends on: network, preprocess, recipe and seed; not the images."""
    preprocess = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(job.vision.network.preprocess).items()
    }
    values = recipe.model_dump(mode="json", exclude=NOT_IN_RECIPE)
    return {
        "network.weights (sha256)": job.vision.network.state_hash,
        "network.preprocess": preprocess,
        "seed": job.config.seed,
        **{f"maximize.{key}": value for key, value in values.items()},
    }


def grouped(
    units: Sequence[ChannelUnit], channels_per_batch: int
) -> Iterator[tuple[ChannelUnit, ...]]:
    """Put neighbouring units together until they fill a batch."""
    size = max(1, math.ceil(channels_per_batch / CHANNELS_PER_UNIT))
    for first in range(0, len(units), size):
        yield tuple(units[first : first + size])


def find_evidence(job: Job, layer: Layer) -> ImageEvidence | None:
    """Read what the run's images say of a layer's channels, where it has statistics."""
    if not job.store.exists(f"channels/{layer.name}.parquet"):
        return None
    table = Run(job.store).statistics(layer.name)
    if not table["count"][0].as_py():
        return None
    best = [entries[0]["key"] if entries else None for entries in table["exemplars"].to_pylist()]
    return ImageEvidence(
        table["maximum"].to_numpy(), table["peak_excited"].to_numpy() > 0, tuple(best)
    )


def find_spectrum(job: Job, recipe: Maximize) -> np.ndarray:
    """Read the magnitude spectrum of the run's images at the pictures' size, or measure it."""
    height, width = recipe.height_width
    path = f"spectra/{height}x{width}.npz"
    if not job.store.exists(path):
        colours = job.vision.network.preprocess.channels
        measured = measure_spectrum(sample_images(job), (height, width), colours)
        buffer = io.BytesIO()
        np.savez(buffer, magnitude=measured.magnitude, images=measured.count)
        write_bytes(job.store, path, buffer.getvalue())
    with np.load(io.BytesIO(job.store.read(path)), allow_pickle=False) as archive:
        return np.asarray(archive["magnitude"])


def sample_images(job: Job) -> Iterator[np.ndarray]:
    """Read some of the run's images, spread over the whole source.

    Raises:
        RefusedError: none of them can be read.
    """
    images = job.images
    keys = list(images.listing.keys())
    step = max(1, len(keys) // SPECTRUM_IMAGES)
    usable = 0
    with images.source.open() as reader:
        for key in keys[::step][:SPECTRUM_IMAGES]:
            try:
                yield np.asarray(decode(reader.fetch(key), job.config.images.max_pixels))
            except ImageRejectedError:
                continue
            usable += 1
    if not usable:
        raise RefusedError(
            "maximize.parametrization maco needs the spectrum of images, and none of "
            f"{images.source.identity} can be read; use fourier"
        )


def make_maximizer(setup: MaximizerSetup, seat: Seat) -> Maximizer:
    """Build the worker where it sits."""
    check_seen(setup.run_dir)
    return Maximizer(setup, seat.device, seat.threads)


def work_through(job: Job, session: Session, tasks: Sequence[MaximizationTask]) -> list[str]:
    """Do every task on the cluster; give the errors of those that could not be done."""
    config = job.config
    setup = MaximizerSetup(
        config.run_dir,
        config.seed,
        job.images.source,
        config.images.max_pixels,
        job.vision.network,
    )
    placement = place(config.cluster, session.offers(), len(tasks))
    device = "cuda" if placement.gpus else "cpu"
    tasks = [replace(task, recipe=resolve_precision(task.recipe, device)) for task in tasks]
    total = sum(len(task.channels) for task in tasks)
    progress = Progress("maximize", "channels", total)
    failed = []
    for outcome in work(tasks, make_maximizer, setup, placement, config.cluster):
        task = outcome.task
        if outcome.result is None:
            units = ", ".join(unit.name for unit in task.units)
            log.error("maximize %s units %s failed: %s", task.layer.name, units, outcome.error)
            failed.append(f"{task.layer.name}: {outcome.error}")
        else:
            progress.add(len(task.channels))
    progress.end()
    return failed
