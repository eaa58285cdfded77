"""Small plots: a bar per layer, a table of numbers in colours, the weights of a convolution."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from cnnvis_ray.config.explanation import Explain, Pictures
from cnnvis_ray.pictures import Sheet, Tile, check_background, lay_sheet
from cnnvis_ray.pictures.colours import ink_on

DOTS_PER_INCH = 150
INK, PAPER, BAR, LINE = "white", "black", "#21918c", "#fde725"
SIDE = 64  # pixels of a kernel's tile
COLUMNS = 16
Kernels = NDArray[np.float32]


def draw_probe(table: pa.Table, look: Pictures) -> dict[str, bytes]:
    """Draw the accuracy of each layer's linear probe beside chance.

    Args:
        table: of `classes.PROBE`.
        look: background and print.

    Returns:
        Files by suffix.
    """
    ink = INK if ink_on(check_background(look.background)) == (255, 255, 255) else PAPER
    line = LINE if ink == INK else "#c81e1e"
    names = table["layer"].to_pylist()
    rows = np.arange(len(names))
    accuracy, chance = (table[name].to_numpy() for name in ("accuracy", "chance"))
    figure = Figure(
        figsize=(7, 1.6 + 0.3 * len(names)), facecolor=look.background, layout="constrained"
    )
    axes = figure.add_subplot(facecolor=look.background)
    bars = axes.barh(rows, accuracy, color=BAR, label="accuracy")
    axes.bar_label(bars, [f"{value:.3f}" for value in accuracy], padding=4, color=ink)
    axes.vlines(chance, rows - 0.45, rows + 0.45, color=line, label="chance")
    axes.set(xlim=(0, 1.12), yticks=rows, yticklabels=names)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.invert_yaxis()
    axes.set_title("Linear probe", color=ink, loc="left")
    axes.set_xlabel("accuracy of one linear layer on frozen features, cross-validated")
    figure.legend(loc="outside upper right", ncols=2, labelcolor=ink, facecolor=look.background)
    dots = DOTS_PER_INCH * (2 if look.print == "png2x" else 1)
    drawn = {"png": save(figure, ink, "png", dots)}
    if look.print in ("pdf", "svg"):
        drawn[look.print] = save(figure, ink, look.print)
    return drawn


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


def save(
    figure: Figure, ink: str = INK, kind: str = "png", dots_per_inch: int = DOTS_PER_INCH
) -> bytes:
    """Return a figure as a file of some kind, with axes in a colour."""
    for axes in figure.axes:
        axes.tick_params(colors=ink)
        axes.xaxis.label.set_color(ink)
        for spine in axes.spines.values():
            spine.set_color("grey")
    buffer = io.BytesIO()
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    figure.savefig(buffer, format=kind, dpi=dots_per_inch, bbox_inches="tight", metadata=undated)
    return buffer.getvalue()


def kernels_of(module: nn.Module) -> Kernels | None:
    """Take a convolution's kernels ``out in height width``; None for other modules."""
    if not isinstance(module, nn.Conv2d):
        return None
    return np.asarray(module.weight.detach().float().cpu().numpy())


def draw_kernels(
    name: str, kernels: Kernels, explain: Explain, look: Pictures, grey: bool = False
) -> Sheet:
    """Draw one layer's kernels.

    Args:
        name: of the layer.
        kernels: ``out in height width``; three inputs are drawn as colours, others as grey: of
            each output the inputs, one after another, as many as fit.
        explain: how many, and whether they share a scale.
        look: background and columns.
        grey: draw three inputs as grey too, by their mean.
    """
    out, into, height, width = kernels.shape
    colour = into == 3
    kernels = kernels.mean(1, keepdims=True).repeat(3, 1) if colour and grey else kernels
    bound = float(np.abs(kernels).max())
    if colour:
        pairs: list[tuple[int, int | None]] = [
            (out, None) for out in range(min(len(kernels), explain.kernels))
        ]
    else:
        inputs = min(kernels.shape[1], COLUMNS)
        outputs = min(len(kernels), max(1, explain.kernels // inputs))
        pairs = [(out, chosen) for out in range(outputs) for chosen in range(inputs)]
    shared = explain.scale == "shared"
    tiles = [draw_kernel(kernels, *pair, bound if shared else None) for pair in pairs]
    scale = f"one scale, {-bound:.3g} to {bound:.3g}" if shared else "each by its own largest"
    notes = [
        f"{out} kernels of {into} x {height} x {width}; {len(tiles)} shown; middle grey is zero; "
        f"{scale}" + ("; mean over the inputs" if colour and grey else "")
    ]
    columns = look.columns.get("weights", COLUMNS if colour else inputs)
    side = max(SIDE, min(2 * SIDE, SIDE * COLUMNS // columns))
    return lay_sheet(tiles, columns, side, look.background, f"{name}: weights", notes)


def draw_kernel(kernels: Kernels, out: int, chosen: int | None, bound: float | None) -> Tile:
    """Draw one kernel; grey 128 is zero."""
    values = kernels[out] if chosen is None else kernels[out, chosen][None].repeat(3, 0)
    largest = float(np.abs(values).max()) if bound is None else bound
    scaled = values / largest if largest > 0 else values
    pixels = np.rint(127.5 + 127.5 * scaled).astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return Tile(image, (f"{out}" if chosen is None else f"{out}, {chosen}",))
