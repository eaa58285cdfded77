"""Bisection: which piece of a task kills its worker, found by halving, with probes.

A probe does a part of a task and commits nothing. A part that kills its worker is halved; a single
piece must do so at every attempt, alone, before it counts as the culprit, so that a machine taken
away at the wrong moment condemns no piece. The task then runs without its culprits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

Task = TypeVar("Task")


class Divider(Protocol[Task]):
    """Knows the pieces of a task."""

    def probes(self, task: Task) -> list[Task]:
        """Return the halves of a task as probes; a probe of one piece has none."""

    def without(self, task: Task, culprits: Sequence[Task]) -> Task:
        """Return the task without the pieces of some probes."""


@dataclass(slots=True, eq=False)
class Search(Generic[Task]):
    """One search.

    Attributes:
        original: the task that killed its worker while it ran alone.
        attempts: how often it was tried.
        pending: probes that have not ended.
        culprits: probes of one piece each that killed their worker every time.
    """

    original: Task
    attempts: int
    pending: int
    culprits: list[Task] = field(default_factory=list)


@dataclass(slots=True)
class Queued(Generic[Task]):
    """A task that waits for its next attempt.

    Attributes:
        suspect: it runs alone, since its worker died while it was there.
        search: the search that a probe belongs to.
    """

    task: Task
    attempts: int = 0
    suspect: bool = False
    search: Search[Task] | None = None


def begin(divider: Divider[Task], queued: Queued[Task]) -> list[Queued[Task]]:
    """Start a search for what kills a task's workers; empty where the task has no pieces."""
    probes = divider.probes(queued.task)
    search = Search(queued.task, queued.attempts + 1, len(probes))
    return [Queued(probe, 0, True, search) for probe in probes]


def narrow(divider: Divider[Task], queued: Queued[Task], max_attempts: int) -> list[Queued[Task]]:
    """Return what is to be probed after a probe killed its worker."""
    search = queued.search
    assert search is not None
    probes = divider.probes(queued.task)
    if probes:
        search.pending += len(probes) - 1
        return [Queued(probe, 0, True, search) for probe in probes]
    if queued.attempts + 1 < max_attempts:
        return [Queued(queued.task, queued.attempts + 1, True, search)]
    search.culprits.append(queued.task)
    search.pending -= 1
    return []


def end(divider: Divider[Task], search: Search[Task]) -> Queued[Task]:
    """Return the task for its next attempt, without its culprits."""
    if not search.culprits:
        return Queued(search.original, search.attempts, True)
    return Queued(divider.without(search.original, search.culprits), 0, True)
