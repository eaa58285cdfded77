"""Transforms: the random steps that a picture must survive; one affine sampling does all of them.

lucid pads by 12 pixels of grey, crops by up to 8 (jitter), scales by 0.90 to 1.10, rotates by up
to 10 degrees and crops by up to 4 again, one after the other and the same for a whole batch. Here
each image of a batch has its own numbers, and pad, jitter, scale and rotation are one matrix and
one bilinear sampling, in which no image depends on another.

What the network needs of an image (mean, deviation) is preprocess, not a transform; `view_images`
does it on the way, since another pass over the images costs time.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cnnvis_ray.config.maximization import Maximize, TransformValues
from cnnvis_ray.maximization.objectives import parse_objective

FILL = 0.5  # grey around the picture: lucid, optvis/transform.py, standard_transforms
SCALE_CHOICES = 11  # lucid, optvis/transform.py: 1 + (i - 5) / 50 for i in range(11)
UNROTATED_CHOICES = 5  # lucid, optvis/transform.py: range(-10, 11) and five more zeros

REFERENCE_SIZE = 128  # pixels: lucid, optvis/param/images.py, the size its transforms are for

Placements = npt.NDArray[np.float32]


def standard(recipe: Maximize) -> TransformValues:
    """Ours: lucid's for 128 px, in proportion for others, the window as large as the picture.

    A network of one input size can thus be climbed, and a small picture is not shaken to pieces.
    A class knows no left and right, so its pictures are mirrored; a channel may know them.
    """
    share = min(recipe.height_width) / REFERENCE_SIZE
    before, after = round(8 * share), round(4 * share)
    after += (before + after) % 2
    return TransformValues(
        pad=(before + after) // 2,
        jitter=(before, after),
        scale=(0.9, 1.1),
        rotate=10,
        flip="class" in parse_objective(recipe.objective),
    )


def lucid(recipe: Maximize) -> TransformValues:
    """Take lucid's standard_transforms, in pixels whatever the size."""
    return TransformValues(pad=12, jitter=(8, 4), scale=(0.9, 1.1), rotate=10)


def none(recipe: Maximize) -> None:
    """No transform."""


TRANSFORMS: dict[str, Callable[[Maximize], TransformValues | None]] = {
    "standard": standard,
    "lucid": lucid,
    "none": none,
}


def resolve_transforms(recipe: Maximize) -> TransformValues | None:
    """Look up named transforms; values given in the configuration are taken as they are."""
    if isinstance(recipe.transforms, str):
        return TRANSFORMS[recipe.transforms](recipe)
    return recipe.transforms


def window_size(size: tuple[int, int], values: TransformValues | None) -> tuple[int, int]:
    """Return height and width that the network sees: padded, less what jitter crops, in pixels."""
    if values is None:
        return size
    grown = 2 * values.pad - sum(values.jitter)
    return size[0] + grown, size[1] + grown


def draw_placements(
    random: np.random.Generator, values: TransformValues, size: tuple[int, int], steps: int
) -> Placements:
    """Draw where the network's window lies on the picture at each step.

    Args:
        random: the picture's own stream.
        values: ranges of the transforms; jitter in pixels, rotation in degrees.
        size: height and width of the picture in pixels.
        steps: number of steps.

    Returns:
        ``[steps, 2, 3]``: matrices from window to picture in the coordinates of
        `torch.nn.functional.affine_grid`.
    """
    before = random.integers(0, values.jitter[0] + 1, (steps, 2)) - values.jitter[0] / 2
    after = random.integers(0, values.jitter[1] + 1, (steps, 2)) - values.jitter[1] / 2
    scale = random.choice(np.linspace(*values.scale, SCALE_CHOICES), steps)
    whole = np.arange(-values.rotate, values.rotate + 1)
    angles = random.choice(np.concatenate([whole, np.zeros(UNROTATED_CHOICES)]), steps)
    cosine, sine = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    turn = np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)
    turn = turn / scale[:, None, None]
    shift = before + np.einsum("sij,sj->si", turn, after)
    half_picture = np.array([size[1], size[0]]) / 2
    window = window_size(size, values)
    half_window = np.array([window[1], window[0]]) / 2
    mirror = random.choice([-1.0, 1.0], steps) if values.flip else np.ones(steps)
    turn = turn * np.stack([mirror, np.ones(steps)], 1)[:, None, :]
    matrix = turn * half_window[None, None, :] / half_picture[None, :, None]
    return np.concatenate([matrix, (shift / half_picture)[:, :, None]], 2).astype(np.float32)


@dataclass(frozen=True, slots=True)
class View:
    """Where the windows of a batch lie on its pictures.

    Attributes:
        there: ``[..., batch, 2, 3]``: from window to picture, from `draw_placements`.
        back: ``[..., batch, 2, 3]``: from picture to window.
        density: ``[..., batch]``: pixels of a window for one pixel of the picture.
        size: height and width of the pictures, pixels.
        window: height and width that the network sees, pixels.
    """

    there: Tensor
    back: Tensor
    density: Tensor
    size: tuple[int, int]
    window: tuple[int, int]

    def at(self, step: int) -> "View":
        """Return one step of all."""
        return replace(
            self, there=self.there[step], back=self.back[step], density=self.density[step]
        )


def view_of(there: Tensor, size: tuple[int, int], window: tuple[int, int]) -> View:
    """Invert matrices by Cramer's rule, which, unlike a solver, never waits for a GPU."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in there.unbind(-2))
    determinant = a * d - b * c
    rows = [torch.stack([d, -b, b * y - d * x], -1), torch.stack([-c, a, c * x - a * y], -1)]
    back = torch.stack(rows, -2) / determinant[..., None, None]
    pixels = window[0] * window[1] / (size[0] * size[1])
    return View(there, back, pixels / determinant.abs(), size, window)


def view_images(images: Tensor, view: View, mean: Tensor, std: Tensor) -> Tensor:
    """Sample each image through its own window and normalize it for the network.

    Args:
        images: ``[batch, colour, height, width]`` in [0, 1].
        view: one step.
        mean: ``[colour, 1, 1]``, which the network's preprocess subtracts.
        std: ``[colour, 1, 1]``, by which it divides.

    Returns:
        ``[batch, colour, *window]``, normalized, channels last; grey where a window reaches over
        the edge.
    """
    seen: Tensor = _Seeing.apply(images, view, mean, std)
    return seen


class _Seeing(torch.autograd.Function):
    """Bilinear sampling and normalization, whose gradient is sampled back by the inverse matrix.

    torch's own gradient of sampling scatters: on a GPU in no fixed order, so that no two runs
    agree to the byte, and on a CPU in four times the time. Both smooth a gradient over the same
    pixels; they are equal where the matrix only shifts by whole pixels. Normalization is in here
    since each pass over the images costs 0.4 % of a step (squeezenet1_1, features.10), forward
    and back.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        images: Tensor,
        view: View,
        mean: Tensor,
        std: Tensor,
    ) -> Tensor:
        """Sample images at the places of the window's pixels."""
        ctx.view, ctx.std = view, std  # type: ignore[attr-defined]
        moved = sample(images - FILL, view.there, view.window)
        seen = torch.empty_like(moved, memory_format=torch.channels_last)
        return torch.addcmul((FILL - mean) / std, moved, 1 / std, out=seen)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor, None, None, None]:
        """Sample the gradient at the places of the images' pixels."""
        (gradient,) = gradients
        view, std = ctx.view, ctx.std  # type: ignore[attr-defined]
        share = view.density[:, None, None, None] / std
        return sample(gradient, view.back, view.size).mul_(share), None, None, None


def sample(images: Tensor, placements: Tensor, window: tuple[int, int]) -> Tensor:
    """Sample images bilinearly, zero outside of them."""
    return functional.grid_sample(
        images,
        sampling_grid(placements, window),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )


def sampling_grid(placements: Tensor, window: tuple[int, int]) -> Tensor:
    """Return the place of each of the window's pixels, as `affine_grid` does.

    A place is one complex number here: so one addition, and one that vectorizes, makes the grid
    (0.09 ms for 16 windows of 128 px; 0.26 with a last axis of two, 0.6 by `affine_grid`).

    Returns:
        ``[batch, *window, 2]``, column first, from -1 to 1 between the edges of the image.
    """
    rows, columns = (
        (2 * torch.arange(side, device=placements.device) + 1) / side - 1 for side in window
    )
    across, down, shift = (one.unsqueeze(1) for one in placements.unbind(2))
    row = torch.view_as_complex(down * rows[:, None] + shift)
    column = torch.view_as_complex(across * columns[:, None])
    return torch.view_as_real(row[:, :, None] + column[:, None, :])
