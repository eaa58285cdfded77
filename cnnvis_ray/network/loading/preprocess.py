"""Preprocess: what a network needs of an image before it can look at it.

Two halves, so that the cheap uint8 form crosses threads and buses: `Preprocess.fit` on one PIL
image (in the decoding threads), `Preprocess.normalize` on a batch (on the network's device).
Resizing and cropping are torchvision's own, which is how published weights were validated.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from cnnvis_ray.config import PreprocessValues
from cnnvis_ray.errors import RefusedError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
LONGEST_SIDES = 16  # a 2 x 65,000 image of 748 bytes would become 6 GB of pixels at 256 pixels


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an image becomes the network's input.

    Attributes:
        resize: length of the shorter side after resizing, pixels.
        crop: side of the central square that the network sees, pixels.
        channels: 3 for RGB, 1 for grey (ITU-R 601 luma, as PIL converts).
        mean: subtracted from values in [0, 1], one per channel.
        std: divides the difference, one per channel.
        interpolation: one of `INTERPOLATIONS`.
    """

    resize: int
    crop: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    def __str__(self) -> str:
        colours = "grey" if self.channels == 1 else f"{self.channels} channels"
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return (
            f"resize {self.resize}, crop {self.crop}, {self.interpolation}, {colours}, "
            f"mean {mean}, std {std}"
        )

    def fit(self, image: Image.Image) -> np.ndarray:
        """Resize and crop one RGB image.

        Returns:
            uint8 pixels, shape ``[crop, crop, channels]``; black where the image is too small.
        """
        image = self.shorten(image)
        image = image.convert("L") if self.channels == 1 else image
        resized = resize(image, [self.resize], InterpolationMode(self.interpolation))
        pixels = np.array(center_crop(resized, [self.crop]), dtype=np.uint8)
        return pixels.reshape(self.crop, self.crop, self.channels)

    def shorten(self, image: Image.Image) -> Image.Image:
        """Cut the middle out of a very long image, so that resizing needs bounded memory.

        An image whose longer side stays below 16 times the larger of ``resize`` and ``crop`` is
        returned as it is. A longer one keeps that much of its middle, which is more than the crop
        shows; rounded sizes may then move the crop by a pixel against torchvision's.
        """
        width, height = image.size
        longest = LONGEST_SIDES * max(self.resize, self.crop) * min(width, height) // self.resize
        if max(width, height) <= longest:
            return image
        longest += (max(width, height) - longest) % 2  # the same middle
        left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
        return image.crop((left, top, min(width, left + longest), min(height, top + longest)))

    def normalize(self, batch: np.ndarray, device: str = "cpu") -> Tensor:
        """Turn fitted images into the network's input.

        Args:
            batch: uint8 pixels, shape ``[batch, crop, crop, channels]``.
            device: where the arithmetic runs; the batch travels as uint8.

        Returns:
            float32, shape ``[batch, channels, crop, crop]``, channels last in memory.
        """
        pixels = torch.from_numpy(batch if batch.flags.writeable else batch.copy())
        number, height, width, _ = pixels.shape
        # Rows of pixels and colours vectorize, and one image at a time stays in the cache.
        # Predicted: half the time; measured for 8 images on one CPU thread: 3.8 to 1.5 ms.
        mean, std = (
            torch.tensor(each, device=device).repeat(width) for each in (self.mean, self.std)
        )
        values = torch.empty(number, height, width * self.channels, device=device)
        flat = pixels.to(device, non_blocking=True).view(values.shape)
        parts = zip(values, flat, strict=True) if device == "cpu" else [(values, flat)]
        for out, own in parts:
            out.copy_(own).div_(255).sub_(mean).div_(std)
        return values.view(pixels.shape).permute(0, 3, 1, 2)


def from_values(values: PreprocessValues) -> Preprocess:
    """Convert a preprocess as the configuration, or the metadata of a weights file, writes it.

    Raises:
        RefusedError: ``mean`` or ``std`` do not fit the number of channels.
    """
    mean = fit_channels("mean", values.mean, values.channels)
    std = fit_channels("std", values.std, values.channels)
    return Preprocess(values.resize, values.crop, values.channels, mean, std, values.interpolation)


def fit_channels(key: str, given: list[float], channels: int) -> tuple[float, ...]:
    """Repeat one value for all channels, or take one per channel."""
    if len(set(given)) == 1:
        return (float(given[0]),) * channels
    if len(given) != channels:
        raise RefusedError(
            f"network.preprocess.{key}: given {len(given)} values, "
            f"allowed are one or as many as channels ({channels})"
        )
    return tuple(float(value) for value in given)
