"""The network up to one layer: cut there, before its bound.

A hook at the layer ends the forward pass, so nothing behind it is computed and any network can be
cut, whatever its ``forward`` does. Hooks live inside the context manager alone.

Where a layer ends in an activation with a ceiling (ReLU6, sigmoid, tanh, hard sigmoid, softmax),
a climb would stop at it: no gradient comes back from a place at the ceiling. So the climb takes
the value before the bound, and the measuring the activation after it. Hard swish, SiLU and GELU
have no ceiling and are climbed as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cnnvis_ray.network.layers.table import Layer
from cnnvis_ray.network.layers.trace import tensor_of

Call = Callable[..., Tensor]


def rectify(inputs: Tensor, *_: object, **__: object) -> Tensor:
    """Return a ReLU6 without its ceiling."""
    return functional.relu(inputs)


def unbend(inputs: Tensor, min_val: float = -1.0, *_: object, **__: object) -> Tensor:
    """Return a hard tanh without its bounds; nn.ReLU6 is one with the floor of a ReLU."""
    return functional.relu(inputs) if min_val == 0 else inputs


def keep(inputs: Tensor, *_: object, **__: object) -> Tensor:
    """Return the input of a function that rises with it."""
    return inputs


# functions with a ceiling -> the same without
UNBOUNDED: dict[Call, Call] = {
    functional.relu6: rectify,
    functional.hardtanh: unbend,
    functional.hardtanh_: unbend,
    functional.hardsigmoid: keep,
    torch.sigmoid: keep,
    torch.sigmoid_: keep,
    Tensor.sigmoid: keep,
    Tensor.sigmoid_: keep,
    torch.tanh: keep,
    torch.tanh_: keep,
    Tensor.tanh: keep,
    Tensor.tanh_: keep,
    torch.softmax: keep,
    Tensor.softmax: keep,
    functional.softmax: keep,
}


class _ReachedError(Exception):
    """Ends a forward pass with what the layer gave; never leaves this module."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


class Cut:
    """A network that ends at a layer.

    Attributes:
        bound: name of the function whose ceiling the climb goes past; empty where there is none,
            and before the first `before_bound`.
    """

    def __init__(self, module: nn.Module, layer: Layer, in_place: bool) -> None:
        self.module = module
        self.layer = layer
        self.in_place = in_place
        self.left = 0
        self.output: Tensor | None = None
        self.bounds: _Bounds | None = None  # while a forward pass looks for a ceiling
        self.may_be_bounded = not in_place
        self.bound = ""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the layer's maps.

        Args:
            images: network input, ``[batch, colour, height, width]``.

        Returns:
            ``[batch, channel, height, width]``, or ``[batch, channel]`` of a layer without places.

        Raises:
            RuntimeError: the forward pass does not come to the layer.
        """
        self.left, self.output = self.layer.calls, None
        try:
            self.module(images)
            return self.layer.maps(self.last())
        except _ReachedError as reached:
            return self.layer.maps(reached.output)
        finally:
            self.output = None

    def before_bound(self, images: Tensor) -> Tensor:
        """Return the layer's maps, before the ceiling of the function that they come from."""
        if not self.may_be_bounded:
            return self(images)
        self.bounds = _Bounds()
        try:
            with self.bounds:
                maps = self(images)
        finally:
            self.bounds = None
        self.may_be_bounded = bool(self.bound)
        return maps

    def reach(self, _: nn.Module, __: object, output: object) -> None:
        """Hook of the layer itself."""
        self.left -= 1
        if self.left > 0:
            return
        self.output = tensor_of(output)
        if self.output is None or self.in_place:
            return
        if self.bounds is not None and self.bounds.output is self.output:
            self.bound = self.bounds.name
            raise _ReachedError(self.bounds.without())
        raise _ReachedError(self.output)

    def follow(self, _: nn.Module, __: object, ___: object) -> None:
        """Hook of every other leaf: the first one after the layer has done its overwriting."""
        if self.output is not None:
            raise _ReachedError(self.output)

    def last(self) -> Tensor:
        """Return what was kept, where the network ended with the layer itself."""
        if self.output is None:
            raise RuntimeError(f"the forward pass did not come to layer {self.layer.name!r}")
        return self.output


class _Bounds(TorchFunctionMode):
    """While it is active, remembers the last function with a ceiling: its output, and without."""

    def __init__(self) -> None:
        super().__init__()
        self.output: Tensor | None = None
        self.name = ""
        self.without: Callable[[], Tensor] = lambda: torch.empty(0)

    def __torch_function__(
        self,
        func: Call,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run every function as it is."""
        named = dict(kwargs or {})
        if func not in UNBOUNDED:
            return func(*args, **named)
        inputs, *rest = args or (named.pop("input"),)
        assert isinstance(inputs, Tensor)
        in_place = func.__name__.endswith("_") or named.get("inplace") or rest[-1:] == [True]
        before = inputs.clone() if in_place else inputs
        output = func(inputs, *rest, **named)
        self.output, self.name = output, func.__name__.strip("_")
        if (named.get("min_val"), named.get("max_val")) == (0.0, 6.0):
            self.name = "relu6"  # nn.ReLU6 calls hard tanh with these bounds
        self.without = lambda: UNBOUNDED[func](before, *rest, **named)
        return output


@contextmanager
def cut_after(module: nn.Module, layer: Layer, in_place: bool = False) -> Iterator[Cut]:
    """Cut a network after a layer's last call.

    Args:
        module: the network, in evaluation mode.
        layer: where to cut.
        in_place: let the function that follows overwrite the activation, as a hook without a
            copy would see it (a convolution before an in-place ReLU shows rectified values).

    Yields:
        The cut network; one at a time for a module.
    """
    cut = Cut(module, layer, in_place)
    target = module.get_submodule(layer.name)
    inside = set(target.modules())
    with ExitStack() as hooks:
        hooks.callback(target.register_forward_hook(cut.reach).remove)
        if in_place:
            for leaf in module.modules():
                if leaf not in inside and not any(leaf.children()):
                    hooks.callback(leaf.register_forward_hook(cut.follow).remove)
        yield cut
