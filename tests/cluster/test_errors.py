"""Whatever error of Ray's a call ends with, its task is tried again on a worker that answers."""

from collections.abc import Iterator

import pytest
import ray
from ray import exceptions

from cnnvis_ray.cluster import Placement
from cnnvis_ray.cluster import dispatcher as module
from cnnvis_ray.cluster.bisection import Queued
from cnnvis_ray.cluster.dispatcher import Dispatcher, Supply
from cnnvis_ray.cluster.workers import WorkerHandle
from cnnvis_ray.config import Cluster

ERRORS = [
    exceptions.RayError("plain"),
    exceptions.LocalRayletDiedError(),
    exceptions.WorkerCrashedError(),
    exceptions.RayActorError(),
    exceptions.NodeDiedError("the node died"),  # type: ignore[no-untyped-call]
    exceptions.ObjectLostError("00", None, ""),
    exceptions.ObjectFetchTimedOutError("00", None, ""),
    exceptions.OwnerDiedError("00", None, ""),
    exceptions.OutOfMemoryError("no memory"),  # type: ignore[no-untyped-call]
    exceptions.ObjectStoreFullError("full"),
    exceptions.OutOfDiskError("full"),
    exceptions.RaySystemError("system"),  # type: ignore[no-untyped-call]
    exceptions.ActorUnavailableError("away", None),
    exceptions.GetTimeoutError("late"),
]


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatcher[None, int, int]]:
    """A dispatcher with one worker, whose first call is in flight; no Ray."""
    monkeypatch.setattr(module, "num_restarts", lambda worker: 0)
    made: Dispatcher[None, int, int] = Dispatcher(
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        Placement(1, 0, 1),
        Cluster(max_attempts=2),
        Supply(iter([])),
        None,
    )
    monkeypatch.setattr(made.counters, "add", lambda *counted: None)
    made.workers.append(WorkerHandle(0, None, answering=True, in_flight=1))  # type: ignore[arg-type]
    yield made


@pytest.mark.parametrize("failure", ERRORS, ids=lambda failure: type(failure).__name__)
def test_it_is_tried_again(
    dispatcher: Dispatcher[None, int, int],
    failure: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get(call: object) -> None:
        raise failure

    monkeypatch.setattr(ray, "get", get)
    (worker,) = dispatcher.workers
    dispatcher.num_running = 1
    dispatcher.calls["call"] = (worker, Queued(7))  # type: ignore[index]
    assert dispatcher.collect("call") is None  # type: ignore[arg-type]
    (again,) = dispatcher.waiting
    assert (again.task, again.attempts, again.suspect) == (7, 1, True)
    assert not worker.answering
    dispatcher.waiting.clear()
    dispatcher.num_running = worker.in_flight = 1
    dispatcher.calls["call"] = (worker, again)  # type: ignore[index]
    outcome = dispatcher.collect("call")  # type: ignore[arg-type]
    assert outcome is not None
    assert "2 attempts" in outcome.error
