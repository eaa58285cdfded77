"""The crew: the actors, what waits, what is in flight, and what becomes of each call."""

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Generic

import ray
from ray.exceptions import RayActorError, RayTaskError

from cnnvis_ray.cluster import hunting
from cnnvis_ray.cluster.actors import (
    MakeWorker,
    Place,
    Result,
    Setup,
    Task,
    hire,
    num_restarts,
    one_line,
)
from cnnvis_ray.cluster.counters import Counters
from cnnvis_ray.cluster.hunting import Divider, Hunt, Queued
from cnnvis_ray.cluster.nodes import alive_offers, startable_offers
from cnnvis_ray.cluster.placement import Placement, capacity
from cnnvis_ray.cluster.supply import Outcome, Supply, limit_seconds
from cnnvis_ray.config import Cluster
from cnnvis_ray.errors import CnnvisError, IncompleteError
from cnnvis_ray.storage import StoreError

log = logging.getLogger(__name__)

SILENT_RESTARTS = 2  # an actor that is restarted more often before it answers is given up
PAUSE_SECONDS = 0.5  # before an actor is asked again; while it is restarted calls fail at once
LOOK_SECONDS = 5.0  # how often the nodes are counted again


@dataclass(slots=True)
class Crew(Generic[Setup, Task, Result]):
    """The actors and their work."""

    make_worker: MakeWorker[Setup, Task, Result]
    setup: "ray.ObjectRef[Setup]"
    placement: Placement
    limits: Cluster
    supply: Supply[Task]
    divider: Divider[Task] | None
    places: list[Place] = field(default_factory=list)
    num_hired: int = 0
    num_given_up: int = 0
    last_death: str = ""
    refusals: list[str] = field(default_factory=list)  # of workers, not told yet
    waiting: deque[Queued[Task]] = field(default_factory=deque)
    flights: dict["ray.ObjectRef[object]", tuple[Place, Queued[Task] | None]] = field(
        default_factory=dict
    )
    num_flying: int = 0  # tasks, without pings
    slowest: float = 0.0
    store_failures: int = 0  # in a row, without a task done in between
    looked: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    counters: Counters = field(default_factory=Counters)

    @property
    def is_done(self) -> bool:
        """Whether nothing flies, waits or is still to come."""
        return not (self.num_flying or self.waiting or self.supply)

    def hire(self, count: int) -> None:
        """Start some actors."""
        numbers = range(self.num_hired, self.num_hired + count)
        self.num_hired += count
        self.places.extend(hire(self.make_worker, self.placement, numbers))

    def look_around(self) -> None:
        """Hire for nodes that joined.

        Raises:
            IncompleteError: nobody has answered for as long as starting may take.
        """
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        if any(place.answering for place in self.places):
            self.heard = now
        elif now - self.heard > self.limits.startup_timeout_seconds:
            raise IncompleteError(
                f"no worker answered for {self.limits.startup_timeout_seconds:g} s "
                f"(cluster.startup_timeout_seconds); the last words: {self.last_death or 'none'}"
            )
        missing = self.room() - len(self.places) - self.num_given_up
        if missing > 0 and self.heard == now and self.supply:
            log.info("%d more workers for what the nodes have now", missing)
            self.hire(missing)

    def room(self) -> int:
        """Count the workers that there should be."""
        if self.limits.workers != "auto":
            return self.placement.workers
        offers = [*alive_offers(), *startable_offers()]
        return capacity(offers, self.placement.gpus, self.placement.cpus)

    def ping(self, place: Place) -> None:
        """Ask an actor to answer before it gets work."""
        place.pinging = True
        self.flights[place.handle.ready.remote(self.setup)] = (place, None)

    def ping_silent(self) -> None:
        """Ask those who are not answering, after a pause while Ray restarts them."""
        now = time.monotonic()
        for place in self.places:
            if not place.answering and not place.pinging and now >= place.ping_at:
                self.ping(place)

    def launch(self) -> None:
        """Fill every answering actor's line."""
        for place in self.places:
            while place.answering and not place.alone and place.in_flight < self.limits.in_flight:
                queued = self.take(place)
                if queued is None:
                    break
                place.since = place.since if place.in_flight else time.monotonic()
                place.in_flight += 1
                place.alone = queued.suspect
                self.num_flying += 1
                self.flights[place.handle.do.remote(queued.task)] = (place, queued)

    def take(self, place: Place) -> Queued[Task] | None:
        """Choose the next task for an actor; suspects only go to an idle one."""
        if self.waiting and (place.in_flight == 0 or not self.waiting[0].suspect):
            return self.waiting.popleft()
        return Queued(self.supply.take()) if self.supply else None

    def land(self, flight: "ray.ObjectRef[object]") -> Outcome[Task, Result] | None:
        """Take one finished call in; give the task's outcome if it has come to an end."""
        place, queued = self.flights.pop(flight)
        began = place.since
        if queued is None:
            place.pinging = False
        else:
            place.in_flight -= 1
            place.alone = False
            place.since = time.monotonic()
            self.num_flying -= 1
        try:
            result = ray.get(flight)
        except RayActorError as failure:
            return self.after_death(place, queued, failure)
        except RayTaskError as failure:
            if queued is None:
                self.give_up(place, failure)
                return None
            return self.after_error(queued, failure)
        if queued is None:
            place.answering, place.restarts = True, num_restarts(place)
            self.tell_refusals()
            return None
        self.slowest = max(self.slowest, place.since - began)
        self.store_failures = 0
        self.counters.take(result, place.number)
        return self.after_success(queued, result)  # type: ignore[arg-type]

    def give_up(self, place: Place, failure: RayTaskError) -> None:
        """Go on without a worker that could not be built, where others can.

        Raises:
            CnnvisError: the worker's own words; no other worker answers or may yet.
        """
        self.places.remove(place)
        self.num_given_up += 1
        place.end(restart=False)
        if not any(other.answering or other.pinging for other in self.places):
            raise failure.cause from None
        self.last_death = self.last_death or one_line(failure.cause)
        self.refusals.append(f"worker {place.number} cannot work: {failure.cause}")
        self.tell_refusals()

    def tell_refusals(self) -> None:
        """Say who cannot work, once somebody can: before that, it may be all of them."""
        if any(place.answering for place in self.places):
            for refusal in self.refusals:
                log.warning("%s; going on without", refusal)
            self.refusals.clear()

    def after_success(self, queued: Queued[Task], result: Result) -> Outcome[Task, Result] | None:
        """Give a task's outcome; a probe only clears its part."""
        if queued.hunt is None:
            return Outcome(queued.task, result)
        queued.hunt.pending -= 1
        return self.go_on(queued.hunt)

    def after_death(
        self, place: Place, queued: Queued[Task] | None, failure: RayActorError
    ) -> Outcome[Task, Result] | None:
        """Ping an actor that died and requeue its task as a suspect."""
        if place.answering:
            self.counters.add("deaths", 1, "", place.number)
        if place.answering or not self.last_death:
            self.last_death = one_line(failure)
        place.answering = False
        place.ping_at = time.monotonic() + PAUSE_SECONDS
        if num_restarts(place) - place.restarts > SILENT_RESTARTS and place in self.places:
            self.places.remove(place)
            self.num_given_up += 1
        return None if queued is None else self.again(queued, self.last_death, deadly=True)

    def after_error(
        self, queued: Queued[Task], failure: RayTaskError
    ) -> Outcome[Task, Result] | None:
        """Requeue a task that raised; what a person caused is not tried again."""
        cause = failure.cause
        log.debug("a task failed:\n%s", failure)
        if queued.hunt is not None:
            queued.hunt.pending -= 1
            return self.go_on(queued.hunt)
        if isinstance(cause, CnnvisError):
            return Outcome(queued.task, None, str(cause))
        if isinstance(cause, StoreError):
            self.note_store_failure(cause)
        return self.again(queued, one_line(cause), deadly=False)

    def note_store_failure(self, failure: StoreError) -> None:
        """Count a disk's or store's failure.

        Raises:
            IncompleteError: every place in flight failed so `max_attempts` times and nothing was
                done in between; the rest would only fail as well.
        """
        self.store_failures += 1
        in_flight = max(1, len(self.places)) * self.limits.in_flight
        if self.store_failures >= self.limits.max_attempts * in_flight:
            raise IncompleteError(
                f"stopped, since {failure.filename!r} fails at every attempt: {failure.strerror}"
            )

    def again(
        self, queued: Queued[Task], reason: str, deadly: bool
    ) -> Outcome[Task, Result] | None:
        """Requeue a task, hunt for what in it kills, or give it up."""
        self.counters.add("retries", 1, "", 0)
        if deadly and self.divider is not None and queued.suspect:
            return self.hunt(self.divider, queued, reason)
        return self.requeue(Queued(queued.task, queued.attempts + 1, deadly), reason)

    def hunt(
        self, divider: Divider[Task], queued: Queued[Task], reason: str
    ) -> Outcome[Task, Result] | None:
        """Open or narrow the hunt for the piece of a task that kills."""
        if queued.hunt is not None:
            self.waiting.extend(hunting.narrow(divider, queued, self.limits.max_attempts))
            return self.go_on(queued.hunt)
        if queued.attempts + 1 < self.limits.max_attempts:
            probes = hunting.begin(divider, queued)
            self.waiting.extend(probes)
            if probes:
                log.warning("a task killed its worker while it ran alone: looking for the piece")
                return None
        return self.requeue(Queued(queued.task, queued.attempts + 1, True), reason)

    def go_on(self, hunt: Hunt[Task]) -> Outcome[Task, Result] | None:
        """Requeue the hunted task when the last probe has ended."""
        if hunt.pending or self.divider is None:
            return None
        return self.requeue(hunting.end(self.divider, hunt), self.last_death)

    def requeue(self, queued: Queued[Task], reason: str) -> Outcome[Task, Result] | None:
        """Let a task wait for its next attempt, or give it up."""
        if queued.attempts >= self.limits.max_attempts:
            return Outcome(queued.task, None, f"{reason} (after {queued.attempts} attempts)")
        self.waiting.append(queued)
        return None

    def end_overdue(self) -> None:
        """Kill the actors whose present task takes too long; it then counts as a death."""
        limit, now = limit_seconds(self.limits, self.slowest), time.monotonic()
        for place in self.places:
            if place.answering and place.in_flight and now - place.since > limit:
                log.warning("worker %d: a task takes over %.0f s: ended", place.number, limit)
                self.counters.add("overdue", 1, "", place.number)
                place.answering = False
                place.end(restart=True)
