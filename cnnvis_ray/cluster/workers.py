"""Workers: what runs in an actor's process, the driver's view of one, and what is counted.

Counters appear as ``ray_cnnvis_*_total`` in Prometheus. A result with counts (images, rejects,
bytes, seconds) is counted by stage and worker; retries, deaths and time limits by themselves.
"""

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import ray
from ray.util.metrics import Counter

from cnnvis_ray.cluster.lines import send_lines
from cnnvis_ray.cluster.placement import Placement, Slot

Setup = TypeVar("Setup")
Task = TypeVar("Task")
Result = TypeVar("Result")
MakeWorker = Callable[[Setup, Slot], Callable[[Task], Result]]
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Ray paints its messages


class Actor(Generic[Setup, Task, Result]):
    """What runs in the actor's process.

    The setup comes with the first call and not with the constructor, since Ray cannot restart an
    actor whose constructor's arguments left the object store.
    """

    def __init__(self, make_worker: MakeWorker[Setup, Task, Result], slot: Slot) -> None:
        self.make_worker = make_worker
        self.slot = slot
        self.worker: Callable[[Task], Result] | None = None

    def ready(self, setup: Setup) -> None:
        """Build the worker, unless it is built."""
        if self.worker is None:
            send_lines()
            self.worker = self.make_worker(setup, self.slot)

    def do(self, task: Task) -> Result:
        """Do one task."""
        if self.worker is None:
            raise RuntimeError("the actor was restarted and has no worker yet")
        return self.worker(task)


class Handle(Protocol):
    """The parts of Ray's actor handle that are used."""

    ready: "Method"
    do: "Method"
    _actor_id: "ray.ActorID"


class Method(Protocol):
    """A remote method."""

    def remote(self, *args: object) -> "ray.ObjectRef[object]":
        """Call it."""


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """The driver's view of one actor.

    Attributes:
        pinging: whether an answer is awaited before it gets work.
        restarts: how often Ray had restarted it when it last answered.
        ping_at: not to be asked before, on the driver's clock.
        in_flight: calls that were sent and have not returned.
        alone: whether a suspect runs here.
        since: when the call that runs now began, on the driver's clock.
    """

    number: int
    handle: Handle
    answering: bool = False
    pinging: bool = False
    restarts: int = 0
    ping_at: float = 0.0
    in_flight: int = 0
    alone: bool = False
    since: float = 0.0

    def end(self, restart: bool) -> None:
        """Kill the process; Ray starts another one if asked."""
        ray.kill(self.handle, no_restart=not restart)  # type: ignore[arg-type]


def start_workers(
    make_worker: MakeWorker[Setup, Task, Result], placement: Placement, numbers: range
) -> list[WorkerHandle]:
    """Start actors; Ray restarts one whose process or node dies, wherever there is room."""
    slot = Slot("cuda:0" if placement.gpus else "cpu", placement.cpus)
    actor = ray.remote(Actor).options(
        num_gpus=placement.gpus,
        num_cpus=placement.cpus,
        memory=placement.memory or None,
        max_restarts=-1,
        max_task_retries=0,
    )
    return [
        WorkerHandle(number, actor.remote(make_worker, slot))  # type: ignore[arg-type]
        for number in numbers
    ]


def num_restarts(worker: WorkerHandle) -> int:
    """Ask Ray how often it has restarted an actor."""
    identity = worker.handle._actor_id.hex()
    return int(ray._private.state.actors(identity).get("NumRestarts", 0))


def one_line(failure: BaseException) -> str:
    """Return a failure as one line: its type, its text, and where it was raised."""
    text = " ".join(COLOURS.sub("", str(failure)).split())
    frames = traceback.extract_tb(failure.__traceback__)
    where = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return f"{type(failure).__name__}: {text[:300]}{where}"


KINDS = {
    "images": "images done",
    "rejects": "images that could not be used",
    "bytes": "bytes written",
    "seconds": "seconds that workers were busy",
    "pictures": "pictures made",
    "retries": "tasks tried again",
    "deaths": "worker processes that died",
    "overdue": "tasks ended for taking too long",
}


@runtime_checkable
class Counted(Protocol):
    """A result that can be counted."""

    @property
    def stage(self) -> str:
        """The verb that it belongs to."""

    def counts(self) -> dict[str, float]:
        """Return numbers by kind, each one of `KINDS`."""


class Counters:
    """The counters of one driver, made when they are first needed."""

    def __init__(self) -> None:
        self.made: dict[str, Counter] = {}
        self.totals: dict[str, float] = {}

    def add(self, kind: str, amount: float, stage: str, worker: int) -> None:
        """Count."""
        if amount <= 0:
            return
        if kind not in self.made:
            self.made[kind] = Counter(f"cnnvis_{kind}", KINDS[kind], ("stage", "worker"))
        self.made[kind].inc(amount, {"stage": stage, "worker": str(worker)})
        self.totals[kind] = self.totals.get(kind, 0.0) + amount

    def take(self, result: object, worker: int) -> None:
        """Count a result that has counts."""
        if isinstance(result, Counted):
            for kind, amount in result.counts().items():
                self.add(kind, amount, result.stage, worker)
