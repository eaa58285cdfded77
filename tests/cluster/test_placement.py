"""Who sits where: GPUs where there are any, refusals at once where nothing can be offered."""

import pytest

from cnnvis_ray.cluster import Placement, SingleThread, place_workers
from cnnvis_ray.cluster.placement import Offer
from cnnvis_ray.config import Cluster
from cnnvis_ray.errors import RefusedError

LAPTOP = [Offer(2, 0)]
GPU_NODES = [Offer(8, 0), Offer(32, 4), Offer(32, 4)]


@pytest.mark.parametrize(
    ("asked", "offers", "num_units", "expected"),
    [
        ({}, LAPTOP, 100, Placement(1, 0, 2)),
        ({"workers": 2}, LAPTOP, 100, Placement(2, 0, 1)),
        ({"cpus_per_worker": 1}, LAPTOP, 100, Placement(2, 0, 1)),
        ({"cpus_per_worker": 1}, LAPTOP, 1, Placement(1, 0, 1)),
        ({}, GPU_NODES, 100, Placement(8, 1, 8)),
        ({}, GPU_NODES, 3, Placement(3, 1, 8)),
        ({"gpus_per_worker": 0.5}, GPU_NODES, 100, Placement(16, 0.5, 4)),
        ({"gpus_per_worker": 2}, GPU_NODES, 100, Placement(4, 2, 16)),
        ({"gpus_per_worker": 0, "workers": 4}, GPU_NODES, 100, Placement(4, 0, 4)),
        ({}, [Offer(64, 0)] * 3, 1000, Placement(48, 0, 4)),
    ],
)
def test_resolved(
    asked: dict[str, float], offers: list[Offer], num_units: int, expected: Placement
) -> None:
    assert place_workers(Cluster.model_validate(asked), offers, num_units) == expected


@pytest.mark.parametrize(
    ("asked", "offers", "num_units", "expected"),
    [
        ({}, [Offer(2, 0)], 100, Placement(2, 0, 1)),
        ({}, [Offer(2, 0)], 1, Placement(1, 0, 2)),
        ({}, [Offer(2, 0, 9e9)], 100, Placement(2, 0, 1)),
        ({}, [Offer(2, 0, 1.9e9)], 100, Placement(1, 0, 2)),  # memory for one
        ({}, [Offer(8, 0, 4e9)], 100, Placement(4, 0, 2)),  # for four
        ({}, [Offer(8, 0, 3.5e9)], 100, Placement(2, 0, 4)),  # for three
        ({}, [Offer(8, 0, 0.5e9)], 100, Placement(2, 0, 4)),  # for none: as others are placed
        ({"cpus_per_worker": 2}, [Offer(8, 0)], 100, Placement(4, 0, 2)),
        ({"workers": 1}, [Offer(2, 0)], 100, Placement(1, 0, 2)),
        ({}, GPU_NODES, 100, Placement(8, 1, 8)),
    ],
)
def test_workers_of_one_thread_where_memory_allows(
    asked: dict[str, float], offers: list[Offer], num_units: int, expected: Placement
) -> None:
    single = SingleThread(1e9, num_units)
    assert place_workers(Cluster.model_validate(asked), offers, num_units, single) == expected


def test_a_resumed_run_keeps_its_threads() -> None:
    assert place_workers(Cluster(), LAPTOP, 1, SingleThread(1e9, 100)) == Placement(1, 0, 1)


@pytest.mark.parametrize(
    ("asked", "offers", "part"),
    [
        ({"gpus_per_worker": 1}, LAPTOP, "no node has them"),
        ({"gpus_per_worker": 8}, GPU_NODES, "no node has them"),
        ({"workers": 3}, LAPTOP, "do not fit"),
        ({"workers": 9}, GPU_NODES, "do not fit"),
        ({"cpus_per_worker": 16}, LAPTOP, "do not fit"),
    ],
)
def test_refused(asked: dict[str, float], offers: list[Offer], part: str) -> None:
    with pytest.raises(RefusedError, match=part) as refused:
        place_workers(Cluster.model_validate(asked), offers, 10)
    assert "CPUs" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_workers_fit_their_memory() -> None:
    offers = [Offer(8, 0, 10e9), Offer(8, 0, 5e9)]
    config = Cluster(cpus_per_worker=1)
    assert place_workers(config, offers, 100, memory=4 * 10**9) == Placement(3, 0, 1, 4 * 10**9)
    lowered = place_workers(config, offers, 100, memory=40 * 10**9)
    assert lowered == Placement(1, 0, 1, 10 * 10**9), "an estimate must not stop a run"
    assert place_workers(config, offers, 100) == Placement(16, 0, 1)
