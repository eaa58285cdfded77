"""Aims: which number of a network's output is explained.

A classifier is asked for one class (``classes``), a segmentation network for the pixels of one
class (``mask``), any other network for one of its numbers (``numbers``). A score is what people
read: a probability, or the number itself. What gradients start from is the number before softmax.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network.layers.trace import tensor_of

Kind = Literal["classes", "mask", "numbers"]


@dataclass(frozen=True, slots=True)
class Aims:
    """What is explained of each image of a batch.

    Attributes:
        index: ``[batch]``: class, or which number.
        mask: ``[batch, height, width]``: equal shares of one at the class's pixels; None but
            for masks.
        score: ``[batch]``: of the image as it is.
    """

    index: Tensor
    mask: Tensor | None
    score: Tensor

    def of(self, positions: Tensor) -> "Aims":
        """Repeat or choose images by position."""
        mask = None if self.mask is None else self.mask[positions]
        return Aims(self.index[positions], mask, self.score[positions])

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """What `Aimed` takes beside a batch."""
        return (self.index,) if self.mask is None else (self.index, self.mask)


class Aimed(nn.Module):
    """A network that returns one number per image, the one that its aim names."""

    def __init__(self, module: nn.Module, kind: Kind) -> None:
        super().__init__()
        self.module = module
        self.kind = kind

    def output(self, batch: Tensor) -> Tensor:
        """Run the network: ``[batch, index]``, for masks ``[batch, index, height, width]``."""
        output = tensor_of(self.module(batch))
        assert output is not None
        return output.float()

    def forward(self, batch: Tensor, index: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the number before softmax, ``[batch]``."""
        return pick(self.output(batch), index, mask)

    @torch.no_grad()
    def score(self, batch: Tensor, aims: Aims) -> Tensor:
        """Return the probability (the number itself for ``numbers``), ``[batch]``."""
        return pick(probable(self.output(batch), self.kind), aims.index, aims.mask)

    @torch.no_grad()
    def aim(self, batch: Tensor, asked: int | None) -> Aims:
        """Choose what is explained: the asked index, else the network's own answer.

        A mask's class is the one that fills most of the image; class 0, by custom the
        background, only where there is no other.
        """
        output = self.output(batch)
        probability = probable(output, self.kind)
        if self.kind == "mask":
            index = widest_class(output) if asked is None else filled(output, asked)
            mask = mask_of(output, index)
        else:
            first = output.argmax(1) if self.kind == "classes" else torch.zeros_like(output[:, 0])
            index, mask = first.long() if asked is None else filled(output, asked), None
        return Aims(index, mask, pick(probability, index, mask))


def filled(output: Tensor, asked: int) -> Tensor:
    """Return the same index for every image."""
    return torch.full((len(output),), asked, device=output.device)


def probable(output: Tensor, kind: Kind) -> Tensor:
    """Turn outputs into probabilities; numbers stay as they are."""
    if kind == "numbers":
        return output
    return output.sigmoid() if output.shape[1] == 1 else output.softmax(1)


def pick(output: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
    """Take each image's number; of a mask the mean over its pixels."""
    own = output[torch.arange(len(output), device=output.device), index]
    return own if mask is None else (own * mask).sum((1, 2))


def widest_class(output: Tensor) -> Tensor:
    """Find the class with most pixels; class 0 only if it is the only one."""
    num_classes = output.shape[1]
    if num_classes == 1:
        return filled(output, 0)
    pixels = torch.nn.functional.one_hot(output.argmax(1), num_classes).sum((1, 2))
    others = pixels.clone()
    others[:, 0] = 0
    return torch.where(others.sum(1) > 0, others.argmax(1), pixels.argmax(1))


def mask_of(output: Tensor, index: Tensor) -> Tensor:
    """Mark a class's pixels with equal shares of one; all pixels where the class has none."""
    single = output.shape[1] == 1
    own = output[:, 0] > 0 if single else output.argmax(1) == index[:, None, None]
    own = own | ~own.flatten(1).any(1)[:, None, None]
    return own / own.sum((1, 2), keepdim=True)


def find_kind(
    asked: str, output: tuple[int, ...] | None, categories: Sequence[str] | None
) -> Kind:
    """Decide what a network's output is.

    Args:
        asked: the configuration's word, or ``auto``.
        output: shape for one image.
        categories: names of the classes where known.

    Raises:
        RefusedError: the output is nothing that can be aimed at, or not what was asked.
    """
    shape = "nothing" if output is None else " x ".join(map(str, output))
    fits: dict[int, Kind] = {1: "classes", 3: "mask"}
    if output is None or len(output) not in fits:
        raise RefusedError(
            f"explain: the network's output per image is {shape}; allowed are a vector (classes "
            "or numbers) and class maps (channels, height, width)"
        )
    kind = fits[len(output)]
    if kind == "classes" and output[0] == 1 and categories is None:
        kind = "numbers"
    if asked == "auto" or asked == kind:
        return kind
    if len(output) == 1 and asked in ("classes", "numbers"):
        return "classes" if asked == "classes" else "numbers"
    raise RefusedError(
        f"explain.output: {asked}, but the network's output per image is {shape}: {kind}"
    )


def check_target(target: object, output: tuple[int, ...]) -> None:
    """Refuse a class that the network does not have."""
    if isinstance(target, int) and target >= output[0]:
        raise RefusedError(
            f"explain.target: given {target}, the network's output has 0 to {output[0] - 1}"
        )


def name_of(index: int, kind: Kind, categories: Sequence[str] | None) -> str:
    """Return the name of an aim."""
    if categories is not None and index < len(categories):
        return categories[index]
    return f"{'output' if kind == 'numbers' else 'class'} {index}"
