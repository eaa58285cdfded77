"""An invocation of a verb that computes, in two phases: every stage decides, then they work.

Until every stage has decided, the cluster has room for it and every node reaches the run, nothing
is written but the lease: a refused invocation changes no byte of the run directory.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

from cnnvis_ray import ledger
from cnnvis_ray.cluster import (
    Placement,
    Session,
    in_submitted_job,
    interrupt,
    session,
    snapshot,
    stoppable,
)
from cnnvis_ray.config import Cluster, Config
from cnnvis_ray.errors import Refusals, RefusedError, did_you_mean
from cnnvis_ray.ledger import Value
from cnnvis_ray.stages import VERBS
from cnnvis_ray.stages.job import Job, open_job
from cnnvis_ray.stages.node_checks import check_nodes
from cnnvis_ray.stages.summary import FOLDERS, Summary
from cnnvis_ray.storage import Store

log = logging.getLogger(__name__)


class Sized(Protocol):
    """Work units, as far as a check of the cluster needs them."""

    @property
    def num_tasks(self) -> int:
        """How many there are."""

    def place(self, config: Cluster, session: Session) -> Placement:
        """Resolve their workers against what the nodes have."""


class Work(Protocol):
    """What a stage decided to do."""

    @property
    def units(self) -> Sized | None:
        """Its work units on the cluster, where it has any."""

    def do(self, session: Session, summary: Summary) -> None:
        """Write what the decision changes, and work."""


def run_verb(
    verb: str, config: Config, replace: Collection[str] = (), keep: bool = True
) -> list[str]:
    """Go through the stages of a verb.

    Args:
        verb: one of `VERBS`.
        config: the invocation's configuration.
        replace: stages whose work is done again.
        keep: whether the configuration becomes the run's.

    Returns:
        The last screen: counts, and where to look.

    Raises:
        RefusedError: all refusals of all stages; nothing was written.
        CnnvisError: summary.json has the same exit status.
        HeldError: another driver works on the run.
    """
    check_run_dir(config.run_dir)
    stages = choose_stages(verb, config)
    store = Store(config.run_dir)
    with session(config.cluster) as opened, ledger.hold(store, snapshot, interrupt):
        job = open_job(config, stages, replace, keep or bool(replace))
        works = decide_all(job)
        check_cluster(job, works, opened)
        for path in job.ledger.heal():
            log.info("damaged, so it is made again: %s", path)
        summary = Summary(store)
        with summary.ending():
            job.write()
            for stage, work in works.items():
                with summary.timed(stage), stoppable():
                    work.do(opened, summary)
    return last_screen(job, summary)


def choose_stages(verb: str, config: Config) -> tuple[str, ...]:
    """Return the stages of a verb; of ``run``, those that the configuration names.

    Raises:
        RefusedError: the configuration names a verb that is not a stage of ``run``.
    """
    stages = VERBS[verb][1]
    if verb != "run":
        return stages
    known = [name for name in VERBS if name in stages]
    for name in config.stages:
        if name not in known:
            raise RefusedError(
                f"stages: {name!r} is not a stage of cnnvis run; use {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
    wanted = {stage for name in config.stages for stage in VERBS[name][1]}
    return tuple(stage for stage in stages if stage in wanted)


def decide_all(job: Job) -> dict[str, Work]:
    """Let every stage of the verb decide.

    Raises:
        RefusedError: the refusals of all of them.
    """
    refusals = Refusals()
    works: dict[str, Work] = {}
    for stage in job.stages:
        with refusals.gather():
            works[stage] = import_module(f"cnnvis_ray.stages.{stage}").decide(job)
    refusals.raise_all()
    return works


def check_cluster(job: Job, works: Mapping[str, Work], opened: Session) -> None:
    """Check that the cluster has what the work needs, and that its nodes reach the run.

    Raises:
        RefusedError: all refusals.
    """
    due = [work.units for work in works.values() if work.units and work.units.num_tasks]
    if not due:
        return
    refusals = Refusals()
    for units in due:
        with refusals.gather():
            units.place(job.config.cluster, opened)
    refusals.messages[:] = dict.fromkeys(refusals.messages)
    refusals.raise_all()
    if opened.num_nodes > 1:
        check_nodes(job)


def check_run_dir(run_dir: str) -> None:
    """Refuse a relative path inside a submitted job.

    Raises:
        RefusedError: what is written there would be lost with the job.
    """
    if in_submitted_job() and not Path(run_dir).is_absolute() and "://" not in run_dir:
        raise RefusedError(
            f"run_dir {run_dir!r} is relative, and inside a submitted job that is Ray's temporary "
            "copy of the working directory; use an absolute path that every node reaches, or "
            "s3://bucket/prefix"
        )


def last_screen(job: Job, summary: Summary) -> list[str]:
    """Write what there is and where to look."""
    counts = summary.fields.get("images", {})
    lines = []
    if counts:
        lines.append(
            f"{counts.get('listed', 0):,} images = {counts.get('rows', 0):,} rows + "
            f"{counts.get('rejects', 0):,} rejects"
        )
    for layer, quality in summary.fields.get("quality", {}).items():
        if isinstance(quality, dict):
            lines.append(f"{layer}: {', '.join(describe_figures(quality))}")
    for what, folder in FOLDERS.items():
        if job.store.exists(folder):
            lines.append(f"{what:9} {job.store.root}/{folder}")
    lines.append(f"{'summary':9} {job.store.root}/summary.json")
    return lines


def describe_figures(quality: Mapping[str, Value]) -> Iterator[str]:
    """Write each figure of a map beside its controls."""
    controls = quality.get("controls")
    for name, value in quality.items():
        if value is None or isinstance(value, Mapping):
            continue
        beside = [
            f"{control.replace('_', ' ')} {figures[name]}"
            for control, figures in (controls.items() if isinstance(controls, Mapping) else ())
            if isinstance(figures, Mapping) and name in figures
        ]
        yield f"{name.replace('_', ' ')} {value}" + (f" ({', '.join(beside)})" if beside else "")
