"""Work units on the cluster: one way to run them, for every stage.

A worker is a class of the room that computes, built in its actor as ``worker(setup, device,
threads)``; a call does one task and commits it. A task has a ``name`` for messages and a ``size``
in what the stage counts; a report may have ``rejects`` and ``warnings``.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from cnnvis_ray.cluster import (
    Outcome,
    Placement,
    Progress,
    Session,
    SingleThread,
    Slot,
    place_workers,
    work,
)
from cnnvis_ray.cluster.bisection import Divider
from cnnvis_ray.config import Cluster
from cnnvis_ray.errors import IncompleteError
from cnnvis_ray.stages.node_checks import check_seen

log = logging.getLogger(__name__)

CALL_SECONDS = 86_400.0  # for a mapped call: the map of a million images is one, and takes hours


class Task(Protocol):
    """What `run_units` must know of a task."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def size(self) -> int:
        """How many images, channels or other things it is."""


class Setup(Protocol):
    """What the workers of a stage share."""

    @property
    def run_dir(self) -> str:
        """The run that they write to."""


TaskT = TypeVar("TaskT", bound=Task)
SetupT = TypeVar("SetupT", bound=Setup)
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Failure(Generic[TaskT]):
    """A task that could not be done, and why."""

    task: TaskT
    error: str

    def __str__(self) -> str:
        return f"{self.task.name}: {self.error}"


@dataclass(frozen=True, slots=True)
class Units(Generic[SetupT, TaskT]):
    """The work units of a stage, decided.

    Attributes:
        stage: the stage, in messages and counters.
        noun: what is counted, ``images``.
        worker: the class that does tasks.
        setup: what all workers share.
        num_tasks: how many there are; 0 starts no cluster.
        total: how many images or channels there are, with those that are done.
        done: how many of them are done.
        divider: where a task has pieces of which one may kill its worker.
        single: where workers of one thread are best.
    """

    stage: str
    noun: str
    worker: Callable[[SetupT, str, int], Callable[[TaskT], object]]
    setup: SetupT
    num_tasks: int
    total: int
    done: int = 0
    divider: Divider[TaskT] | None = None
    single: SingleThread | None = None

    def place(self, config: Cluster, session: Session) -> Placement:
        """Resolve the workers against what the nodes have; refuses what cannot be had."""
        return place_workers(config, session.offers(), self.num_tasks, self.single)

    def run(
        self, tasks: Iterable[TaskT], config: Cluster, session: Session
    ) -> list[Failure[TaskT]]:
        """Do every task; return those that could not be done."""
        progress = Progress(self.stage, self.noun, self.total, self.done)
        failed = []
        start = partial(start_worker, self.worker)
        placement = self.place(config, session)
        for outcome in work(tasks, start, self.setup, placement, config, self.divider):
            task, report = outcome.task, outcome.result
            if report is None:
                log.error("%s: unit %s failed: %s", self.stage, task.name, outcome.error)
                failed.append(Failure(task, outcome.error))
                continue
            log.debug("%s: unit %s is done: %s", self.stage, task.name, report)
            for warning in getattr(report, "warnings", ()):
                log.warning("%s: %s", self.stage, warning)
            progress.add(task.size, getattr(report, "rejects", 0))
        progress.end()
        return failed


def start_worker(
    worker: Callable[[SetupT, str, int], Callable[[TaskT], object]], setup: SetupT, slot: Slot
) -> Callable[[TaskT], object]:
    """Build a worker in its actor, on a node that sees the run."""
    check_seen(setup.run_dir)
    return worker(setup, slot.device, slot.threads)


@dataclass(frozen=True, slots=True)
class Call(Generic[ItemT]):
    """One call of a mapped function."""

    name: str
    item: ItemT
    size: int = 1


@dataclass(frozen=True, slots=True)
class CallSetup(Generic[ItemT, ResultT]):
    """The function that workers call."""

    run_dir: str
    function: Callable[[ItemT], ResultT]


class Caller(Generic[ItemT, ResultT]):
    """Calls one function on one item after another."""

    def __init__(self, setup: CallSetup[ItemT, ResultT], device: str, threads: int) -> None:
        self.function = setup.function

    def __call__(self, call: Call[ItemT]) -> tuple[str, ResultT]:
        """Return the call's name with its result."""
        return call.name, self.function(call.item)


def start_caller(
    setup: CallSetup[ItemT, ResultT], slot: Slot
) -> Callable[[Call[ItemT]], tuple[str, ResultT]]:
    """Build a `Caller` in its actor."""
    check_seen(setup.run_dir)
    return Caller(setup, slot.device, slot.threads)


def map_items(
    function: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    run_dir: str,
    config: Cluster,
    session: Session,
    memory: int = 0,
) -> Iterator[ResultT]:
    """Call a function on every item, on the cluster, and return the results in order.

    Args:
        function: of a module, or a `partial` of one.
        items: one per call.
        run_dir: that the workers must see.
        config: of the workers.
        session: with the cluster.
        memory: bytes that a call needs beside its interpreter; so many are reserved per worker.

    Raises:
        IncompleteError: a call failed at every attempt.
    """
    calls = [Call(f"{number:06d}", item) for number, item in enumerate(items)]
    if config.unit_timeout_seconds == "auto":
        config = config.model_copy(update={"unit_timeout_seconds": CALL_SECONDS})
    placement = place_workers(config, session.offers(), len(calls), memory=memory)
    if placement.memory < memory:
        log.warning(
            "a task needs about %.1f GB, the largest node has %.1f GB for workers",
            memory / 1e9,
            placement.memory / 1e9,
        )
    found: dict[str, ResultT] = {}
    waiting = iter(calls)
    due = next(waiting, None)
    setup = CallSetup(run_dir, function)
    outcomes: Iterator[Outcome[Call[ItemT], tuple[str, ResultT]]]
    outcomes = work(calls, start_caller, setup, placement, config)
    for outcome in outcomes:
        if outcome.result is None:
            raise IncompleteError(f"{outcome.task.name}: {outcome.error}")
        name, result = outcome.result
        found[name] = result
        while due is not None and due.name in found:
            yield found.pop(due.name)
            due = next(waiting, None)
