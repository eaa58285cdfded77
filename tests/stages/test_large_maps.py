"""Maps of many images: searched in tasks that go on after a kill, drawn in tasks, none missing."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import Run
from cnnvis_ray.reduction import neighbours as neighbours_module
from cnnvis_ray.reduction.searching import Search, search_range
from cnnvis_ray.stages import mosaic, reduce
from cnnvis_ray.stages.summary import read_summary
from cnnvis_ray.storage import ShardFile
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import LAYERS, go

pytestmark = pytest.mark.slow
NO_PICTURES = ("maximize.layers=[]",)


@pytest.fixture
def in_tasks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Let 12 images be many: 3 ranges of rows, 3 groups of thumbnails; list what is searched."""
    searched: list[tuple[str, int]] = []

    def watched(task: tuple[Search, int]) -> ShardFile:
        searched.append((task[0].layer, task[1]))
        if len(searched) == 5:
            raise KeyboardInterrupt
        return search_range(*task)

    without_ray(monkeypatch)
    monkeypatch.setattr(reduce, "search_one", watched)
    for module, name, value in (
        (reduce, "SEARCHED_IN_TASKS", 8),
        (reduce, "FEW_IMAGES", 0),
        (mosaic, "FEW_IMAGES", 0),
        (mosaic, "GROUP_IMAGES", 4),
        (neighbours_module, "QUERY_ROWS", 5),
    ):
        monkeypatch.setattr(module, name, value)
    return searched


def maps(run: Run) -> list[object]:
    return [
        pq.read_table(Path(run.store.root) / path).to_pylist()
        for layer in LAYERS
        for path in (f"neighbours/{layer}/000000.parquet", f"embedding/{layer}.parquet")
    ]


def test_a_killed_search_goes_on_and_finds_the_same(
    tmp_path: Path, in_tasks: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 12)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, *NO_PICTURES)
    done = list((tmp_path / "run").glob("passes/search-*/done/*.json"))
    assert len(done) == 2 + 4  # an index per layer, and the ranges before the kill
    run = go(tmp_path, *NO_PICTURES)
    ranges = [(layer, number) for layer in LAYERS for number in (1, 2, 3)]
    assert in_tasks == [*ranges[:5], *ranges[4:]]
    left = [*(tmp_path / "run").glob("search/*/*"), *(tmp_path / "run").glob("mosaic/.*")]
    assert not left, "what tasks found is left"
    assert not list((tmp_path / "run").glob("passes/search-*/**/*.json"))
    monkeypatch.undo()
    without_ray(monkeypatch)
    assert maps(go(tmp_path, *NO_PICTURES, run="other")) == maps(run)


def test_a_pyramid_in_tasks_has_every_image(
    tmp_path: Path, in_tasks: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 12)
    in_tasks.extend([("", 0)] * 5)  # nothing is killed
    counts = []
    draw = mosaic.draw_one

    def counted(band: mosaic.Band, number: int) -> tuple[list[ShardFile], int]:
        counts.append(draw(band, number)[1])
        return draw(band, number)

    monkeypatch.setattr(mosaic, "draw_one", counted)
    run = go(tmp_path, *NO_PICTURES, "mosaic.pyramid=true", f"layers=[{LAYERS[0]}]")
    assert sum(counts) == 12
    files = run.files("mosaic", "mosaic")
    assert {f"mosaic/{LAYERS[0]}-grid.dzi", f"mosaic/{LAYERS[0]}-scatter.png"} <= {
        file.path for file in files
    }
    tiles = sorted((tmp_path / "run").glob("mosaic/*_files/*/*.jpg"))
    assert len(tiles) == len([f for f in files if f.path.endswith(".jpg")]) > 8


def test_maps_of_a_run_state_how_far_images_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 12)
    without_ray(monkeypatch)
    run = go(tmp_path, *NO_PICTURES)
    first, second = (
        pq.read_table(Path(run.store.root) / f"embedding/{layer}.parquet") for layer in LAYERS
    )
    quality = read_summary(run.store)["quality"][LAYERS[1]]
    assert isinstance(quality, dict)
    moved = second["displacement"].to_numpy()
    assert abs(float(str(quality["displacement"])) - moved.mean()) < 1e-3
    assert float(str(quality["seed_displacement"])) > 0
    assert first["displacement"].to_numpy().max() < 1e-6
    here, there = (np.stack([t["x"], t["y"]], axis=1).astype(float) for t in (first, second))
    product = (there - there.mean(0)).T @ (here - here.mean(0))
    np.testing.assert_allclose(product, product.T, atol=1e-3 * np.abs(product).max())


def test_a_map_of_another_run_is_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 12)
    without_ray(monkeypatch)
    layer = f"layers=[{LAYERS[0]}]"
    other = go(tmp_path, *NO_PICTURES, layer, "images.limit=10", run="other")
    path = f"{other.store.root}/embedding/{LAYERS[0]}.parquet"
    run = go(tmp_path, *NO_PICTURES, layer, f"reduce.init_from={path}", "images.unit_size=5")
    table = run.embedding(LAYERS[0])
    assert table.num_rows == 12
    assert 0 < table["displacement"].to_numpy().mean() < 2
    quality = read_summary(run.store)["quality"][LAYERS[0]]
    assert isinstance(quality, dict)
    moved = table["displacement"].to_numpy().mean()
    assert float(str(quality["displacement"])) == pytest.approx(moved, abs=1e-3)
    with pytest.raises(RefusedError, match=r"init_from: .*/none.parquet is not there"):
        go(tmp_path, *NO_PICTURES, layer, f"reduce.init_from={tmp_path}/none.parquet", run="no")
