"""`cnnvis run` goes through the stages that the configuration names, in one invocation."""

from pathlib import Path

import pytest

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.stages.configuration import configured
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import contents, go, written

EXPLAIN = "explain={images: 2, curves: 0, methods: [saliency], channels: '0:2'}"
ALL = "stages=[extract, explain, report]"


def test_explain_and_report_follow_extraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    write_photos(tmp_path / "photos", 12)
    run = go(tmp_path, ALL, EXPLAIN)
    assert run.rows("explain", "explanation/heat", None).num_rows == 2
    assert (tmp_path / "run/explanation/cards/features.0.parquet").exists()
    assert (tmp_path / "run/report/index.html").exists()
    assert not (tmp_path / "run/embedding").exists()
    assert not (tmp_path / "run/maximization").exists()
    before = written(tmp_path / "run")
    go(tmp_path, ALL, EXPLAIN)
    changed = {path for path, at in written(tmp_path / "run").items() if at != before.get(path)}
    assert not [path for path in changed if path.startswith(("features", "explanation/heat"))]
    assert not [path for path in changed if path.startswith(("explanation/cards", "passes"))]


def test_what_explain_refuses_is_refused_before_anything_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    write_photos(tmp_path / "photos", 12)
    for setting, words in (
        ("explain.methods=[saliensy]", "saliency"),
        ("explain.output=classes", "output per image"),
        ("stages=[extract, explane]", "did you mean explain"),
    ):
        with pytest.raises(RefusedError, match=words):
            go(tmp_path, ALL, EXPLAIN, setting)
        assert "images" not in contents(tmp_path / "run")


def test_a_folder_of_photos_goes_through_every_stage(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    config = configured(str(tmp_path / "photos"), None, ["maximize.steps=2"])
    assert config.stages[-2:] == ["explain", "report"]
    assert (config.maximize.channels, config.maximize.steps) == ("0:16", 2)
    assert (config.network.name, config.layers) == ("resnet50", ["layer1", "layer4"])
    config = configured(str(tmp_path / "photos"), None, ["network={name: alexnet}"])
    assert (config.network.name, config.layers) == ("alexnet", ["all"])
