"""Explaining and comparing whole runs on the shared local Ray."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cnnvis_ray.config import Config, load_config, recipe_of
from cnnvis_ray.errors import IncompleteError, RefusedError
from cnnvis_ray.ledger import Pass, Run
from cnnvis_ray.stages.compare import compare
from cnnvis_ray.stages.explain import resolve_stride
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.run import run_verb
from tests.stages.conftest import write_photos
from tests.stages.tiny import written

pytestmark = pytest.mark.cluster

EXPLAIN = (
    "explain={images: 6, sheets: 2, curves: 2, patch: 16, stride: 16, batch_size: 4, map_size: 8,"
    " channels: '0:3', num_shown: 4}"
)


def files(root: str) -> list[str]:
    """List what explanation left, attempts' tokens and image names taken out."""
    folder = Path(root)
    return sorted(
        str(path.relative_to(folder)) for path in (folder / "explanation").rglob("*.png")
    )


def test_a_run_is_explained(run: Callable[..., Run], tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 20)
    run(EXPLAIN, verb="extract")
    done = run(EXPLAIN, verb="explain")
    heat = done.rows("explain", "explanation/heat", None)
    maps = heat.filter(heat["low"].is_valid())
    assert maps.num_rows == 6 * 3
    assert len(set(maps["key"].to_pylist())) == 6
    root = done.store.root
    cards = pq.read_table(f"{root}/explanation/cards/features.5.parquet").to_pylist()
    assert [card["channel"] for card in cards] == [0, 1, 2]
    statistics = done.statistics("features.5").slice(0, 3).to_pylist()
    for card, row in zip(cards, statistics, strict=True):
        assert [crop["key"] for crop in card["crops"]] == [e["key"] for e in row["exemplars"]]
        assert card["excited"] == pytest.approx(row["peak_excited"])
        assert {entry["name"] for entry in card["classes"]} == {"cane", "gatto", "mucca"}
    selective = pq.read_table(f"{root}/explanation/selectivity/features.5.parquet").to_pylist()
    assert len(selective) == done.statistics("features.5").num_rows
    for card, row in zip(cards, selective, strict=False):
        assert row["selectivity"] == pytest.approx(card["selectivity"])
    pictures = files(root)
    assert [p for p in pictures if "/images/" not in p] == [
        "explanation/cards/features.0-000.png",
        "explanation/cards/features.5-000.png",
        "explanation/classes-grad_cam.png",
        "explanation/classes-occlusion.png",
        "explanation/classes-saliency.png",
        "explanation/examples.png",
        "explanation/probe.png",
        "explanation/weights/features.0-grey.png",
        "explanation/weights/features.0.png",
    ]
    assert len([p for p in pictures if "/images/" in p]) == 2 * 2
    summary = done.store.read("summary.json").decode()
    assert '"deletion"' in summary
    assert '"random"' in summary
    probe = pq.read_table(f"{root}/explanation/probe.parquet").to_pylist()
    assert [row["layer"] for row in probe] == ["features.0", "features.5"]
    assert all(row["chance"] == pytest.approx(7 / 20) for row in probe)


def test_cards_show_synthetic_pictures_beside_real_crops(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", 6)
    maximize = (
        "maximize={layers: [features.5], channels: '0:2', size: 32, steps: 2, attempts: 1,"
        " transforms: none}"
    )
    run(EXPLAIN, maximize, verb="extract")
    run(EXPLAIN, maximize, verb="maximize")
    root = run(EXPLAIN, maximize, "explain.images=1", verb="explain").store.root
    pictures = pq.read_table(f"{root}/maximization/default/features.5.parquet").to_pylist()
    cards = pq.read_table(f"{root}/explanation/cards/features.5.parquet").to_pylist()
    for card, picture in zip(cards, pictures, strict=False):
        assert card["picture"] == picture["picture"]
        assert card["picture_percentile"] == pytest.approx(picture["percentile"])
    assert [card["picture"] is None for card in cards] == [False, False, True]


def test_a_closer_look_redraws_nothing_and_cards_name_their_catalogue(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", 6)
    sets = (
        EXPLAIN,
        "explain={images: 1, sheets: 0, curves: 0, methods: [], probe: false, channels: '0:2'}",
        "maximize={layers: [features.5], channels: '0:2', size: 32, steps: 1, attempts: 1,"
        " transforms: none}",
        "pictures.print=svg",
        "layers=[features.5]",
    )
    run(*sets, verb="extract")
    run(*sets, verb="maximize")
    root = Path(run(*sets, verb="explain").store.root)
    before = written(root)
    stored = (root / "config.yaml").read_bytes()
    close = (*sets, "maximize.name=close", "maximize.channels=[1]", "maximize.size=40")
    run(*close, verb="maximize", keep=False)
    assert (root / "maximization/close/features.5.parquet").exists()
    assert (root / "config.yaml").read_bytes() == stored
    run(*sets, verb="explain")
    after = written(root)
    redrawn = {path for path, at in after.items() if before.get(path, at) != at}
    assert redrawn <= {"summary.json"}
    card = root / "explanation/cards/features.5-000.svg"
    assert "catalogue default: channels 0 to 1" in card.read_text()
    run(*close, verb="explain", keep=False)
    assert "catalogue close: channels 0 to 1" in card.read_text()
    assert "40 x 40 pixels" in card.read_text()


def test_a_default_that_came_later_keeps_the_squares_of_an_earlier_run() -> None:
    earlier = Pass("explain", {"explain.patch": 56, "explain.stride": 56})

    def stride(*sets: str, made: Pass | None = earlier, replace: str = "") -> object:
        job = SimpleNamespace(
            config=load_config(None, sets),
            ledger=SimpleNamespace(passes=lambda stage: [made] if made else []),
            replace={replace},
        )
        return resolve_stride(cast(Job, job)).explain.stride

    assert stride() == 56
    assert stride(made=None) == 28
    assert stride(replace="explain") == 28
    assert stride("explain.stride=14") == 14  # refused by the claim, as ever
    assert stride("explain.patch=40") == 20
    assert recipe_of(load_config(None).pictures) == {}  # earlier recipes had none of its keys


@pytest.mark.slow  # reason: four invocations
def test_another_look_draws_again_what_it_changes(run: Callable[..., Run], tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 6)
    sets = (
        "explain={images: 1, sheets: 1, curves: 0, methods: [], probe: false, channels: '0:2'}",
        "layers=[features.5]",
    )
    run(*sets, verb="extract")
    root = Path(run(*sets, verb="explain").store.root)
    first = written(root)
    run(*sets, "pictures.crops=mask", verb="explain")
    masked = written(root)
    changed = {path for path, at in masked.items() if first.get(path) != at}
    assert {path.split("/")[1] for path in changed if path.startswith("explanation/")} == {
        "cards",
        "crops",
        "selectivity",
    }
    with pytest.raises(RefusedError, match=r"pictures\.background was null, is white.*--replace"):
        run(*sets, "pictures.background=white", verb="explain")
    run(*sets, "pictures.background=white", verb="explain", replace=["explain"])
    for path in ("cards/features.5-000.png", "examples.png", "weights/features.0-grey.png"):
        with Image.open(root / "explanation" / path) as sheet:
            assert sheet.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.slow  # reason: five invocations
def test_explaining_again_costs_nothing_and_growing_costs_the_growth(
    run: Callable[..., Run], configured: Callable[..., Config], tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", 20)
    run(EXPLAIN, verb="extract")
    first = run(EXPLAIN, verb="explain")
    before = {
        p: p.stat().st_mtime_ns for p in Path(first.store.root, "explanation/heat").iterdir()
    }
    again = run(EXPLAIN, verb="explain")
    after = {p: p.stat().st_mtime_ns for p in Path(again.store.root, "explanation/heat").iterdir()}
    assert after == before
    every = run(EXPLAIN, "explain.images=all", "explain.sheets=1", verb="explain")
    rows = every.rows("explain", "explanation/heat", ["key", "low"])
    assert rows.filter(rows["low"].is_valid()).num_rows == 20 * 3
    with pytest.raises(RefusedError, match=r"explain\.patch was 16, is 8.*--replace explain"):
        run_verb("explain", configured(EXPLAIN, "explain.patch=8", "explain.stride=8"), ())
    replaced = run(
        EXPLAIN, "explain.patch=8", "explain.stride=8", verb="explain", replace=["explain"]
    )
    assert replaced.rows("explain", "explanation/heat", ["key"]).num_rows == 6 * 3 + 2


@pytest.mark.parametrize("factory", ["unet", "control"])
def test_other_outputs_from_a_configuration(
    run: Callable[..., Run], tmp_path: Path, factory: str
) -> None:
    write_photos(tmp_path / "photos", 6)
    sets = (
        EXPLAIN,
        f"network={{name: 'tests.explanation.networks:{factory}', weights: random}}",
        "layers=[all]",
        "images.labels=null",
    )
    run(*sets, verb="extract")
    done = run(*sets, verb="explain")
    heat = done.rows("explain", "explanation/heat", None).to_pylist()
    maps = [row for row in heat if row["low"] is not None]
    assert len(maps) == 6 * 3
    kind = "output" if factory == "control" else "class"
    assert all(str(row["name"]).startswith(kind) for row in maps)
    assert not Path(done.store.root, "explanation/probe.parquet").exists()  # no labels
    assert done.images(["top5"])["top5"].null_count == 6  # predictions are skipped


def test_what_cannot_be_is_skipped_with_a_line(
    run: Callable[..., Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_photos(tmp_path / "photos", 6)
    run(EXPLAIN, verb="extract")
    with caplog.at_level(logging.INFO):
        done = run(EXPLAIN, "explain.patch=100", "explain.methods=[occlusion]", verb="explain")
    assert "a patch of 100 pixels does not fit the network's 64" in caplog.text
    heat = done.rows("explain", "explanation/heat", ["method"])
    assert set(heat["method"].to_pylist()) <= {"random"}
    assert not list(Path(done.store.root, "explanation/images").glob("*-occluded.png"))


def test_an_image_that_is_gone_is_told_and_the_rest_is_there(
    run: Callable[..., Run], configured: Callable[..., Config], tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", 6)
    run(EXPLAIN, verb="extract")
    lost = tmp_path / "photos/cane/000.png"
    lost.write_bytes(b"no image any more")
    for _ in range(2):  # the second time nothing is due, and it is told again
        with pytest.raises(IncompleteError, match="1 images that were extracted cannot be read"):
            run_verb("explain", configured(EXPLAIN), ())
    rows = Run(run(EXPLAIN, "explain.images=0", verb="explain").store).rows(
        "explain", "explanation/heat", ["key", "low"]
    )
    assert len(set(rows["key"].to_pylist())) == 5


def test_without_extraction_it_is_refused(
    configured: Callable[..., Config], tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", 3)
    with pytest.raises(RefusedError, match="no usable image yet"):
        run_verb("explain", configured(EXPLAIN), ())


def test_runs_are_compared(run: Callable[..., Run], tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 20)
    one = run(EXPLAIN, verb="extract").store.root
    run(EXPLAIN, verb="explain")
    other = str(tmp_path / "other")
    sets = (EXPLAIN, f"run_dir={other}", "seed=1")
    run(*sets, verb="extract")
    run(*sets, verb="explain")
    compare([one, other], [], "seeds")
    table = pq.read_table(f"{one}/compare/seeds/cka.parquet").to_pylist()
    assert len(table) == 16
    own = [r["cka"] for r in table if (r["run"], r["layer"]) == (r["other_run"], r["other_layer"])]
    assert own == pytest.approx([1] * 4)
    assert {row["images"] for row in table} == {20}
    with Image.open(f"{one}/compare/seeds/cka.png") as picture:
        assert np.asarray(picture).any()
    sheets = list(Path(one, "compare/seeds/images").iterdir())
    assert len(sheets) == 2
    with pytest.raises(RefusedError, match="needs two layers"):
        compare([one], ["features.5"], "alone")
