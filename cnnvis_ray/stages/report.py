"""The stage ``report``: the run as a folder of pages. Reads what the other stages wrote.

Parts of work units go to the cluster where they are many; a report takes seconds otherwise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from cnnvis_ray.cluster import Session
from cnnvis_ray.explanation.plots import kernels_of
from cnnvis_ray.network import build_module
from cnnvis_ray.reduction import in_turn
from cnnvis_ray.report import Inputs, Maker, Options, Part, write_report
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.reduce import map_on
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile

FEW_PARTS = 64  # made in this process: some twenty seconds, less than starting workers saves


@dataclass(slots=True)
class Reporting:
    """The report of a run; which parts are due is known once the other stages are done."""

    job: Job
    units: None = None

    def do(self, session: Session, summary: Summary) -> None:
        """Write the parts that are due."""
        job = self.job
        order = tuple(layer.name for layer in job.vision.table.layers)
        options = Options(job.config.report.max_images, order, kernel_inputs(job))
        written = write_report(job.store.root, options, partial(make_parts, job, session))
        summary.note("report", parts=written.parts, made=written.made, bytes=written.bytes)


def decide(job: Job) -> Reporting:
    """Decide to bring the report up to what the run has by then."""
    return Reporting(job)


def make_parts(
    job: Job, session: Session, maker: Maker, parts: list[Part]
) -> Iterator[tuple[Part, list[ShardFile]]]:
    """Make parts here where they are few, on the cluster otherwise."""
    few = len(parts) <= FEW_PARTS
    yield from (in_turn if few else map_on(job, session))(maker, parts)


def kernel_inputs(job: Job) -> dict[str, Inputs]:
    """Measure the kernels of the run's convolutions, each from one channel of the layer before.

    The layer before is the nearest one, of the run's layers if it can be, with as many channels
    as the kernels have inputs; grouped convolutions and other modules have no such layer.
    """
    chosen = {layer.name for layer in job.vision.layers}
    module = build_module(job.vision.network)
    earlier: list[tuple[str, int]] = []
    found: dict[str, Inputs] = {}
    for layer in job.vision.table.layers:
        kernels = kernels_of(module.get_submodule(layer.name)) if layer.name in chosen else None
        if kernels is not None:
            fitting = [name for name, channels in earlier if channels == kernels.shape[1]]
            own = [name for name in fitting if name in chosen] or fitting
            if own:
                found[layer.name] = (own[-1], np.linalg.norm(kernels, axis=(2, 3)))
        earlier.append((layer.name, layer.channels))
    return found
