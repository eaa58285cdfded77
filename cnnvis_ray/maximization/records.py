"""What goes into maximization and what comes out: the setting of a run, and pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cnnvis_ray.maximization.parametrizations import Canvas

Status = Literal["live", "stuck", "dead"]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StartImage:
    """A real image that a picture can start from.

    Attributes:
        key: the image key, kept with the picture.
        pixels: ``[height, width, 3]``, any size.
    """

    key: str
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run's images say of a layer's channels.

    Attributes:
        best: ``[channel]``: the largest mean activation that an image reached.
        excited: ``[channel]``: whether any image excites the channel at all.
        start_image: the image that excites a channel most, or None where it cannot be had.
        lowest: ``[channel]``: the smallest mean activation of an image, where it is known.
    """

    best: npt.NDArray[np.float32]
    excited: npt.NDArray[np.bool_]
    start_image: Callable[[int], StartImage | None] = lambda channel: None
    lowest: npt.NDArray[np.floating] | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """Where pictures are made: the same for all layers of a run, but for the evidence.

    Attributes:
        mean: of each colour of the network's input, in [0, 1]; one value for a grey network.
        std: of each colour.
        crop: the side in pixels that the network's preprocess cuts images to.
        seed: of the run.
        device: where the network is.
        evidence: statistics of the layer's channels, where the run has images.
        magnitude: ``[colour, height, half_width]`` from `spectrum.measure_spectrum`, for ``maco``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    seed: int = 0
    device: str = "cpu"
    evidence: Evidence | None = None
    magnitude: npt.NDArray[np.float32] | None = None

    def canvas(self, size: tuple[int, int]) -> Canvas:
        """Describe an image of the network at a size."""
        return Canvas(size, self.mean, self.std)


@dataclass(frozen=True, slots=True)
class Picture:
    """The image that maximization found for one channel.

    Attributes:
        variant: which of the channel's pictures, from 0.
        pixels: ``[height, width, 3]``: what was measured.
        activation: of `pixels`, transforms off: the channel's mean over its map (for the
            objectives neuron, direction and class: their own number, the logit of a class).
        start_activation: the same of the image it started from.
        curve: ``[step]``: the objective at each step, transforms on.
        attempts: how many starts it took.
        note: what a reader of the row must know, or empty.
        start_key: the image it started from, or None for noise.
    """

    channel: int
    variant: int
    pixels: Pixels
    activation: float
    start_activation: float
    curve: npt.NDArray[np.float32]
    attempts: int
    status: Status
    note: str
    start_key: str | None
