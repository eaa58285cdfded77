"""Crops: what a neuron can see, where it lies in the source, and what a card says."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from cnnvis_ray.channels import histograms
from cnnvis_ray.config import Pictures
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.explanation.cards import (
    CARDS,
    MARK,
    Card,
    card_tiles,
    crop_tile,
    draw_card_sheets,
    draw_histogram,
    share_of,
)
from cnnvis_ray.explanation.crops import (
    Exemplar,
    Fitted,
    chosen_channels,
    crop_row,
    darken,
    find_place,
    source_box,
)
from cnnvis_ray.network import Preprocess, activations, channel_peaks, places, trace_layers

LOOK = Pictures()
PREPROCESS = Preprocess(72, 64, 3, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("name", ["features.0", "features.3", "features.5"])
def test_a_crop_alone_gives_the_recorded_activation(name: str) -> None:
    torch.manual_seed(0)
    module = models.squeezenet1_1().eval().requires_grad_(False)
    layer = trace_layers(module, PREPROCESS).select([name])[0]
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    batch = PREPROCESS.normalize(image)
    maps = activations(module, [layer], batch)[name]
    peaks = channel_peaks(maps)[0]
    strongest = np.argsort(-peaks.numpy())[:4].astype(np.int64)
    found = places(maps, np.zeros(4, np.int64), strongest)
    for channel, (y, x) in zip(strongest.tolist(), found.tolist(), strict=True):
        left, top, right, bottom = layer.crop(y, x, 64)
        assert (right - left) * (bottom - top) < 64 * 64
        alone = PREPROCESS.normalize(random.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8))
        alone[:, :, top:bottom, left:right] = batch[:, :, top:bottom, left:right]
        again = activations(module, [layer], alone)[name][0, channel, y, x]
        torch.testing.assert_close(again, peaks[channel], rtol=1e-5, atol=1e-5)


def test_a_row_holds_the_pixels_of_its_box() -> None:
    layer = trace_layers(models.squeezenet1_1().eval(), PREPROCESS).select(["features.3"])[0]
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    exemplar = Exemplar(5, 0, 7, "a/b.png", 1.5, 0, 3)
    row = crop_row(exemplar, layer, Fitted(pixels, 96, 72), PREPROCESS)
    box = [row[side] for side in ("left", "top", "right", "bottom")]
    assert tuple(box) == layer.crop(0, 3, 64)
    assert row["top"] == 0  # cut at the border
    assert not row["whole_image"]
    data = row["crop"]
    assert isinstance(data, bytes)
    with Image.open(io.BytesIO(data)) as crop:
        assert crop.size == (box[2] - box[0], box[3] - box[1])  # type: ignore[operator]


def test_a_field_over_everything_is_the_whole_image() -> None:
    layer = trace_layers(models.squeezenet1_1().eval(), PREPROCESS).select(["classifier.3"])[0]
    fitted = Fitted(np.zeros((64, 64, 3), np.uint8), 64, 64)
    row = crop_row(Exemplar(0, 0, 0, "x", 1.0, 0, 0), layer, fitted, PREPROCESS)
    assert row["whole_image"]
    assert [row[side] for side in ("left", "top", "right", "bottom")] == [0, 0, 64, 64]


@pytest.mark.parametrize("size", [(200, 120), (120, 200), (64, 64), (333, 500)])
def test_boxes_come_back_to_the_source(size: tuple[int, int]) -> None:
    width, height = size
    across, down = width // 2 + 5, height // 2 - 7
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[down : down + 16, across : across + 16] = 255
    bright = PREPROCESS.fit(Image.fromarray(pixels))[:, :, 0] > 127
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    left, top, right, bottom = source_box(box, PREPROCESS, width, height)
    pixel = max(1.0, min(size) / 72)  # of the fitted image, in the source
    assert (left, top) == pytest.approx((across, down), abs=1.5 * pixel)
    assert (right, bottom) == pytest.approx((across + 16, down + 16), abs=1.5 * pixel)


def test_boxes_of_black_borders_are_cut() -> None:
    small = Preprocess(40, 64, 3, (0.5,) * 3, (0.25,) * 3)  # crop beyond the image
    assert source_box((0, 0, 64, 64), small, 80, 80) == (0, 0, 80, 80)


def card(channel: int, excited: float) -> dict[str, object]:
    buffer = io.BytesIO()
    Image.new("RGB", (15, 15), "red").save(buffer, "JPEG")
    data = buffer.getvalue()
    key = "class/a long name of a file.jpg"
    return {
        "channel": channel,
        "picture": data,
        "picture_activation": 3.0,
        "picture_status": "live" if excited else "dead",
        "picture_percentile": 99.0,
        "excited": 1.0 if excited else 0.0,
        "median": excited,
        "top": excited,
        "selectivity": 0.5,
        "classes": [{"name": "dog", "mean": 1.0}, {"name": "cat", "mean": 0.5}],
        "histogram": histograms.count(np.full((10, 1), excited, np.float32))[0],
        "mean_histogram": histograms.count(np.full((10, 1), excited / 4, np.float32))[0],
        "crops": [
            {
                "key": key,
                "value": 2.0,
                "whole_image": True,
                "crop": data,
                "place": [0.4, 0, 0.6, 1],
            }
        ],
    }


def sheets(*cards: dict[str, object], look: Pictures = LOOK) -> list[Image.Image]:
    table = pa.Table.from_pylist(list(cards), schema=CARDS)
    drawn = draw_card_sheets(table, "features.3", 4, ["note"], [], look)
    return [sheet.image() for sheet in drawn]


def test_card_sheets_have_a_row_a_channel() -> None:
    (both,) = sheets(card(0, 2.0), card(1, 0.0))
    (one,) = sheets(card(0, 2.0))
    assert both.width == one.width
    assert both.height > one.height
    assert both.getextrema() != ((0, 0),) * 3
    assert len(sheets(*[card(channel, 1.0) for channel in range(25)])) == 3
    (white,) = sheets(card(0, 2.0), look=Pictures(background="white"))
    assert white.getpixel((0, 0)) == (255, 255, 255)
    assert white.size == one.size


def test_the_neurons_place_is_drawn_on_the_crop_where_it_is() -> None:
    crop = as_card(card(0, 2.0)).crops[0]
    drawn = crop_tile(crop, LOOK).image
    plain = crop_tile(crop, Pictures(crops="none")).image
    assert drawn is not None
    assert plain is not None
    changed = (np.asarray(drawn) != np.asarray(plain)).any(axis=(0, 2))
    columns = np.flatnonzero(changed) / drawn.width
    assert columns.min() == pytest.approx(0.4, abs=0.04)
    assert columns.max() == pytest.approx(0.6, abs=0.04)


@pytest.mark.parametrize("name", ["conv", "pool", "head"])
def test_a_neurons_place_is_the_middle_of_what_it_sees(name: str) -> None:
    module = nn.Sequential()
    module.add_module("conv", nn.Conv2d(3, 4, 3, padding=1))
    module.add_module("pool", nn.MaxPool2d(4))
    module.add_module("flat", nn.Flatten())
    module.add_module("head", nn.Linear(64, 2))
    needs = Preprocess(16, 16, 3, (0.5,) * 3, (0.5,) * 3)
    layer = trace_layers(module, needs, "three").select([name])[0]
    found = find_place(layer, Exemplar(0, 0, 0, "key", 1.0, y=1, x=2), 16)
    assert found == {"conv": (2, 1, 3, 2), "pool": (8, 4, 12, 8), "head": None}[name]
    row = {"left": 7, "top": 3, "right": 13, "bottom": 9}
    assert share_of((8, 4, 12, 8), row) == pytest.approx([1 / 6, 1 / 6, 5 / 6, 5 / 6])


def test_a_mask_darkens_where_the_channel_is_silent() -> None:
    pixels = np.full((8, 8, 3), 200, np.uint8)
    values = np.array([[0.0, 0.0], [0.0, 4.0]])
    masked = darken(pixels, values, 4.0)
    assert (masked[6:, 6:] == 200).all()
    assert (masked[:4, :4] == 50).all()
    assert (darken(pixels, np.array(3.0), 3.0) == pixels).all()  # a vector has no places


def test_the_picture_is_marked_on_the_axis_of_map_means() -> None:
    counts = histograms.count(np.full((10, 1), 0.5, np.float32))[0]
    plain = np.asarray(draw_histogram(counts))
    marked = np.asarray(draw_histogram(counts, 8.0))  # four octaves to the right of all images
    assert not (plain == MARK).all(axis=2).any()
    lines = np.flatnonzero((marked == MARK).all(axis=(0, 2)))
    assert 1 <= len(lines) <= 3
    assert lines.min() > marked.shape[1] // 2
    row = card(0, 2.0)
    shown = card_tiles(as_card(row), 1, True, ["dog"], LOOK)
    assert shown[0].captions[0] == "channel 0 dog"
    assert shown[2].captions[0] == "means; line: picture"
    assert shown[3].captions[0].startswith("maximum 2")
    without = card_tiles(as_card(row | {"picture_percentile": None}), 1, True, [], LOOK)
    assert without[2].captions[0] == "map maxima, log scale"  # another number: no line


def as_card(row: dict[str, object]) -> Card:
    return Card(**row)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [("all", [0, 1, 2, 3]), ("1:3", [1, 2]), ("2:16", [2, 3]), ([3, 0, 3, 9], [0, 3])],
)
def test_channels_of_cards(asked: str | list[int], chosen: list[int]) -> None:
    assert chosen_channels(asked, 4, "features.3") == chosen


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(RefusedError, match=r'explain.channels: 5:2 is not a range; use "2:5"'):
        chosen_channels("5:2", 4, "features.3")


@pytest.mark.parametrize("asked", ["4:8", [], [4, 5]])
def test_channels_that_name_none_are_refused(asked: str | list[int]) -> None:
    with pytest.raises(
        RefusedError, match=r'explain.channels: .*no channel of features.3 \(4 channels.*"0:4"'
    ):
        chosen_channels(asked, 4, "features.3")
