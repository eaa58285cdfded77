"""What comes out: pictures that show the filter, statuses that tell the truth, the same bytes."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cnnvis_ray.config import Maximize
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.maximization import Evidence, StartImage
from cnnvis_ray.maximization import batches as batches_module
from cnnvis_ray.maximization.ascent import ascend
from cnnvis_ray.maximization.batches import batch_images
from cnnvis_ray.maximization.maximizing import climbing
from tests.maximization.small_networks import Draw, find_layer, hook_count, setting_of, stripes

CONVOLUTION, RECTIFIED = "0", "1"


def likeness(pixels: np.ndarray, angle: float) -> float:
    """Largest correlation of a grey patch with a filter, over all places."""
    grey = torch.from_numpy(pixels.mean(2, dtype=np.float32))
    patches = grey.unfold(0, 7, 1).unfold(1, 7, 1).reshape(-1, 49)
    patches = patches - patches.mean(1, keepdim=True)
    kernel = stripes(angle)[0].flatten()
    return float((patches @ kernel / patches.norm(dim=1) / kernel.norm()).max())


def test_a_picture_correlates_with_the_one_filter_it_is_for(
    toy: nn.Sequential, draw: Draw
) -> None:
    upright, level = draw(toy, RECTIFIED, [0, 1], steps=64)
    assert likeness(upright.pixels, 0.0) > 0.8 > 0.6 > likeness(upright.pixels, np.pi / 2)
    assert likeness(level.pixels, np.pi / 2) > 0.8 > 0.6 > likeness(level.pixels, 0.0)
    assert upright.status == level.status == "live"


def test_betas_of_the_recipe_are_adams_and_auto_is_the_parametrizations_own(
    toy: nn.Sequential, draw: Draw
) -> None:
    own, same, other = (
        draw(toy, RECTIFIED, [0], **recipe)[0].pixels
        for recipe in ({}, {"betas": (0.8, 0.95)}, {"betas": (0.9, 0.999)})
    )
    assert (own == same).all()
    assert (own != other).any()


@pytest.mark.parametrize("layer", [CONVOLUTION, RECTIFIED])
def test_a_zeroed_channel_is_dead(layer: str, toy: nn.Sequential, draw: Draw) -> None:
    (picture,) = draw(toy, layer, [2], attempts=2)
    assert (picture.status, picture.attempts, picture.activation) == ("dead", 2, 0.0)


def test_a_silent_channel_is_stuck_as_long_as_no_image_tells(
    toy: nn.Sequential, draw: Draw
) -> None:
    (picture,) = draw(toy, RECTIFIED, [3])
    assert picture.status == "stuck"


@pytest.mark.parametrize(("excited", "status"), [(False, "dead"), (True, "stuck")])
def test_images_decide_between_dead_and_stuck(
    excited: bool, status: str, toy: nn.Sequential, draw: Draw
) -> None:
    evidence = Evidence(np.zeros(4, np.float32), np.full(4, excited))
    (picture,) = draw(toy, RECTIFIED, [3], evidence=evidence)
    assert picture.status == status


def test_a_second_attempt_starts_from_the_image_and_records_its_key(
    toy: nn.Sequential, draw: Draw
) -> None:
    with torch.no_grad():
        toy[0].get_parameter("bias")[
            3
        ] = -3.0  # more than noise reaches, less than a picture of stripes
    wave = 127 + 120 * np.cos(
        2 * np.pi / 4 * (np.cos(0.7) * np.mgrid[:24, :24][1] + np.sin(0.7) * np.mgrid[:24, :24][0])
    )
    image = np.repeat(wave.astype(np.uint8)[..., None], 3, 2)
    evidence = Evidence(
        np.zeros(4, np.float32),
        np.ones(4, bool),
        lambda channel: StartImage(f"key {channel}", image),
    )
    (picture,) = draw(toy, RECTIFIED, [3], evidence=evidence, attempts=2, redirect_steps=0)
    assert (picture.status, picture.attempts, picture.start_key) == ("live", 2, "key 3")


def test_redirection_wakes_what_noise_leaves_silent(toy: nn.Sequential, draw: Draw) -> None:
    with torch.no_grad():
        toy[0].get_parameter("bias")[3] = -3.0
    (asleep,) = draw(toy, RECTIFIED, [3], redirect_steps=0)
    (awake,) = draw(toy, RECTIFIED, [3], redirect_steps=16)
    assert (asleep.status, awake.status) == ("stuck", "live")
    assert asleep.pixels.std() < 8 < awake.pixels.std()


def test_the_same_bytes_alone_among_sixteen_and_in_other_order(
    deep: nn.Sequential, draw: Draw
) -> None:
    for name in ("5", "6"):
        (alone,) = draw(deep, name, [7], batch_size=16)
        among = draw(deep, name, list(range(16)), batch_size=16)
        turned = draw(deep, name, list(range(15, -1, -1)), batch_size=16)
        for other in (among[7], turned[8]):
            assert other.channel == 7
            assert other.pixels.tobytes() == alone.pixels.tobytes()
            assert other.activation == alone.activation
            assert other.curve.tobytes() == alone.curve.tobytes()


def test_another_seed_gives_another_picture(deep: nn.Sequential, draw: Draw) -> None:
    (first,), (second,) = draw(deep, "5", [1]), draw(deep, "5", [2])
    assert first.pixels.tobytes() != second.pixels.tobytes()


def test_another_batch_size_agrees_within_two_percent(deep: nn.Sequential, draw: Draw) -> None:
    wide = draw(deep, "6", list(range(16)), batch_size=16)
    narrow = draw(deep, "6", list(range(16)), batch_size=4)
    for one, other in zip(wide, narrow, strict=True):
        assert one.status == other.status
        assert one.activation == pytest.approx(other.activation, rel=0.02)


def test_no_hook_stays(deep: nn.Sequential, draw: Draw) -> None:
    draw(deep, "5", [0], captured="in_place")
    assert hook_count(deep) == 0
    with pytest.raises(RefusedError):
        draw(deep, "5", [0], objective="nothing")
    assert hook_count(deep) == 0


def test_the_network_is_left_as_it_was(deep: nn.Sequential, draw: Draw) -> None:
    before = {name: tensor.clone() for name, tensor in deep.state_dict().items()}
    draw(deep, "5", [0, 1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in deep.state_dict().items())
    assert all(parameter.grad is None for parameter in deep.parameters())


def test_nan_in_one_filter_stops_that_channel_alone(deep: nn.Sequential, draw: Draw) -> None:
    well = draw(deep, "6", [1, 3])
    with torch.no_grad():
        deep[5].get_parameter("weight")[2, 0, 0, 0] = float("nan")
    one, two, three = draw(deep, "6", [1, 2, 3], attempts=3)
    assert (two.status, two.attempts) == ("stuck", 1)
    assert "NaN in the weights" in two.note
    assert [one.pixels.tobytes(), three.pixels.tobytes()] == [p.pixels.tobytes() for p in well]


class Fragile(nn.Module):
    """Gives NaN for channel 0 as soon as an image is no longer grey."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 3, 3)
        self.end = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.convolution(images)
        loud = images.std((1, 2, 3)) > 0.3
        first = torch.where(loud[:, None, None], float("nan"), maps[:, 0])
        whole: torch.Tensor = self.end(torch.cat([first[:, None], maps[:, 1:]], 1))
        return whole


def test_nan_on_the_way_is_recorded_and_others_go_on(draw: Draw) -> None:
    fragile = Fragile().eval().requires_grad_(False)
    broken, whole = draw(fragile, "end", [0, 1])
    assert "not finite from step" in broken.note
    assert np.isnan(broken.curve).any()
    assert (whole.status, whole.note) == ("live", "")


@pytest.mark.parametrize(("size", "together"), [(128, 16), (224, 4), (256, 4), (512, 1)])
def test_a_cpu_climbs_no_more_than_the_network_takes_at_a_time(
    size: int, together: int, deep: nn.Sequential
) -> None:
    with climbing(deep, find_layer(deep, "6", 24), Maximize(size=size), setting_of(24)) as slope:
        assert batch_images(slope, "cpu") == together
        assert batch_images(slope, "cuda") == 16
        several = replace(slope, recipe=Maximize(size=size, pictures=3))
        assert batch_images(several, "cpu") % 3 == 0


def test_a_large_picture_is_the_same_alone_and_in_company(deep: nn.Sequential, draw: Draw) -> None:
    (alone,) = draw(deep, "6", [3], size=192, steps=4, batch_size=16)
    among = draw(deep, "6", list(range(8)), size=192, steps=4, batch_size=16)
    assert np.array_equal(alone.pixels, among[3].pixels)
    assert "memory" not in among[3].note


def test_without_memory_the_batch_is_halved(
    deep: nn.Sequential,
    draw: Draw,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes = []

    def small(slope, start, placements, aim):  # type: ignore[no-untyped-def]
        sizes.append(len(start))
        if len(start) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ascend(slope, start, placements, aim)

    monkeypatch.setattr(batches_module, "ascend", small)
    with caplog.at_level(logging.WARNING):
        pictures = draw(deep, "6", list(range(6)), batch_size=16)
    assert sizes == [16, 8, 4, 4]
    assert [picture.channel for picture in pictures] == list(range(6))
    assert all("batch of 4 because memory ran short" in picture.note for picture in pictures)
    assert "batches of 4" in caplog.text


def test_memory_for_not_even_one_is_an_error(
    deep: nn.Sequential, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batches_module, "ascend", never)
    with pytest.raises(torch.OutOfMemoryError):
        draw(deep, "6", [0])


def test_what_is_measured_is_the_picture_that_is_returned(deep: nn.Sequential, draw: Draw) -> None:
    (picture,) = draw(deep, "6", [5])
    image = torch.from_numpy(picture.pixels).permute(2, 0, 1)[None] / 255
    maps = deep((image - 0.45) / 0.25)
    assert picture.activation == pytest.approx(float(maps[0, 5].mean()), rel=1e-5)


def test_a_layer_used_twice_is_seen_at_its_last_call(draw: Draw) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps: torch.Tensor = self.relu(self.second(self.relu(self.first(images))))
            return maps

    module = Twice().eval().requires_grad_(False)
    assert find_layer(module, "relu", 24).calls == 2
    (picture,) = draw(module, "relu", [1])
    image = torch.from_numpy(picture.pixels).permute(2, 0, 1)[None] / 255
    assert picture.activation == pytest.approx(
        float(module((image - 0.45) / 0.25)[0, 1].mean()), rel=1e-5
    )
