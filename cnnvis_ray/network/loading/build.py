"""Building: from a `ResolvedNetwork`, decided once on the driver, to a module on a worker.

A plain picklable record. The driver resolves it, Ray's object store carries it, and every worker
turns it into the same module with `build_module`.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cnnvis_ray.network.loading.factories import construct
from cnnvis_ray.network.loading.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class ResolvedNetwork:
    """A network whose every choice is made.

    Attributes:
        name: torchvision's, or ``package.module:factory``.
        weights: what was taken: ``IMAGENET1K_V1``, a path or URI, ``random``.
        state: tensors by name, on the CPU; it need not cover the whole network.
        state_hash: SHA-256 (hexadecimal) over names, dtypes, shapes and bytes of the state.
        preprocess: what the network needs of an image.
        categories: names of the classes, one per output of the head; None where unknown.
        arguments: keywords of torchvision's builder.
        preprocess_origin: what stated the preprocess, for people.
    """

    name: str
    weights: str
    state: dict[str, Tensor] = field(repr=False)
    state_hash: str
    preprocess: Preprocess
    categories: tuple[str, ...] | None = field(repr=False)
    arguments: dict[str, bool | int]
    preprocess_origin: str = ""


def build_module(resolved: ResolvedNetwork, device: str = "cpu") -> nn.Module:
    """Build the network in evaluation mode, frozen, its weights on a device.

    Convolution weights lie channels last in memory, which halves VGG16's time on a CPU. Tensors
    that the state does not cover hold nothing (see `absent`); `check_coverage` refuses their use.

    Raises:
        RefusedError: a user's factory cannot be imported or called here.
    """
    module = construct(resolved.name, resolved.arguments)
    moved = OrderedDict((name, move(t, device)) for name, t in resolved.state.items())
    moved._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]  # MNASNet asks
    module.load_state_dict(moved, strict=False, assign=True)
    for prefix, owner in module.named_modules(remove_duplicate=False):
        settle(owner, prefix, moved, device)
    return module.requires_grad_(False).eval()


def move(tensor: Tensor, device: str) -> Tensor:
    """Copy a tensor to a device, a convolution's weight channels last."""
    moved = tensor.to(device)
    return moved.contiguous(memory_format=torch.channels_last) if moved.dim() == 4 else moved


def settle(owner: nn.Module, prefix: str, covered: Mapping[str, Tensor], device: str) -> None:
    """Replace uncovered tensors of one module by NaN; move buffers that no file holds."""
    path = f"{prefix}." if prefix else ""
    stored = owner.state_dict(keep_vars=True)
    for name, parameter in owner.named_parameters(recurse=False):
        if path + name not in covered:
            setattr(owner, name, nn.Parameter(absent(parameter, device), False))
    for name, buffer in owner.named_buffers(recurse=False):
        if name not in stored:
            setattr(owner, name, buffer.to(device))
        elif path + name not in covered:
            setattr(owner, name, absent(buffer, device))


def absent(tensor: Tensor, device: str) -> Tensor:
    """Return a stand-in for a missing tensor: NaN, which spreads into whatever uses it.

    One number serves all elements, so it costs no memory. The meta device would not do: measured,
    a convolution on the CPU accepts weights on meta without an error and returns numbers.
    """
    if not tensor.is_floating_point():
        return tensor.to("meta")
    return torch.full((), torch.nan, dtype=tensor.dtype, device=device).expand(tensor.shape)


def hash_state(state: Mapping[str, Tensor]) -> str:
    """Digest names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
