"""Units of a run: rows as the schema says, one open source, percentiles where there can be any."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from torch import nn

from cnnvis_ray.channels import histograms
from cnnvis_ray.config import Maximize, Pictures
from cnnvis_ray.config import Network as NetworkSection
from cnnvis_ray.ledger import Pass, channel_units
from cnnvis_ray.maximization import (
    PICTURES,
    ImageEvidence,
    MaximizationTask,
    Maximizer,
    MaximizerSetup,
    describe_recipe,
    draw_catalogue,
    join_pictures,
)
from cnnvis_ray.maximization.catalogue import tile_of
from cnnvis_ray.maximization.worker import png
from cnnvis_ray.network import resolve_network, trace_layers
from cnnvis_ray.pictures.drawing import Shown
from cnnvis_ray.storage import Store, read_table


class CountingSource:
    """A source of one image that counts how often it is opened and closed."""

    identity = "counted"

    def __init__(self) -> None:
        self.opened = self.closed = self.fetched = 0

    def open(self) -> "CountingSource":
        self.opened += 1
        return self

    def close(self) -> None:
        self.closed += 1

    def fetch(self, key: str) -> np.ndarray:
        self.fetched += 1
        return np.zeros((40, 40, 3), np.uint8)


def silent() -> nn.Module:
    """Four channels that no picture excites, so that each attempt fails."""
    convolution = nn.Conv2d(3, 4, 3)
    nn.init.zeros_(convolution.weight)
    nn.init.constant_(convolution.get_parameter("bias"), -1.0)
    return nn.Sequential(convolution, nn.ReLU())


@contextmanager
def worker(run_dir: Path, source: CountingSource) -> Iterator[tuple[Maximizer, MaximizationTask]]:
    section = NetworkSection.model_validate(
        {
            "name": "tests.maximization.test_worker:silent",
            "weights": "random",
            "preprocess": {"resize": 24, "crop": 24},
        }
    )
    network = resolve_network(section, 0)
    setup = MaximizerSetup(str(run_dir), 0, source, 10**6, network)  # type: ignore[arg-type]
    made = Maximizer(setup, "cpu", 1)
    layer = trace_layers(made.module, network.preprocess).select(["1"])[0]
    recipe = Maximize(size=24, steps=1, attempts=2, redirect_steps=0)
    evidence = ImageEvidence(np.ones(4, np.float32), np.ones(4, bool), ("a", "b", "c", None))
    units = tuple(channel_units({0, 1, 2, 3}, set()))
    owner = Pass("maximize", {}, ("1",), subject="default")
    yield made, MaximizationTask(units, owner, layer, recipe, evidence, None)
    made.close()


def test_the_source_is_opened_once_and_closed_with_the_worker(tmp_path: Path) -> None:
    source = CountingSource()
    with worker(tmp_path, source) as (maximizer, task):
        assert source.opened == 0
        maximizer(task)
        maximizer(task)
        assert (source.opened, source.fetched, source.closed) == (1, 6, 0)
    assert source.closed == 1


def test_rows_are_of_one_schema(tmp_path: Path) -> None:
    with worker(tmp_path, CountingSource()) as (maximizer, task):
        report = maximizer(task)
    (shard,) = (tmp_path / "maximization/default/1").glob("*.parquet")
    table = read_table(Store(str(tmp_path)), str(shard.relative_to(tmp_path)))
    assert table.schema.equals(PICTURES)
    assert (report.pictures, report.live, table.num_rows) == (4, 0, 4)
    assert Image.open(io.BytesIO(table["picture"][0].as_py())).size == (24, 24)
    assert [len(curve) for curve in table["curve"].to_pylist()] == [1] * 4


def rows(activations: list[float]) -> pa.Table:
    data = png(np.zeros((70, 70, 3), np.uint8))
    return pa.Table.from_pylist(
        [
            {
                "channel": channel,
                "variant": 0,
                "picture": data,
                "status": "live",
                "activation": activation,
                "curve": [activation],
                "note": "",
            }
            for channel, activation in enumerate(activations)
        ],
        schema=PICTURES,
    )


def statistics() -> pa.Table:
    """Two channels and four images, whose means are 2 to 5 and 10 to 40."""
    means = np.array([[2.0, 10], [3, 20], [4, 30], [5, 40]], np.float32)
    counts = histograms.count(means)
    columns = {
        "channel": pa.array([0, 1], pa.int32()),
        "maximum": pa.array(means.max(0), pa.float32()),
        "histogram": pa.array(list(counts), pa.list_(pa.int64(), counts.shape[1])),
    }
    return pa.table(columns)


@pytest.mark.parametrize(
    ("recipe", "percentile", "best"),
    [
        ({"objective": "channel"}, [100, 0], [5, 40]),
        ({"objective": "class"}, [100, 0], [5, 40]),
        ({"objective": "logit"}, [100, 0], [5, 40]),
        ({"objective": {"channel": 1, "diversity": 0.5}}, [100, 0], [5, 40]),
        ({"objective": "squared_maximum"}, [100, 0], [5, 40]),
        ({"objective": "-channel"}, [100, 0], [2.0885, 9.93486]),
        ({"objective": "neuron"}, [None, None], [None, None]),
        ({"objective": "direction"}, [None, None], [None, None]),
        ({"objective": "squared_maximum", "captured": "in_place"}, [None, None], [None, None]),
    ],
)
def test_what_can_be_compared_has_a_percentile_and_nothing_else(
    recipe: dict[str, object], percentile: list[float], best: list[float | None]
) -> None:
    table = join_pictures([rows([9.0, 1.0])], statistics(), Maximize.model_validate(recipe))
    assert table["percentile"].to_pylist() == percentile
    found = table["best_image"].to_pylist()
    assert found == [value if value is None else pytest.approx(value, rel=1e-4) for value in best]
    assert len(list(draw_catalogue(table, "features.12   default"))) == 1


def test_pictures_of_a_channel_share_a_row() -> None:
    table = join_pictures([rows([9.0, 1.0, 3.0, 4.0, 5.0, 6.0])], None, Maximize())
    three = {"channel": [0, 0, 0, 1, 1, 1], "variant": [0, 1, 2, 0, 1, 2]}
    for name, values in three.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, pa.int32()))
    (sheet,) = draw_catalogue(table, "features.12")
    shown = [item for item in sheet.items if isinstance(item, Shown)]
    tops = [item.top for item in shown]
    assert tops[0] == tops[1] == tops[2] < tops[3] == tops[4] == tops[5]
    (wide,) = draw_catalogue(table, "features.12", look=Pictures(columns={"pictures": 6}))
    assert len({item.top for item in wide.items if isinstance(item, Shown)}) == 1


def test_a_label_in_the_corner_takes_the_place_of_captions() -> None:
    row = join_pictures([rows([9.0, 1.0])], None, Maximize()).to_pylist()[1]
    tile = tile_of(row, ["cat", "dog"], is_labelled=True)
    assert (tile.label, tile.captions) == ("dog 1", ())
    dead = tile_of(row | {"status": "dead"}, is_labelled=True)
    assert (dead.label, dead.words, dead.captions) == ("1", "dead", ())


def test_a_recipe_in_words() -> None:
    recipe = {"objective": "class", "size": 128, "steps": 64, "parametrization": "fourier"}
    named = {f"maximize.{key}": value for key, value in recipe.items()}
    told = describe_recipe({**named, "maximize.transforms": "standard"})
    assert told == "objective class, 128 x 128 pixels, 64 steps, fourier, transforms standard"
    summed = {"channel": 1.0, "diversity": -0.5}
    changed = {"maximize.objective": summed, "maximize.size": [30, 40]}
    told = describe_recipe({**named, **changed, "maximize.transforms": {"pad": 3}})
    assert told.startswith("objective 1 channel + -0.5 diversity, 30 x 40 pixels")
    assert told.endswith("transforms given")


def test_a_tile_names_its_class() -> None:
    row = join_pictures([rows([9.0, 1.0])], None, Maximize()).to_pylist()[1]
    assert tile_of(row, ["cat", "dog"]).captions[0] == "dog"
    assert tile_of(row).captions == tile_of(row, ["cat"]).captions
    assert tile_of(row | {"status": "dead"}, ["cat", "dog"]).captions == ("dog", "1")


def test_without_images_there_is_no_percentile() -> None:
    table = join_pictures([rows([9.0, 1.0])], None, Maximize())
    assert table["percentile"].null_count == table["best_image"].null_count == 2
