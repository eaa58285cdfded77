"""What all images did to each channel of a layer, in a form that merges in any order.

For each image two numbers a channel count: the activation's mean over the map, and its maximum
(the peak); beside them a few single places, and whether the channel is among the image's
strongest. No activation map is stored.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from cnnvis_ray.channels import exemplars, histograms, moments
from cnnvis_ray.channels.exemplars import Exemplars
from cnnvis_ray.channels.moments import Moments

STRONGEST = 5  # channels of an image that count as its strongest
FindPlaces = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Moments of map means and of map maxima, and the best images.

    Attributes:
        sampled: histogram of activations at some places of each image, ``channel bin``.
        strongest: in how many images the channel is among the strongest, ``channel``.
    """

    mean: Moments
    peak: Moments
    exemplars: Exemplars
    sampled: NDArray[np.int64]
    strongest: NDArray[np.int64]

    @property
    def num_channels(self) -> int:
        """How many channels the layer has."""
        return len(self.mean.count)


def nothing(num_channels: int, best: int) -> Statistics:
    """Statistics of no image."""
    none = moments.nothing(num_channels)
    return Statistics(
        none,
        none,
        exemplars.nobody(num_channels, best),
        np.zeros_like(none.histogram),
        np.zeros(num_channels, np.int64),
    )


def merge(left: Statistics, right: Statistics) -> Statistics:
    """Merge the statistics of two sets of images."""
    return Statistics(
        moments.merge(left.mean, right.mean),
        moments.merge(left.peak, right.peak),
        exemplars.merge(left.exemplars, right.exemplars),
        left.sampled + right.sampled,
        left.strongest + right.strongest,
    )


def merge_all(pieces: Iterable[Statistics]) -> Statistics:
    """Merge any number of pieces, at least one."""
    return reduce(merge, pieces)


@dataclass(frozen=True, slots=True)
class ImageResponses:
    """What some images did to each channel.

    Attributes:
        means: activation averaged over the map, ``image channel``.
        peaks: its maximum, ``image channel``.
        sampled: the activation at some places of each image, ``place channel``.
        find_places: image and channel indices -> row and column of the maximum, ``entry 2``.
        image_ids: the images.
        keys: their keys.
    """

    means: NDArray[np.float32]
    peaks: NDArray[np.float32]
    sampled: NDArray[np.float32]
    find_places: FindPlaces
    image_ids: Sequence[int]
    keys: Sequence[str]


class StatisticsBuilder:
    """Statistics of images that come batch by batch; histograms grow in place.

    The moments are those of merging one batch after another, to the last bit.
    """

    def __init__(self, num_channels: int, best: int) -> None:
        self.mean = self.peak = moments.nothing(num_channels, 0)
        self.counts = [histograms.Counts(num_channels) for _ in range(3)]
        self.exemplars = exemplars.nobody(num_channels, best)
        self.strongest = np.zeros(num_channels, np.int64)

    def add(self, images: ImageResponses) -> None:
        """Add some images; places are looked up only for those that enter the best."""
        if not len(images.means):
            return
        values = (images.means, images.peaks, images.sampled)
        for counts, own in zip(self.counts, values, strict=True):
            counts.add(own)
        self.mean = moments.merge(self.mean, moments.measure(images.means))
        self.peak = moments.merge(self.peak, moments.measure(images.peaks))
        self.strongest += count_strongest(images.peaks)
        seen, named = self.exemplars, (images.image_ids, images.keys)
        entries = exemplars.candidates(seen, images.peaks, *named)
        if len(entries[0]):
            places = images.find_places(*entries)
            fresh = exemplars.entered(entries, images.peaks, places, *named, seen.value.shape)
            self.exemplars = exemplars.merge(seen, fresh)

    def build(self) -> Statistics:
        """Return the statistics of all images so far."""
        means, peaks, sampled = (counts.table() for counts in self.counts)
        return Statistics(
            replace(self.mean, histogram=means),
            replace(self.peak, histogram=peaks),
            self.exemplars,
            sampled,
            self.strongest.copy(),
        )


def count_strongest(peaks: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count for each channel the images among whose strongest peaks it is, if above zero.

    Args:
        peaks: ``image channel``; of equal ones the first channels count.
    """
    number = min(STRONGEST, peaks.shape[1])
    last = np.partition(peaks, -number, axis=1)[:, -number:].min(axis=1, keepdims=True)
    above, equal = peaks > last, peaks == last
    left = number - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (equal.cumsum(axis=1) <= left))
    counted: NDArray[np.int64] = (chosen & (peaks > 0)).sum(axis=0)
    return counted
