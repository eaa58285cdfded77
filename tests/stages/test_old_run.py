"""A run of version 0.1.0 opens, verifies, continues without doing anything again, and grows.

The fixture was made by that version: the digits network with coarse weights, 48 digits in three
units, every stage, explanations too (their markers are what that version wrote).
"""

import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from cnnvis_ray import cli
from cnnvis_ray.config import load_config
from cnnvis_ray.ledger import Run, open_run
from cnnvis_ray.stages.run import run_verb
from cnnvis_ray.stages.verify import verify
from tests.stages.conftest import without_ray
from tests.stages.tiny import digests, written

FIXTURE = Path(__file__).parent / "data" / "run-0.1.tar.gz"
MADE = ("images", "extract", "maximize", "reduce")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with run and weights; its configuration names both relative to the one above."""
    without_ray(monkeypatch)
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "old"


def again(old: Path, *sets: str, replace: Sequence[str] = ()) -> Run:
    """Continue it from the configuration in the run."""
    run_verb("run", load_config(str(old / "run" / "config.yaml"), sets), replace)
    return open_run(str(old / "run"))


def test_it_opens_and_verifies(old: Path) -> None:
    run = open_run(str(old / "run"))
    assert run.layers() == ["features.10"]
    keys, features = run.features("features.10")
    assert len(keys) == len(features) == 48
    assert run.embedding("features.10").num_rows == 48
    assert run.pictures("features.10")["channel"].to_pylist() == [0, 1, 2]
    assert run.images()["label"].null_count == 0
    assert run.statistics("features.10").num_rows == features.shape[1]
    assert "files are what their markers say" in verify(str(old / "run"), False)[0]
    assert cli.main(["status", str(old / "run")]) == 0


def test_it_continues_without_doing_anything_again(old: Path) -> None:
    before, first = written(old / "run"), digests(open_run(str(old / "run")), *MADE)
    assert len(first) > 15
    done = again(old)
    after = written(old / "run")
    changed = {path for path, at in after.items() if before.get(path) != at}
    shards = ("images/", "rejects/", "features/", "reduction/", "explanation/", "plan/")
    assert not [path for path in changed if path.startswith(shards)]
    assert not [path for path in changed if "/000000.c0007." in path]
    assert not [path for path in changed if path.startswith(tuple(f"passes/{s}-" for s in MADE))]
    assert before.keys() - after.keys() == set()
    assert digests(done, *MADE) == first
    assert "files are what their markers say" in verify(done.store.root, False)[0]
    once = written(old / "run")
    again(old)
    assert {path for path, at in written(old / "run").items() if once.get(path) != at} == {
        "summary.json"
    }


def test_its_explanations_stay_under_later_defaults(old: Path) -> None:
    before = written(old / "run")
    config = load_config(str(old / "run" / "config.yaml"), ["explain.stride=auto"])
    run_verb("explain", config)
    after = written(old / "run")
    assert before.keys() - after.keys() == set()
    changed = {path for path, at in before.items() if path in after and after[path] != at}
    kept = ("explanation/heat", "explanation/images", "explanation/crops", "passes/explain-")
    assert not [path for path in changed if path.startswith(kept)]


def test_it_grows_by_images(old: Path) -> None:
    first = digests(open_run(str(old / "run")), "images", "extract")
    done = again(old, "images.limit=60")
    assert first.items() <= digests(done, "images", "extract").items()
    assert done.images().num_rows == len(done.features("features.10")[0]) == 60
    assert done.embedding("features.10").num_rows == 60
    assert done.statistics("features.10")["count"].to_pylist()[0] == 60
    assert "files are what their markers say" in verify(done.store.root, False)[0]


def test_it_grows_by_a_layer(old: Path) -> None:
    first = digests(open_run(str(old / "run")), *MADE)
    done = again(old, "layers=[block3, block1]")
    assert first.items() <= digests(done, *MADE).items()
    assert len(done.layers()) == 2
    for layer in done.layers():
        assert len(done.features(layer)[0]) == done.embedding(layer).num_rows == 48
    assert "files are what their markers say" in verify(done.store.root, False)[0]


def test_another_recipe_is_refused_by_its_old_name(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(old / "run")
    sets = ["--set", "extract.pooling=max", "--set", "reduce.perplexity=6"]
    assert cli.main(["run", "old/run", *sets]) == 2
    told = capsys.readouterr().err
    assert "extract.pooling was mean, is max" in told
    assert "reduce.perplexity was 5" in told
    assert written(old / "run") == before
