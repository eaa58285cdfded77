"""Count, mean, variance, maximum and share above zero of one number per image, for each channel.

Merged with the formula of Chan, Golub and LeVeque 1983 (doi:10.1080/00031305.1983.10483115), in
float64, so that any order and any grouping has the same result to 1e-9.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnvis_ray.channels import histograms


@dataclass(frozen=True, slots=True)
class Moments:
    """What is known of one number an image: arrays by ``channel``, histogram ``channel bin``."""

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]  # sum of squared distances from the mean
    maximum: NDArray[np.float32]
    excited: NDArray[np.int64]  # images above zero
    histogram: NDArray[np.int64]

    @property
    def variance(self) -> NDArray[np.float64]:
        """The variance over the images (divided by the count)."""
        return self.squares / np.maximum(self.count, 1)


def measure(values: NDArray[np.floating]) -> Moments:
    """Return the moments of some images, with a histogram of no bins: see `histograms.Counts`.

    Args:
        values: ``image channel``, finite, at least one image.
    """
    exact = values.astype(np.float64)
    mean = exact.mean(axis=0)
    return Moments(
        np.full(values.shape[1], len(values), dtype=np.int64),
        mean,
        ((exact - mean) ** 2).sum(axis=0),
        values.max(axis=0).astype(np.float32),
        (values > 0).sum(axis=0),
        np.zeros((values.shape[1], 0), np.int64),
    )


def nothing(num_channels: int, num_bins: int = histograms.NUM_BINS) -> Moments:
    """The moments of no image."""
    return Moments(
        np.zeros(num_channels, np.int64),
        np.zeros(num_channels),
        np.zeros(num_channels),
        np.full(num_channels, -np.inf, np.float32),
        np.zeros(num_channels, np.int64),
        np.zeros((num_channels, num_bins), np.int64),
    )


def merge(left: Moments, right: Moments) -> Moments:
    """Merge the moments of two sets of images."""
    count = left.count + right.count
    whole = np.maximum(count, 1)
    gap = right.mean - left.mean
    return Moments(
        count,
        left.mean + gap * right.count / whole,
        left.squares + right.squares + gap**2 * left.count * right.count / whole,
        np.maximum(left.maximum, right.maximum),
        left.excited + right.excited,
        left.histogram + right.histogram,
    )
