"""Work in flight on a real Ray: pinned workers, retries, suspects alone, quarantine."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cnnvis_ray.cluster import Outcome, Placement, Session, Slot, place_workers, work
from cnnvis_ray.cluster.dispatcher import limit_seconds
from cnnvis_ray.cluster.workers import Counters
from cnnvis_ray.config import Cluster
from cnnvis_ray.errors import CnnvisError, IncompleteError, RefusedError

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]
LIMITS = Cluster(max_attempts=3)


def run(
    tasks: list[int],
    make_worker: Callable[[Path, Slot], Callable[[int], str]],
    folder: Path,
    placement: Placement,
) -> dict[int, Outcome[int, str]]:
    outcomes = list(work(tasks, make_worker, folder, placement, LIMITS))
    assert sorted(outcome.task for outcome in outcomes) == sorted(tasks)
    return {outcome.task: outcome for outcome in outcomes}


def meeting(folder: Path, slot: Slot) -> Callable[[int], str]:
    """Name the GPU once all four workers are there, however late the last one starts."""

    def worker(task: int) -> str:
        (folder / f"seen-{os.environ.get('CUDA_VISIBLE_DEVICES')}").touch()
        deadline = time.monotonic() + 60
        while len(list(folder.glob("seen-*"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        return f"{slot.device} {os.environ.get('CUDA_VISIBLE_DEVICES')}"

    return worker


def naming_gpus(folder: Path, slot: Slot) -> Callable[[int], str]:
    def worker(task: int) -> str:
        return f"{slot.device} {os.environ.get('CUDA_VISIBLE_DEVICES')}"

    return worker


def test_each_worker_is_pinned_to_a_gpu_of_its_own(tmp_path: Path) -> None:
    offers = Session(Cluster()).offers()
    placement = place_workers(Cluster(), offers, 12)
    assert placement == Placement(4, 1.0, 1)
    told = {
        outcome.result for outcome in run(list(range(12)), meeting, tmp_path, placement).values()
    }
    assert told == {f"cuda:0 {gpu}" for gpu in range(4)}


def test_half_a_gpu_is_shared(tmp_path: Path) -> None:
    outcomes = run(list(range(4)), naming_gpus, tmp_path, Placement(2, 0.5, 1))
    assert all(str(outcome.result).startswith("cuda:0") for outcome in outcomes.values())


def picky(folder: Path, slot: Slot) -> Callable[[int], str]:
    """Build the first worker and refuse all others, as on a node that does not see the run."""
    try:
        (folder / "first").mkdir()
    except FileExistsError:
        raise CnnvisError("this node does not see the run") from None

    def worker(task: int) -> str:
        time.sleep(0.3)
        return f"{task}"

    return worker


def test_a_worker_that_cannot_be_built_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = run(list(range(12)), picky, tmp_path, Placement(2, 0, 1))
    assert all(outcome.result for outcome in outcomes.values())
    assert "does not see the run; continuing without" in caplog.text


def test_where_no_worker_can_be_built_its_words_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with pytest.raises(CnnvisError, match="does not see the run"):
        run([0], picky, tmp_path, Placement(2, 0, 1))


def failing(folder: Path, slot: Slot) -> Callable[[int], str]:
    def worker(task: int) -> str:
        attempts = len(list(folder.glob(f"{task}-*")))
        (folder / f"{task}-{attempts}").touch()
        if task == 3 or (task == 5 and attempts < 1):
            raise ValueError(f"task {task} does not want to")
        return f"{task} after {attempts}"

    return worker


def test_an_exception_is_tried_again_then_quarantined(tmp_path: Path) -> None:
    outcomes = run(list(range(8)), failing, tmp_path, Placement(2, 0, 1))
    assert outcomes[3].result is None
    assert "ValueError: task 3 does not want to" in outcomes[3].error
    assert "3 attempts" in outcomes[3].error
    assert outcomes[5].result == "5 after 1"
    assert len(list(tmp_path.glob("3-*"))) == 3


def refusing(folder: Path, slot: Slot) -> Callable[[int], str]:
    def worker(task: int) -> str:
        (folder / f"{task}-{time.monotonic_ns()}").touch()
        raise IncompleteError("a person must look")

    return worker


def test_what_a_person_caused_is_not_tried_again(tmp_path: Path) -> None:
    outcomes = run([1], refusing, tmp_path, Placement(1, 0, 1))
    assert outcomes[1].error == "a person must look"
    assert len(list(tmp_path.iterdir())) == 1


def unbuildable(folder: Path, slot: Slot) -> Callable[[int], str]:
    raise RefusedError("this node has no such device")


def test_a_worker_that_cannot_be_built_ends_the_work(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no such device"):
        run([1, 2], unbuildable, tmp_path, Placement(1, 0, 1))


def dying(folder: Path, slot: Slot) -> Callable[[int], str]:
    def worker(task: int) -> str:
        (folder / f"{task}-{time.monotonic_ns()}").touch()
        if task == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
        return "done"

    return worker


@pytest.mark.parametrize("num_workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_task_that_kills_its_worker_is_quarantined_alone(
    tmp_path: Path, num_workers: int
) -> None:
    outcomes = run(list(range(8)), dying, tmp_path, Placement(num_workers, 0, 1))
    failed = [task for task, outcome in outcomes.items() if outcome.result is None]
    assert failed == [4]
    assert len(list(tmp_path.glob("4-*"))) == 3


def hanging(folder: Path, slot: Slot) -> Callable[[int], str]:
    def worker(task: int) -> str:
        (folder / f"{task}-{time.monotonic_ns()}").touch()
        time.sleep(600 if task == 2 else 0.1)
        return "done"

    return worker


@pytest.mark.slow
def test_a_task_that_hangs_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    limits = Cluster(max_attempts=2, unit_timeout_seconds=2)
    outcomes = list(work(range(5), hanging, tmp_path, Placement(1, 0, 1), limits))
    assert sorted(o.task for o in outcomes if o.result == "done") == [0, 1, 3, 4]
    assert len(list(tmp_path.glob("2-*"))) == 2


def test_the_time_limit_follows_the_slowest_unit() -> None:
    assert limit_seconds(Cluster(), 0) == 3600
    assert limit_seconds(Cluster(), 0.5) == 60
    assert limit_seconds(Cluster(), 30) == 300
    assert limit_seconds(Cluster(unit_timeout_seconds=7), 30) == 7


Pieces = tuple[int, ...]


class Halves:
    """Divides tuples of numbers; a probe is marked by a leading -1."""

    def probes(self, task: Pieces) -> list[Pieces]:
        pieces = [piece for piece in task if piece >= 0]
        middle = len(pieces) // 2
        halves = (pieces[:middle], pieces[middle:])
        return [(-1, *half) for half in halves] if middle else []

    def without(self, task: Pieces, culprits: Sequence[Pieces]) -> Pieces:
        return tuple(piece for piece in task if (-1, piece) not in culprits)


def poisoned(folder: Path, slot: Slot) -> Callable[[Pieces], Pieces]:
    def worker(task: Pieces) -> Pieces:
        (folder / f"{'probe' if -1 in task else 'task'}-{time.monotonic_ns()}").touch()
        if 6 in task:
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    return worker


@pytest.mark.slow  # a dozen worker processes die and start
def test_the_piece_that_kills_is_found_by_probes(tmp_path: Path) -> None:
    tasks: list[Pieces] = [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    outcomes = list(work(tasks, poisoned, tmp_path, Placement(2, 0, 1), LIMITS, Halves()))
    assert sorted(o.result for o in outcomes if o.result) == [tasks[0], (4, 5, 7), tasks[2]]
    assert len(list(tmp_path.glob("probe-*"))) >= 4


@dataclass(frozen=True)
class Report:
    stage = "extract"

    def counts(self) -> dict[str, float]:
        return {"images": 7, "rejects": 0, "seconds": 1.5}


def test_results_are_counted_by_stage_and_worker() -> None:
    counters = Counters()
    counters.take(Report(), 3)
    counters.take(Report(), 3)
    counters.take("no counts", 3)
    assert counters.totals == {"images": 14, "seconds": 3}
    assert counters.made["images"].info["tag_keys"] == ("stage", "worker")


def build_and_die(folder: Path, slot: Slot) -> Callable[[int], str]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.slow  # waits for a time limit
def test_workers_that_never_answer_end_the_work(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="every worker died"):
        run([1], build_and_die, tmp_path, Placement(1, 0, 1))
