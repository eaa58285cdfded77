"""Which shown layers chain directly, and the norms of the kernels between them.

A forward pass is watched operation by operation, so that what feeds a layer is what was computed
and not what its name suggests.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from cnnvis_ray.network.layers.trace import tensors_in
from cnnvis_ray.report import Inputs

ACTIVATIONS = {
    "relu",
    "hardtanh",
    "hardswish",
    "silu",
    "gelu",
    "leaky_relu",
    "elu",
    "sigmoid",
    "clamp",
}
NORMALIZATIONS = {"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"}
POOLINGS = {"max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "_adaptive_avg_pool2d"}
COPIES = {"clamp_min", "native_dropout", "dropout", "clone", "detach", "alias", "to", "_to_copy"}
APART = ACTIVATIONS | NORMALIZATIONS | POOLINGS | COPIES
"""ATen operations that keep channels apart."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a forward pass: its name, its inputs, and a convolution's kernels."""

    name: str
    inputs: tuple["Step", ...]
    channels: int
    kernels: NDArray[np.float32] | None = None
    layers: set[str] = field(default_factory=set)

    def __hash__(self) -> int:
        return id(self)


class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own gap
    """Notes which operation made each tensor; one in place makes its tensor again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: dict[int, Step] = {}
        self.kept: list[Tensor] = []  # so that no id is used twice

    def __torch_dispatch__(
        self,
        func: OpOverload[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation and note its outputs."""
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        inputs = tuple(self.steps[id(t)] for t in tensors_in(args) if id(t) in self.steps)
        plain = name == "convolution" and args[8] == 1 and not args[6]  # of one group
        weight = args[1] if plain else None
        kernels = weight.float().numpy() if isinstance(weight, Tensor) else None
        for made in tensors_in(output):
            if made.dim() == 4:
                self.kept.append(made)
                self.steps[id(made)] = Step(name, inputs, made.shape[1], kernels)
        return output


def chain(module: nn.Module, size: tuple[int, ...], shown: Collection[str]) -> dict[str, Inputs]:
    """Find which shown layers chain directly, by one forward pass.

    Two layers do where nothing lies between them but operations that keep channels apart
    (activation, pooling, normalization), convolutions whose outputs are joined, and at most one
    bottleneck of 1 x 1: those kernels are multiplied (Voss et al. 2021, Visualizing Weights,
    doi:10.23915/distill.00024.007), without the activation between them.

    Returns:
        By layer, the layer before and the norms over places, ``channel input``.
    """
    watcher = Watcher()
    last: dict[str, Step] = {}

    def note(layer: str, output: object) -> None:
        step = watcher.steps.get(id(output))
        if step is not None:
            step.layers.add(layer)
            last[layer] = step

    hooks = [
        found.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, found in module.named_modules()
        if name in shown
    ]
    try:
        with torch.no_grad(), watcher:
            image = torch.zeros(size)
            watcher.steps[id(image)] = Step("image", (), size[1])
            watcher.kept.append(image)
            module(image)
    finally:
        for hook in hooks:
            hook.remove()
    pairs = {layer: inputs_of(step, layer) for layer, step in last.items()}
    return {layer: found for layer, found in pairs.items() if found is not None}


def inputs_of(step: Step, layer: str) -> Inputs | None:
    """Return the shown layer that a step's convolutions read, with the norms of their kernels."""
    end = walk(step)
    found = []
    for part in [walk(part) for part in end.inputs] if end.name == "cat" else [end]:
        if part.kernels is None:
            return None
        kernels, before = part.kernels, nearest(part.inputs[0], layer)
        squeeze = walk(part.inputs[0])
        if before is None and squeeze.kernels is not None and squeeze.kernels.shape[2:] == (1, 1):
            mixed = np.tensordot(kernels, squeeze.kernels[:, :, 0, 0], axes=(1, 0))
            kernels, before = np.moveaxis(mixed, 3, 1), nearest(squeeze.inputs[0], layer)
        if before is None:
            return None
        found.append((before, np.sqrt(np.square(kernels).sum(axis=(2, 3)))))
    if len({before for before, _ in found}) != 1:
        return None
    return found[0][0], np.concatenate([norms for _, norms in found])


def walk(step: Step) -> Step:
    """Go back over operations that keep channels apart."""
    while is_apart(step):
        step = step.inputs[0]
    return step


def nearest(step: Step, layer: str) -> str | None:
    """Return the nearest shown layer going back; None where another operation comes first."""
    while not step.layers - {layer} and is_apart(step):
        step = step.inputs[0]
    return min(step.layers - {layer}, default=None)


def is_apart(step: Step) -> bool:
    """Whether each output channel comes from the input channel of the same number alone."""
    return (
        step.name in APART and len(step.inputs) == 1 and step.channels == step.inputs[0].channels
    )
