"""Crops of exemplars as work: the best images of the chosen channels, cut along image units."""

import logging
from collections.abc import Iterator, Sequence

from cnnvis_ray import ledger
from cnnvis_ray.explanation import CropTask, by_unit, chosen_channels
from cnnvis_ray.ledger import Pass, Run
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
        channels = chosen_channels(job.config.explain.channels, layer.channels, layer.name)
        inputs = f"{merged_digest(job.store, path)} {ranges(channels)}"
        wanted = Pass("crops", {"root": job.root}, (layer.name,), inputs)
        (owner,) = ledger.claim(job.store, wanted, "explain" in job.replace)
        finished = ledger.done(job.store, owner)
        table = Run(job.store).table(path).sort_by("channel")
        for unit, exemplars in sorted(by_unit(table, channels).items()):
            name = f"{unit:06d}"
            if name not in finished:
                yield CropTask(name, owner, layer.name, tuple(exemplars))


def ranges(channels: Sequence[int]) -> str:
    """Write a list of channels for a fingerprint."""
    return " ".join(map(str, channels))
