"""Pictures of every channel as a work list on a real Ray: grid, bytes, percentiles, sheets."""

import io
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from cnnvis_ray.config import Config, Maximize
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import Pass, Run, channel_units
from cnnvis_ray.maximization.catalogue import name_channels
from cnnvis_ray.stages.job import open_job
from cnnvis_ray.stages.maximize import LayerPictures, decide
from tests.stages.conftest import write_photos

Go = Callable[..., Run]
DIVERSE = {"channel": 1.0, "diversity": 0.5}
SMALL = (
    "maximize={layers: [features.0], size: 24, steps: 4, attempts: 1, batch_size: 16,"
    " channels: '0:40'}"
)


def pictures(run: Run, name: str = "default") -> dict[int, bytes]:
    table = run.pictures("features.0", name)
    return dict(zip(table["channel"].to_pylist(), table["picture"].to_pylist(), strict=True))


def unit_files(run: Run) -> list[str]:
    return [
        Path(path).name.split(".")[1]
        for path in run.store.files("maximization/default/features.0")
    ]


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_all_after_one_redoes_nothing_but_what_is_missing(tmp_path: Path, ray_run: Go) -> None:
    write_photos(tmp_path / "photos", 8)
    seven = ray_run(SMALL, "maximize.channels=[7]", verb="maximize")
    assert unit_files(seven) == ["c0080"]
    alone = pictures(seven)[7]
    whole = ray_run(SMALL, "cluster.workers=2", verb="maximize")
    assert sorted(unit_files(whole)) == ["c0080", "c00ff", "cff7f", "cffff"]
    drawn = pictures(whole)
    assert sorted(drawn) == list(range(40))
    assert drawn[7] == alone
    other = ray_run(SMALL, f"run_dir={tmp_path / 'other'}", verb="maximize")
    assert pictures(other) == drawn  # shared with other channels, drawn by another worker
    assert "percentile" in other.pictures("features.0").column_names


def test_percentiles_come_with_statistics(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 12)
    first = run(SMALL, verb="maximize")
    assert set(first.pictures("features.0")["percentile"].to_pylist()) == {None}
    second = run(SMALL, verb="extract")
    table = second.pictures("features.0")
    means = second.features("features.0")[1].astype(np.float64)
    for row in table.to_pylist():
        expected = 100 * (means[:, row["channel"]] < row["activation"]).mean()
        assert abs(row["percentile"] - expected) <= 50 / 12 + 5
        assert row["best_image"] == pytest.approx(means[:, row["channel"]].max(), rel=2e-3)
    assert (
        tmp_path / "run" / "maximization" / "default" / "sheets" / "features.0-000.png"
    ).exists()


def test_catalogues_of_other_names_live_side_by_side(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 8)
    run(SMALL, "maximize.channels=[1, 2]", verb="maximize")
    both = run(
        SMALL,
        "maximize.name=close",
        "maximize.channels=[2]",
        "maximize.size=48",
        "maximize.attempts=1",
        verb="maximize",
    )
    assert sorted(pictures(both)) == [1, 2]
    close = pictures(both, "close")
    assert sorted(close) == [2]
    assert Image.open(io.BytesIO(close[2])).size == (48, 48)


def test_a_changed_recipe_is_refused_by_name(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 8)
    run(SMALL, "maximize.channels=[1]", verb="maximize")
    with pytest.raises(RefusedError, match=r"maximize\.steps was 4, is 5"):
        run(SMALL, "maximize.channels=[1]", "maximize.steps=5", verb="maximize")
    done = run(
        SMALL,
        "maximize.channels=[1]",
        "maximize.steps=5",
        verb="maximize",
        replace=["maximize"],
    )
    assert len(done.pictures("features.0")["curve"].to_pylist()[0]) == 5


def test_overrides_by_alias(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 8)
    done = run(
        "maximize={layers: [features.0, features.1], size: 24, steps: 2, attempts: 1}",
        "maximize.overrides={features.1: {size: 30, channels: [3]}, features.0: {channels: [1]}}",
        verb="maximize",
    )
    assert [Image.open(io.BytesIO(p)).size for p in pictures(done).values()] == [(24, 24)]
    table = done.pictures("features.1")
    assert table["channel"].to_pylist() == [3]
    assert Image.open(io.BytesIO(table["picture"].to_pylist()[0])).size == (30, 30)


def test_a_spectrum_of_the_runs_images_is_kept(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 8)
    done = run(SMALL, "maximize.parametrization=maco", "maximize.channels=[0]", verb="maximize")
    assert pictures(done).keys() == {0}
    with np.load(tmp_path / "run" / "spectra" / "24x24.npz") as archive:
        assert archive["magnitude"].shape == (3, 24, 13)
        assert int(archive["images"]) == 8


@pytest.mark.parametrize(
    ("channels", "more", "sizes"),
    [
        ([0, 40, 80, 120], {}, [[1, 1, 1, 1]]),
        (list(range(48)), {}, [[16], [16], [16]]),
        (list(range(48)), {"batch_size": 32}, [[16, 16], [16]]),
        ([*range(10), *range(16, 26), *range(32, 38), *range(48, 54)], {}, [[10, 6], [10, 6]]),
        (list(range(20)), {"batch_size": 8}, [[16], [4]]),
        ([0, 16, 32], {"batch_size": 4, "pictures": 2, "objective": DIVERSE}, [[1, 1], [1]]),
    ],
)
def test_scattered_channels_share_batches(
    channels: list[int], more: dict[str, object], sizes: list[list[int]]
) -> None:
    units = tuple(channel_units(set(channels), set()))
    owner = Pass("maximize", {}, ("a",), "", "default")
    layer = LayerPictures(Mock(), Maximize.model_validate(more), Mock(passes=(owner,)), units)
    batches = layer.batches()
    assert [[len(unit.channels) for unit in batch] for batch in batches] == sizes
    assert sorted(unit.name for batch in batches for unit in batch) == sorted(
        unit.name for unit in units
    )


def test_scattered_channels_are_committed_unit_by_unit(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 8)
    alone = pictures(run(SMALL, "maximize.channels=[20]", verb="maximize"))
    together = run(SMALL, "maximize.channels=[3, 20, 40, 60]", verb="maximize")
    assert len(unit_files(together)) == 4
    drawn = pictures(together)
    assert sorted(drawn) == [3, 20, 40, 60]
    other = run(SMALL, "maximize.channels=[60]", f"run_dir={tmp_path / 'other'}", verb="maximize")
    assert pictures(other)[60] == drawn[60]  # alone and packed: the same bytes
    assert drawn[20] == alone[20]


@pytest.mark.parametrize(
    ("sets", "part"),
    [
        (["maximize.channels=[64]"], "features.0 has channels 0 to 63"),
        (["maximize.size=2"], "smallest size that works"),
        (["maximize.objective=beauty"], "beauty"),
        (["maximize.overrides={nowhere: {size: 3}}"], "nowhere"),
    ],
)
def test_refusals_before_ray(
    tmp_path: Path, configured: Callable[..., Config], sets: list[str], part: str
) -> None:
    write_photos(tmp_path / "photos", 8)
    with pytest.raises(RefusedError, match=part):
        config = configured(SMALL, *sets)
        decide(open_job(config, ("maximize",), ["maximize"]))


def test_a_lost_unit_is_made_again(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 8)
    first = run(SMALL, "maximize.channels='0:16'", verb="maximize")
    before = pictures(first)
    (owner,) = first.passes("maximize")
    (unit,) = first.ledger.done(owner)
    first.store.delete([f"passes/{owner.name}/done/{unit}.json"])
    again = run(SMALL, "maximize.channels='0:16'", verb="maximize")
    assert pictures(again) == before
    assert len(unit_files(again)) == 1


def test_few_pictures_are_shown_as_large_as_they_are(tmp_path: Path, run: Go) -> None:
    write_photos(tmp_path / "photos", 2)
    done = run(
        SMALL,
        "maximize.channels=[2, 5]",
        "maximize.size=300",
        "maximize.steps=2",
        "maximize.attempts=1",
        verb="maximize",
    )
    sheet = done.store.read("maximization/default/sheets/features.0-000.png")
    assert Image.open(io.BytesIO(sheet)).width > 600


def test_a_sheet_names_its_channels() -> None:
    assert name_channels([{"channel": 4}, {"channel": 4}]) == "channel 4"
    assert name_channels([{"channel": 4}, {"channel": 36}]) == "channels 4, 36"
    assert name_channels([{"channel": n} for n in range(3, 40)]) == "37 channels, 3 to 39"
