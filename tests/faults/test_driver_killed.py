"""The driver is killed in every stage, at chosen and at random moments, and continued."""

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


KILLS = 50
EXPLAINED = ("explain={images: 24, sheets: 2, curves: 2, methods: [saliency]}",)


@pytest.mark.timeout(2400)
def test_fifty_kills_at_random(nodes: Cluster, tmp_path: Path) -> None:
    """Runs are killed at random moments until 50 drivers are dead; each ends as if undisturbed."""
    write_photos(tmp_path / "photos", 96)
    settings = [*on(nodes), *SMALL, *EXPLAINED, "cluster.cpus_per_worker=1"]
    for verb in ("run", "explain"):
        whole = Driver(tmp_path, verb, [*settings, "cluster.workers=2"], "whole")
        assert whole.end() == 0, whole.log.read_text()[-3000:]
    expected = everything(open_run(str(tmp_path / "whole")))
    choose = random.Random(7)
    killed = attempt = 0
    while killed < KILLS:
        name = f"killed-{attempt}"
        attempt += 1
        for verb in ("run", "explain"):
            while True:
                workers = f"cluster.workers={choose.randint(1, 2)}"
                driver = Driver(tmp_path, verb, [*settings, workers], name)
                if killed < KILLS and driver.lives(choose.uniform(4, 14)):
                    driver.kill()
                    killed += 1
                    continue
                assert driver.end() == 0, driver.log.read_text()[-3000:]
                break
        verify(str(tmp_path / name), False)
        assert everything(open_run(str(tmp_path / name))) == expected, name


def everything(run: Run) -> dict[str, list[str]]:
    """Return the digests of every file that a marker names, by stage and unit."""
    return {
        f"{stage} {owner.layers} {unit}": [file.sha256 for file in marker.files]
        for stage in run.ledger.stages
        for owner in run.passes(stage)
        for unit, marker in run.ledger.markers(owner).items()
    }


def maps(run: Run) -> list[str]:
    return [
        file.sha256
        for stage in ("reduce", "embedding", "mosaic")
        for owner in run.passes(stage)
        for marker in run.ledger.markers(owner).values()
        for file in marker.files
    ]
