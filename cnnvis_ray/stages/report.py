"""The stage ``report``: the explorer, a folder of pages that opens by double click.

Parts of the report record the digests of what they show, so that writing again writes what
changed; a report that refuses nothing of a run needs no claim in the ledger.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cnnvis_ray.cluster import Session
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import open_run
from cnnvis_ray.network import build_module
from cnnvis_ray.report import Inputs, Maker, Options, Part, write_report
from cnnvis_ray.stages.inputs import chain
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.reduce import FEW_IMAGES, map_on
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reporting:
    """The report of a run."""

    job: Job
    units: None = None

    def do(self, session: Session, summary: Summary) -> None:
        """Write what is due of the report."""
        job = self.job
        order = tuple(layer.name for layer in job.vision.table.layers)
        options = Options(
            job.config.report.max_images, order, find_inputs(job), job.config.report.compare
        )
        large = job.image_keys().num_rows > FEW_IMAGES

        def mapped(maker: Maker, parts: list[Part]) -> Iterable[tuple[Part, list[ShardFile]]]:
            if large:
                return map_on(job, session)(maker, parts)
            return log_parts(maker, parts)

        written = write_report(job.config.run_dir, options, mapped)
        summary.note("report", parts=written.parts, made=written.made, bytes=written.bytes)
        log.info(
            "report: %d of %d parts written, %.1f MB together",
            written.made,
            written.parts,
            written.bytes / 1e6,
        )


def decide(job: Job) -> Reporting:
    """Check that there are images to show.

    Raises:
        RefusedError: the run has no usable image, and none is extracted by this invocation; the
            run to compare with is not a run.
    """
    if "extract" not in job.stages and not job.image_keys().num_rows:
        raise RefusedError(
            f"report: the run has no usable image yet; first: cnnvis extract {job.store.root}"
        )
    other = job.config.report.compare
    if other is not None:
        open_run(other)
    return Reporting(job)


def log_parts(maker: Maker, parts: list[Part]) -> Iterator[tuple[Part, list[ShardFile]]]:
    """Make parts in this process."""
    for part in parts:
        log.debug("report: %s", part.name)
        yield maker(part)


def find_inputs(job: Job) -> dict[str, Inputs]:
    """Find, by layer, the shown layer that feeds it, with the norms of its kernels."""
    shown = {layer for owner in job.ledger.passes("extract") for layer in owner.layers}
    if len(shown) < 2 or not job.vision.network.state:
        return {}
    module = build_module(job.vision.network)
    preprocess = job.vision.network.preprocess
    return chain(module, (1, preprocess.channels, preprocess.crop, preprocess.crop), shown)
