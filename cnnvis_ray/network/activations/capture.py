"""Capture: the outputs of many layers from one forward pass.

An observer is ``(layer name, maps) -> None``. It is called inside the forward pass, at the moment
the layer's last call ends, before a following in-place ReLU can change the tensor; so an observer
that reduces at once needs no copy, and one that keeps the tensor must clone it. Nothing else holds
the maps, so memory is bounded by one layer's output. Hooks live as long as the ``with`` block.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cnnvis_ray.network.layers.table import Layer
from cnnvis_ray.network.layers.trace import tensor_of

Observer = Callable[[str, Tensor], None]
Forward = Callable[[Tensor], Tensor | None]


class _DeepestReachedError(Exception):
    """Stops a forward pass after the deepest asked layer; never leaves `capture`."""


@contextmanager
def capture(
    module: nn.Module, layers: Sequence[Layer], observe: Observer, to_head: bool = False
) -> Iterator[Forward]:
    """Register what is needed to observe layers, and remove it again.

    Args:
        module: in evaluation mode.
        layers: which to observe; of a layer that runs several times, the last call.
        observe: called with name and maps, shape ``[batch, channels, height, width]`` or
            ``[batch, channels]``, once a layer and forward pass, in the order of completion.
        to_head: run to the end even where every layer is done.

    Yields:
        A function of one batch ``[batch, channels, crop, crop]``: runs one forward pass and
        returns the network's output if ``to_head``, else None. It raises RuntimeError if a layer
        did not run as often as the trace saw.
    """
    session = _Session({layer.name: layer for layer in layers}, observe, to_head)
    handles = [
        module.get_submodule(layer.name).register_forward_hook(session.hook(layer))
        for layer in layers
    ]
    try:
        yield lambda batch: session.forward(module, batch)
    finally:
        for handle in handles:
            handle.remove()


class _Session:
    """Counts the calls of one forward pass, observes last calls, stops after the deepest."""

    def __init__(self, layers: dict[str, Layer], observe: Observer, to_head: bool) -> None:
        self.layers = layers
        self.observe = observe
        self.to_head = to_head
        self.left: dict[str, int] = {}

    def hook(self, layer: Layer) -> Callable[[nn.Module, object, object], None]:
        """Make the forward hook of one layer."""

        def completed(module: nn.Module, inputs: object, output: object) -> None:
            self.left[layer.name] = self.left.get(layer.name, 0) - 1
            if self.left[layer.name] == 0:
                tensor = tensor_of(output)
                assert tensor is not None
                self.observe(layer.name, layer.maps(tensor))
                if not self.to_head and not any(self.left.values()):
                    raise _DeepestReachedError

        return completed

    @torch.inference_mode()
    def forward(self, module: nn.Module, batch: Tensor) -> Tensor | None:
        """Run one forward pass.

        Raises:
            RuntimeError: a layer ran more or less often than the trace saw.
        """
        self.left = {name: layer.calls for name, layer in self.layers.items()}
        if not self.left and not self.to_head:
            return None
        try:
            output = tensor_of(module(batch))
        except _DeepestReachedError:
            return None
        self.check_complete()
        return output if self.to_head else None

    def check_complete(self) -> None:
        """Refuse a forward pass that went another way than the trace."""
        amiss = [name for name, left in self.left.items() if left]
        if amiss:
            raise RuntimeError(
                f"layers {', '.join(amiss)} did not run as often as the trace saw; "
                "does the network choose its way by the values of the image?"
            )


def activations(module: nn.Module, layers: Sequence[Layer], batch: Tensor) -> dict[str, Tensor]:
    """Return copies of the outputs of layers for one batch, safe against in-place operations.

    Returns:
        Maps by layer name, shapes as in `capture`.
    """
    kept: dict[str, Tensor] = {}

    def keep(name: str, maps: Tensor) -> None:
        kept[name] = maps.clone()

    with capture(module, layers, keep) as forward:
        forward(batch)
    return kept
