"""What noise reaches: the level below which a rise of the activation says nothing.

A start is nearly grey, and almost any step takes a channel above it: also one whose inputs merely
fall silent, so that it ends at its bias. So each channel is measured on `NUM_NOISE` images without
content, half of them with independent pixels of full contrast, half with the 1/f spectrum of
natural images. One more such image would exceed all of them with probability 1 in 33.

References:
    Burton and Moorhead 1987, Color and spatial structure in natural scenes,
    doi:10.1364/AO.26.000157: amplitudes of photos fall with 1/f.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from cnnvis_ray.maximization.ascent import Slope, activate, tile_images
from cnnvis_ray.maximization.objectives import Aim, find_reading, main_term
from cnnvis_ray.maximization.records import Setting

NUM_NOISE = 32
CONTRAST = 0.25  # standard deviation of the images with a 1/f spectrum, as photos have it


def noise_levels(
    slope: Slope, setting: Setting, layer: str, channels: Sequence[int]
) -> dict[int, float]:
    """Return the most that noise reaches in each channel, as pictures are measured.

    Where the objective is minimized, the most is the least. Neither the batch size nor the other
    channels change a level.
    """
    reading, sign = find_reading(slope.recipe), np.sign(main_term(slope.recipe)[1])
    directions = None
    if slope.recipe.directions is not None:
        directions = torch.tensor(slope.recipe.directions, device=setting.device)
        directions = functional.normalize(directions, dim=1)
    images = torch.from_numpy(draw_noise(setting.seed, layer, slope.canvas.size))
    images = images[:, : slope.canvas.colours]
    found: dict[int, list[float]] = {channel: [] for channel in channels}
    for part in torch.split(images, tile_images(slope.canvas.size)):
        with torch.no_grad():
            inputs = slope.normalize(part.to(setting.device))
            activation = activate(slope.judge, inputs, torch.float32)
            for channel, values in found.items():
                own = torch.full((len(part),), channel, device=setting.device)
                aim = Aim(own, 1, slope.recipe.neuron, directions)
                values.extend(reading(activation, aim).tolist())
    return {channel: highest(values, float(sign)) for channel, values in found.items()}


def highest(values: Sequence[float], sign: float) -> float:
    """Return the largest value, or the smallest with sign -1, passing over what is not finite."""
    finite = [sign * value for value in values if np.isfinite(value)]
    return sign * max(finite, default=-np.inf)


def draw_noise(seed: int, layer: str, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Draw images without content, ``[image, 3, height, width]`` in [0, 1]."""
    digest = hashlib.blake2b(repr((seed, layer, "noise")).encode(), digest_size=16).digest()
    random = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    height, width = size
    half = NUM_NOISE // 2
    pixels = random.random((half, 3, height, width), np.float32)
    waves = random.standard_normal((half, 3, height, width), np.float32)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.maximum(np.hypot(down, across), 1 / max(size))
    natural = np.fft.irfft2(np.fft.rfft2(waves) / frequency, s=size)
    natural -= natural.mean((2, 3), keepdims=True)
    natural *= CONTRAST / np.maximum(natural.std((2, 3), keepdims=True), 1e-12)
    natural = np.clip(natural + 0.5, 0, 1).astype(np.float32)
    return np.concatenate([pixels, natural])
