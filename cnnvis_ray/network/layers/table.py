"""LayerTable: the layers of a network in execution order, and how people name them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from cnnvis_ray.errors import Refusals, RefusedError, near
from cnnvis_ray.network.layers.aliases import find_aliases
from cnnvis_ray.network.layers.receptive_fields import Field
from cnnvis_ray.network.layers.trace import BATCH, Completion, trace_network
from cnnvis_ray.network.loading.preprocess import Preprocess

TITLES = ("layer", "aliases", "kind", "channels", "height x width", "sees pixels", "floats")
RIGHT = {"channels", "height x width", "sees pixels", "floats", "calls"}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a network, as one forward pass shows it.

    Attributes:
        name: dotted module path.
        aliases: other names people use.
        kind: class of the module.
        channels: number of channels.
        height: places along the height; None for a vector; a transformer's tokens are places,
            in the grid of their patches where the trace found it.
        width: places along the width; None for a vector, 1 for tokens without a grid.
        field: which pixels a place sees (size, jump, start on both axes); None is the whole
            image.
        channel_axis: where the module's own output has its channels.
        calls: how often one forward pass runs it; capture takes the last call.
        num_used: how many of `LayerTable.used` the forward pass uses up to that call's end.
        first_token: where the tokens' grid begins, behind the class token and registers, which
            have no place and are left out; None where the output is not a grid of tokens.
    """

    name: str
    aliases: tuple[str, ...]
    kind: str
    channels: int
    height: int | None
    width: int | None
    field: Field | None
    channel_axis: int
    calls: int
    num_used: int
    first_token: int | None = None

    @property
    def floats(self) -> int:
        """How many numbers the layer computes of one image."""
        return self.channels * (self.height or 1) * (self.width or 1)

    @property
    def receptive_field(self) -> tuple[float, float] | None:
        """Height and width in pixels of what one place sees; None is the whole image."""
        return (self.field.height.size, self.field.width.size) if self.field else None

    def crop(self, y: int, x: int, size: int) -> tuple[int, int, int, int]:
        """Find the pixels of the fitted image that the neurons at one place see.

        A token sees the whole image by attention; its own patch is returned.

        Args:
            y: row of the activation map.
            x: column of the activation map.
            size: side of the fitted image, pixels (`Preprocess.crop`).

        Returns:
            left, top, right, bottom, cut at the border, the last two exclusive (PIL's order).
        """
        if self.first_token is not None:
            assert self.height is not None
            assert self.width is not None
            top, bottom = (size * edge // self.height for edge in (y, y + 1))
            left, right = (size * edge // self.width for edge in (x, x + 1))
            return left, top, right, bottom
        if self.field is None:
            return 0, 0, size, size
        top, bottom = self.field.height.pixels(y, size)
        left, right = self.field.width.pixels(x, size)
        return left, top, right, bottom

    def maps(self, output: Tensor) -> Tensor:
        """View the module's output with channels on axis 1, without a copy.

        Returns:
            Shape ``[batch, channels, height, width]``, or ``[batch, channels]``. Tokens lie in
            the grid of their patches, without the class token; for another input size than the
            traced one in a grid of the same proportions.
        """
        moved = output.movedim(self.channel_axis, 1)
        if moved.dim() != 3:
            return moved
        if self.first_token is None:
            return moved.unsqueeze(3)
        assert self.height is not None
        assert self.width is not None
        grid = moved[:, :, self.first_token :]
        rows = round((grid.shape[2] * self.height / self.width) ** 0.5)
        return grid.reshape(*grid.shape[:2], rows, -1)


@dataclass(frozen=True, slots=True)
class LayerTable:
    """The layers of a network.

    Attributes:
        network: its name, for messages.
        layers: those whose output is a batch of vectors, tokens or maps, by first completion.
        used: parameters and buffers in the order of their first use in a forward pass.
        output: shape of the network's own output for one image; None where it is not a tensor.
    """

    network: str
    layers: tuple[Layer, ...]
    used: tuple[str, ...]
    output: tuple[int, ...] | None

    @property
    def has_tokens(self) -> bool:
        """Whether some layer's places are a transformer's tokens."""
        return any(layer.first_token is not None for layer in self.layers)

    def resolve(self, patterns: Sequence[str]) -> list[str]:
        """Find layers by dotted name, alias, glob, or ``all`` (every layer without layers inside).

        Returns:
            Dotted names in execution order, none twice.

        Raises:
            RefusedError: a pattern fits nothing; all such patterns at once, with near names.
        """
        refusals, found = Refusals(), set[str]()
        for pattern in patterns:
            with refusals.gather():
                found |= self.match(pattern)
        refusals.raise_all()
        return [layer.name for layer in self.layers if layer.name in found]

    def select(self, patterns: Sequence[str]) -> list[Layer]:
        """Find layers as `resolve` does, as records."""
        names = set(self.resolve(patterns))
        return [layer for layer in self.layers if layer.name in names]

    def match(self, pattern: str) -> set[str]:
        """Find the layers that one pattern means.

        Raises:
            RefusedError: there is none.
        """
        if pattern == "all":
            return {layer.name for layer in self.leaves()}
        exact = {layer.name for layer in self.layers if pattern in (layer.name, *layer.aliases)}
        found = exact or {
            layer.name
            for layer in self.layers
            if any(fnmatchcase(name, pattern) for name in (layer.name, *layer.aliases))
        }
        if not found:
            raise RefusedError(self.refusal(pattern))
        return found

    def refusal(self, pattern: str) -> str:
        """Return the refusal of an unknown layer, with near names."""
        names = [name for layer in self.layers for name in (layer.name, *layer.aliases)]
        hints = near_layers(pattern, names)
        return (
            f"no layer {pattern!r} in {self.network}; did you mean {', '.join(hints)}? "
            f"(cnnvis layers {self.network})"
        )

    def leaves(self) -> list[Layer]:
        """List the layers without layers inside."""
        inside = {
            layer.name[:end]
            for layer in self.layers
            for end, letter in enumerate(layer.name)
            if letter == "."
        }
        return [layer for layer in self.layers if layer.name not in inside]


def near_layers(pattern: str, names: Sequence[str]) -> list[str]:
    """List names close to a mistyped one; where numbers differ, the closest numbers."""
    stem, number = split_number(pattern)
    numbered = [name for name in names if split_number(name)[0] == stem]
    if number is None or not numbered:
        return near(pattern, names) or list(names[:5])
    by_distance = sorted(numbered, key=lambda name: abs((split_number(name)[1] or 0) - number))
    closest = set(by_distance[:5])
    return [name for name in numbered if name in closest]


def split_number(name: str) -> tuple[str, int | None]:
    """Split ``features.12`` into its stem and its number."""
    match = re.fullmatch(r"(.*?)(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)


def trace_layers(module: nn.Module, preprocess: Preprocess, name: str = "network") -> LayerTable:
    """Find the layers of a network from one forward pass for shapes only.

    Args:
        module: in evaluation mode, on any device; its weights need not be there.
        preprocess: fixes the size and channels of the input.
        name: of the network, for messages.

    Raises:
        RefusedError: the network does not take such input.
    """
    trace = trace_network(module, preprocess)
    modules = dict(module.named_modules())
    aliases: dict[str, list[str]] = {}
    for alias, layer in find_aliases(module).items():
        aliases.setdefault(layer, []).append(alias)
    layers = tuple(
        layer_of(below, tuple(aliases.get(below, ())), type(modules[below]).__name__, completion)
        for below, completion in trace.completions.items()
        if is_layer(completion)
    )
    return LayerTable(name, layers, trace.used, trace.output[1:] if trace.output else None)


def is_layer(completion: Completion) -> bool:
    """Whether an output is a batch of vectors, tokens or maps."""
    return completion.shape[:1] == (BATCH,) and 2 <= len(completion.shape) <= 4


def layer_of(name: str, aliases: tuple[str, ...], kind: str, completion: Completion) -> Layer:
    """Combine what the trace saw of one layer."""
    shape, track = completion.shape, completion.track
    axis = 2 if len(shape) == 3 else 1
    if track is not None and track.channels is not None and track.channels > 0:
        axis = track.channels
    places = [size for dim, size in enumerate(shape) if dim not in (0, axis)]
    height, width = ((*places, 1)[:2]) if places else (None, None)
    tokens = track.tokens if track is not None and len(shape) == 3 else None
    if tokens is not None:
        height, width = tokens.height, tokens.width
    return Layer(
        name=name,
        aliases=aliases,
        kind=kind,
        channels=shape[axis],
        height=height,
        width=width,
        field=track.field if track is not None and len(shape) == 4 else None,
        channel_axis=axis,
        calls=completion.calls,
        num_used=completion.num_used,
        first_token=None if tokens is None else tokens.first,
    )


def format_table(table: LayerTable) -> str:
    """Write the layers in execution order, one line each, as ``cnnvis layers NAME`` prints them.

    ``sees pixels`` is the receptive field, height x width, or ``image`` for the whole image;
    ``floats`` are the numbers computed of one image. ``calls`` appears where a layer runs several
    times in one forward pass (its last call counts).
    """
    with_calls = any(layer.calls > 1 for layer in table.layers)
    titles = (*TITLES, "calls") if with_calls else TITLES
    rows = [titles, *(cells(layer)[: len(titles)] for layer in table.layers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    return "\n".join(format_row(row, titles, widths) for row in rows)


def cells(layer: Layer) -> tuple[str, ...]:
    """Write the cells of one layer."""
    size = f"{layer.height} x {layer.width}" if layer.height is not None else "-"
    seen = layer.receptive_field
    return (
        layer.name,
        " ".join(layer.aliases) or "-",
        layer.kind,
        str(layer.channels),
        size,
        f"{seen[0]:g} x {seen[1]:g}" if seen else "image",
        f"{layer.floats:,}",
        str(layer.calls) if layer.calls > 1 else "",
    )


def format_row(row: tuple[str, ...], titles: tuple[str, ...], widths: list[int]) -> str:
    """Align one row: numbers right, words left."""
    parts = [
        cell.rjust(width) if title in RIGHT else cell.ljust(width)
        for cell, title, width in zip(row, titles, widths, strict=True)
    ]
    return "  ".join(parts).rstrip()
