"""Run the benchmarks one after another and write RESULTS.md and RESULTS.json beside this file.

    python benchmarks/table.py [shared] [--small] [--only extraction] [--arguments "..."]

``shared`` holds photos and weights (default: ``CNNVIS_SHARED``, else ../shared). ``--only`` keeps
the figures of the other benchmarks as the table has them. ``--small`` prints the ratios of small
sizes and writes no file: it shows that every benchmark runs, not how fast anything is.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from timing import Figure

HERE = Path(__file__).parent
ROOT = HERE.parent
BENCHMARKS = (
    "extraction",
    "maximization",
    "reduction",
    "report",
    "drift",
    "scheduling",
    "scale",
    "start",
)
VERSIONS = ("torch", "torchvision", "ray", "numpy", "pyarrow", "scikit-learn", "openTSNE")
HEADINGS = (
    "what",
    "ours",
    "theirs",
    "unit",
    "against",
    "ratio (lowest to highest)",
    "goal",
    "opens by double click",
    "states its quality",
    "note",
)


class Result(TypedDict):
    """What one benchmark gave."""

    made: str
    commit: str
    arguments: list[str]
    seconds: int
    figures: list[Figure]
    failed: str


class Results(TypedDict):
    """What the table shows."""

    machine: dict[str, object]
    benchmarks: dict[str, Result]


def run(name: str, shared: Path, small: bool, arguments: list[str]) -> Result:
    """Run one benchmark and collect its figures, or why it failed."""
    with tempfile.TemporaryDirectory(prefix="cnnvis-bench-") as folder:
        figures = Path(folder, "figures")
        own = {"CNNVIS_FIGURES": str(figures), "PYTHONPATH": str(ROOT)}
        small_too = {"CNNVIS_PEERS": "none"} if small else {}
        command = [sys.executable, str(HERE / f"{name}.py"), str(shared), *arguments]
        began = time.monotonic()
        with Path(folder, "log").open("w+", encoding="utf-8") as log:
            done = subprocess.run(
                [*command, "--small"] if small else command,
                env={**os.environ, **small_too, **own},
                stderr=log,
                check=False,
            )
            log.seek(0)
            lines = log.read().strip().splitlines()
        text = figures.read_text(encoding="utf-8") if figures.exists() else ""
    if done.returncode:
        print("\n".join(lines[-20:]), file=sys.stderr)
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "arguments": arguments,
        "seconds": round(time.monotonic() - began),
        "figures": [Figure(**json.loads(line)) for line in text.splitlines()],
        "failed": reason(lines, done.returncode) if done.returncode else "",
    }


def reason(lines: list[str], exit_code: int) -> str:
    """Return the last line that names an error, without what other processes wrote after it."""
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Expired)\b", line)]
    return (errors or lines or [f"exit code {exit_code}"])[-1]


def commit() -> str:
    """Return the commit of the code that is measured, with a plus where files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        found = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "cnnvis_ray"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() + ("+" if changed.stdout else "")


def machine() -> dict[str, object]:
    """Describe the machine and the versions that decide speed."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory, GiB": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in VERSIONS},
    }


def markdown(results: Results) -> str:
    """Write the results as tables, one for each benchmark."""
    about = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    parts = [
        "# What was measured",
        "Written by `make bench`; do not edit. Ratios are ours over theirs, both measured in the "
        "same run with the sides alternating; under 1 means that this project takes less. Values "
        "are medians. A goal is what was asked, not what was reached.",
        f"Machine: {about}.",
    ]
    for name, result in results["benchmarks"].items():
        parts.append(f"## {name}")
        command = " ".join(["python", f"benchmarks/{name}.py", "SHARED", *result["arguments"]])
        parts.append(
            f"`{command}`, {result['seconds']} s, {result['made']}, commit {result['commit']}."
        )
        if result["failed"]:
            parts.append(f"**Failed**: {result['failed']}")
        rows = [row(figure) for figure in result["figures"]]
        if rows:
            rule = ["---"] * len(HEADINGS)
            table = [HEADINGS, rule, *rows]
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in table))
    return "\n\n".join(parts) + "\n"


def row(figure: Figure) -> list[str]:
    """Write one figure as the cells of a row."""
    ratio = number(figure.ratio)
    if figure.spread:
        ratio += f" ({number(figure.spread[0])} to {number(figure.spread[1])})"
    cells = [
        figure.what,
        number(figure.ours),
        number(figure.theirs),
        figure.unit,
        figure.peer,
        ratio,
        figure.goal,
        word(figure.opens),
        word(figure.quality),
        figure.note,
    ]
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]


def number(value: float | None) -> str:
    """Write a value in four digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def word(value: bool | None) -> str:
    """Write yes, no or nothing."""
    return "" if value is None else "yes" if value else "no"


def read(path: Path) -> dict[str, Result]:
    """Read the figures that the table has."""
    if not path.exists():
        return {}
    results: Results = json.loads(path.read_text(encoding="utf-8"))
    for result in results["benchmarks"].values():
        result["figures"] = [Figure(**figure) for figure in result["figures"]]  # type: ignore[arg-type]
    return results["benchmarks"]


def main() -> int:
    """Run the benchmarks; 1 if any failed."""
    parser = argparse.ArgumentParser(description="run every benchmark and write the table")
    default = Path(os.environ.get("CNNVIS_SHARED", ROOT.parent / "shared"))
    parser.add_argument("shared", nargs="?", type=Path, default=default)
    parser.add_argument("--small", action="store_true", help="small sizes; writes no table")
    parser.add_argument("--arguments", default="", help="more words for each benchmark")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    asked = parser.parse_args()
    stored = HERE / "RESULTS.json"
    found = {} if asked.small else read(stored)
    failed: list[str] = []
    for name in asked.only:
        print(f"== {name}", flush=True)
        found[name] = run(name, asked.shared, asked.small, asked.arguments.split())
        if found[name]["failed"]:
            failed.append(f"{name}: {found[name]['failed']}")
        ordered = {known: found[known] for known in BENCHMARKS if known in found}
        results: Results = {"machine": machine(), "benchmarks": ordered}
        if not asked.small:
            stored.write_text(json.dumps(results, indent=1, default=asdict) + "\n", "utf-8")
            stored.with_suffix(".md").write_text(markdown(results), encoding="utf-8")
    if asked.small:
        print(markdown(results))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
