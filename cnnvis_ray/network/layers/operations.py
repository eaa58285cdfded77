"""How each ATen operation changes what a place sees.

A rule is ``(operation) -> track``; ``RULES`` names them all. An operation without a rule counts as
mixing the whole image, so that no receptive field is reported too small.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from math import ceil
from operator import mul

from torch import Tensor

from cnnvis_ray.network.layers.receptive_fields import (
    AxisField,
    Field,
    Operation,
    Tokens,
    Track,
    join_fields,
)


def follow(operation: Operation) -> Track:
    """Return the track of an operation's output."""
    return RULES.get(operation.name, unknown)(operation)


def together(operation: Operation) -> Track:
    """Elementwise and joining operations: the hull of the operands' fields."""
    rank = operation.output.dim()
    aligned = [
        align(track, rank - len(shape))
        for track, shape in zip(operation.tracks, operation.shapes, strict=True)
    ]
    places = {(track.rows, track.columns) for track in aligned if track.field is not None}
    field = join_fields(track.field for track in aligned) if len(places) == 1 else None
    known = [track.channels for track in aligned if track.channels is not None]
    first = max(aligned, key=lambda track: track.rows is not None)
    grids = {track.tokens for track in aligned if track.tokens is not None}
    tokens = grids.pop() if len(grids) == 1 else None
    return Track(field, first.rows, first.columns, known[0] if known else None, tokens)


def align(track: Track, extra: int) -> Track:
    """Count dimensions from the right, as broadcasting does."""
    return track.move(lambda dim: dim + extra) if extra else track


def unknown(operation: Operation) -> Track:
    """Mix everything; dimensions stay where the output still has their sizes."""
    track = replace(operation.tracks[0].whole(), tokens=None)
    shape = tuple(operation.output.shape)
    if len(shape) != len(operation.shape):
        return Track(None, None, None, None)
    return track.move(lambda dim: dim if shape[dim] == operation.shape[dim] else None)


def normalize_batch(operation: Operation) -> Track:
    """Batch normalization by stored statistics; by the batch's own it mixes everything."""
    return unknown(operation) if operation.arguments["training"] else together(operation)


def normalize_last(operation: Operation) -> Track:
    """Layer normalization over the last dimensions."""
    over = len(operation.numbers("normalized_shape"))
    rank = len(operation.shape)
    track = operation.tracks[0]
    if over == 1 and track.channels is None:
        track = replace(track, channels=rank - 1)
    return track.whole() if track.mixes(range(rank - over, rank)) else track


def linear(operation: Operation) -> Track:
    """Mix the last dimension, which then holds the channels."""
    last = len(operation.shape) - 1
    track = operation.tracks[0]
    if track.mixes([last]):
        return Track(None, None, None, last)
    mixed = track.tokens is not None and track.tokens.dim == last
    return replace(track, channels=last, tokens=None if mixed else track.tokens)


def attend(operation: Operation) -> Track:
    """Attention: the output has a place for each query, which sees the whole image."""
    last = len(operation.shape) - 1
    return replace(operation.tracks[0].whole(), channels=last)


def over_dimension(operation: Operation) -> Track:
    """Softmax mixes one dimension; along rows or columns, joined places do not run together."""
    track = together(operation)
    return track.whole() if track.mixes(operation.dims("dim")) else track


def concatenate(operation: Operation) -> Track:
    """Join along a dimension; tokens that come before a grid move it."""
    track = over_dimension(operation)
    if track.tokens is None or track.tokens.dim not in operation.dims("dim"):
        return track
    grids = [
        shape
        for each, shape in zip(operation.tracks, operation.shapes, strict=True)
        if each.tokens is not None
    ]
    if len(grids) > 1:
        return replace(track, tokens=None)
    tensors = operation.arguments["tensors"]
    assert isinstance(tensors, list | tuple)
    before = [tensor.shape[track.tokens.dim] for tensor in tensors]
    place = [tuple(tensor.shape) for tensor in tensors].index(grids[0])
    first = track.tokens.first + sum(before[:place])
    return replace(track, tokens=replace(track.tokens, first=first))


def permute(operation: Operation) -> Track:
    """Reorder dimensions."""
    return operation.tracks[0].move(operation.dims("dims").index)


def transpose(operation: Operation) -> Track:
    """Swap two dimensions."""
    names = ("dim0", "dim1") if "dim0" in operation.arguments else ("axis0", "axis1")
    one, other = operation.dims(names[0])[0], operation.dims(names[1])[0]
    return operation.tracks[0].move(lambda dim: {one: other, other: one}.get(dim, dim))


def reshape(operation: Operation) -> Track:
    """Keep a dimension that has the same size with as many elements before it."""
    shape = tuple(operation.output.shape)
    before = elements_before(operation.shape)
    after = list(zip(elements_before(shape), shape, strict=True))

    def where(dim: int) -> int | None:
        wanted = (before[dim], operation.shape[dim])
        return after.index(wanted) if wanted in after else None

    track = operation.tracks[0]
    moved = track.move(where)
    if track.rows is None or track.columns != track.rows + 1:
        return moved
    height, width = operation.shape[track.rows], operation.shape[track.columns]
    merged = (before[track.rows], height * width)
    if min(height, width) == 1 or merged not in after:
        return moved
    return replace(moved, tokens=Tokens(after.index(merged), height, width))


def elements_before(shape: Sequence[int]) -> list[int]:
    """Count the elements that the dimensions before each one span."""
    return list(accumulate([1, *shape[:-1]], mul))


def select(operation: Operation) -> Track:
    """Select one index of a dimension, which disappears."""
    gone = operation.dims("dim")[0]
    return operation.tracks[0].move(lambda dim: None if dim == gone else dim - (dim > gone))


def unsqueeze(operation: Operation) -> Track:
    """Put in a dimension of size 1."""
    new = operation.numbers("dim")[0] % operation.output.dim()
    return operation.tracks[0].move(lambda dim: dim + (dim >= new))


def part(operation: Operation) -> Track:
    """Select a part along one dimension; a part of the rows or columns is not followed."""
    track = operation.tracks[0]
    if operation.output.shape == operation.shape:
        return track
    if track.tokens is not None and track.tokens.dim in operation.dims("dim"):
        track = replace(track, tokens=None)
    return track.whole() if track.mixes(operation.dims("dim")) else track


def convolve(operation: Operation) -> Track:
    """Slide a kernel; channels come out on dimension 1."""
    weight = operation.arguments["weight"]
    assert isinstance(weight, Tensor)
    kernel = (int(weight.shape[-2]), int(weight.shape[-1]))
    dilation = operation.pair("dilation")
    padding = operation.arguments["padding"]
    if padding == "same":
        pads = ((kernel[0] - 1) * dilation[0] // 2, (kernel[1] - 1) * dilation[1] // 2)
    else:
        pads = (0, 0) if padding == "valid" else operation.pair("padding")
    return slide(operation, kernel, operation.pair("stride"), pads, dilation)


def pool(operation: Operation) -> Track:
    """Slide a pooling window; a stride that is not given is the window's size."""
    kernel = operation.pair("kernel_size")
    stride = operation.pair("stride") if operation.arguments["stride"] else kernel
    dilation = operation.pair("dilation") if "dilation" in operation.arguments else (1, 1)
    return slide(operation, kernel, stride, operation.pair("padding"), dilation)


def slide(
    operation: Operation,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Track:
    """Slide a window over height and width."""
    track = operation.tracks[0]
    if track.field is None or (track.rows, track.columns) != (2, 3):
        return Track(None, 2, 3, 1)
    height, width = (
        axis.window(kernel[i], stride[i], padding[i], dilation[i])
        for i, axis in enumerate((track.field.height, track.field.width))
    )
    return Track(Field(height, width), 2, 3, 1)


def adapt(operation: Operation) -> Track:
    """Pool to a fixed number of places; to one place is the whole image."""
    return per_axis(operation, adapt_axis)


def adapt_axis(axis: AxisField, before: int, after: int) -> AxisField | None:
    """Pool one axis as torch's adaptive pooling does: windows of floor and ceiling bounds."""
    if before == after:
        return axis
    if after == 1:
        return None
    if before % after == 0:
        return axis.window(before // after, before // after, 0)
    reach = (ceil(before / after) + 1) * axis.jump
    return AxisField(axis.size + reach, axis.jump * before / after, axis.start - axis.jump)


def interpolate(operation: Operation) -> Track:
    """Resize; bilinear and nearest see the places beside them, bicubic two on each side."""
    taps = 4 if "bicubic" in operation.name else 2
    return per_axis(operation, lambda axis, before, after: axis.resample(before, after, taps))


def per_axis(
    operation: Operation, change: Callable[[AxisField, int, int], AxisField | None]
) -> Track:
    """Change the number of places of height and width, each on its own."""
    track = operation.tracks[0]
    if track.field is None or track.rows is None or track.columns is None:
        return track
    after = operation.output.shape
    height = change(track.field.height, operation.shape[track.rows], after[track.rows])
    width = change(track.field.width, operation.shape[track.columns], after[track.columns])
    return replace(track, field=Field(height, width) if height and width else None)


def pad(operation: Operation) -> Track:
    """Put constant borders around the last dimensions."""
    track = operation.tracks[0]
    borders = operation.numbers("pad")
    if not any(borders) or track.field is None:
        return track
    if operation.arguments.get("mode", "constant") != "constant":
        return track.whole()
    first = {len(operation.shape) - 1 - i: borders[2 * i] for i in range(len(borders) // 2)}
    assert track.rows is not None
    assert track.columns is not None
    height = track.field.height.window(1, 1, first.get(track.rows, 0))
    width = track.field.width.window(1, 1, first.get(track.columns, 0))
    return replace(track, field=Field(height, width))


# fmt: off
ELEMENTWISE = (
    "abs", "add", "alias", "alpha_dropout", "channel_shuffle", "clamp", "clamp_max", "clamp_min",
    "clone", "contiguous", "copy", "detach", "div", "dropout", "elu", "exp", "expand_as",
    "feature_dropout", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log",
    "masked_fill", "maximum", "minimum", "mish", "mul", "native_channel_shuffle", "neg", "pow",
    "prelu", "relu", "relu6", "rsqrt", "rsub", "selu", "sigmoid", "sign", "silu", "softplus",
    "sqrt", "square", "sub", "tanh", "threshold", "to", "type_as", "where",
)
# fmt: on

RULES: Mapping[str, Callable[[Operation], Track]] = {
    **{name: together for name in ELEMENTWISE},
    "adaptive_avg_pool2d": adapt,
    "adaptive_max_pool2d": adapt,
    "avg_pool2d": pool,
    "batch_norm": normalize_batch,
    "cat": concatenate,
    "chunk": part,
    "conv2d": convolve,
    "flatten": reshape,
    "layer_norm": normalize_last,
    "linear": linear,
    "log_softmax": over_dimension,
    "max_pool2d": pool,
    "max_pool2d_with_indices": pool,
    "pad": pad,
    "permute": permute,
    "reshape": reshape,
    "scaled_dot_product_attention": attend,
    "select": select,
    "slice": part,
    "softmax": over_dimension,
    "split": part,
    "squeeze": reshape,
    "swapaxes": transpose,
    "transpose": transpose,
    "unbind": select,
    "unflatten": reshape,
    "unsqueeze": unsqueeze,
    "upsample_bicubic2d": interpolate,
    "upsample_bilinear2d": interpolate,
    "upsample_nearest2d": interpolate,
    "view": reshape,
}
