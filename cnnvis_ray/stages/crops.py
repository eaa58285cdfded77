"""Crops of exemplars as work: the best images of the chosen channels, cut along image units."""

import logging
from collections.abc import Iterator, Sequence

import pyarrow as pa

from cnnvis_ray import ledger
from cnnvis_ray.config import Channels
from cnnvis_ray.explanation import CropTask, Exemplar
from cnnvis_ray.ledger import Pass, Run
from cnnvis_ray.ledger.units import SLOTS
from cnnvis_ray.network import Layer
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.merging import merged_digest

log = logging.getLogger(__name__)


def crop_tasks(job: Job, layers: Sequence[Layer]) -> Iterator[CropTask]:
    """Give the crops that are due, a task an image unit and layer."""
    for layer in layers:
        path = f"channels/{layer.name}.parquet"
        if not job.store.exists(path):
            log.info("explain %s: no statistics, so no cards; extract it first", layer.name)
            continue
        channels = chosen_channels(job.config.explain.channels, layer.channels)
        inputs = f"{merged_digest(job.store, path)} {ranges(channels)}"
        wanted = Pass("crops", {"root": job.root}, (layer.name,), inputs)
        (owner,) = ledger.claim(job.store, wanted, "explain" in job.replace)
        finished = ledger.done(job.store, owner)
        table = Run(job.store).table(path).sort_by("channel")
        for unit, exemplars in sorted(by_unit(table, channels).items()):
            name = f"{unit:06d}"
            if name not in finished:
                yield CropTask(name, owner, layer.name, tuple(exemplars))


def chosen_channels(asked: Channels, num_channels: int) -> list[int]:
    """Choose channels: all, a range, or a list; those that a layer lacks are left out."""
    if asked == "all":
        return list(range(num_channels))
    if isinstance(asked, str):
        first, last = (int(bound) for bound in asked.split(":"))
        return list(range(first, min(last, num_channels)))
    return sorted({channel for channel in asked if channel < num_channels})


def ranges(channels: Sequence[int]) -> str:
    """Write a list of channels for a fingerprint."""
    return " ".join(map(str, channels))


def by_unit(table: pa.Table, channels: Sequence[int]) -> dict[int, list[Exemplar]]:
    """Sort the exemplars of some channels by the unit that their image is of."""
    units: dict[int, list[Exemplar]] = {}
    for channel, entries in zip(
        channels, table["exemplars"].take(channels).to_pylist(), strict=True
    ):
        for rank, entry in enumerate(entries):
            exemplar = Exemplar(channel, rank, **entry)
            units.setdefault(exemplar.image_id // SLOTS, []).append(exemplar)
    return units
