"""Every command and snippet of README and docs: valid always, and run where it can be.

A line of bash is parsed as the command would parse it: verbs by the command's own parser, its
configuration loaded with its settings. What needs a cluster, an account or the network is listed
in NOT_RUN with the reason. Snippets of Python, and the tutorial's commands, are run (slow).
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnvis_ray.cli import parser
from cnnvis_ray.config import load_config
from tests.conftest import ROOT
from tests.stages.conftest import write_photos

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = {
    "ray": "needs a cluster; tests/faults/test_nightly.py and test_jobs.py submit",
    "docker": "needs a container engine",
    "kubectl": "needs Kubernetes; tests/faults/test_deployment.py checks the manifests",
    "pip": "needs the network",
    "export": "sets the reader's own credentials",
    "source": "activates the reader's environment",
}
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = (  # what a test adds to a tutorial's command: a network without weights, few steps
    "--set=network={name: squeezenet1_1, weights: random, preprocess: {resize: 72, crop: 64}}",
    "--set=images.unit_size=16",
    "--set=maximize.steps=2",
    "--set=maximize.channels=[1]",
    "--set=maximize.size=48",
    "--set=maximize.attempts=1",
    "--set=reduce.iterations=250",
    "--set=mosaic={width: 400, height: 300, tile: 40}",
    "--set=cluster={gpus_per_worker: 0, cpus_per_worker: 1, workers: 1}",
)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield page and text of each block."""
    for page in PAGES:
        if "_build" not in page.parts:
            for kind, text in BLOCK.findall(page.read_text()):
                if kind == language:
                    yield str(page.relative_to(ROOT)), text


def lines() -> list[tuple[str, str]]:
    """List page and command of each line of bash."""
    return [
        (page, line)
        for page, text in blocks("bash")
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]


LINES = lines()
SNIPPETS = list(blocks("python"))


def test_there_are_commands_and_snippets_to_check() -> None:
    assert len(LINES) > 40
    assert len(SNIPPETS) > 6


@pytest.mark.parametrize(("page", "line"), LINES, ids=[line[:60] for _, line in LINES])
def test_a_command_is_valid(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CNNVIS_ANIMALS", "CNNVIS_IMAGES", "CNNVIS_STACK", "CNNVIS_SHARED"):
        monkeypatch.setenv(name, f"/{name.lower()}")
    command, *arguments = shlex.split(line, comments=True)
    command = command.removeprefix(".venv/bin/")
    if command in NOT_RUN:
        return
    if command == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    if command == "python":
        assert (ROOT / arguments[0]).exists()  # test_recipe_runs.py runs it
        return
    assert command == "cnnvis", f"{page}: {line!r} is of no known kind"
    parsed = parser().parse_args(arguments)
    path = getattr(parsed, "config", None)
    known = path if path is None or (ROOT / path).exists() else None
    load_config(known and str(ROOT / known), getattr(parsed, "set", []))


@pytest.mark.parametrize(("page", "text"), SNIPPETS)
def test_a_snippet_is_python(page: str, text: str) -> None:
    compile(text, page, "exec")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a small quickstart, as after the tutorial's first step."""
    home = tmp_path_factory.mktemp("home")
    write_photos(home / "photos", 24)
    small = ["images.limit=200", "maximize.steps=2", "reduce.iterations=250", *CLUSTER]
    do(home, "quickstart", *(part for each in small for part in ("--set", each)))
    do(home, "explain", "runs/quickstart", "--set", "explain.images=4", "--keep")
    return home


CLUSTER = ("cluster.workers=1", "cluster.gpus_per_worker=0", "mosaic.width=800")


def do(home: Path, *arguments: str) -> str:
    """Run the command in a folder; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "cnnvis_ray.cli", *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (arguments, done.stderr[-2000:])
    return done.stdout


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", sorted({page for page, _ in SNIPPETS}))
def test_the_snippets_of_a_page_run(
    page: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page's snippets share their names, as the cells of a notebook do."""
    monkeypatch.chdir(home)
    names: dict[str, object] = {"__name__": "snippet"}
    for each, text in SNIPPETS:
        if each == page:
            exec(compile(text, page, "exec"), names)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_the_tutorial_works_as_it_stands(home: Path) -> None:
    """Its commands in order, on small photos with a network without weights."""
    done = []
    for page, line in LINES:
        command, *arguments = shlex.split(line, comments=True)
        if page != "docs/tutorial.md" or command != "cnnvis":
            continue
        verb = arguments[0]
        settings: tuple[str, ...] = ()
        if arguments == ["run", "photos/"]:
            settings = (*SMALL, "--set=layers=[features.3]", "--set=explain.images=2")
        elif "--config" in arguments or "runs/mine" in arguments:
            pairs = (("layer1", "features.0"), ("layer2", "features.2"), ("layer4", "features.3"))
            for name, other in pairs:
                arguments = [argument.replace(name, other) for argument in arguments]
            settings = SMALL
        do(home, *arguments, *settings)
        if verb == "init":
            write_own(home / "mine.yaml")
        done.append(verb)
    assert done[:6] == ["status", "verify", "explain", "run", "show", "init"]
    assert {"layers", "plan", "reduce", "maximize"} <= set(done)
    assert (home / "runs/photos/report/index.html").exists()


def write_own(path: Path) -> None:
    """Set in the commented configuration what the tutorial says to set."""
    text = path.read_text()
    for key, value in (
        ("run_dir: runs/quickstart", "run_dir: runs/mine"),
        ("maximize]", "maximize, explain, report]"),
        ("source: digits", "source: photos"),
        ("name: vgg16", "name: squeezenet1_1"),
        ("weights: DEFAULT", "weights: random"),
        ("layers: [all]", "layers: [features.2, features.3]"),
    ):
        assert key in text, key
        text = text.replace(key, value, 1)
    path.write_text(text)
