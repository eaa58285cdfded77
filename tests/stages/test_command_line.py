"""The command line: instant help, one line and an exit code for every failure."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cnnvis_ray import cli
from cnnvis_ray.config import parse_config
from cnnvis_ray.errors import (
    CnnvisError,
    HeldError,
    IncompleteError,
    InterruptedRunError,
    RefusedError,
)
from tests.conftest import ROOT

PLACING = {"place": ["runs/mine", "--source", "x", "--name", "y"], "audit": ["runs/mine"]}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused; give its one line."""
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1
    assert "Traceback" not in told
    return told


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cnnvis_ray import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('torch', 'ray', 'pyarrow', 'numpy', 'pydantic') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run"], "cnnvis init"),
        (["run", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "nowhere"], "neither a run"),
        (["run", "nowhere", "--config", "x.yaml"], "give one of them"),
        (["layers", "vgg61"], "vgg16"),
        (["layers", "no.such.module:network"], "no.such.module"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], arguments: list[str], part: str) -> None:
    assert part in refused(capsys, *arguments)


def test_all_errors_of_a_configuration_at_once_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("images: {sorce: photos}\nlayers: 3\nextract: {batch_size: none}\n")
    assert cli.main(["run", "--config", str(path)]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert all(line.startswith("cnnvis: ") for line in told)
    for part in ("sorce", "source", "layers", "batch_size"):
        assert sum(part in line for line in told) == 1, told


@pytest.mark.parametrize(
    ("failure", "exit_code"),
    [
        (IncompleteError("something is missing"), 1),
        (HeldError("another driver"), 3),
        (InterruptedRunError("stopped"), 130),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "/runs/mine"), 1),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: BaseException,
    exit_code: int,
) -> None:
    def fail(parsed: object) -> None:
        raise failure

    monkeypatch.setattr(cli, "do_layers", fail)
    assert cli.main(["layers", "vgg16"]) == exit_code
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1
    if isinstance(failure, CnnvisError):
        assert str(failure) in told


def test_init_writes_what_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep" / "mine.yaml"
    assert cli.main(["init", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    assert parse_config(path.read_text(), "mine").network.name == "vgg16"
    assert "exists" in refused(capsys, "init", str(path))


def test_layers_lists_aliases_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers", "vgg16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (pool,) = [line for line in lines if "block5_pool" in line]
    for part in ("features.30", "pool5", "512", "7 x 7", "25,088"):
        assert part in pool


def test_every_verb_s_help_has_a_line_per_argument_and_an_example_that_parses() -> None:
    (verbs,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(cli.EXAMPLES) == set(verbs.choices)
    for verb, described in verbs.choices.items():
        assert all(action.help for action in described._actions), verb
        command = shlex.split(cli.EXAMPLES[verb])
        assert command[:2] == ["cnnvis", verb]
        assert command[2:] or verb == "quickstart"
        cli.parser().parse_args(command[1:])
        assert cli.EXAMPLES[verb] in " ".join(described.format_help().split())


@pytest.mark.parametrize("words", cli.PAGES)
def test_a_refusal_names_the_page_that_helps(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(parsed: object) -> None:
        raise RefusedError(f"it is about {words}, so it cannot work")

    monkeypatch.setattr(cli, "do_layers", refuse)
    assert f"(see {cli.PAGES[words]})" in refused(capsys, "layers", "vgg16")
    assert (ROOT / cli.PAGES[words]).exists()


def test_a_python_without_the_project_s_packages_ends_in_one_line(tmp_path: Path) -> None:
    """As in a job whose `python` is the system's: ``-S`` leaves out every installed package."""
    for script in sorted((ROOT / "jobs").glob("*.py")):
        arguments = PLACING.get(script.stem, ["--config", str(tmp_path / "x.yaml")])
        done = subprocess.run(
            [sys.executable, "-S", str(script), *arguments],
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "activate" in line and sys.executable in line


def test_a_network_of_one_s_own_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for the installed command, whose ``sys.path`` starts with the folder of commands."""
    (tmp_path / "network_of_mine.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 5, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cnnvis", "layers", "network_of_mine:build"])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    with pytest.raises(SystemExit) as ended:
        cli.command()
    assert ended.value.code == 0
    assert "Conv2d" in capsys.readouterr().out
