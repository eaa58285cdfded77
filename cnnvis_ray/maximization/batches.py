"""One attempt at many channels: starts, batches of one size, climbs, pictures measured.

Every random number of a picture belongs to (seed, layer, channel, picture, attempt), so neither
batches nor workers can change a picture. NumPy draws the numbers on the CPU, whatever device
climbs. A short batch is padded with copies of its first channel, so that every batch of a layer
has the same shape: the shape decides in which order a device adds up numbers. Where a GPU has no
memory for a batch, it is halved.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cnnvis_ray.maximization.ascent import Slope, activate, ascend, tile_images
from cnnvis_ray.maximization.objectives import Aim, find_reading
from cnnvis_ray.maximization.records import Pixels, Setting, StartImage
from cnnvis_ray.maximization.spectrum import fit_pixels
from cnnvis_ray.maximization.transforms import draw_placements, resolve_transforms

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which picture's random numbers are drawn.

    Attributes:
        variant: which of several pictures of one channel, from 0.
        attempt: which start, from 0.
    """

    seed: int
    layer: str
    channel: int
    variant: int
    attempt: int


def generator(origin: Origin) -> np.random.Generator:
    """Return the stream of random numbers of one attempt at one picture."""
    fields = (origin.seed, origin.layer, origin.channel, origin.variant, origin.attempt)
    digest = hashlib.blake2b(repr(fields).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


@dataclass(frozen=True, slots=True)
class Climber:
    """One picture about to be made."""

    origin: Origin
    start_image: StartImage | None


@dataclass(frozen=True, slots=True)
class Climbed:
    """One picture made by one attempt.

    Attributes:
        peaks: ``[step]``: the largest activation of the channel's map.
        felt: whether a gradient reached the image without redirection.
        reached: whether any gradient reached it.
        halved_to: the batch that memory had room for, where that was not all of it.
        overwritten: whether the function after the layer changed the activation in place.
        bound: name of the function whose ceiling the climb went past; empty where there is none.
    """

    climber: Climber
    pixels: Pixels
    activation: float
    start_activation: float
    curve: npt.NDArray[np.float32]
    peaks: npt.NDArray[np.float32]
    felt: bool
    reached: bool
    halved_to: int | None
    overwritten: bool
    bound: str


def climb_all(slope: Slope, setting: Setting, climbers: Sequence[Climber]) -> Iterator[Climbed]:
    """Make every picture once, in batches of `batch_images`.

    Args:
        slope: what is climbed.
        setting: of the run.
        climbers: the pictures of one channel stand together.

    Yields:
        One result a climber, in order.

    Raises:
        torch.OutOfMemoryError: not even the pictures of one channel fit into memory.
    """
    pictures = slope.recipe.pictures
    batch = batch_images(slope, setting.device)
    first = 0
    while first < len(climbers):
        try:
            yield from climb_batch(slope, setting, climbers[first : first + batch], batch)
            first += batch
        except torch.OutOfMemoryError:
            if batch == pictures:
                raise
            batch = max(batch // 2 // pictures, 1) * pictures
            log.warning("no memory on %s: batches of %d pictures from here", setting.device, batch)


def batch_images(slope: Slope, device: str) -> int:
    """Return how many pictures climb together.

    A CPU gains nothing from more than the network gets at a time, and two large pictures would
    pay for the padding: at 512 px they took the time of sixteen.
    """
    pictures, size = slope.recipe.pictures, slope.recipe.batch_size
    if device == "cpu":
        size = min(size, tile_images(slope.window))
    return max(1, size // pictures) * pictures


def climb_batch(
    slope: Slope, setting: Setting, climbers: Sequence[Climber], batch: int
) -> list[Climbed]:
    """Make one batch of pictures and measure them."""
    pictures = slope.recipe.pictures
    copies = (batch - len(climbers)) // pictures
    padded = [*climbers, *list(climbers[:pictures]) * copies]
    aim = take_aim(slope, padded, setting.device)
    starts, placements = draw(slope, setting, padded)
    start_activation = measure(slope, paint(slope, starts), aim)
    ascent = ascend(slope, starts, placements, aim)
    pixels = paint(slope, ascent.parameters)
    activation = measure(slope, pixels, aim)
    frames = show(pixels)
    halved_to = batch if batch < batch_images(slope, setting.device) else None
    return [
        Climbed(
            climber,
            frames[position],
            float(activation[position]),
            float(start_activation[position]),
            ascent.curve[position],
            ascent.peaks[position],
            bool(ascent.felt[position]),
            bool(ascent.reached[position]),
            halved_to,
            slope.overwritten,
            slope.cut.bound,
        )
        for position, climber in enumerate(climbers)
    ]


def take_aim(slope: Slope, climbers: Sequence[Climber], device: str) -> Aim:
    """Return what each image of a batch climbs."""
    recipe = slope.recipe
    directions = None
    if recipe.directions is not None:
        directions = functional.normalize(torch.tensor(recipe.directions, device=device), dim=1)
    channels = torch.tensor([climber.origin.channel for climber in climbers], device=device)
    return Aim(channels, recipe.pictures, recipe.neuron, directions)


def draw(
    slope: Slope, setting: Setting, climbers: Sequence[Climber]
) -> tuple[Tensor, Tensor | None]:
    """Draw start parameters ``[batch, ...]`` and placements ``[step, batch, 2, 3]``."""
    values = resolve_transforms(slope.recipe)
    starts, placements = [], []
    for climber in climbers:
        random = generator(climber.origin)
        starts.append(slope.parametrization.start(random))
        if values is not None:
            placements.append(
                draw_placements(random, values, slope.canvas.size, slope.recipe.steps)
            )
    parameters = torch.from_numpy(np.stack(starts)).to(setting.device)
    for position, climber in enumerate(climbers):
        if climber.start_image is not None:
            image = fit_pixels(climber.start_image.pixels, slope.canvas.size, slope.canvas.colours)
            parameters[position] = slope.parametrization.encode(image[None].to(setting.device))[0]
    if not placements:
        return parameters, None
    return parameters, torch.from_numpy(np.stack(placements, 1)).to(setting.device)


def paint(slope: Slope, parameters: Tensor) -> Tensor:
    """Draw the pictures in 8 bits: ``[batch, colour, height, width]`` uint8."""
    with torch.no_grad():
        images = slope.parametrization.image(parameters)
        return (images.nan_to_num(0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def measure(slope: Slope, pixels: Tensor, aim: Aim) -> npt.NDArray[np.float32]:
    """Measure pictures as they are drawn, transforms off, float32: ``[batch]``."""
    reading = find_reading(slope.recipe)
    with torch.no_grad():
        activation = activate(slope.judge, slope.normalize(pixels / 255.0), torch.float32)
        return reading(activation, aim).cpu().numpy()


def show(pixels: Tensor) -> Pixels:
    """Turn ``[batch, colour, height, width]`` into ``[batch, height, width, 3]``."""
    return np.ascontiguousarray(pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy())
