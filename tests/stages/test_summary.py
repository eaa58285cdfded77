"""summary.json says how an invocation ended, `running` while it runs; threads that were mixed."""

import json
from pathlib import Path

import pytest

from cnnvis_ray.cluster.progress import clock
from cnnvis_ray.ledger import open_run
from cnnvis_ray.stages import extract
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.status import status
from cnnvis_ray.stages.summary import read_outcome, read_summary
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import go


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    without_ray(monkeypatch)
    write_photos(tmp_path / "photos", 12)
    return tmp_path


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (ZeroDivisionError("division by\nzero"), 1, "division by zero"),
        (AssertionError(), 1, "AssertionError"),
        (MemoryError(), 1, "MemoryError"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "KeyboardInterrupt"),
    ],
)
def test_any_failure_ends_the_summary(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    code: int,
    reason: str,
) -> None:
    go(folder, verb="extract")
    seen: list[object] = []

    def fail(job: Job) -> None:
        seen.append(json.loads((folder / "run" / "summary.json").read_text()))
        raise failure

    monkeypatch.setattr(extract, "write_labels", fail)
    with pytest.raises(type(failure)):
        go(folder, verb="extract")
    (during,) = seen
    assert isinstance(during, dict)
    assert (during["exit_status"], during["reason"]) == (None, "running")
    store = open_run(str(folder / "run")).store
    assert read_outcome(store) == (code, reason)
    assert f"ended     with {code}: {reason}" in status(store.root)
    monkeypatch.undo()
    without_ray(monkeypatch)
    go(folder, verb="extract")
    assert read_outcome(store) == (0, "done")


def test_status_of_a_run_that_runs(folder: Path) -> None:
    run = go(folder, verb="extract")
    fields = json.loads(run.store.read("summary.json"))
    running = {**fields, "exit_status": None, "reason": "running"}
    run.store.write("summary.json", json.dumps(running).encode())
    assert status(run.store.root)[-1] == "ended     not yet"


def test_a_pass_keeps_the_threads_of_its_workers(folder: Path) -> None:
    run = go(folder, verb="extract")
    (owner,) = run.passes("extract")
    path = f"passes/{owner.name}/threads.json"
    assert json.loads(run.store.read(path)) == [1]
    assert not any(line.startswith("note ") for line in status(run.store.root))
    assert read_summary(run.store)["notes"]["threads"] == ""
    write_photos(folder / "photos", 20, first=12)
    grown = go(folder, "cluster.cpus_per_worker=3", verb="extract")
    assert json.loads(grown.store.read(path)) == [1, 3]
    (note,) = [line for line in status(grown.store.root) if line.startswith("note ")]
    for part in ("features.0, features.1", "1 and 3 threads"):
        assert part in note
    assert str(read_summary(grown.store)["notes"]["threads"]) in note


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (59.6, "0:01:00"), (86399, "23:59:59"), (90061, "1 day, 1:01:01")],
)
def test_time_left_goes_beyond_a_day(seconds: float, text: str) -> None:
    assert clock(seconds) == text
    assert clock(14 * 86400) == "14 days, 0:00:00"
