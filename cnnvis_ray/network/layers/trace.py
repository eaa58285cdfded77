"""Trace: one forward pass without computing, watched from inside.

The network runs on the meta device (shapes only), so weights need not be there; a network that
cannot (its own constants, control flow by values) runs once on the CPU. A dispatch mode sees every
ATen operation: which stored tensors it uses, and what its output knows of the image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network.layers.operations import follow
from cnnvis_ray.network.layers.receptive_fields import INPUT, Operation, Track
from cnnvis_ray.network.loading.factories import USERS_FAILURES
from cnnvis_ray.network.loading.preprocess import Preprocess

FAILURES = USERS_FAILURES  # of a forward pass: a user's code may raise anything
BATCH = 2  # tells the batch's dimension from one that only has size 1


@dataclass(slots=True)
class Completion:
    """The end of a module's last call so far.

    Attributes:
        shape: of its output, batch first.
        track: what is known of the output.
        num_used: how many stored tensors had been used by then.
        calls: how often it was called.
    """

    shape: tuple[int, ...]
    track: Track | None
    num_used: int
    calls: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What one forward pass showed.

    Attributes:
        completions: by module name, in the order of the first completion.
        used: names of parameters and buffers in the order of their first use.
        output: shape of the network's own output, batch first; None where it is not a tensor.
    """

    completions: dict[str, Completion]
    used: tuple[str, ...]
    output: tuple[int, ...] | None


class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own gap
    """Follows tensors from the image and notes which stored tensors are used."""

    def __init__(self, stored: Mapping[int, str], image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stored = stored
        self.used: dict[str, None] = {}
        self.tracks: dict[int, tuple[Tensor, Track]] = {id(image): (image, INPUT)}

    def __torch_dispatch__(
        self,
        func: OpOverload[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation and follow its tensors."""
        output = func(*args, **(kwargs or {}))
        arguments = bind(func, args, kwargs or {})
        inputs = list(tensors_in(list(arguments.values())))
        self.used.update({self.stored[id(t)]: None for t in inputs if id(t) in self.stored})
        tracked = [t for t in inputs if id(t) in self.tracks]
        if tracked:
            self.note(func, arguments, tracked, list(tensors_in(output)))
        return output

    def note(
        self,
        func: OpOverload[..., object],
        arguments: Mapping[str, object],
        tracked: list[Tensor],
        outputs: list[Tensor],
    ) -> None:
        """Store the track of every output; tensors are kept so that ids stay theirs."""
        name = func.overloadpacket.__name__.rstrip("_")
        tracks = tuple(self.tracks[id(tensor)][1] for tensor in tracked)
        shapes = tuple(tuple(tensor.shape) for tensor in tracked)
        for output in outputs:
            operation = Operation(name, arguments, tracks, shapes, output)
            self.tracks[id(output)] = (output, follow(operation))

    def attend(self, query: object, output: Tensor) -> None:
        """Store that attention's output has a place for each query, however it computes."""
        track = self.track_of(query) if isinstance(query, Tensor) else None
        if track is not None:
            self.tracks[id(output)] = (output, track.whole())

    def track_of(self, tensor: Tensor) -> Track | None:
        """Return what is known of a tensor; None if it does not come from the image."""
        known = self.tracks.get(id(tensor))
        return known[1] if known else None


def bind(
    func: OpOverload[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> dict[str, object]:
    """Return an operation's arguments by name, defaults filled in."""
    bound: dict[str, object] = {}
    for position, argument in enumerate(func._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        given = args[position] if position < len(args) else kwargs.get(argument.name, default)
        bound[argument.name] = given
    return bound


def tensors_in(value: object) -> Iterator[Tensor]:
    """Walk the tensors of an argument or output, lists included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def tensor_of(output: object) -> Tensor | None:
    """Find the tensor in a module's output.

    A segmentation network returns ``{"out": ...}``, others a record with ``logits`` or a tuple
    whose first part is the answer; None where there is none of these.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return tensor_of(output.get("out", output.get("logits")))
    if hasattr(output, "logits"):
        return tensor_of(output.logits)
    if isinstance(output, tuple) and output:
        return tensor_of(output[0])
    return None


def trace_network(module: nn.Module, preprocess: Preprocess) -> Trace:
    """Run the network once for its shapes.

    Raises:
        RefusedError: it does not take input of the preprocess's size and channels.
    """
    try:
        return trace_on("meta", module, preprocess)
    except FAILURES as failure:
        devices = {tensor.device.type for tensor in stored_tensors(module).values()}
        if "meta" in devices:
            raise refusal(preprocess, failure) from failure
    try:  # its own constants or its control flow need values
        return trace_on(devices.pop() if devices else "cpu", module, preprocess)
    except FAILURES as failure:
        raise refusal(preprocess, failure) from failure


def refusal(preprocess: Preprocess, failure: BaseException) -> RefusedError:
    """Make the error of a network that does not run on its input."""
    reason = " ".join(str(failure).split())[:300] or type(failure).__name__
    return RefusedError(
        f"the network does not take {preprocess.channels} channels of "
        f"{preprocess.crop} x {preprocess.crop} pixels: {reason}"
    )


def trace_on(device: str, module: nn.Module, preprocess: Preprocess) -> Trace:
    """Run the network on a device and watch."""
    size = (BATCH, preprocess.channels, preprocess.crop, preprocess.crop)
    image = torch.zeros(size, device=device)
    tensors = stand_ins(module, device)
    watcher = Watcher({id(tensor): name for name, tensor in reversed(tensors.items())}, image)
    completions: dict[str, Completion] = {}
    with torch.inference_mode(), completion_hooks(module, watcher, completions), watcher:
        output = tensor_of(functional_call(module, tensors, (image,)))
    shape = tuple(output.shape) if output is not None else None
    return Trace(completions, tuple(watcher.used), shape)


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """List every parameter and buffer, under each of its names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def stand_ins(module: nn.Module, device: str) -> dict[str, Tensor]:
    """Make a stand-in of the shape of every parameter and buffer; tied ones share it."""
    own = stored_tensors(module)
    once = {id(tensor): tensor.to(device) for tensor in own.values()}
    return {name: once[id(tensor)] for name, tensor in own.items()}


@contextmanager
def completion_hooks(
    module: nn.Module, watcher: Watcher, completions: dict[str, Completion]
) -> Iterator[None]:
    """Note the end of every call of every module below the root."""
    handles = [
        below.register_forward_hook(completion_hook(name, watcher, completions))
        for name, below in module.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def completion_hook(
    name: str, watcher: Watcher, completions: dict[str, Completion]
) -> Callable[[nn.Module, tuple[object, ...], object], None]:
    """Make the hook of one module."""

    def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        tensor = tensor_of(output)
        if tensor is None:
            return
        if isinstance(module, nn.MultiheadAttention) and inputs:
            watcher.attend(inputs[0], tensor)
        calls = completions[name].calls + 1 if name in completions else 1
        track, num_used = watcher.track_of(tensor), len(watcher.used)
        completions[name] = Completion(tuple(tensor.shape), track, num_used, calls)

    return hook
