"""The stage ``maximize``: layers x channels as a list of work units."""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cnnvis_ray import ledger
from cnnvis_ray.channels.histograms import quantile
from cnnvis_ray.channels.tables import histogram_from
from cnnvis_ray.cluster import Session
from cnnvis_ray.config import Maximize, recipe_of
from cnnvis_ray.errors import ImageRejectedError, IncompleteError, Refusals, RefusedError
from cnnvis_ray.images import decode
from cnnvis_ray.ledger import ChannelUnit, Claim, Pass, Run
from cnnvis_ray.maximization import (
    ImageEvidence,
    MaximizationTask,
    Maximizer,
    MaximizerSetup,
    Setting,
    check_names,
    check_recipe,
    measure_spectrum,
    resolve_precision,
)
from cnnvis_ray.network import Layer, build_module, check_coverage
from cnnvis_ray.stages.extract import statistics_digest
from cnnvis_ray.stages.job import Job, preprocess_recipe, tokens_recipe
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.stages.units import Units
from cnnvis_ray.storage import write_bytes

log = logging.getLogger(__name__)

SPECTRUM_IMAGES = 500  # the mean magnitude of so many photos varies by a few percent
NOT_IN_RECIPE = {"name", "layers", "channels", "batch_size", "overrides"}


@dataclass(frozen=True, slots=True)
class LayerPictures:
    """What is due of one layer: units of channels, by which recipe."""

    layer: Layer
    recipe: Maximize
    claim: Claim
    units: tuple[ChannelUnit, ...]

    def batches(self) -> list[tuple[ChannelUnit, ...]]:
        """Put units together, each into the first batch that holds its channels.

        A batch of one channel is padded and takes the time of a full one. Company changes no
        picture, so any units of the layer may share a batch.
        """
        capacity = max(1, self.recipe.batch_size // self.recipe.pictures)
        batches: list[list[ChannelUnit]] = []
        left: list[int] = []
        for unit in self.units:
            size = len(unit.channels)
            fitting = (number for number, free in enumerate(left) if size <= free)
            chosen = next(fitting, len(batches))
            if chosen == len(batches):
                batches.append([])
                left.append(capacity)
            batches[chosen].append(unit)
            left[chosen] -= size
        return [tuple(batch) for batch in batches]


@dataclass(slots=True)
class Maximization:
    """The pictures that are due."""

    job: Job
    layers: tuple[LayerPictures, ...]
    units: Units[MaximizerSetup, MaximizationTask]

    def do(self, session: Session, summary: Summary) -> None:
        """Make the pictures that are due.

        Raises:
            IncompleteError: units failed; what is done is kept.
        """
        job, records = self.job, self.job.ledger
        owners = [owner for each in self.layers for owner in records.open(each.claim)]
        failed = []
        if self.units.num_tasks:
            device = "cuda:0" if self.units.place(job.config.cluster, session).gpus else "cpu"
            tasks = self.tasks(device)
            failed = self.units.run(tasks, job.config.cluster, session)
            records.refresh(owners)
        if self.units.num_tasks or summary.unfinished:
            name = job.config.maximize.name
            folders = [f"maximization/{name}/{each.layer.name}" for each in self.layers]
            due = [unit.name for failure in failed for unit in failure.task.units]
            records.sweep(("maximize",), folders, due)
        if failed:
            raise IncompleteError(
                f"{len(failed)} batches of channels failed; first: {failed[0]}; run again to "
                "retry them"
            )

    def tasks(self, device: str) -> Iterator[MaximizationTask]:
        """Return a task per batch, with what the run's images tell of its layer."""
        for each in self.layers:
            if not each.units:
                log.info("maximize %s: all channels are done", each.layer.name)
                continue
            recipe = resolve_precision(each.recipe, device)
            evidence = find_evidence(self.job, each.layer)
            maco = recipe.parametrization == "maco"
            magnitude = find_spectrum(self.job, recipe) if maco else None
            (owner,) = each.claim.passes
            for batch in each.batches():
                yield MaximizationTask(batch, owner, each.layer, recipe, evidence, magnitude)


def decide(job: Job) -> Maximization:
    """Check every recipe on its layer and find the channels that are due.

    Raises:
        RefusedError: a recipe cannot work, or changed since pictures were made by it.
    """
    config, vision = job.config, job.vision
    check_names(config.maximize)
    layers = job.chosen(config.maximize.layers)
    check_coverage(vision.network, vision.table, layers)
    refusals = Refusals()
    found = []
    module = build_module(vision.network) if layers else None
    needs = vision.network.preprocess
    setting = Setting(needs.mean, needs.std, needs.crop, config.seed)
    for layer in layers:
        with refusals.gather():
            recipe = job.recipe_for(layer)
            checked = recipe
            if recipe.parametrization == "maco":  # its spectrum is measured later
                checked = recipe.model_copy(update={"parametrization": "fourier"})
            assert module is not None
            channels = check_recipe(module, layer, checked, setting)
            wanted = Pass("maximize", find_recipe(job, recipe), (layer.name,), "", recipe.name)
            claim = job.ledger.claim(wanted, "maximize" in job.replace)
            (done,) = job.ledger.finished(claim).values()
            due = tuple(ledger.channel_units(set(channels), done))
            found.append(LayerPictures(layer, recipe, claim, due))
    refusals.raise_all()
    network = vision.network
    setup = MaximizerSetup(
        config.run_dir, config.seed, job.images.source, config.images.max_pixels, network
    )
    total = sum(len(unit.channels) for each in found for unit in each.units)
    num_tasks = sum(len(each.batches()) for each in found)
    units = Units("maximize", "channels", Maximizer, setup, num_tasks, total)
    return Maximization(job, tuple(found), units)


def find_recipe(job: Job, recipe: Maximize) -> ledger.Recipe:
    """Return what a picture depends on: network, preprocess, recipe and seed; not the images."""
    values = recipe_of(recipe, NOT_IN_RECIPE)
    return {
        "network.weights (sha256)": job.vision.network.state_hash,
        "network.preprocess": preprocess_recipe(job.vision.network),
        "seed": job.config.seed,
        **tokens_recipe(job),
        **{f"maximize.{key}": value for key, value in values.items()},
    }


def find_evidence(job: Job, layer: Layer) -> ImageEvidence | None:
    """Read what the run's images tell of a layer's channels, where it has statistics."""
    if statistics_digest(job.ledger, layer.name) is None:
        return None
    table = Run(job.store, job.ledger).statistics(layer.name)
    if not table["count"][0].as_py():
        return None
    best = [entries[0]["key"] if entries else None for entries in table["exemplars"].to_pylist()]
    return ImageEvidence(
        table["maximum"].to_numpy(),
        table["peak_excited"].to_numpy() > 0,
        tuple(best),
        quantile(histogram_from(table, "histogram"), 0),
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
    keys: Sequence[str] = list(images.listing.keys())
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
            "maximize.parametrization: maco needs the spectrum of images, and none of "
            f"{images.source.identity} can be read; use fourier"
        )
