"""Occlusion: equal to brute force, whoever shares a batch."""

import numpy as np
import pytest
import torch

from cnnvis_ray.explanation.aims import Aimed
from cnnvis_ray.explanation.heat import shrink
from cnnvis_ray.explanation.occlusion import fill_colour, occlusion, squares
from tests.explanation.networks import Control, Pooled, seeded

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
FILL = (250, 128, 128)


@pytest.mark.parametrize(("patch", "stride"), [(4, 4), (4, 2), (5, 3), (16, 16)])
def test_heat_equals_brute_force(patch: int, stride: int) -> None:
    network = Pooled()
    aimed = Aimed(seeded(network), "classes")
    batch = network.preprocess.normalize(PIXELS)
    aims = aimed.aim(batch, None)
    fill = np.array(FILL, np.uint8)
    heat, scores = occlusion(aimed, PIXELS, aims, network.preprocess, patch, stride, fill, 7)
    total, count = np.zeros((3, 16, 16)), np.zeros((16, 16))
    for place, (top, left) in enumerate(squares(16, patch, stride)):
        covered = PIXELS.copy()
        covered[:, top : top + patch, left : left + patch] = FILL
        output = network(network.preprocess.normalize(covered)).softmax(1)
        for image in range(3):
            probability = float(output[image, int(aims.index[image])])
            assert scores[image, place] == pytest.approx(probability, abs=1e-6)
            total[image, top : top + patch, left : left + patch] += 1 - probability
        count[top : top + patch, left : left + patch] += 1
    assert (count > 0).all()
    np.testing.assert_allclose(heat, total / count, atol=1e-6)


def test_an_object_is_found_where_it_is() -> None:
    network = Pooled(classes=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.conv.weight[0, 0, 1, 1] = 5.0  # class 1 is redness
        network.head.weight[1, 0] = 20.0
    network.requires_grad_(False)
    pixels = np.full((1, 16, 16, 3), 0, np.uint8)
    pixels[0, 8:12, 4:8, 0] = 255
    aimed = Aimed(network.eval(), "classes")
    aims = aimed.aim(network.preprocess.normalize(pixels), None)
    assert aims.index.tolist() == [1]
    black = np.zeros(3, np.uint8)
    heat, _ = occlusion(aimed, pixels, aims, network.preprocess, 4, 4, black, 4)
    small = shrink(heat[0], 4)
    assert np.argwhere(small.map == 1).tolist() == [[2, 1]]
    assert small.map.min() == 0


def test_a_number_moves_and_has_no_probability() -> None:
    network = Control()
    aimed = Aimed(seeded(network), "numbers")
    pixels = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 1), dtype=np.uint8)
    aims = aimed.aim(network.preprocess.normalize(pixels), None)
    fill = fill_colour(FILL, 1)
    heat, scores = occlusion(aimed, pixels, aims, network.preprocess, 32, 32, fill, 4)
    assert heat[0, 0, 0] == pytest.approx(abs(scores[0, 0] - float(aims.score[0])))


def test_squares_cover_everything_and_a_large_patch_is_refused() -> None:
    assert squares(224, 56, 56) == [(y, x) for y in range(0, 224, 56) for x in range(0, 224, 56)]
    assert squares(10, 4, 4)[-1] == (6, 6)
    with pytest.raises(ValueError, match="does not fit"):
        squares(32, 56, 56)


def test_a_flat_map_says_so() -> None:
    flat = shrink(np.full((8, 8), 0.3), 4)
    assert flat.is_flat
    assert not flat.map.any()
