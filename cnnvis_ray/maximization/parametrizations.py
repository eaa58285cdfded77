"""Parametrizations: parameters -> image, and back, so that a picture can start from an image.

``fourier`` and ``pixel`` are lucid's: decorrelated colours and a sigmoid keep the image in [0, 1],
and the spectrum, scaled by 1 / frequency, lets low frequencies move first. ``maco`` holds the
magnitude of each frequency as measured on real images and moves the phase alone. ``normalized`` is
the seed's: the parameters are the network's own input, not bounded, clipped only when drawn.

Adding one: a frozen record with `stride`, `start`, `image` and `encode`, a function that builds it
from a recipe, and its line in `PARAMETRIZATIONS`.

References:
    Olah et al. 2017, Feature Visualization, doi:10.23915/distill.00007.
    Fel et al. 2023, Unlocking Feature Visualization with MAgnitude Constrained Optimization,
    arXiv:2306.06805.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cnnvis_ray.config.maximization import Maximize
from cnnvis_ray.errors import RefusedError

Array = npt.NDArray[np.float32]

# lucid, optvis/param/color.py: color_correlation_svd_sqrt, divided by its largest column norm
COLOUR = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]]) / 0.461952
CONTRAST = 4.0  # lucid, optvis/param/spatial.py: "increasing this seems to reduce saturation"
NOISE = 0.01  # lucid, optvis/param/spatial.py: standard deviation of the start
DIST = (0.0, 1.0)  # the range of the seed's uniform noise where the recipe names none
EDGE = 0.02  # how near to 0 and 1 an image may come before its logit is taken: 5 of 255 levels


@dataclass(frozen=True, slots=True)
class Canvas:
    """What an image of the network is.

    Attributes:
        size: height and width in pixels.
        mean: of each colour, in [0, 1], as the network's preprocess states it; 1 or 3 of them.
        std: of each colour.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def colours(self) -> int:
        """How many colours the network takes: 3, or 1 for grey."""
        return len(self.mean)


class Stride(NamedTuple):
    """Adam's step where the recipe names none, and the memory of its two averages."""

    learning_rate: float
    betas: tuple[float, float]


class Parametrization(Protocol):
    """Parameters, the image they make, and the parameters that make a given image."""

    stride: ClassVar[Stride]

    def start(self, random: np.random.Generator) -> Array:
        """Draw one image's parameters, without a batch axis."""

    def image(self, parameters: Tensor) -> Tensor:
        """Make images ``[batch, colour, height, width]``, in [0, 1] unless said otherwise."""

    def encode(self, images: Tensor) -> Tensor:
        """Find parameters that make these images, as near as the parametrization can."""


@dataclass(frozen=True, slots=True)
class Fourier:
    """Coefficients of a real Fourier transform, real and imaginary part on the last axis.

    Attributes:
        scale: ``[height, half_width, 2]``: 1 / max(frequency, 1 / longest side), with the factor
            of an orthonormal transform in it; twice, since a last axis of one is three times
            slower to multiply by.
    """

    # Measured on squeezenet1_1, 128 steps, lucid's 0.05, (0.9, 0.999) in brackets: features.10
    # reaches 6.6 times the best photo in the median (5.0), 96 % of class pictures are recognized
    # by squeezenet1_0 (82 %); a rate that falls to 0 costs a tenth of both.
    stride: ClassVar = Stride(0.1, (0.8, 0.95))
    size: tuple[int, int]
    colour: Tensor
    scale: Tensor
    noise: float

    def start(self, random: np.random.Generator) -> Array:
        """Draw normal noise of one strength for all coefficients."""
        shape = (len(self.colour), *self.scale.shape[:2], 2)
        return random.standard_normal(shape, np.float32) * np.float32(self.noise)

    def image(self, parameters: Tensor) -> Tensor:
        """Scale, transform back, correlate colours, squash."""
        waves: Tensor = _Synthesis.apply(parameters, self.scale, self.size)
        return torch.sigmoid(mix(waves, self.colour))

    def encode(self, images: Tensor) -> Tensor:
        """Undo `image`; exact between `EDGE` and 1 - `EDGE`."""
        waves = mix(unsquash(images), torch.linalg.inv(self.colour))
        spectrum = torch.fft.rfft2(waves, norm="forward")
        return torch.view_as_real(spectrum) / self.scale


class _Synthesis(torch.autograd.Function):
    """Scaled coefficients to waves; torch's own gradient, with one pass over it less."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        parameters: Tensor,
        scale: Tensor,
        size: tuple[int, int],
    ) -> Tensor:
        """Scale and transform back."""
        ctx.scale, ctx.width = scale, size[1]  # type: ignore[attr-defined]
        spectrum = torch.view_as_complex(parameters * scale)
        waves: Tensor = torch.fft.irfft2(spectrum, s=size, norm="forward")
        return waves

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor, None, None]:
        """Transform and scale: a column that stands for its mirror image too counts twice."""
        scale, width = ctx.scale, ctx.width  # type: ignore[attr-defined]
        twice = scale.clone()
        twice[:, 1 : width - scale.shape[1] + 1] *= 2
        spectrum = torch.view_as_real(torch.fft.rfft2(gradients[0], norm="backward"))
        return spectrum * twice, None, None


@dataclass(frozen=True, slots=True)
class Pixel:
    """Pixels before colour correlation and sigmoid."""

    stride: ClassVar = Stride(0.05, (0.9, 0.999))  # lucid, optvis/render.py
    size: tuple[int, int]
    colour: Tensor
    noise: float

    def start(self, random: np.random.Generator) -> Array:
        """Draw normal noise."""
        shape = (len(self.colour), *self.size)
        return random.standard_normal(shape, np.float32) * np.float32(self.noise)

    def image(self, parameters: Tensor) -> Tensor:
        """Correlate colours, squash."""
        return torch.sigmoid(mix(parameters, self.colour))

    def encode(self, images: Tensor) -> Tensor:
        """Undo `image`; exact between `EDGE` and 1 - `EDGE`."""
        return mix(unsquash(images), torch.linalg.inv(self.colour))


@dataclass(frozen=True, slots=True)
class Maco:
    """Phases of a spectrum whose magnitude stays as measured (`spectrum.measure_spectrum`).

    The magnitude of the picture's own spectrum is constant in interior columns only: column 0,
    and the last of an even width, hold pairs of conjugates that one real image must join.
    """

    stride: ClassVar = Stride(0.05, (0.8, 0.95))  # phases, in radians
    size: tuple[int, int]
    colour: Tensor
    magnitude: Tensor

    def start(self, random: np.random.Generator) -> Array:
        """Draw phases over the whole circle."""
        return random.uniform(-np.pi, np.pi, tuple(self.magnitude.shape)).astype(np.float32)

    def image(self, parameters: Tensor) -> Tensor:
        """Join magnitude and phase, transform back, correlate colours, squash."""
        spectrum = torch.polar(self.magnitude.expand_as(parameters).contiguous(), parameters)
        waves = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return torch.sigmoid(mix(waves, self.colour))

    def encode(self, images: Tensor) -> Tensor:
        """Keep the phases of the images, which is where their shapes are."""
        waves = mix(unsquash(images), torch.linalg.inv(self.colour))
        phases: Tensor = torch.fft.rfft2(waves, norm="ortho").angle()
        return phases


@dataclass(frozen=True, slots=True)
class Normalized:
    """The network's own input, uniform noise at the start, not bounded."""

    stride: ClassVar = Stride(0.01, (0.9, 0.999))  # the seed's
    size: tuple[int, int]
    mean: Tensor
    std: Tensor
    dist: tuple[float, float]

    def start(self, random: np.random.Generator) -> Array:
        """Draw uniform noise in ``dist``."""
        return random.uniform(*self.dist, (len(self.mean), *self.size)).astype(np.float32)

    def image(self, parameters: Tensor) -> Tensor:
        """Undo the network's normalization; may leave [0, 1]."""
        return parameters * self.std + self.mean

    def encode(self, images: Tensor) -> Tensor:
        """Normalize."""
        return (images - self.mean) / self.std


def mix(waves: Tensor, colour: Tensor) -> Tensor:
    """Multiply the colour axis of ``[batch, colour, height, width]`` by a matrix."""
    return (colour @ waves.flatten(2)).view_as(waves)


def unsquash(images: Tensor) -> Tensor:
    """Invert the sigmoid, away from where it is flat."""
    return torch.logit(images.clamp(EDGE, 1 - EDGE))


def colour_matrix(colours: int, contrast: float) -> Tensor:
    """Build the matrix from decorrelated to real colours; grey has nothing to decorrelate."""
    matrix = COLOUR if colours == len(COLOUR) else np.eye(colours)
    return torch.tensor(matrix / contrast, dtype=torch.float32)


def frequencies(size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """List the frequency of each coefficient of a real transform, in cycles a pixel."""
    rows, columns = np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1])
    distance: npt.NDArray[np.float64] = np.hypot(rows[:, None], columns[None, :])
    return distance


def fourier(recipe: Maximize, canvas: Canvas, magnitude: Array | None) -> Parametrization:
    """Set up lucid's spectrum; its formula leaves out one column that odd widths do not need."""
    scale = 1.0 / np.maximum(frequencies(canvas.size), 1.0 / max(canvas.size))
    scale = scale / np.sqrt(canvas.size[0] * canvas.size[1])
    weights = torch.tensor(scale, dtype=torch.float32)[..., None].expand(-1, -1, 2).contiguous()
    return Fourier(canvas.size, colour_matrix(canvas.colours, CONTRAST), weights, NOISE)


def pixel(recipe: Maximize, canvas: Canvas, magnitude: Array | None) -> Parametrization:
    """Set up lucid's pixels."""
    return Pixel(canvas.size, colour_matrix(canvas.colours, 1.0), NOISE)


def maco(recipe: Maximize, canvas: Canvas, magnitude: Array | None) -> Parametrization:
    """Set up phases under a measured magnitude."""
    if magnitude is None:
        raise RefusedError(
            "parametrization maco needs a magnitude spectrum, and the run has no images to "
            "measure it on; name an image source or use parametrization: fourier"
        )
    colour = colour_matrix(canvas.colours, 1.0)
    return Maco(canvas.size, colour, torch.tensor(magnitude, dtype=torch.float32))


def normalized(recipe: Maximize, canvas: Canvas, magnitude: Array | None) -> Parametrization:
    """Set up the seed's image; a single number d is the range from -d to d."""
    dist = recipe.dist if recipe.dist is not None else DIST
    low, high = (-dist, dist) if isinstance(dist, float) else dist
    mean, std = (
        torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (canvas.mean, canvas.std)
    )
    return Normalized(canvas.size, mean, std, (low, high))


PARAMETRIZATIONS: dict[str, Callable[[Maximize, Canvas, Array | None], Parametrization]] = {
    "fourier": fourier,
    "pixel": pixel,
    "maco": maco,
    "normalized": normalized,
}
