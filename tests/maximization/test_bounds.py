"""Activations with a ceiling: climbed before it, measured after it, on modules and functions."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from cnnvis_ray.maximization.cutting import cut_after
from cnnvis_ray.maximization.status import GREY_DEVIATION
from tests.maximization.small_networks import Draw, find_layer, hook_count

Call = Callable[[torch.Tensor], torch.Tensor]


class Ending(nn.Module):
    """A convolution of large values, and a function at the end of a block."""

    def __init__(self, function: Call, scale: float = 4.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = Block(function, scale)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.block(images)
        return maps


class Block(nn.Module):
    def __init__(self, function: Call, scale: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 5)
        with torch.no_grad():
            self.convolution.weight.mul_(scale)
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.function(self.convolution(images))


def ending(function: Call, scale: float = 4.0) -> nn.Module:
    return Ending(function, scale).eval().requires_grad_(False)


BOUNDED: dict[str, tuple[Call, str]] = {
    "ReLU6": (nn.ReLU6(), "relu6"),
    "ReLU6 in place": (nn.ReLU6(inplace=True), "relu6"),
    "relu6": (functional.relu6, "relu6"),
    "Sigmoid": (nn.Sigmoid(), "sigmoid"),
    "sigmoid": (torch.sigmoid, "sigmoid"),
    "sigmoid in place": (lambda maps: maps.sigmoid_(), "sigmoid"),
    "Tanh": (nn.Tanh(), "tanh"),
    "Hardtanh": (nn.Hardtanh(), "hardtanh"),
    "Hardsigmoid": (nn.Hardsigmoid(), "hardsigmoid"),
    "softmax": (lambda maps: maps.softmax(1), "softmax"),
}


@pytest.mark.parametrize("name", list(BOUNDED))
def test_a_ceiling_stops_no_climb(name: str, draw: Draw) -> None:
    function, noted = BOUNDED[name]
    module = ending(function)
    for picture in draw(module, "block", [1, 4]):
        assert picture.status == "live"
        assert f"before the ceiling of {noted}" in picture.note
        assert picture.curve[-1] > max(1.5 * picture.curve[12], 1)  # beyond a ceiling of 1
        image = torch.from_numpy(picture.pixels).permute(2, 0, 1)[None] / 255
        own = float(module((image - 0.45) / 0.25)[0, picture.channel].mean())
        assert picture.activation == pytest.approx(own, rel=1e-4)  # measured after it
        assert picture.activation <= 6
    assert hook_count(module) == 0


@pytest.mark.parametrize("redirect_steps", [0, 16])
def test_a_relu6_has_the_pictures_of_the_relu(redirect_steps: int, draw: Draw) -> None:
    channels = [0, 1, 2, 3]
    plain = draw(ending(nn.ReLU(), 16), "block", channels, redirect_steps=redirect_steps)
    bounded = draw(ending(nn.ReLU6(), 16), "block", channels, redirect_steps=redirect_steps)
    assert max(picture.activation for picture in plain) > 6
    for one, other in zip(plain, bounded, strict=True):
        assert one.pixels.tobytes() == other.pixels.tobytes()
        assert other.activation <= min(one.activation, 6)
        assert "ceiling" not in one.note


@pytest.mark.parametrize("function", [nn.ReLU(), nn.Hardswish(), nn.SiLU(), nn.GELU()])
def test_what_has_no_ceiling_is_climbed_as_it_is(function: Call, draw: Draw) -> None:
    module = ending(function)
    (picture,) = draw(module, "block", [2])
    assert picture.note == ""
    images = torch.randn(2, 3, 24, 24, generator=torch.manual_seed(0))
    whole = module(images)
    with cut_after(module, find_layer(module, "block", 24)) as cut:
        assert torch.equal(cut.before_bound(images), whole)
        assert not cut.may_be_bounded


def test_a_bound_inside_the_network_is_left_to_it(draw: Draw) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3)).eval()
    (picture,) = draw(module.requires_grad_(False), "2", [1])
    assert "ceiling" not in picture.note


def test_mobile_nets_of_torchvision(draw: Draw) -> None:
    torch.manual_seed(0)
    module = models.mobilenet_v2(weights=None).eval().requires_grad_(False)
    (picture,) = draw(module, "features.1.conv.0", [5], crop=32, steps=8)
    assert "before the ceiling of relu6" in picture.note
    assert picture.pixels.std() > GREY_DEVIATION
