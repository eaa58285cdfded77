"""The seeds' recipes, run whole: small, with random weights, so that every layer is reached.

Weights are random by name and the network is VGG16 itself, so layouts are those of the recipe.
"""

import io
import runpy
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from cnnvis_ray.config import load_config
from cnnvis_ray.explanation.image_sheets import CHANNEL_SIDE, OCCLUDED_SIDE, SIDE
from cnnvis_ray.ledger import Run, open_run
from cnnvis_ray.pictures.sheets import MARGIN
from cnnvis_ray.stages.run import run_verb
from tests.conftest import ROOT
from tests.stages.conftest import without_ray, write_photos

Recipe = Callable[..., Run]
TEN_TILES = 10 * (CHANNEL_SIDE + MARGIN) + MARGIN
IMAGE = SIDE + 2 * MARGIN
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Run verbs of a recipe in this process, on small photos, and open the run."""
    without_ray(monkeypatch)
    write_photos(tmp_path / "photos", 12)
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["imgBrick"] = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), np.uint8)
    monkeypatch.setenv("CNNVIS_ANIMALS", str(tmp_path / "photos"))
    monkeypatch.setenv("CNNVIS_IMAGES", str(tmp_path / "photos"))
    monkeypatch.setenv("CNNVIS_STACK", str(tmp_path / "stack.h5"))
    monkeypatch.setenv("CNNVIS_SHARED", str(tmp_path))

    def go(name: str, *sets: str) -> Run:
        run_dir = str(tmp_path / "run")
        own = [f"run_dir={run_dir}", "network.weights=random", "extract.batch_size=4", *sets]
        run_verb("run", load_config(str(ROOT / "jobs/seeds" / f"{name}.yaml"), own))
        return open_run(run_dir)

    return go


def sizes(run: Run, folder: str) -> dict[str, tuple[int, int]]:
    """Return the size of each picture in a folder of a run."""
    found = {}
    for path in sorted((Path(run.store.root) / folder).glob("*.png")):
        with Image.open(path) as image:
            found[path.name] = image.size
    return found


def test_animals(recipe: Recipe) -> None:
    run = recipe("animals")
    assert set(run.images(["label"])["label"].to_pylist()) == {"dog", "cat", "cow"}
    blocks = ["features.16", "features.23", "features.30", "features.4", "features.9"]
    assert run.layers() == blocks
    sheets = sizes(run, "explanation/images")
    assert len(sheets) == 10
    assert {width for width, _ in sheets.values()} == {TEN_TILES + IMAGE}
    assert list(sizes(run, "explanation")) == ["examples.png", "probe.png"]
    assert [run.table(f"explanation/probe/{layer}.parquet").num_rows for layer in blocks] == [
        1
    ] * 5


def test_maximization(recipe: Recipe) -> None:
    run = recipe("maximization", "maximize.steps=1")
    for layer, side, first in (
        ("features.0", 100, 20),
        ("features.5", 110, 20),
        ("features.10", 120, 20),
        ("features.17", 140, 20),
        ("features.24", 160, 25),
    ):
        table = run.pictures(layer, "notebook")
        assert table["channel"].to_pylist() == list(range(first, first + 10))
        with Image.open(io.BytesIO(table["picture"][0].as_py())) as picture:
            assert picture.size == (side, side)
    sheets = sizes(run, "maximization/notebook/sheets")
    assert len(sheets) == 5
    for (width, height), side in zip(
        (sheets[f"features.{layer}-000.png"] for layer in (0, 5, 10, 17, 24)),
        (100, 110, 120, 140, 160),
        strict=True,
    ):
        assert width == 5 * (side + MARGIN) + MARGIN
        assert 2 * (side + MARGIN) < height < 3 * (side + MARGIN) + 200  # and what is said


def test_occlusion(recipe: Recipe) -> None:
    run = recipe("occlusion", "explain.batch_size=8")
    assert run.images().num_rows == 1
    sheets = sizes(run, "explanation/images")
    (occluded,) = (size for name, size in sheets.items() if name.endswith("-occluded.png"))
    assert occluded[0] == 8 * (OCCLUDED_SIDE + MARGIN) + MARGIN
    (heat,) = (
        r
        for r in run.rows("explain", "explanation/heat", None).to_pylist()
        if r["method"] == "occlusion"
    )
    assert len(set(np.asarray(heat["map"], np.float32).round(4))) <= 16


def test_journey(recipe: Recipe) -> None:
    run = recipe("journey", "images.limit=5", "explain.methods=[saliency, grad_cam]")
    assert run.layers() == ["features.0"]
    assert list(sizes(run, "explanation/weights")) == ["features.0-grey.png", "features.0.png"]
    assert len(sizes(run, "explanation/images")) == 1


def test_the_journey_goes_through_all_networks(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "jobs/seeds"))
    journey = runpy.run_path(str(ROOT / "jobs/seeds/journey.py"))
    small = ("network.weights=random", "explain.methods=[saliency]", "images.limit=5")
    assert journey["travel"]([part for each in small for part in ("--set", each)]) == 0
    names = [f"{name}-random" for name in journey["NETWORKS"]]
    assert len(names) == 7
    runs = [open_run(f"runs/seeds/journey/{name}") for name in names]
    shown = [list(sizes(run, "explanation/images").items()) for run in runs]
    assert all(len(sheets) == 1 for sheets in shown)
    (together,) = sizes(runs[0], "compare/default/images").values()
    assert together[0] == sum(size[0] for ((_, size),) in shown)


def test_the_image_set(recipe: Recipe) -> None:
    run = recipe(
        "image_set",
        "network.preprocess={resize: 36, crop: 32}",
        "reduce.iterations=250",
    )
    keys, features = run.features("features.4")
    assert (len(keys), features.shape[1]) == (200, 64 * 16 * 16)
    assert sizes(run, "mosaic")["features.4-scatter.png"] == (4000, 3000)
