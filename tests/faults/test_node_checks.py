"""Before work starts, each node must reach the run directory, the source and the network."""

from dataclasses import replace
from pathlib import Path

import pytest

from cnnvis_ray.errors import CnnvisError, RefusedError
from cnnvis_ray.stages import node_checks
from cnnvis_ray.stages.job import Job, open_job
from cnnvis_ray.stages.node_checks import Probe, check_nodes, check_seen, reach
from tests.faults.conftest import small_run
from tests.stages.conftest import write_photos


@pytest.fixture
def job(tmp_path: Path) -> Job:
    write_photos(tmp_path / "photos", 3)
    opened = open_job(small_run(tmp_path), ("extract",))
    opened.write()
    return opened


@pytest.fixture
def probe(job: Job) -> Probe:
    job.store.write("probe/token-driver", b"token")
    key = next(iter(job.images.listing.entries)).key
    return Probe(job.config.run_dir, "token", job.images.source, key, "squeezenet1_1")


def test_a_node_that_reaches_everything_leaves_a_file(job: Job, probe: Probe) -> None:
    said = reach(probe)
    assert said.startswith("probe/token-")
    assert job.store.exists(said)


def test_what_a_node_does_not_reach_is_named(job: Job, probe: Probe, tmp_path: Path) -> None:
    elsewhere = replace(probe, run_dir=str(tmp_path / "elsewhere"))
    assert "does not see" in reach(elsewhere)
    assert "not_here" in reach(replace(probe, network="not_here:network"))
    assert "ImageRejectedError" in reach(replace(probe, key="cane/gone.png"))


def test_a_worker_does_not_start_where_the_run_is_not_seen(job: Job, tmp_path: Path) -> None:
    check_seen(job.config.run_dir)
    with pytest.raises(CnnvisError, match=r"elsewhere.* as the driver does"):
        check_seen(str(tmp_path / "elsewhere"))


def test_the_driver_refuses_by_node(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"192.0.2.1": "does not see it", "192.0.2.2": "probe/never-written"}
    monkeypatch.setattr(node_checks, "on_every_node", lambda function, probe: answers)
    with pytest.raises(RefusedError) as refused:
        check_nodes(job)
    assert "node 192.0.2.1: does not see it" in str(refused.value)
    assert "node 192.0.2.2: what it writes" in str(refused.value)
    assert not job.store.exists("probe")


def test_nodes_that_reach_everything_pass(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(function: object, probe: Probe) -> dict[str, str]:
        return {"192.0.2.1": reach(probe), "192.0.2.2": reach(probe)}

    monkeypatch.setattr(node_checks, "on_every_node", here)
    check_nodes(job)
    assert not job.store.exists("probe")
