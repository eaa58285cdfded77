"""The verbs that compute: which stages each goes through, and how an invocation ends."""

import logging
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from cnnvis_ray import ledger
from cnnvis_ray.cluster import Session, in_submitted_job, interrupt, session, snapshot, stoppable
from cnnvis_ray.config import Config
from cnnvis_ray.errors import CnnvisError, RefusedError
from cnnvis_ray.stages.catalogue import join_catalogues
from cnnvis_ray.stages.explain import explain
from cnnvis_ray.stages.extract import extract
from cnnvis_ray.stages.job import Job, open_job
from cnnvis_ray.stages.maximize import maximize
from cnnvis_ray.stages.mosaic import mosaic
from cnnvis_ray.stages.reaching import check_nodes
from cnnvis_ray.stages.reduce import reduce
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import Store

log = logging.getLogger(__name__)


class Stage(Protocol):
    """A stage: does what is due and notes what came of it."""

    def __call__(self, job: Job, session: Session, summary: Summary) -> None:
        """Do what is due."""


def percentiles(job: Job, session: Session, summary: Summary) -> None:
    """Join the percentiles of finished pictures again: the statistics may have grown."""
    join_catalogues(job.store, summary)


STAGES: dict[str, Stage] = {
    "extract": extract,
    "maximize": maximize,
    "explain": explain,
    "reduce": reduce,
    "mosaic": mosaic,
    "percentiles": percentiles,
}
VERBS: dict[str, tuple[str, ...]] = {
    "run": ("extract", "reduce", "mosaic", "maximize"),
    "extract": ("extract", "percentiles"),
    "maximize": ("maximize",),
    "explain": ("explain",),
    "reduce": ("reduce",),
    "mosaic": ("mosaic",),
}


def run_verb(verb: str, config: Config, replace: Collection[str]) -> list[str]:
    """Go through a verb's stages.

    Returns:
        The last screen: counts, and where to look.

    Raises:
        CnnvisError: one line; summary.json carries the same exit status.
        HeldError: another driver works on the run.
    """
    check_run_dir(config.run_dir)
    store = Store(config.run_dir)
    with session(config.cluster) as opened, ledger.hold(store, snapshot, interrupt):
        job = open_job(config, replace, VERBS[verb])
        for path in ledger.clear_damage(store):
            log.info("damaged, so made again: %s", path)
        opened.check_nodes = partial(check_nodes, job)
        summary = Summary(store)
        try:
            for stage in VERBS[verb]:
                with summary.timed(stage), stoppable():
                    STAGES[stage](job, opened, summary)
        except (CnnvisError, OSError) as failure:
            with suppress(OSError):  # a full disk, a store that fails for good
                summary.write(getattr(failure, "exit_code", 1), str(failure))
            raise
        summary.write(0, "done")
    return last_screen(job, summary)


def check_run_dir(run_dir: str) -> None:
    """Refuse a relative path inside a submitted job.

    Raises:
        RefusedError: what is written there would be gone with the job.
    """
    if in_submitted_job() and not Path(run_dir).is_absolute() and "://" not in run_dir:
        raise RefusedError(
            f"run_dir {run_dir!r} is relative, and inside a submitted job that is Ray's temporary "
            "copy of the working directory; give an absolute path that every node reaches, or "
            "s3://bucket/prefix"
        )


def last_screen(job: Job, summary: Summary) -> list[str]:
    """Say what there is and where to look."""
    counts = summary.fields.get("images", {})
    lines = []
    if counts:
        lines.append(
            f"{counts.get('listed', 0):,} images = {counts.get('rows', 0):,} rows + "
            f"{counts.get('rejects', 0):,} rejects"
        )
    for layer, quality in summary.fields.get("quality", {}).items():
        if isinstance(quality, dict):
            told = ", ".join(
                f"{name.replace('_', ' ')} {value}" for name, value in quality.items()
            )
            lines.append(f"{layer}: {told}")
    found = [
        ("mosaics", "mosaic"),
        ("maps", "embedding"),
        ("features", "features"),
        ("channels", "channels"),
        ("pictures", "maximization"),
        ("explained", "explanation"),
    ]
    for what, folder in found:
        if job.store.names(folder):
            lines.append(f"{what:9} {job.store.root}/{folder}")
    lines.append(f"{'summary':9} {job.store.root}/summary.json")
    return lines
