"""Small plots: a bar per layer, a table of numbers in colours, the weights of a convolution."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from cnnvis_ray.explanation.heat import png
from cnnvis_ray.pictures import Tile, draw_sheet

DOTS_PER_INCH = 150
INK, PAPER, BAR, LINE = "white", "black", "#21918c", "#fde725"
SIDE = 64  # pixels of a kernel's tile
COLUMNS = 16
MOST = 256  # kernels of a sheet
Kernels = NDArray[np.float32]


def draw_probe(table: pa.Table) -> bytes:
    """Draw the accuracy of each layer's linear probe beside chance.

    Args:
        table: of `classes.PROBE`.

    Returns:
        PNG.
    """
    names = table["layer"].to_pylist()
    rows = np.arange(len(names))
    accuracy, chance = (table[name].to_numpy() for name in ("accuracy", "chance"))
    figure = Figure(figsize=(7, 1.6 + 0.3 * len(names)), facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(facecolor=PAPER)
    bars = axes.barh(rows, accuracy, color=BAR, label="accuracy")
    axes.bar_label(bars, [f"{value:.3f}" for value in accuracy], padding=4, color=INK)
    axes.vlines(chance, rows - 0.45, rows + 0.45, color=LINE, label="chance")
    axes.set(xlim=(0, 1.12), yticks=rows, yticklabels=names)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.invert_yaxis()
    axes.set_title("Linear probe", color=INK, loc="left")
    axes.set_xlabel("accuracy of one linear layer on frozen features, cross-validated")
    figure.legend(loc="outside upper right", ncols=2, labelcolor=INK, facecolor=PAPER)
    return save(figure)


def draw_matrix(title: str, names: Sequence[str], values: NDArray[np.floating]) -> bytes:
    """Draw a square table of numbers in [0, 1], rows and columns alike.

    Args:
        title: one line.
        names: of rows and columns.
        values: ``row column``; NaN is drawn as a dash.

    Returns:
        PNG.
    """
    side = 0.42 * len(names) + 1.2
    figure = Figure(figsize=(side + 3.2, side), facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(facecolor=PAPER)
    shown = axes.imshow(values, cmap="viridis", vmin=0, vmax=1)
    numbers = [str(index + 1) for index in range(len(names))]
    named = [f"{name}  {number}" for name, number in zip(names, numbers, strict=True)]
    axes.set(xticks=range(len(names)), xticklabels=numbers)
    axes.set(yticks=range(len(names)), yticklabels=named)
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        ink = "black" if value > 0.6 else INK
        text = "-" if np.isnan(value) else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
    axes.set_title(title, color=INK, loc="left")
    bar = figure.colorbar(shown, ax=axes, shrink=0.8)
    bar.ax.tick_params(colors=INK)
    return save(figure)


def save(figure: Figure) -> bytes:
    """Draw a figure with Agg, on a dark ground, as PNG."""
    for axes in figure.axes:
        axes.tick_params(colors=INK)
        axes.xaxis.label.set_color(INK)
        for spine in axes.spines.values():
            spine.set_color("grey")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
    return buffer.getvalue()


def kernels_of(module: nn.Module) -> Kernels | None:
    """Take a convolution's kernels ``out in height width``; None for other modules."""
    if not isinstance(module, nn.Conv2d):
        return None
    return np.asarray(module.weight.detach().float().cpu().numpy())


def draw_kernels(name: str, kernels: Kernels, shared: bool) -> bytes:
    """Draw one layer's kernels.

    Args:
        name: of the layer.
        kernels: ``out in height width``; three inputs are drawn as colours, others as grey: of
            each output the inputs, one after another, as many as fit.
        shared: one scale for the sheet, else one per kernel.

    Returns:
        A sheet, PNG.
    """
    colour = kernels.shape[1] == 3
    bound = float(np.abs(kernels).max())
    if colour:
        pairs: list[tuple[int, int | None]] = [
            (out, None) for out in range(min(len(kernels), MOST))
        ]
    else:
        inputs = min(kernels.shape[1], COLUMNS)
        outputs = min(len(kernels), MOST // inputs)
        pairs = [(out, chosen) for out in range(outputs) for chosen in range(inputs)]
    tiles = [draw_kernel(kernels, out, chosen, bound if shared else None) for out, chosen in pairs]
    scale = f"one scale, {-bound:.3g} to {bound:.3g}" if shared else "each by its own largest"
    out, into, height, width = kernels.shape
    notes = [
        f"{out} kernels of {into} x {height} x {width}; {len(tiles)} shown; middle grey is zero; "
        f"{scale}"
    ]
    columns = COLUMNS if colour else inputs
    return png(draw_sheet(tiles, columns, SIDE, title=f"{name}: weights", notes=notes))


def draw_kernel(kernels: Kernels, out: int, chosen: int | None, bound: float | None) -> Tile:
    """Draw one kernel; grey 128 is zero."""
    values = kernels[out] if chosen is None else kernels[out, chosen][None].repeat(3, 0)
    largest = float(np.abs(values).max()) if bound is None else bound
    scaled = values / largest if largest > 0 else values
    pixels = np.rint(127.5 + 127.5 * scaled).astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    factor = max(1, SIDE // max(image.size))
    size = (image.width * factor, image.height * factor)
    caption = f"{out}" if chosen is None else f"{out}, {chosen}"
    return Tile(image.resize(size, Image.Resampling.NEAREST), (caption,))
