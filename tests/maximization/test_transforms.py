"""One sampling does what padding, cropping, scaling and rotating do one after the other."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cnnvis_ray.config.maximization import Maximize, TransformValues
from cnnvis_ray.maximization.transforms import (
    FILL,
    Placements,
    draw_placements,
    resolve_transforms,
    view_images,
    view_of,
    window_size,
)


def images(batch: int = 3, height: int = 20, width: int = 24) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.manual_seed(0))


def placed(values: TransformValues, given: torch.Tensor, seed: int = 0) -> torch.Tensor:
    size = (given.shape[2], given.shape[3])
    random = np.random.default_rng(seed)
    steps = [draw_placements(random, values, size, 1)[0] for _ in given]
    return look(given, np.stack(steps), window_size(size, values))


def look(given: torch.Tensor, placements: Placements, window: tuple[int, int]) -> torch.Tensor:
    """Look through windows as a network that normalizes nothing."""
    size = (given.shape[2], given.shape[3])
    view = view_of(torch.from_numpy(placements), size, window)
    return view_images(given, view, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))


def test_nothing_asked_changes_nothing() -> None:
    torch.testing.assert_close(placed(TransformValues(), images()), images())


def test_padding_surrounds_with_grey() -> None:
    padded = functional.pad(images(), (5, 5, 5, 5), value=FILL)
    torch.testing.assert_close(placed(TransformValues(pad=5), images()), padded)


def test_jitter_is_a_crop_at_whole_pixels() -> None:
    values = TransformValues(pad=4, jitter=(4, 2))
    padded = functional.pad(images(), (4, 4, 4, 4), value=FILL)
    views = placed(values, images())
    assert views.shape[2:] == (22, 26)
    crops = padded.unfold(2, 22, 1).unfold(3, 26, 1)
    for view, crop in zip(views, crops, strict=True):
        distance = (crop - view[:, None, None]).abs().amax((0, 3, 4))
        assert float(distance.min()) < 1e-5


def test_lucid_sees_twelve_pixels_more() -> None:
    lucid = TransformValues(pad=12, jitter=(8, 4), scale=(0.9, 1.1), rotate=10)
    assert window_size((128, 128), lucid) == (140, 140)


def test_rotation_of_a_right_angle() -> None:
    square = images(1, 16, 16)
    random = np.random.default_rng(3)
    values = TransformValues(rotate=90)
    placements = draw_placements(random, values, (16, 16), 4000)
    turns = placements[:, 0, 0] ** 2 + placements[:, 0, 1] ** 2
    np.testing.assert_allclose(turns, 1, atol=1e-5)
    quarter = placements[np.abs(placements[:, 0, 0]) < 1e-6][:1]
    turned = look(square, quarter, (16, 16))
    wanted = [torch.rot90(square, turns, (2, 3)) for turns in (1, 3)]
    assert min(float((turned - w).abs().max()) for w in wanted) < 1e-4


def test_scale_above_one_shows_less_of_the_picture() -> None:
    values = TransformValues(scale=(2.0, 2.0))
    middle = images()[:, :, 5:15, 6:18]
    view = placed(values, images())
    grown = functional.interpolate(middle, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(view[:, :, 2:-2, 2:-2], grown[:, :, 2:-2, 2:-2])


@pytest.mark.parametrize("other", [0, 1])
def test_no_image_depends_on_its_neighbours(other: int) -> None:
    values = TransformValues(pad=6, jitter=(8, 4), scale=(0.9, 1.1), rotate=10)
    given = images()
    placements = np.stack(
        [draw_placements(np.random.default_rng(i), values, (20, 24), 1)[0] for i in range(3)]
    )
    whole = look(given, placements, (20, 24))
    given[other] = 0.0
    assert torch.equal(look(given, placements, (20, 24))[2], whole[2])


def test_half_of_the_views_are_mirrored() -> None:
    values = TransformValues(flip=True)
    placements = draw_placements(np.random.default_rng(0), values, (20, 24), 400)
    mirrored = placements[:, 0, 0] < 0
    assert 0.4 < mirrored.mean() < 0.6
    given = images(1)
    view = look(given, placements[mirrored][:1], (20, 24))
    torch.testing.assert_close(view, given.flip(3))


@pytest.mark.parametrize("size", [16, 31, 128, 224, (40, 60)])
def test_the_standard_window_is_as_large_as_the_picture(size: int | tuple[int, int]) -> None:
    recipe = Maximize(size=size)
    assert window_size(recipe.height_width, resolve_transforms(recipe)) == recipe.height_width


def test_classes_are_mirrored_and_channels_are_not() -> None:
    for objective, mirrored in (("class", True), ("channel", False)):
        values = resolve_transforms(Maximize(objective=objective))
        assert values is not None
        assert values.flip is mirrored


def test_the_gradient_is_that_of_the_sampling_where_it_only_shifts() -> None:
    given = images().requires_grad_()
    values = TransformValues(pad=6, jitter=(8, 4))
    random = np.random.default_rng(0)
    placements = draw_placements(random, values, (20, 24), 3)
    pull = torch.rand(3, 3, 20, 24, generator=torch.manual_seed(1))
    (own,) = torch.autograd.grad((look(given, placements, (20, 24)) * pull).sum(), given)
    grid = functional.affine_grid(
        torch.from_numpy(placements), [3, 3, 20, 24], align_corners=False
    )
    sampled = functional.grid_sample(given, grid, align_corners=False)
    (wanted,) = torch.autograd.grad((sampled * pull).sum(), given)
    torch.testing.assert_close(own, wanted, atol=1e-4, rtol=1e-4)


def test_the_gradient_is_near_that_of_the_sampling_otherwise() -> None:
    given = images(3, 40, 40).requires_grad_()
    random = np.random.default_rng(0)
    values = TransformValues(pad=6, jitter=(8, 4), scale=(0.9, 1.1), rotate=10)
    placements = draw_placements(random, values, (40, 40), 3)
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    pull = (torch.sin(rows / 3) * torch.cos(columns / 4)).expand(3, 3, -1, -1)
    (own,) = torch.autograd.grad((look(given, placements, (40, 40)) * pull).sum(), given)
    grid = functional.affine_grid(
        torch.from_numpy(placements), [3, 3, 40, 40], align_corners=False
    )
    sampled = functional.grid_sample(given, grid, align_corners=False)
    (wanted,) = torch.autograd.grad((sampled * pull).sum(), given)
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    assert float((own - wanted)[inside].norm() / wanted[inside].norm()) < 0.1
