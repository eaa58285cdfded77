"""From nothing to the first unit: the command's help, `layers`, `plan`, and a whole small run.

    python benchmarks/start.py [shared] [--small]

Each is the command in a process of its own, files in the cache of the system, as a person starts
it the second time.
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Figure, report

COMMAND = Path(sys.executable).with_name("cnnvis")
CONFIG = """
run_dir: {folder}/run
images: {{source: {folder}/photos}}
network: {{name: squeezenet1_1, weights: random}}
layers: [features.2]
"""
GOALS = {"--help": 0.1, "layers": 3.0, "plan": 3.0}


def spend(words: list[str]) -> tuple[float, float, str]:
    """Run the command: its wall seconds, its CPU seconds, what it said."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-2000:]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stderr


def write_config(folder: Path, shared: Path) -> Path:
    """Write a configuration of sixteen photos."""
    (folder / "photos").mkdir()
    for photo in sorted((shared / "data" / "photos").rglob("*.*"))[:16]:
        shutil.copy(photo, folder / "photos" / f"{photo.parent.name}-{photo.name}")
    config = folder / "run.yaml"
    config.write_text(CONFIG.format(folder=folder))
    return config


def measure(words: list[str], rounds: int) -> None:
    """Report the medians of a command, the first time left out."""
    walls, cpus = zip(*[spend(words)[:2] for _ in range(rounds + 1)][1:], strict=True)
    goal = GOALS[words[0]]
    report(
        Figure(
            "start",
            f"cnnvis {words[0]}",
            "goal",
            statistics.median(walls),
            goal,
            goal="<= 1",
            rounds=rounds,
            spread=(min(walls) / goal, max(walls) / goal),
            note=f"{statistics.median(cpus):.2f} CPU s",
        )
    )


def main() -> None:
    """Report the medians."""
    parser = argparse.ArgumentParser(description="seconds until something happens")
    parser.add_argument("shared", type=Path)
    parser.add_argument("--small", action="store_true", help="one round")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cnnvis-start-") as text:
        folder = Path(text)
        config = str(write_config(folder, asked.shared))
        for words in (["--help"], ["layers", "squeezenet1_1"], ["plan", "--config", config]):
            measure(words, 1 if asked.small else 5)
        extract = ["extract", "--config", config, "--set"]
        walls = [
            spend([*extract, f"run_dir={folder}/run{number}"])[0]
            for number in range(1 if asked.small else 3)
        ]
    whole = statistics.median(walls)
    what = "cnnvis extract of 16 photos, whole"
    report(Figure("start", what, "nothing", whole, None, rounds=len(walls)))


if __name__ == "__main__":
    main()
