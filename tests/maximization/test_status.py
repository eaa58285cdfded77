"""What a status claims: above its start, zero, noise and the best of the images."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from cnnvis_ray.config import Maximize
from cnnvis_ray.maximization import Evidence
from cnnvis_ray.maximization.catalogue import sheet_notes
from cnnvis_ray.maximization.maximizing import climbing
from cnnvis_ray.maximization.noise import NUM_NOISE, draw_noise, highest, noise_levels
from tests.maximization.small_networks import Draw, find_layer, setting_of, stripes


class Silencing(nn.Module):
    """A second convolution with negative weights only: it is 0 where its inputs fall silent.

    The best that an image can do is to switch the inputs off, as in channels of a depthwise
    convolution whose weights all came out negative.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 7), nn.Conv2d(2, 4, 3)
        with torch.no_grad():
            self.first.weight[0], self.first.weight[1] = stripes(0.0), stripes(1.5)
            self.first.get_parameter("bias").zero_()
            self.second.weight[:3] = -torch.rand(3, 2, 3, 3, generator=torch.manual_seed(0))
            self.second.weight[3] = 0.2
            self.second.get_parameter("bias").zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.second(torch.relu(self.first(images)))
        return maps


def test_what_ends_at_zero_or_below_is_not_live(draw: Draw) -> None:
    module = Silencing().eval().requires_grad_(False)
    *silenced, risen = draw(module, "second", [0, 1, 2, 3], steps=48)
    for picture in silenced:
        assert picture.activation <= 0
        assert picture.status == "stuck"
        assert "not above zero" in picture.note
    assert (risen.status, risen.note) == ("live", "")


def test_what_noise_reaches_as_well_is_not_live(toy: nn.Sequential, draw: Draw) -> None:
    (short,) = draw(toy, "1", [0], steps=1)
    assert short.activation > short.start_activation
    assert short.status == "stuck"
    assert "not above noise" in short.note
    (long,) = draw(toy, "1", [0], steps=48)
    assert (long.status, long.note) == ("live", "")


@pytest.mark.parametrize(("best", "status"), [(0.01, "live"), (50.0, "stuck")])
def test_what_an_image_reaches_as_well_is_not_live(
    best: float, status: str, toy: nn.Sequential, draw: Draw
) -> None:
    evidence = Evidence(np.full(4, best, np.float32), np.ones(4, bool))
    (picture,) = draw(toy, "1", [0], steps=48, evidence=evidence)
    assert picture.status == status
    assert ("below the best image, 50" in picture.note) == (status == "stuck")


@pytest.mark.parametrize(("lowest", "status"), [(-0.01, "live"), (-50.0, "stuck")])
def test_a_minimized_channel_is_held_against_the_lowest_image(
    lowest: float, status: str, toy: nn.Sequential, draw: Draw
) -> None:
    tinted = toy
    with torch.no_grad():
        tinted[0].get_parameter("weight")[0] += 0.05  # a mean that colour can lower
    evidence = Evidence(
        np.full(4, 9, np.float32), np.ones(4, bool), lowest=np.full(4, lowest, np.float32)
    )
    (picture,) = draw(
        tinted, "0", [0], steps=48, objective="-channel", transforms="none", evidence=evidence
    )
    assert picture.status == status
    assert ("above the lowest image, -50" in picture.note) == (status == "stuck")


def test_noise_has_no_content_and_depends_on_no_batch(deep: nn.Sequential) -> None:
    noise = draw_noise(0, "6", (24, 20))
    assert noise.shape == (NUM_NOISE, 3, 24, 20)
    assert 0 <= noise.min() < 0.1
    assert noise.max() > 0.9
    assert np.array_equal(noise, draw_noise(0, "6", (24, 20)))
    assert not np.array_equal(noise, draw_noise(1, "6", (24, 20)))
    layer = find_layer(deep, "6", 24)
    with climbing(deep, layer, Maximize(size=24), setting_of(24)) as slope:
        alone = noise_levels(slope, setting_of(24), "6", [7])
        among = noise_levels(slope, setting_of(24), "6", list(range(16)))
    assert alone[7] == among[7]
    images = torch.from_numpy(draw_noise(0, "6", (24, 24)))
    means = deep((images - 0.45) / 0.25).mean((2, 3))
    assert alone[7] == pytest.approx(float(means[:, 7].max()), rel=1e-4)
    assert highest([1.0, float("nan"), 3.0], 1) == 3
    assert highest([1.0, float("nan"), 3.0], -1) == 1
    assert highest([float("nan")], 1) == -np.inf


def test_a_status_of_random_weights_is_true(draw: Draw) -> None:
    torch.manual_seed(0)
    module = models.mobilenet_v2(weights=None).eval().requires_grad_(False)
    for picture in draw(module, "features.14.conv.1.0", [0, 1, 2, 3], crop=64, steps=8):
        image = torch.from_numpy(picture.pixels).permute(2, 0, 1)[None] / 255
        assert (picture.status == "live") == (picture.note == "")
        assert picture.status != "live" or picture.activation > 0
        assert image.shape == (1, 3, 64, 64)


def test_remarks_of_a_sheet_are_listed_without_their_values() -> None:
    rows: list[dict[str, object]] = [
        {"channel": 3, "note": "stopped early; not above noise, 0.126"},
        {"channel": 5, "note": "not above noise, -1.2e-05"},
        {"channel": 8, "note": ""},
    ]
    assert sheet_notes(rows) == ["stopped early: channels 3", "not above noise: channels 3, 5"]
