"""The seed's own method, its two traits included, and that its rows say so."""

import numpy as np
import pytest
import torch
from torch import nn

from cnnvis_ray.maximization.batches import Origin, generator
from tests.maximization.small_networks import Draw

SEED = {
    "objective": "squared_maximum",
    "captured": "in_place",
    "parametrization": "normalized",
    "transforms": "none",
    "learning_rate": 0.01,
    "redirect_steps": 0,
    "attempts": 1,
}


def seed_loop(
    module: nn.Module, channel: int, start: torch.Tensor, steps: int
) -> tuple[torch.Tensor, list[float]]:
    """The notebook's loop for a convolution and its in-place ReLU, written down once more."""
    image = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.01)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        seen = module(image)[0, channel]  # after the in-place ReLU
        loss = nn.functional.mse_loss(seen, torch.full_like(seen, float(seen.detach().max()) ** 2))
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return image.detach(), losses


def test_the_pictures_are_those_of_the_seed_s_loop(toy: nn.Sequential, draw: Draw) -> None:
    (picture,) = draw(toy, "0", [1], steps=30, dist=(-1.0, 1.0), **SEED)
    noise = generator(Origin(0, "0", 1, 0, 0)).uniform(-1, 1, (3, 24, 24)).astype(np.float32)
    image, losses = seed_loop(toy, 1, torch.from_numpy(noise)[None], 30)
    np.testing.assert_allclose(-picture.curve, losses, rtol=1e-3)
    drawn = ((image[0] * 0.25 + 0.45).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(drawn - picture.pixels).max() <= 1


def test_a_row_says_that_the_hook_saw_rectified_values(toy: nn.Module, draw: Draw) -> None:
    (seen,) = draw(toy, "0", [1], dist=0.5, **SEED)
    assert "after the in-place function that follows" in seen.note
    (after,) = draw(toy, "1", [1], dist=0.5, **SEED)
    assert "in-place" not in after.note


@pytest.mark.parametrize(
    ("dist", "bias", "note"),
    [
        ((-0.02, 0.02), 0.3, "target below the maximum in 24 of 24 steps"),
        ((-0.05, 0.05), -3.0, "silent in 24 of 24 steps, target 0 already met"),
        ((-3.0, 3.0), 0.0, ""),
    ],
)
def test_a_row_says_where_the_target_was_no_goal(
    dist: tuple[float, float], bias: float, note: str, toy: nn.Sequential, draw: Draw
) -> None:
    with torch.no_grad():
        toy[0].get_parameter("bias")[1] = bias
    (picture,) = draw(toy, "1", [1], dist=dist, **SEED)
    told = [part for part in picture.note.split("; ") if "target" in part or "steps" in part]
    assert "; ".join(told) == note


def test_a_target_below_the_maximum_pulls_the_channel_down(toy: nn.Sequential, draw: Draw) -> None:
    with torch.no_grad():
        toy[0].get_parameter("bias")[1] = 0.3
    (picture,) = draw(toy, "1", [1], dist=(-0.02, 0.02), steps=4, **SEED)
    assert picture.activation < picture.start_activation
