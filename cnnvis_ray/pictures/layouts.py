"""Where images go on a canvas: scattered as on the map, or one to a cell of a grid.

Both layouts draw the map as a plot does: x grows to the right and y grows upwards. Positions
are ``[N, 2]`` in any unit; each axis is scaled to the canvas by itself.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cnnvis_ray.errors import RefusedError

Positions = npt.NDArray[np.floating]
Pixels = npt.NDArray[np.int64]

# A cell may be this much smaller than the largest possible one if that leaves fewer cells empty:
# 1,000 images on 4000 x 2820 pixels then fill 40 x 25 cells instead of 38 x 26 and 12 more.
NEARLY = 0.92


def scatter_places(positions: Positions, width: int, height: int, side: int) -> Pixels:
    """Place squares as the map has them, none cut by the border.

    Args:
        positions: ``[N, 2]`` map positions.
        width: of the canvas, pixels.
        height: of the canvas, pixels.
        side: of the square that holds a tile, pixels, no larger than the canvas.

    Returns:
        ``[N, 2]`` x and y of each square's top left pixel.
    """
    room = np.array([width - side, height - side])
    corners: Pixels = np.rint(unit_square(positions) * room).astype(np.int64)
    return corners


def unit_square(positions: Positions) -> npt.NDArray[np.float64]:
    """Scale positions to [0, 1], with y turned to grow downwards as pixel rows do.

    An axis on which all positions are equal becomes 0.5.

    Raises:
        ValueError: a position is not finite.
    """
    if not np.isfinite(positions).all():
        raise ValueError("a map position is not finite")
    exact = positions.astype(np.float64)
    low, high = exact.min(axis=0), exact.max(axis=0)
    extent = high - low
    flat = extent <= 0
    scaled: npt.NDArray[np.float64] = (exact - low) / np.where(flat, 1, extent)
    scaled[:, flat] = 0.5
    scaled[:, 1] = 1 - scaled[:, 1]
    return scaled


def grid_shape(num_images: int, width: int, height: int) -> tuple[int, int]:
    """Choose columns and rows that fill a canvas with nearly square cells.

    Among the shapes whose cells are nearly as large as the largest possible, the one with the
    fewest empty cells wins; always less than one row of cells is left over.

    Raises:
        RefusedError: a cell would be smaller than a pixel.
    """
    columns = np.arange(1, min(num_images, width) + 1)
    rows = -(-num_images // columns)
    sides = np.minimum(width / columns, height / rows)
    candidates = np.flatnonzero(sides >= NEARLY * sides.max())
    best = candidates[np.lexsort((-sides[candidates], (columns * rows)[candidates]))[0]]
    if sides[best] < 1:
        needed = math.ceil(math.sqrt(num_images / (width * height)) * width)
        raise RefusedError(
            f"{num_images} images do not fit a grid of {width} x {height} pixels; "
            f"set mosaic.width to {needed} or more, or mosaic.layouts to [scatter]"
        )
    return int(columns[best]), int(rows[best])


def cell_boxes(columns: int, rows: int, width: int, height: int) -> Pixels:
    """Cut a canvas into cells that cover it to the last pixel.

    Returns:
        ``[columns * rows, 4]`` left, top, right, bottom of each cell in reading order, pixels.
    """
    lefts = np.arange(columns + 1) * width // columns
    tops = np.arange(rows + 1) * height // rows
    row, column = np.divmod(np.arange(columns * rows), columns)
    return np.stack([lefts[column], tops[row], lefts[column + 1], tops[row + 1]], axis=1)


def sample_by_label(labels: Sequence[str | None], count: int, seed: int) -> Pixels:
    """Draw images so that each class keeps its share, and at least one where there is room.

    Args:
        labels: of all images; `None` counts as a class.
        count: images to draw, at most.
        seed: of the draw.

    Returns:
        Indices of the images drawn, ascending; all where there are no more than ``count``.
    """
    if len(labels) <= count:
        return np.arange(len(labels))
    numbers: dict[str | None, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in labels])
    ranks = np.empty(len(codes), dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(codes))
    grouped = shuffled[np.argsort(codes[shuffled], kind="stable")]
    sizes = np.bincount(codes)
    within = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    ranks[grouped] = within
    # The k-th image of a class of n is drawn where (k + 1/2) / n is small, the first ones before
    # all others: every class has its share, to one image.
    order = np.lexsort((codes, (ranks + 0.5) / sizes[codes], ranks > 0))
    return np.sort(order[:count])
