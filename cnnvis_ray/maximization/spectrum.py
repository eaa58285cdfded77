"""Real images at the size of a picture, and the magnitude spectrum that ``maco`` keeps.

Sums of units merge in any order, so the spectrum is measured in work units like anything else.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cnnvis_ray.maximization.parametrizations import colour_matrix, mix, unsquash


@dataclass(frozen=True, slots=True)
class SpectrumSum:
    """A sum of magnitude spectra.

    Attributes:
        total: ``[colour, height, half_width]`` of decorrelated colours, before the sigmoid.
        count: how many images are in it.
    """

    total: npt.NDArray[np.float64]
    count: int

    def merge(self, other: "SpectrumSum") -> "SpectrumSum":
        """Add another unit's sum."""
        return SpectrumSum(self.total + other.total, self.count + other.count)

    @property
    def magnitude(self) -> npt.NDArray[np.float32]:
        """The mean magnitude, for `records.Setting`."""
        return (self.total / max(self.count, 1)).astype(np.float32)


def measure_spectrum(
    images: Iterable[npt.NDArray[np.uint8]], size: tuple[int, int], colours: int = 3
) -> SpectrumSum:
    """Measure images at the size that pictures will have.

    Args:
        images: each ``[height, width, 3]``; cut in the middle to the shape of ``size``.
        size: height and width in pixels.
        colours: of the network's input, 1 or 3.
    """
    inverse = torch.linalg.inv(colour_matrix(colours, 1.0))
    total = np.zeros((colours, size[0], size[1] // 2 + 1))
    count = 0
    for pixels in images:
        waves = mix(unsquash(fit_pixels(pixels, size, colours)[None]), inverse)
        total += torch.fft.rfft2(waves, norm="ortho")[0].abs().numpy()
        count += 1
    return SpectrumSum(total, count)


def fit_pixels(pixels: npt.NDArray[np.uint8], size: tuple[int, int], colours: int) -> Tensor:
    """Resize an image until it covers a size, and cut out the middle.

    Args:
        pixels: ``[height, width, 3]``.
        size: height and width in pixels.
        colours: 3, or 1 for the mean of the three.

    Returns:
        ``[colour, *size]`` in [0, 1].
    """
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None] / 255.0
    if colours == 1:
        image = image.mean(1, keepdim=True)
    factor = max(size[0] / image.shape[2], size[1] / image.shape[3])
    covering = [
        max(round(factor * side), least) for side, least in zip(image.shape[2:], size, strict=True)
    ]
    grown = functional.interpolate(image, covering, mode="bilinear", antialias=True)
    top, left = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    return grown[0, :, top : top + size[0], left : left + size[1]].clamp(0, 1)
