"""Receptive fields: which pixels of the input one place of an activation sees.

On one axis, place ``i`` sees the pixels ``start + i * jump`` up to, not including,
``start + i * jump + size``, cut at the image's border. Convolutions and poolings make fields
larger, joins (sum, product, concatenation) take the hull, and everything that mixes places in
another way sees the whole image (None). A field may be too large, never too small.

A track says which dimensions of a tensor are rows, columns and channels, which pixels a place
sees, and where a transformer's tokens lie on the image. An operation is one ATen call with the
tracks of its inputs.

References:
    Araujo, Norris, Sim 2019, Computing Receptive Fields of Convolutional Neural Networks,
    doi:10.23915/distill.00021.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from torch import Tensor


@dataclass(frozen=True, slots=True)
class AxisField:
    """The receptive field along one axis, in pixels of the input.

    Attributes:
        size: extent of what one place sees.
        jump: distance between neighbouring places (the stride of the network so far).
        start: first pixel that place 0 sees; negative where it hangs over the border.
    """

    size: float
    jump: float
    start: float

    def window(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> "AxisField":
        """Return the field behind a sliding window, as of convolution and pooling."""
        extent = (kernel - 1) * dilation
        return AxisField(
            self.size + extent * self.jump,
            self.jump * stride,
            self.start - padding * self.jump,
        )

    def resample(self, before: int, after: int, taps: int) -> "AxisField":
        """Return the field after interpolation; each place sees at most ``taps`` neighbours."""
        jump = self.jump * before / after
        return AxisField(
            self.size + taps * self.jump,
            jump,
            self.start + (jump - self.jump) / 2 - taps / 2 * self.jump,
        )

    def join(self, other: "AxisField") -> "AxisField | None":
        """Return the hull of two fields; None where their places do not run together."""
        if self.jump != other.jump:
            return None
        start = min(self.start, other.start)
        stop = max(self.start + self.size, other.start + other.size)
        return AxisField(stop - start, self.jump, start)

    def pixels(self, place: int, length: int) -> tuple[int, int]:
        """Find the pixels that one place sees.

        Args:
            place: index along this axis.
            length: pixels of the input along this axis.

        Returns:
            First pixel and the one after the last; one border pixel where a place lies in the
            padding and sees nothing.
        """
        start = self.start + place * self.jump
        first = min(max(floor(start), 0), length - 1)
        return first, max(min(ceil(start + self.size), length), first + 1)


PIXEL = AxisField(1, 1, 0)


@dataclass(frozen=True, slots=True)
class Field:
    """What one place sees: along the height and along the width."""

    height: AxisField
    width: AxisField

    def join(self, other: "Field") -> "Field | None":
        """Return the hull of two fields; None is the whole image."""
        height, width = self.height.join(other.height), self.width.join(other.width)
        return Field(height, width) if height and width else None


def join_fields(fields: Iterable[Field | None]) -> Field | None:
    """Return the hull of several fields; one that sees the whole image decides."""
    joined: list[Field] = []
    for field in fields:
        if field is None:
            return None
        hull = joined.pop().join(field) if joined else field
        if hull is None:
            return None
        joined.append(hull)
    return joined[0] if joined else None


@dataclass(frozen=True, slots=True)
class Tokens:
    """A grid of places along one dimension, row by row, as a transformer has it.

    Attributes:
        dim: the dimension.
        height: rows of the grid.
        width: columns of the grid.
        first: where it begins; before it lie tokens without a place (class token, registers).
    """

    dim: int
    height: int
    width: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Track:
    """What is known of one tensor; dimensions count from 0, None where lost.

    Attributes:
        field: what one place sees; None is the whole image.
        rows: the dimension of the height.
        columns: the dimension of the width.
        channels: the dimension of the channels.
        tokens: the grid of places, where rows and columns share one dimension.
    """

    field: Field | None
    rows: int | None
    columns: int | None
    channels: int | None
    tokens: Tokens | None = None

    def move(self, where: Callable[[int], int | None]) -> "Track":
        """Follow dimensions to where they go; a lost place leaves the whole image."""
        rows, columns, channels = (
            None if dim is None else where(dim) for dim in (self.rows, self.columns, self.channels)
        )
        kept = self.field if rows is not None and columns is not None else None
        along = None if self.tokens is None else where(self.tokens.dim)
        tokens = None if self.tokens is None or along is None else replace(self.tokens, dim=along)
        return Track(kept, rows, columns, channels, tokens)

    def mixes(self, dims: Sequence[int]) -> bool:
        """Whether an operation over these dimensions mixes places."""
        return self.field is not None and bool({self.rows, self.columns} & set(dims))

    def whole(self) -> "Track":
        """Return the track of places that see the whole image."""
        return replace(self, field=None)


INPUT = Track(Field(PIXEL, PIXEL), 2, 3, 1)


@dataclass(frozen=True, slots=True)
class Operation:
    """One ATen operation that ran.

    Attributes:
        name: without overload, ``conv2d``.
        arguments: by the schema's names, defaults filled in.
        tracks: of those tensor arguments that come from the image, in order.
        shapes: of those tensors, in the same order.
        output: the tensor that came out (the first of several).
    """

    name: str
    arguments: Mapping[str, object]
    tracks: tuple[Track, ...]
    shapes: tuple[tuple[int, ...], ...]
    output: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first tensor that comes from the image."""
        return self.shapes[0]

    def numbers(self, name: str) -> list[int]:
        """Read an argument that is one or several integers."""
        value = self.arguments[name]
        if isinstance(value, int):
            return [value]
        assert isinstance(value, list | tuple)
        return [int(number) for number in value]

    def pair(self, name: str) -> tuple[int, int]:
        """Read an argument that is given for the height and the width, or once for both."""
        numbers = self.numbers(name)
        return numbers[0], numbers[-1]

    def dims(self, name: str) -> list[int]:
        """Read dimensions, counted from 0."""
        return [dim % len(self.shape) for dim in self.numbers(name)]
