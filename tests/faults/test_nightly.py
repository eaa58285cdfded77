"""docs/nightly.md, section 1, followed as written, with the commands that stand on the page."""

import os
import re
import shlex
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.faults.conftest import summary, wait_for
from tests.faults.heads import Head, small_config, started_head, write_submitted
from tests.stages.conftest import write_photos

PAGE = (ROOT / "docs/nightly.md").read_text()
COUNTER = r"^ray_cnnvis_(\w+)_total\{.*\} (\S+)$"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a checkout, where the crontab's line expects it, and ten photos."""
    home = tmp_path / "home"
    checkout = home / "cnnvis"
    write_submitted(checkout)
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "ray").symlink_to(Path(sys.executable).parent / "ray")
    write_photos(tmp_path / "photos", 10)
    return home


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    """The head of step 2."""
    with started_head(tmp_path / "head.log", {"RAY_AUTH_MODE": "disabled"}) as started:
        yield started


def commands(step: int) -> list[list[str]]:
    """Read the commands of a step of section 1 off the page."""
    section = PAGE.split("## 1.")[1].split("\n## ")[0]
    text = re.split(rf"^{step}\. ", section, flags=re.MULTILINE)[1]
    block = re.split(r"^\d\. ", text, flags=re.MULTILINE)[0].split("```")[1]
    return [shlex.split(line, comments=True) for line in block.strip().splitlines()]


def at_night(home: Path, head: Head, date: str) -> int:
    """Do what cron does on a date: the last line of the crontab, its environment, its shell."""
    lines = (ROOT / "deploy/crontab").read_text().strip().splitlines()
    line = lines[-1].split(maxsplit=5)[5].replace(r"\%", "%")
    clock = home / "clock"
    clock.mkdir(exist_ok=True)
    (clock / "date").write_text(f"#!/bin/sh\necho {date}\n")
    (clock / "date").chmod(0o755)
    environment = {
        "HOME": str(home),
        "SHELL": "/bin/sh",
        "PATH": f"{clock}:/usr/bin:/bin",
        "RAY_API_SERVER_ADDRESS": head.address,
    }
    return subprocess.run(["/bin/sh", "-c", line], env=environment, check=False).returncode


def ended(head: Head, date: str, folder: Path) -> str:
    """Wait for a night's job to end and give its state."""
    states: list[str] = []

    def is_over() -> bool:
        told = head.job(folder, "status", f"cnnvis-{date}").upper()
        states.extend(state for state in ENDED if state in told)
        return bool(states)

    wait_for(is_over, 200, f"the end of {date}")
    return states[-1]


class Scraper(threading.Thread):
    """Reads a head's counters all the time, as Prometheus does."""

    def __init__(self, head: Head) -> None:
        super().__init__(daemon=True)
        self.head = head
        self.stop = threading.Event()
        self.seen: dict[str, float] = {}

    def run(self) -> None:
        while not self.stop.wait(0.5):
            try:
                with urllib.request.urlopen(self.head.metrics, timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                continue
            total: dict[str, float] = defaultdict(float)
            for name, value in re.findall(COUNTER, text, re.MULTILINE):
                total[name] += float(value)
            self.seen.update(total)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_page_works_as_it_stands(home: Path, head: Head, tmp_path: Path) -> None:
    checkout, run_dir = home / "cnnvis", tmp_path / "run"
    init, plan = commands(1)
    assert run(init, checkout) == 0
    config = yaml.safe_load((checkout / "nightly.yaml").read_text())
    own = small_config(run_dir, tmp_path / "photos")
    assert set(own) <= set(config)  # what the page says to set is there to be set
    config.update(own)
    write(checkout, config)
    assert run(plan, checkout) == 0

    (start,) = commands(2)
    assert start == ["ray", "start", "--head", "--block", "--dashboard-host=127.0.0.1"]

    scraper = Scraper(head)
    scraper.start()
    ((ray, job, submit, *arguments),) = commands(3)
    assert (ray, job, submit) == ("ray", "job", "submit")
    assert "10 images = 10 rows + 0 rejects" in head.job(checkout, submit, *arguments)
    wait_for(lambda: scraper.seen.get("images") == 10, 30, "the counter of images")
    assert scraper.seen["bytes"] > 1000
    assert scraper.seen["seconds"] > 0
    scraper.stop.set()

    write_photos(tmp_path / "photos", 13, first=10)
    assert at_night(home, head, "2030-01-01") == 0
    assert ended(head, "2030-01-01", checkout) == "SUCCEEDED"
    assert rows(run_dir) == 13
    assert summary(run_dir)["source"] == {"new": 3, "gone": 0, "changed": 0}
    assert at_night(home, head, "2030-01-01") != 0  # the same night once more
    assert "2030-01-01" in (home / "cnnvis-nightly.log").read_text()

    write_photos(tmp_path / "photos", 20, first=13)
    config["cluster"]["deadline"] = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime())
    write(checkout, config)
    assert at_night(home, head, "2030-01-02") == 0
    assert ended(head, "2030-01-02", checkout) == "FAILED"
    del config["cluster"]["deadline"]
    write(checkout, config)
    assert at_night(home, head, "2030-01-03") == 0
    assert ended(head, "2030-01-03", checkout) == "SUCCEEDED"
    assert rows(run_dir) == 20
    last = PAGE.split("## The next morning")[1]
    morning = re.findall(r"^cnnvis \w+ RUN", last, re.MULTILINE)
    assert len(morning) == 2
    for line in morning:
        assert run(line.replace("RUN", str(run_dir)).split(), checkout) == 0


def rows(run_dir: Path) -> object:
    images = summary(run_dir)["images"]
    assert isinstance(images, dict)
    return images["rows"]


def write(checkout: Path, config: dict[str, object]) -> None:
    (checkout / "nightly.yaml").write_text(yaml.safe_dump(config))


def run(command: list[str], folder: Path) -> int:
    """Run a command of the page in a folder."""
    own = Path(sys.executable).parent / command[0]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run([own, *command[1:]], cwd=folder, env=environment, check=False).returncode
