"""The loop: one batch of images climbs, each image its own channel.

Nothing here draws a random number, and no image of a batch touches another (but for
`objectives.diversity`, within the pictures of one channel).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cnnvis_ray.config.maximization import Maximize
from cnnvis_ray.maximization.cutting import Cut
from cnnvis_ray.maximization.objectives import Aim, Objective, own_maps
from cnnvis_ray.maximization.parametrizations import Canvas, Parametrization
from cnnvis_ray.maximization.redirection import Redirection
from cnnvis_ray.maximization.transforms import View, view_images, view_of

Network = Callable[[Tensor], Tensor]
TILE_IMAGES = 16  # at 128 px the fastest on two cores: 4.95 ms an image, 5.66 at 4 (features.10)
TILE_PIXELS = TILE_IMAGES * 128**2  # bounds memory: at 512 px one image at a time
LOOK_EVERY = 16  # steps between looks at whether a gradient arrives: one costs 1 % of a step


@dataclass(frozen=True, slots=True)
class Slope:
    """What all batches of a layer share: the way from parameters to the number that climbs.

    Attributes:
        cut: the network up to the layer, climbed before the layer's bound.
        judge: the same for measuring, after it; another one only where weights hold NaN.
        mean: ``[colour, 1, 1]``, which the network's preprocess subtracts.
        std: ``[colour, 1, 1]``, by which it divides.
        window: height and width in pixels that the network sees at each step.
        precision: what the network computes in during the climb; measuring is always float32.
        overwritten: whether the function after the layer changes the activation in place.
    """

    cut: Cut
    judge: Cut
    parametrization: Parametrization
    objective: Objective
    canvas: Canvas
    mean: Tensor
    std: Tensor
    recipe: Maximize
    window: tuple[int, int]
    precision: torch.dtype
    overwritten: bool

    def normalize(self, images: Tensor) -> Tensor:
        """Turn images in [0, 1] into the network's input."""
        return torch.addcmul(-self.mean / self.std, images, 1 / self.std)


@dataclass(frozen=True, slots=True)
class Ascent:
    """A climbed batch.

    Attributes:
        parameters: ``[batch, ...]`` of the parametrization, at the end.
        curve: ``[batch, step]``: the objective at each step, transforms on.
        peaks: ``[batch, step]``: the largest activation of the own channel's map at each step.
        felt: ``[batch]``: whether a gradient reached the image without redirection.
        reached: ``[batch]``: whether any gradient reached it.
    """

    parameters: Tensor
    curve: npt.NDArray[np.float32]
    peaks: npt.NDArray[np.float32]
    felt: npt.NDArray[np.bool_]
    reached: npt.NDArray[np.bool_]


def ascend(slope: Slope, start: Tensor, placements: Tensor | None, aim: Aim) -> Ascent:
    """Climb for the recipe's number of steps.

    In the first steps, where no gradient at all reaches some image, the step is done once more
    with gradients redirected, and the redirected ones are taken for these images alone.

    Args:
        slope: what is climbed.
        start: ``[batch, ...]``: parameters; not changed.
        placements: ``[step, batch, 2, 3]`` from `transforms.draw_placements`, or None.
        aim: each image's channel.

    Returns:
        The parameters at the end, and what happened on the way.
    """
    recipe = slope.recipe
    parameters = start.clone().requires_grad_()
    optimizer = make_optimizer(slope, parameters)
    trail = Trail(recipe.steps, start)
    views = None if placements is None else view_of(placements, slope.canvas.size, slope.window)
    for step in range(recipe.steps):
        view = None if views is None else views.at(step)
        values, peaks, gradient = climb(slope, parameters, view, aim)
        trail.record(step, values, peaks)
        early = step < recipe.redirect_steps
        if early or step % LOOK_EVERY == 0:
            still = trail.feel(gradient)
            if early and bool(still.any()):
                with Redirection():
                    _, _, redirected = climb(slope, parameters, view, aim)
                gradient = trail.redirect(still, gradient, redirected)
        parameters.grad = gradient.contiguous()  # fused Adam wants it laid out as the parameters
        optimizer.step()
    return trail.close(parameters)


class Trail:
    """The numbers of a climb, gathered on its device so that no step waits for the CPU."""

    def __init__(self, steps: int, like: Tensor) -> None:
        batch, device = len(like), like.device
        self.curve = torch.zeros(steps, batch, device=device)
        self.peaks = torch.zeros(steps, batch, device=device)
        self.felt = torch.zeros(batch, dtype=torch.bool, device=device)
        self.redirected = torch.zeros_like(self.felt)

    def record(self, step: int, values: Tensor, peaks: Tensor) -> None:
        """Note a step's numbers."""
        self.curve[step] = values
        self.peaks[step] = peaks

    def feel(self, gradient: Tensor) -> Tensor:
        """Note which images a gradient reached; return which it did not: ``[batch]``."""
        moved = any_of(gradient)
        self.felt |= moved
        return ~moved

    def redirect(self, still: Tensor, gradient: Tensor, redirected: Tensor) -> Tensor:
        """Take the redirected gradient where there was none."""
        self.redirected |= still & any_of(redirected)
        return torch.where(still.view(-1, *(1,) * (gradient.dim() - 1)), redirected, gradient)

    def close(self, parameters: Tensor) -> Ascent:
        """Bring everything to the CPU."""
        return Ascent(
            parameters.detach(),
            self.curve.cpu().numpy().T,
            self.peaks.cpu().numpy().T,
            self.felt.cpu().numpy(),
            (self.felt | self.redirected).cpu().numpy(),
        )


def make_optimizer(slope: Slope, parameters: Tensor) -> torch.optim.Adam:
    """Set up Adam with the recipe's step, or with the one that suits the parametrization."""
    stride = slope.parametrization.stride
    asked = slope.recipe.learning_rate
    rate = stride.learning_rate if asked == "auto" else asked
    betas = stride.betas if slope.recipe.betas == "auto" else slope.recipe.betas
    return torch.optim.Adam([parameters], lr=rate, betas=betas, fused=True)


def any_of(values: Tensor) -> Tensor:
    """Check for each entry of a batch whether anything is not zero: ``[batch]``."""
    return values.flatten(1).any(1)


def climb(
    slope: Slope, parameters: Tensor, view: View | None, aim: Aim
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the batch is and which way is up.

    An image whose objective is not finite gets no pull; its neighbours do not notice.

    Returns:
        ``[batch]`` the objective, ``[batch]`` the largest activation of each own map, and the
        gradient of minus the objective, of the parameters' shape.
    """
    images = slope.parametrization.image(parameters)
    seen = view_images(images, view, slope.mean, slope.std) if view else slope.normalize(images)
    activation = activate(slope.cut.before_bound, seen, slope.precision)
    values = slope.objective(activation, aim)
    loss = -torch.where(values.isfinite(), values, 0.0).sum()
    (gradient,) = torch.autograd.grad(loss, parameters)
    return values.detach(), own_maps(activation.detach(), aim).amax(1), gradient


def activate(cut: Network, inputs: Tensor, precision: torch.dtype) -> Tensor:
    """Run the cut network on normalized images, in float32 or by autocast in half of it."""
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    if precision == torch.float32:
        return in_tiles(cut, inputs)
    with torch.autocast(inputs.device.type, precision):
        return in_tiles(cut, inputs).float()


def tile_images(window: tuple[int, int]) -> int:
    """Return how many images of a size the cut network gets at a time: a power of 2."""
    fitting = max(1, min(TILE_IMAGES, TILE_PIXELS // (window[0] * window[1])))
    return 1 << (fitting.bit_length() - 1)  # divides the usual batches


def in_tiles(cut: Network, inputs: Tensor) -> Tensor:
    """Run the cut network on a fixed number of images at a time, the last tile filled with zeros.

    How a convolution adds up depends on how many images it gets, and a climb turns the last bit
    into another picture: up to 7 % in activation between batches of 4 and 16 (squeezenet1_1,
    features.12). In tiles, the batch size changes nothing.
    """
    tile = tile_images((inputs.shape[2], inputs.shape[3]))
    missing = -len(inputs) % tile
    full = functional.pad(inputs, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else inputs
    if len(full) == tile:
        return cut(full)[: len(inputs)]
    return torch.cat([cut(part) for part in torch.split(full, tile)])[: len(inputs)]
