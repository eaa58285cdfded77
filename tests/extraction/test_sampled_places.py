"""The places of a map whose activations are counted: some of each image, the same in any batch."""

import numpy as np
import pytest
import torch

from cnnvis_ray.config import Extract as ExtractConfig
from cnnvis_ray.extraction import batch_size
from cnnvis_ray.extraction.observation import PLACES, sample


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_places_are_those_drawn(layout: torch.memory_format) -> None:
    maps = torch.randn(3, 5, 20, 11).contiguous(memory_format=layout)
    fractions = np.random.default_rng(0).random((3, PLACES, 2))
    found = sample(maps, fractions).reshape(3, PLACES, 5)
    for image in range(3):
        for place in range(PLACES):
            y, x = (fractions[image, place] * (20, 11)).astype(int)
            torch.testing.assert_close(found[image, place], maps[image, :, y, x])
    alone = sample(maps[1:2], fractions[1:2])
    torch.testing.assert_close(alone, found[1])


def test_small_maps_and_vectors_are_taken_whole() -> None:
    maps = torch.randn(2, 5, 8, 8)
    fractions = np.zeros((2, PLACES, 2))
    every = maps.permute(0, 2, 3, 1).reshape(-1, 5)
    torch.testing.assert_close(sample(maps, fractions), every)
    vectors = torch.randn(2, 5)
    torch.testing.assert_close(sample(vectors, fractions), vectors)


def test_batches_are_small_on_a_cpu_unless_asked() -> None:
    assert [batch_size(ExtractConfig(), device) for device in ("cpu", "cuda:0")] == [8, 32]
    assert batch_size(ExtractConfig(batch_size=64), "cpu") == 64
