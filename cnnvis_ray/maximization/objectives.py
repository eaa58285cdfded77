"""Objectives: activation -> one number per image, to be maximized.

An objective is a function ``(activation, aim) -> [batch]`` and a line in `OBJECTIVES`; one that
measures something else than its channel's mean gets a line in `READINGS` too. A recipe names one,
or several with weights: ``{channel: 1.0, diversity: 0.5}``, the one that matters most first; a
negative weight minimizes, and ``-channel`` is short for ``{channel: -1.0}``. No image's number may
depend on another image, except within the ``pictures`` of one channel, which always share a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cnnvis_ray.config.maximization import Maximize, ObjectiveChoice
from cnnvis_ray.errors import RefusedError, did_you_mean


@dataclass(frozen=True, slots=True)
class Aim:
    """What the images of a batch climb.

    Attributes:
        channels: ``[batch]``: the channel of each image, or the number of its direction.
        pictures: how many consecutive images belong to one channel.
        neuron: row and column of the map; the middle where None.
        directions: ``[direction, channel]``, one unit vector a row, or None.
    """

    channels: Tensor
    pictures: int = 1
    neuron: tuple[int, int] | None = None
    directions: Tensor | None = None


Objective = Callable[[Tensor, Aim], Tensor]


def own_maps(activation: Tensor, aim: Aim) -> Tensor:
    """Take each image's own channel: ``[batch, place]``."""
    images = torch.arange(len(activation), device=activation.device)
    return activation[images, aim.channels].reshape(len(activation), -1)


def channel(activation: Tensor, aim: Aim) -> Tensor:
    """Mean of the channel over its map."""
    return own_maps(activation, aim).mean(1)


def neuron(activation: Tensor, aim: Aim) -> Tensor:
    """The channel at one place."""
    if activation.dim() != 4:
        return channel(activation, aim)
    height, width = activation.shape[2:]
    row, column = aim.neuron or (height // 2, width // 2)
    images = torch.arange(len(activation), device=activation.device)
    return activation[images, aim.channels, row, column]


def direction(activation: Tensor, aim: Aim) -> Tensor:
    """Mean over the map of the product with a direction."""
    assert aim.directions is not None
    pooled = activation.flatten(2).mean(2) if activation.dim() > 2 else activation
    return (pooled * aim.directions[aim.channels]).sum(1)


def logit(activation: Tensor, aim: Aim) -> Tensor:
    """The output of the head for one class, before softmax."""
    images = torch.arange(len(activation), device=activation.device)
    return activation.flatten(1)[images, aim.channels]


def log_odds(activation: Tensor, aim: Aim) -> Tensor:
    """The logit of one class, less the log of the sum of all others' exponentials.

    It has no ceiling, like the logit, but nothing is won by what excites other classes too, so
    the picture shows the class to other networks as well (benchmarks/maximization.py transfer).
    """
    others = activation.flatten(1).scatter(1, aim.channels[:, None], -torch.inf)
    return logit(activation, aim) - torch.logsumexp(others, 1)


def diversity(activation: Tensor, aim: Aim) -> Tensor:
    """How much a picture differs from the others of its channel, in units of its activation.

    1 - mean cosine of the Gram matrices of the maps, times the size of the channel's own mean, so
    that a weight means the same in every layer.

    References:
        Olah et al. 2017, Feature Visualization, doi:10.23915/distill.00007, section Diversity.
    """
    maps = activation.flatten(2) if activation.dim() > 2 else activation[:, :, None]
    gram = functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
    groups = gram.view(-1, aim.pictures, gram.shape[1])
    cosine = groups @ groups.transpose(1, 2)
    others = cosine.sum(2) - torch.diagonal(cosine, dim1=1, dim2=2)
    likeness = (others / max(aim.pictures - 1, 1)).flatten()
    size = channel(activation, aim).detach().abs()
    return size * (1 - likeness)


def squared_maximum(activation: Tensor, aim: Aim) -> Tensor:
    """The seed's: minus the mean squared distance to the square of the channel's own maximum.

    Where the maximum is under 1 its square lies below it, and the objective pulls down what it
    should lift; where the channel is silent, the target is 0 and already reached.
    """
    maps = own_maps(activation, aim)
    target = maps.amax(1, keepdim=True).detach().square()
    return -(maps - target).square().mean(1)


OBJECTIVES: dict[str, Objective] = {
    "channel": channel,
    "neuron": neuron,
    "direction": direction,
    "class": log_odds,
    "logit": logit,
    "diversity": diversity,
    "squared_maximum": squared_maximum,
}


# What a finished picture is measured by, where that is not the mean of its channel over the map.
READINGS: dict[str, Objective] = {
    "neuron": neuron,
    "direction": direction,
    "class": logit,
    "logit": logit,
}
# The readings that the images' statistics hold as well: a channel's mean over its map, which for
# the head's output, of one place, is the logit. Only these have a percentile among the images.
IN_STATISTICS = (channel, logit)


def parse_objective(choice: ObjectiveChoice) -> dict[str, float]:
    """Read a configured objective as weights.

    Raises:
        RefusedError: an unknown name, or no term at all.
    """
    if isinstance(choice, str):
        choice = {choice.removeprefix("-"): -1.0 if choice.startswith("-") else 1.0}
    for name in choice:
        if name not in OBJECTIVES:
            hint = did_you_mean(name, OBJECTIVES)
            raise RefusedError(f"no objective {name!r}{hint} (known: {', '.join(OBJECTIVES)})")
    if not any(choice.values()):
        raise RefusedError(
            f"nothing to climb: no objective has a weight; known: {', '.join(OBJECTIVES)}"
        )
    return choice


def main_term(recipe: Maximize) -> tuple[str, float]:
    """Return the term that is measured, the first one, with its weight."""
    return next(iter(parse_objective(recipe.objective).items()))


def find_reading(recipe: Maximize) -> Objective:
    """Return the function that measures a finished picture."""
    return READINGS.get(main_term(recipe)[0], channel)


def is_comparable(recipe: Maximize) -> bool:
    """Check whether a picture's activation and the images' statistics are the same number.

    With ``captured: in_place`` the picture is measured after the function that follows the layer,
    the images before it.
    """
    return find_reading(recipe) in IN_STATISTICS and recipe.captured == "copy"


def build_objective(choice: ObjectiveChoice) -> Objective:
    """Join weighted terms into one objective."""
    terms = [(weight, OBJECTIVES[name]) for name, weight in parse_objective(choice).items()]

    def weighted(activation: Tensor, aim: Aim) -> Tensor:
        return torch.stack([weight * term(activation, aim) for weight, term in terms]).sum(0)

    return weighted
