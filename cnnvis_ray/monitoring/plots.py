"""Plots of a night: the trend over nights, cells of the map, predicted classes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cnnvis_ray.monitoring.novelty import CELLS, CellChange, ClassCounts, Distances, Positions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, RED, AMBER, GREY = "#1e78d2", "#e11e3c", "#f0a500", "#b4b4b4"
MOST_CLASSES = 16
# Figures of `collect_trends`: title, and the line above which something is wrong.
TRENDS: Mapping[str, tuple[str, float | None]] = {
    "score": ("score over its threshold (alarm above 1)", 1.0),
    "novel share": ("share of novel images (0.05 is expected)", 0.05),
    "smallest change": ("smallest share of moved images that raises an alarm", None),
    "rejected share": ("share of rejected images", None),
    "known share": ("share of images that the run has already", None),
    "confidence": ("median confidence of the predictions", None),
}


def draw_trends(
    trends: Mapping[str, Sequence[float | None]], nights: Sequence[str]
) -> Image.Image | None:
    """Plot the figures of the last nights, one small plot per figure; `None` without nights.

    Args:
        trends: of `collect_trends`.
        nights: their names, oldest first.
    """
    known = {name: series for name, series in trends.items() if any(v is not None for v in series)}
    names = sorted((n for n in known if n.startswith("score ")), key=lambda n: (len(n), n))
    layers = {name: known[name] for name in names}
    plots = [
        (title, limit, {name: known[name]})
        for name, (title, limit) in TRENDS.items()
        if name in known
    ]
    if layers:
        plots.insert(1, ("scores of the layers", None, layers))
    if not plots:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1 + 1.5 * len(plots)), dpi=100, layout="constrained")
    grid = figure.subplots(len(plots), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, limit, lines) in zip(grid, plots, strict=True):
        lowest, highest = 0.0, limit or 0.0
        for name, series in lines.items():
            values = np.array(series, dtype=np.float64)
            lowest = min(lowest, float(np.nanmin(values)))
            highest = max(highest, float(np.nanmax(values)))
            axes.plot(values, marker="o", markersize=4, label=name.removeprefix("score "))
            if limit is not None and name == "score":
                axes.plot(np.where(values > limit, values, np.nan), "o", color=RED)
        if limit is not None:
            axes.axhline(limit, color=RED, linewidth=1, linestyle="--")
        if len(lines) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylim(1.1 * lowest, 1.15 * highest or 1)
        axes.grid(alpha=0.3)
    grid[-1].set_xticks(range(len(nights)), [shorten(name) for name in nights])
    grid[-1].tick_params(axis="x", rotation=90 if len(nights) > 8 else 0, labelsize=8)
    return paint(figure)


def draw_cells(
    positions: Positions, placed: Positions, cells: Sequence[CellChange], layer: str
) -> Image.Image:
    """Plot the night's images among the run's, and frame the cells that grew or emptied."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(8, 8.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.scatter(
        positions[:, 0],
        positions[:, 1],
        s=6,
        color=GREY,
        linewidths=0,
        label=f"run: {len(positions):,}",
    )
    axes.scatter(
        placed[:, 0], placed[:, 1], s=12, color=BLUE, linewidths=0, label=f"night: {len(placed):,}"
    )
    low, high = positions.min(axis=0), positions.max(axis=0)
    width, height = np.where(high > low, high - low, 1) / CELLS
    for cell in cells:
        corner = low[0] + cell.column * width, low[1] + (CELLS - 1 - cell.row) * height
        colour = AMBER if cell.images > cell.expected else RED
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2))
    axes.set_title(
        f"{layer}: {len(cells)} cells grew (orange) or emptied (red) beyond chance", fontsize=11
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False)
    axes.set_xticks([])
    axes.set_yticks([])
    return paint(figure)


def draw_classes(
    classes: ClassCounts, confidence: tuple[Distances, Distances], what: str
) -> Image.Image:
    """Plot the classes whose counts differ most, and the confidence of run and night.

    Args:
        classes: of the night beside the run.
        confidence: of the run's and of the night's predictions; may be empty.
        what: the classes are, e.g. "predicted classes".
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = [(name, *pair) for name, pair in classes.counts.items()]
    rows += [(name, count, 0.0) for name, count in classes.unknown.items()]
    rows.sort(key=lambda row: -abs(row[1] - row[2]) / np.sqrt(row[2] + 1))
    rows = rows[:MOST_CLASSES][::-1]
    sides = [side for side in confidence if len(side)]
    figure = Figure(figsize=(8, 1.4 + 0.32 * len(rows) + 2.2 * bool(sides)), dpi=100)
    figure.set_layout_engine("constrained")
    ratios = [0.32 * len(rows) + 0.4, 2.2] if sides else None
    plots = figure.subplots(1 + bool(sides), 1, squeeze=False, height_ratios=ratios)[:, 0]
    places = np.arange(len(rows))
    plots[0].barh(places + 0.2, [row[1] for row in rows], 0.4, color=BLUE, label="night")
    plots[0].barh(places - 0.2, [row[2] for row in rows], 0.4, color=GREY, label="expected")
    plots[0].set_yticks(places, [shorten(row[0], 28) for row in rows], fontsize=9)
    chance = "" if classes.p_value is None else f" (p of all classes {classes.p_value:.2g})"
    plots[0].set_title(f"{what} that differ most, images{chance}", fontsize=10, loc="left")
    plots[0].legend(loc="lower right", fontsize=9)
    plots[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    if sides:
        colours, names = (GREY, BLUE), ("run", "night")
        for side, colour, name in zip(confidence, colours, names, strict=True):
            weights = np.full(len(side), 1 / max(1, len(side)))
            bins = np.linspace(0, 1, 21)
            plots[1].hist(side, bins, weights=weights, color=colour, alpha=0.6, label=name)
        plots[1].set_title("confidence, share of images", fontsize=10, loc="left")
        plots[1].legend(fontsize=9)
    return paint(figure)


def paint(figure: "Figure") -> Image.Image:
    """Return a figure as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    size = canvas.get_width_height()
    return Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1).convert("RGB")


def shorten(text: str, most: int = 14) -> str:
    """Return a text of at most so many letters."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"
