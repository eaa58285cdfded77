"""Doing a stage again: what goes with it, what stays, and which settings the run keeps."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cnnvis_ray import cli
from cnnvis_ray.ledger import open_run
from cnnvis_ray.stages.verify import verify
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import digests, go, written


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with photos, one of them large, and a finished extraction."""
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        folder = tmp_path_factory.mktemp("replacing")
        write_photos(folder / "photos", 12)
        Image.new("RGB", (120, 90), (200, 100, 0)).save(folder / "photos" / "cane" / "large.png")
        go(folder, "images.max_pixels=5000", "images.max_reject_fraction=0.5", verb="extract")
        yield folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it; the photos are where they were."""
    shutil.copytree(original / "run", tmp_path / "run")
    return tmp_path


@pytest.fixture
def sets(original: Path) -> list[str]:
    """The settings of the run."""
    photos = f"images.source={original / 'photos'}"
    return [photos, "images.max_pixels=5000", "images.max_reject_fraction=0.5"]


def test_layers_that_were_not_asked_stay(folder: Path, sets: list[str]) -> None:
    before = digests(open_run(str(folder / "run")), "extract")
    asked = [*sets, "layers=[features.0]", "extract.pooling=max"]
    done = go(folder, *asked, verb="extract", replace=["extract"])
    after = digests(done, "extract")
    assert done.layers() == ["features.0", "features.1"]
    other = {name: sha for name, sha in before.items() if "/features.1/" in name}
    assert other
    assert {name: after[name] for name in other} == other
    changed = {name for name, sha in after.items() if before[name] != sha}
    assert changed
    assert {name.split("/")[1] for name in changed} == {"features.0"}
    assert done.statistics("features.1").num_rows == 8
    verify(done.store.root, False)


def test_features_follow_their_images(folder: Path, sets: list[str]) -> None:
    before = written(folder / "run")
    first = digests(open_run(str(folder / "run")))
    done = go(folder, *sets, verb="extract", replace=["images"])
    shards = {
        path: at
        for path, at in written(folder / "run").items()
        if path.startswith(("images/", "features/", "rejects/")) or "/features.0/" in path
    }
    assert len(shards) == 2 + 2 + 2 * 2 + 2
    assert not shards.items() & before.items()
    assert digests(done, "images", "extract").items() <= first.items()
    verify(done.store.root, False)


def test_an_unchanged_recipe_is_done_again_when_asked(folder: Path, sets: list[str]) -> None:
    before = written(folder / "run")
    done = go(folder, *sets, verb="extract", replace=["extract"])
    after = written(folder / "run")
    assert not any(
        before.get(path) == at for path, at in after.items() if path.startswith("features/")
    )
    images = {path: at for path, at in after.items() if path.startswith("images/")}
    assert images.items() <= before.items()
    verify(done.store.root, False)


def test_more_pixels_make_a_reject_a_row(folder: Path, sets: list[str]) -> None:
    assert open_run(str(folder / "run")).rejects()["key"].to_pylist() == ["cane/large.png"]
    more = [*sets, "images.max_pixels=50000"]
    done = go(folder, *more, verb="extract", replace=["images"])
    assert done.rejects().num_rows == 0
    for layer in done.layers():
        keys, features = done.features(layer)
        assert len(keys) == len(features) == 13
        assert "cane/large.png" in keys
    verify(done.store.root, False)


def test_forgotten_layers_leave_no_merged_statistics(folder: Path, sets: list[str]) -> None:
    """A layer of another recipe goes with its images; so does what was merged of it."""
    other = [*sets, "layers=[features.0]", "extract.pooling=max"]
    go(folder, *other, verb="extract", replace=["extract"])
    asked = [*sets, "layers=[features.1]", "images.max_pixels=50000"]
    done = go(folder, *asked, verb="extract", replace=["images"])
    assert done.layers() == ["features.1"]
    assert not done.store.exists("channels/features.0.parquet")
    assert [owner.layers for owner in done.passes("statistics")] == [("features.1",)]
    assert done.statistics("features.1")["count"].to_pylist()[0] == 13
    verify(done.store.root, False)


def test_settings_beside_a_run_hold_once_unless_kept(folder: Path, sets: list[str]) -> None:
    run = str(folder / "run")
    go(folder, *sets, "layers=[features.0]", verb="extract")
    config = folder / "run" / "config.yaml"
    before = config.read_bytes()
    limit = ["--set", "images.max_reject_fraction=0.9"]
    assert cli.main(["extract", run, *limit]) == 0
    assert config.read_bytes() == before
    assert cli.main(["extract", run, *limit, "--keep"]) == 0
    assert yaml.safe_load(config.read_text())["images"]["max_reject_fraction"] == 0.9
    pooling = ["--set", "extract.pooling=max", "--replace", "extract"]
    assert cli.main(["extract", run, *pooling]) == 0
    assert yaml.safe_load(config.read_text())["extract"]["pooling"] == "max"
    assert cli.main(["extract", run]) == 0
