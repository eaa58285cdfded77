"""A Ray head that takes jobs, started as a person starts one, and a folder to submit."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.conftest import wait_for

RAY = (sys.executable, "-m", "ray.scripts.scripts")
NETWORK_FILE = """
import torch
from torch import nn

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU())
"""


@dataclass(frozen=True, slots=True)
class Head:
    """A head that takes jobs.

    Attributes:
        address: of the jobs API.
        metrics: where its counters are read.
        environment: of the head and of whoever submits.
    """

    address: str
    metrics: str
    environment: dict[str, str]

    def job(self, folder: Path, verb: str, *arguments: str) -> str:
        """Submit a job from a folder and wait for it, or ask for one; give what Ray said."""
        done = subprocess.run(
            [*RAY, "job", verb, "--address", self.address, *arguments],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


def write_submitted(folder: Path) -> None:
    """Make a folder to submit: the scripts and a network of the user's own."""
    shutil.copytree(ROOT / "jobs", folder / "jobs", ignore=shutil.ignore_patterns("__py*"))
    (folder / "my_network.py").write_text(NETWORK_FILE)


def small_config(run_dir: Path, photos: Path) -> dict[str, object]:
    """Configure every stage for the small network, at the least cost."""
    preprocess = {"resize": 32, "crop": 32}
    return {
        "run_dir": str(run_dir),
        "images": {"source": str(photos), "unit_size": 8},
        "network": {"name": "my_network:tiny", "weights": "random", "preprocess": preprocess},
        "layers": ["0"],
        "maximize": {"channels": [0], "size": 32, "steps": 4, "transforms": "none"},
        "reduce": {"iterations": 50},
        "mosaic": {"width": 200, "height": 150, "tile": 20},
        "cluster": {"gpus_per_worker": 0, "cpus_per_worker": 1, "workers": 1},
    }


@contextmanager
def started_head(log: Path, extra: Mapping[str, str]) -> Iterator[Head]:
    """Start a head on ports of its own and end it after the block."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        **extra,
    }
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    ports = {
        name: free_port() for name in (*names, "dashboard-agent-grpc-port", "metrics-export-port")
    }
    options = [f"--{name}={value}" for name, value in ports.items()]
    start = ["start", "--head", "--block", "--dashboard-host=127.0.0.1"]
    with tempfile.TemporaryDirectory(prefix="cnnvis-head-", ignore_cleanup_errors=True) as short:
        with log.open("w") as lines:
            child = subprocess.Popen(
                [*RAY, *start, "--num-cpus=2", f"--temp-dir={short}", *options],
                env=environment,
                stdout=lines,
                stderr=lines,
                start_new_session=True,
            )
        try:
            wait_for(lambda: listens(ports["dashboard-port"]), 90, "the head")
            local = "http://127.0.0.1:{}"
            yield Head(
                local.format(ports["dashboard-port"]),
                local.format(ports["metrics-export-port"]) + "/metrics",
                environment,
            )
        finally:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(60)


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Tell whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
