"""The dispatcher: tasks over actors, bounded, retried, at most so many attempts.

Each actor has a few calls in flight. When an actor dies, or is ended for taking too long, its
tasks are retried as suspects: a suspect runs alone on its actor, so that the next death names the
task that caused it, and where tasks can be divided the piece that kills is found by bisection.
The actor gets no work until it answers again. A task that failed too often is returned as failed
and the others go on. Nodes that join are used. Ray's own task retries stay off: with them a poison
task kills its actor for good (measured), and a lost node keeps the task.
"""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from cnnvis_ray.cluster import bisection, stopping
from cnnvis_ray.cluster.bisection import Divider, Queued, Search
from cnnvis_ray.cluster.lines import Lines
from cnnvis_ray.cluster.nodes import alive_offers, startable_offers
from cnnvis_ray.cluster.placement import Placement, capacity
from cnnvis_ray.cluster.workers import (
    Counters,
    MakeWorker,
    Result,
    Setup,
    Task,
    WorkerHandle,
    num_restarts,
    one_line,
    start_workers,
)
from cnnvis_ray.config import Cluster
from cnnvis_ray.errors import CnnvisError, IncompleteError
from cnnvis_ray.storage import StoreError

log = logging.getLogger(__name__)

SILENT_RESTARTS = 2  # an actor that is restarted more often before it answers is given up
PAUSE_SECONDS = 0.5  # before an actor is asked again; while it is restarted calls fail at once
NODES_SECONDS = 5.0  # how often the nodes are counted again


Given = TypeVar("Given")
SLOWEST_TIMES = 10.0  # a unit may take this many times the slowest one so far
LEAST_LIMIT_SECONDS = 60.0  # a first unit on a new worker warms up caches
FIRST_LIMIT_SECONDS = 3600.0  # while nothing is measured


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Task, Result]):
    """A task's end: its result, or why it has none."""

    task: Task
    result: Result | None
    error: str = ""


class Supply(Generic[Given]):
    """Tasks taken one by one; knows whether there is another one."""

    def __init__(self, tasks: Iterator[Given]) -> None:
        self.tasks = tasks
        self.ahead: deque[Given] = deque()

    def __bool__(self) -> bool:
        if not self.ahead:
            self.ahead.extend(task for task in [next(self.tasks, None)] if task is not None)
        return bool(self.ahead)

    def take(self) -> Given:
        """Return the next task."""
        return self.ahead.popleft()


def limit_seconds(limits: Cluster, slowest: float) -> float:
    """Return how many seconds a task may take: what was asked, or by the slowest one so far."""
    asked = limits.unit_timeout_seconds
    if asked != "auto":
        return asked
    if not slowest:
        return FIRST_LIMIT_SECONDS
    return max(LEAST_LIMIT_SECONDS, SLOWEST_TIMES * slowest)


@dataclass(slots=True)
class Dispatcher(Generic[Setup, Task, Result]):
    """The actors and their work."""

    make_worker: MakeWorker[Setup, Task, Result]
    setup: "ray.ObjectRef[Setup]"
    placement: Placement
    limits: Cluster
    supply: Supply[Task]
    divider: Divider[Task] | None
    workers: list[WorkerHandle] = field(default_factory=list)
    num_started: int = 0
    num_lost: int = 0
    last_death: str = ""
    refusals: list[str] = field(default_factory=list)  # of workers, not logged yet
    waiting: deque[Queued[Task]] = field(default_factory=deque)
    calls: dict["ray.ObjectRef[object]", tuple[WorkerHandle, Queued[Task] | None]] = field(
        default_factory=dict
    )
    num_running: int = 0  # tasks, without pings
    slowest: float = 0.0
    store_failures: int = 0  # in a row, without a task done in between
    last_look: float = field(default_factory=time.monotonic)
    last_answer: float = field(default_factory=time.monotonic)
    counters: Counters = field(default_factory=Counters)

    @property
    def is_done(self) -> bool:
        """Whether no task runs, waits or is still to come."""
        return not (self.num_running or self.waiting or self.supply)

    def start_workers(self, count: int) -> None:
        """Start some actors."""
        numbers = range(self.num_started, self.num_started + count)
        self.num_started += count
        self.workers.extend(start_workers(self.make_worker, self.placement, numbers))

    def add_workers(self) -> None:
        """Start workers on nodes that joined.

        Raises:
            IncompleteError: no worker answered within the time that starting may take.
        """
        now = time.monotonic()
        if now - self.last_look < NODES_SECONDS:
            return
        self.last_look = now
        if any(worker.answering for worker in self.workers):
            self.last_answer = now
        elif now - self.last_answer > self.limits.startup_timeout_seconds:
            raise IncompleteError(
                f"no worker answered for {self.limits.startup_timeout_seconds:g} s "
                f"(cluster.startup_timeout_seconds); last error: {self.last_death or 'none'}"
            )
        missing = self.num_wanted() - len(self.workers) - self.num_lost
        if missing > 0 and self.last_answer == now and self.supply:
            log.info("%d more workers for what the nodes have now", missing)
            self.start_workers(missing)

    def num_wanted(self) -> int:
        """Count the workers that there should be."""
        if self.limits.workers != "auto":
            return self.placement.workers
        offers = [*alive_offers(), *startable_offers()]
        return capacity(offers, self.placement.gpus, self.placement.cpus, self.placement.memory)

    def ping(self, worker: WorkerHandle) -> None:
        """Ask an actor to answer before it gets work."""
        worker.pinging = True
        self.calls[worker.handle.ready.remote(self.setup)] = (worker, None)

    def ping_silent(self) -> None:
        """Ping the workers that do not answer, after a pause while Ray restarts them."""
        now = time.monotonic()
        for worker in self.workers:
            if not worker.answering and not worker.pinging and now >= worker.ping_at:
                self.ping(worker)

    def submit(self) -> None:
        """Submit tasks to every worker that answers, up to its calls in flight."""
        for worker in self.workers:
            while (
                worker.answering and not worker.alone and worker.in_flight < self.limits.in_flight
            ):
                queued = self.take(worker)
                if queued is None:
                    break
                worker.since = worker.since if worker.in_flight else time.monotonic()
                worker.in_flight += 1
                worker.alone = queued.suspect
                self.num_running += 1
                self.calls[worker.handle.do.remote(queued.task)] = (worker, queued)

    def take(self, worker: WorkerHandle) -> Queued[Task] | None:
        """Choose the next task for an actor; suspects only go to an idle one."""
        if self.waiting and (worker.in_flight == 0 or not self.waiting[0].suspect):
            return self.waiting.popleft()
        return Queued(self.supply.take()) if self.supply else None

    def collect(self, call: "ray.ObjectRef[object]") -> Outcome[Task, Result] | None:
        """Collect one finished call; return the task's outcome if it has ended."""
        worker, queued = self.calls.pop(call)
        began = worker.since
        if queued is None:
            worker.pinging = False
        else:
            worker.in_flight -= 1
            worker.alone = False
            worker.since = time.monotonic()
            self.num_running -= 1
        try:
            result = ray.get(call)
        except RayActorError as failure:
            return self.after_death(worker, queued, failure)
        except RayTaskError as failure:
            if queued is None:
                self.lose_worker(worker, failure)
                return None
            return self.after_error(queued, failure)
        except RayError as failure:  # a lost object, a crashed or unavailable worker, a node
            return self.after_death(worker, queued, failure)
        if queued is None:
            worker.answering, worker.restarts = True, num_restarts(worker)
            self.log_refusals()
            return None
        self.slowest = max(self.slowest, worker.since - began)
        self.store_failures = 0
        self.counters.take(result, worker.number)
        return self.after_success(queued, result)  # type: ignore[arg-type]

    def lose_worker(self, worker: WorkerHandle, failure: RayTaskError) -> None:
        """Continue without a worker that could not be built, where others can.

        Raises:
            CnnvisError: the worker's own; no other worker answers or may yet.
        """
        self.workers.remove(worker)
        self.num_lost += 1
        worker.end(restart=False)
        if not any(other.answering or other.pinging for other in self.workers):
            raise failure.cause from None
        self.last_death = self.last_death or one_line(failure.cause)
        self.refusals.append(f"worker {worker.number} cannot work: {failure.cause}")
        self.log_refusals()

    def log_refusals(self) -> None:
        """Log which workers cannot work, once one can: before that, it may be all of them."""
        if any(worker.answering for worker in self.workers):
            for refusal in self.refusals:
                log.warning("%s; continuing without it", refusal)
            self.refusals.clear()

    def after_success(self, queued: Queued[Task], result: Result) -> Outcome[Task, Result] | None:
        """Return a task's outcome; a probe only clears its part."""
        if queued.search is None:
            return Outcome(queued.task, result)
        queued.search.pending -= 1
        return self.go_on(queued.search)

    def after_death(
        self, worker: WorkerHandle, queued: Queued[Task] | None, failure: RayError
    ) -> Outcome[Task, Result] | None:
        """Ping an actor that died and requeue its task as a suspect."""
        if worker.answering:
            self.counters.add("deaths", 1, "", worker.number)
        if worker.answering or not self.last_death:
            self.last_death = one_line(failure)
        worker.answering = False
        worker.ping_at = time.monotonic() + PAUSE_SECONDS
        if num_restarts(worker) - worker.restarts > SILENT_RESTARTS and worker in self.workers:
            self.workers.remove(worker)
            self.num_lost += 1
        return None if queued is None else self.again(queued, self.last_death, deadly=True)

    def after_error(
        self, queued: Queued[Task], failure: RayTaskError
    ) -> Outcome[Task, Result] | None:
        """Retry a task that raised; what a person caused is not retried."""
        cause = failure.cause
        log.debug("a task failed:\n%s", failure)
        if queued.search is not None:
            queued.search.pending -= 1
            return self.go_on(queued.search)
        if isinstance(cause, CnnvisError):
            return Outcome(queued.task, None, str(cause))
        if isinstance(cause, StoreError):
            self.note_store_failure(cause)
        return self.again(queued, one_line(cause), deadly=False)

    def note_store_failure(self, failure: StoreError) -> None:
        """Count a failure of a disk or store.

        Raises:
            IncompleteError: every worker in call failed so `max_attempts` times and nothing was
                done in between, so the others would fail too.
        """
        self.store_failures += 1
        in_flight = max(1, len(self.workers)) * self.limits.in_flight
        if self.store_failures >= self.limits.max_attempts * in_flight:
            raise IncompleteError(
                f"stopped, since {failure.filename!r} fails at every attempt: {failure.strerror}"
            )

    def again(
        self, queued: Queued[Task], reason: str, deadly: bool
    ) -> Outcome[Task, Result] | None:
        """Retry a task, search for the piece that kills, or return it as failed."""
        self.counters.add("retries", 1, "", 0)
        if deadly and self.divider is not None and queued.suspect:
            return self.search(self.divider, queued, reason)
        return self.requeue(Queued(queued.task, queued.attempts + 1, deadly), reason)

    def search(
        self, divider: Divider[Task], queued: Queued[Task], reason: str
    ) -> Outcome[Task, Result] | None:
        """Start or narrow the search for the piece of a task that kills."""
        if queued.search is not None:
            self.waiting.extend(bisection.narrow(divider, queued, self.limits.max_attempts))
            return self.go_on(queued.search)
        if queued.attempts + 1 < self.limits.max_attempts:
            probes = bisection.begin(divider, queued)
            self.waiting.extend(probes)
            if probes:
                log.warning("a task killed its worker while it ran alone: searching for the piece")
                return None
        return self.requeue(Queued(queued.task, queued.attempts + 1, True), reason)

    def go_on(self, search: Search[Task]) -> Outcome[Task, Result] | None:
        """Retry the searched task when the last probe has ended."""
        if search.pending or self.divider is None:
            return None
        return self.requeue(bisection.end(self.divider, search), self.last_death)

    def requeue(self, queued: Queued[Task], reason: str) -> Outcome[Task, Result] | None:
        """Queue a task for its next attempt, or return it as failed."""
        if queued.attempts >= self.limits.max_attempts:
            return Outcome(queued.task, None, f"{reason} (after {queued.attempts} attempts)")
        self.waiting.append(queued)
        return None

    def end_overdue(self) -> None:
        """Kill the actors whose present task takes too long; it then counts as a death."""
        limit, now = limit_seconds(self.limits, self.slowest), time.monotonic()
        for worker in self.workers:
            if worker.answering and worker.in_flight and now - worker.since > limit:
                log.warning(
                    "worker %d: its task took over %.0f s, so the worker was ended",
                    worker.number,
                    limit,
                )
                self.counters.add("overdue", 1, "", worker.number)
                worker.answering = False
                worker.end(restart=True)


TICK_SECONDS = 0.25  # how often limits and a stop are last_look at while nothing lands


def work(
    tasks: Iterable[Task],
    make_worker: MakeWorker[Setup, Task, Result],
    setup: Setup,
    placement: Placement,
    limits: Cluster,
    divider: Divider[Task] | None = None,
) -> Iterator[Outcome[Task, Result]]:
    """Do every task on some actor and return the outcomes as they come.

    Args:
        tasks: taken one by one as actors get free, so their number does not cost memory.
        make_worker: builds a worker inside the actor from the setup and its slot.
        setup: what all workers share; travels once through the object store.
        placement: how many actors and what each takes.
        limits: calls in call, attempts and times.
        divider: where a task has pieces of which one may kill its worker.

    Yields:
        One outcome a task; without its culprits where pieces of it were found to kill.

    Raises:
        CnnvisError: no worker could be built (the worker's own error).
        IncompleteError: every actor died, or none answered in time.
    """
    stored = ray.put(setup)
    supply = Supply(iter(tasks))
    dispatcher: Dispatcher[Setup, Task, Result] = Dispatcher(
        make_worker, stored, placement, limits, supply, divider
    )
    lines = Lines()
    try:
        dispatcher.start_workers(placement.workers)
        while True:
            stopping.check()
            lines.show()
            dispatcher.add_workers()
            dispatcher.ping_silent()
            dispatcher.submit()
            if dispatcher.is_done:
                break
            for call in wait_for_calls(dispatcher):
                outcome = dispatcher.collect(call)
                if outcome is not None:
                    yield outcome
            dispatcher.end_overdue()
            if not dispatcher.workers:
                raise IncompleteError(f"every worker died; last error: {dispatcher.last_death}")
    finally:
        lines.show(at_once=True)
        for worker in dispatcher.workers:
            worker.end(restart=False)


def wait_for_calls(dispatcher: Dispatcher[Setup, Task, Result]) -> "list[ray.ObjectRef[object]]":
    """Wait for calls to finish, for a moment."""
    calls = list(dispatcher.calls)
    if not calls:  # every actor is being restarted
        time.sleep(PAUSE_SECONDS)
        return []
    finished, _ = ray.wait(calls, num_returns=1, timeout=TICK_SECONDS)
    return finished
