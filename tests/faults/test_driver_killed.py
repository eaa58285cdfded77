"""The driver is killed ten times in one run, in every stage, and continued with other numbers."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from cnnvis_ray.ledger import Run, open_run
from cnnvis_ray.stages.verify import verify
from tests.faults.conftest import Driver, on, shas
from tests.stages.conftest import write_photos

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(480),
    # Ray's Cluster leaves sockets of its nodes to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SMALL = (
    "images.unit_size=4",
    "maximize={channels: all, size: 32, steps: 60, batch_size: 4, transforms: none}",
    "reduce.iterations=400",
    "mosaic={width: 400, height: 300, tile: 40}",
)
MOMENTS: list[tuple[str, int]] = [  # a stage, and after how many of its markers
    ("images", 0),
    ("images", 2),
    ("extract", 7),
    ("extract", 15),
    ("extract", 20),
    ("reduce", 0),
    ("reduce", 1),
    ("mosaic", 0),
    ("maximize", 0),
    ("maximize", 1),
]


def reached(run_dir: Path, stage: str, count: int) -> Callable[[], bool]:
    def holds() -> bool:
        folders = list(run_dir.glob(f"passes/{stage}-*"))
        markers = [marker for folder in folders for marker in folder.glob("done/*.json")]
        return bool(folders) and len(markers) >= count

    return holds


def test_ten_kills(nodes: Cluster, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 96)
    whole = Driver(tmp_path, "run", [*on(nodes), *SMALL, "cluster.workers=2"], "whole")
    choose = random.Random(4)
    killed = tmp_path / "killed"
    for number, (stage, count) in enumerate(MOMENTS):
        workers = f"cluster.workers={1 + number % 2}"
        driver = Driver(tmp_path, "run", [*on(nodes), *SMALL, workers], "killed")
        driver.wait_for(reached(killed, stage, count), f"{stage} {count}")
        time.sleep(choose.uniform(0, 0.5))
        driver.kill()
    last = Driver(tmp_path, "run", [*on(nodes), *SMALL, "cluster.workers=2"], "killed")
    assert last.end() == 0, last.log.read_text()[-3000:]
    assert whole.end() == 0, whole.log.read_text()[-3000:]
    verify(str(killed), False)
    one, other = open_run(str(tmp_path / "whole")), open_run(str(killed))
    assert shas(one) == shas(other)
    assert len(set(other.images()["image_id"].to_pylist())) == 96
    assert maps(one) == maps(other)
    assert one.pictures("features.0")["channel"].to_pylist() == list(range(8))
    assert (
        one.pictures("features.0")
        .drop(["curve"])
        .equals(other.pictures("features.0").drop(["curve"]))
    )


def maps(run: Run) -> list[str]:
    return [
        file.sha256
        for stage in ("reduce", "embedding", "mosaic")
        for owner in run.passes(stage)
        for marker in run.ledger.markers(owner).values()
        for file in marker.files
    ]
