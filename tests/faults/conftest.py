"""What the tests of faults share: small runs, drivers of their own, and a cluster of nodes."""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image
from ray.cluster_utils import Cluster

from cnnvis_ray.config import Config, load_config
from cnnvis_ray.ledger import Run, open_run
from tests.conftest import ROOT
from tests.faults.networks import FOLDER
from tests.stages.conftest import NETWORK, configured, write_photos

__all__ = ["configured"]

WATCHED = (
    "network={name: 'tests.faults.networks:watched', weights: random, "
    "preprocess: {resize: 32, crop: 32}}"
)
QUICK_HEALTH = {  # a dead node is noticed after 1.4 s instead of 12
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


def small_sets(folder: Path, network: str) -> list[str]:
    """Configure a small run in a folder."""
    return [
        f"run_dir={folder / 'run'}",
        f"images.source={folder / 'photos'}",
        "images.unit_size=16",
        network,
        "extract.batch_size=8",
        "cluster={gpus_per_worker: 0, cpus_per_worker: 1, workers: 1}",
    ]


def small_run(folder: Path, *sets: str) -> Config:
    """Configure an extraction with a small real network."""
    own = [*small_sets(folder, NETWORK), "layers=[features.0, features.5]"]
    return load_config(None, [*own, *sets])


def shas(run: Run) -> dict[str, str]:
    """Give what a run's shards hold, by name without the attempt."""
    return {
        file.path.rsplit(".", 2)[0]: file.sha256
        for stage in ("images", "extract")
        for owner in run.passes(stage)
        for marker in run.ledger.markers(owner).values()
        for file in marker.files
    }


def summary(run_dir: Path) -> dict[str, object]:
    """Read a run's summary."""
    fields: dict[str, object] = json.loads((run_dir / "summary.json").read_text())
    return fields


def wait_for(condition: Callable[[], bool], seconds: float = 60, what: str = "it") -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.05)


class Driver:
    """A `cnnvis` process of its own."""

    started: ClassVar[list["Driver"]] = []

    def __init__(self, folder: Path, verb: str, sets: list[str], name: str = "run") -> None:
        self.run_dir = folder / name
        self.log = folder / f"{name}.log"
        arguments = [
            part
            for text in [*small_sets(folder, WATCHED), f"run_dir={self.run_dir}", *sets]
            for part in ("--set", text)
        ]
        config = folder / "empty.yaml"
        config.touch()
        command = [sys.executable, "-m", "cnnvis_ray.cli", "--verbose", verb]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        environment.pop(FOLDER, None)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--config", str(config), *arguments],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.started.append(self)

    def markers(self, stage: str = "extract") -> int:
        """Count a stage's markers so far."""
        return len(list(self.run_dir.glob(f"passes/{stage}-*/done/*.json")))

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something to hold while the driver runs."""

        def holds() -> bool:
            assert self.process.poll() is None or condition(), self.log.read_text()[-3000:]
            return condition()

        wait_for(holds, 180, what)

    def lives(self, seconds: float) -> bool:
        """Whether it still runs after some time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def kill(self) -> None:
        """End it with SIGKILL, with every process that it started itself."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, seconds: float = 150) -> int:
        """Wait for its exit code."""
        return self.process.wait(seconds)


@pytest.fixture(autouse=True)
def no_driver_stays() -> Iterator[None]:
    """End what a failed test has left running."""
    yield
    for driver in Driver.started:
        if driver.process.poll() is None:
            driver.kill()
    Driver.started.clear()


@pytest.fixture(scope="session")
def working(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each worker leaves its process number."""
    return tmp_path_factory.mktemp("working")


@pytest.fixture(scope="session")
def nodes(working: Path) -> Iterator[Cluster]:
    """Two nodes of one CPU each on this machine, which notice a dead one soon.

    One cluster for all tests: a second one after it in the same process has hung in its start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cnnvis-nodes-", ignore_cleanup_errors=True) as short,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv(FOLDER, str(working))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        (Path(short) / "ray").mkdir()
        patch.setenv("RAY_TMPDIR", short)
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "_system_config": QUICK_HEALTH},
        )
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():  # its sockets are left to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            del cluster
            gc.collect()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos; runs lie beside them."""
    folder = tmp_path_factory.mktemp("faults")
    write_photos(folder / "photos", 96)
    return folder


@pytest.fixture(scope="module")
def undisturbed(nodes: Cluster, photos: Path) -> dict[str, str]:
    """What a run leaves that nothing happened to."""
    driver = Driver(photos, "extract", [*on(nodes), "cluster.workers=2"], "undisturbed")
    assert driver.end() == 0, driver.log.read_text()[-3000:]
    return shas(open_run(str(driver.run_dir)))


def on(cluster: Cluster) -> list[str]:
    """Name a cluster and the layer in a driver's settings."""
    return [f"cluster.address={cluster.address}", "layers=[features.0]", "images.unit_size=8"]


def paint(path: Path, colour: tuple[int, int, int]) -> None:
    """Write an image of one colour."""
    Image.new("RGB", (64, 64), colour).save(path)
