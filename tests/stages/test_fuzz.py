"""Every key of the configuration with values of every kind, through the command on a real run."""

import random
import shutil
from pathlib import Path

import pytest

from cnnvis_ray import cli
from cnnvis_ray.config import Config, load_config
from tests.config.test_loading import WRONG, keys_of
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import contents, go

PER_KEY = 12
KNOWN = (0, 1, 2)  # done, something is missing, refused: never a traceback


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write_photos(folder / "photos", 12)
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        go(folder)
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("key", keys_of(Config))
def test_a_value_is_taken_or_refused_in_a_line(
    key: str,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without_ray(monkeypatch)
    if key in ("run_dir", "cluster.address", "network.weights", "network.name"):
        pytest.skip("names a place outside the run, which other tests cover")
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for value in random.Random(key).sample(WRONG, PER_KEY):
        before = contents(run)
        code = cli.main(["run", str(run), "--set", f"{key}={value}"])
        said = capsys.readouterr().err
        assert code in KNOWN, (value, said)
        assert "Traceback" not in said, value
        if code == 2:
            assert contents(run) == before, value
            assert all(line.startswith("cnnvis: ") for line in said.splitlines()), said
        else:
            load_config(None, [f"{key}={value}"])  # only what is allowed is taken
            shutil.rmtree(run)
            shutil.copytree(whole, run)
