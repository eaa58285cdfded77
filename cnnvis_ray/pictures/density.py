"""A scatter of more images than a canvas can show: how many are where, and one of each place.

The canvas is cut into square cells. A cell's ground is the darker (or, on a dark background, the
lighter) the more images lie in it, by the logarithm of their number. On it lies the image nearest
to their mean position: the more images a cell holds, the larger. The picture thus shows the
density everywhere and says by its title how many of the images are visible.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from cnnvis_ray.pictures.colours import Rgb, ink_on
from cnnvis_ray.pictures.layouts import Pixels, Positions, unit_square

SMALLEST_SHARE = 0.55  # of a cell's side that the image of a cell with a single one takes
DARKEST = 0.55  # share of ink in the ground of the fullest cell


@dataclass(frozen=True, slots=True)
class Density:
    """Which images stand for which cells.

    Attributes:
        shown: ``[n]`` indices of the images shown, ascending.
        boxes: ``[n, 4]`` left, top, right, bottom of their cells, pixels.
        fullness: ``[n]`` in [0, 1]: the logarithm of the images in the cell, less that of one,
            by that of the fullest.
    """

    shown: Pixels
    boxes: Pixels
    fullness: npt.NDArray[np.float64]


def choose_shown(positions: Positions, width: int, height: int, side: int) -> Density:
    """Choose one image per cell that has any.

    Args:
        positions: ``[N, 2]`` map positions.
        width: of the canvas, pixels.
        height: of the canvas, pixels.
        side: of a cell, pixels.
    """
    columns, rows = max(1, width // side), max(1, height // side)
    scaled = unit_square(positions) * [columns, rows]
    column, row = np.minimum(scaled.astype(np.int64), [columns - 1, rows - 1]).T
    cells = row * columns + column
    counts = np.bincount(cells, minlength=columns * rows)
    means = (
        np.stack([np.bincount(cells, scaled[:, axis], columns * rows) for axis in (0, 1)], axis=1)
        / np.maximum(counts, 1)[:, None]
    )
    off = np.square(scaled - means[cells]).sum(axis=1)
    order = np.lexsort((off, cells))
    first = np.ones(len(order), dtype=bool)
    first[1:] = cells[order][1:] != cells[order][:-1]
    shown = np.sort(order[first])
    inside = cells[shown]
    left = (width - columns * side) // 2 + inside % columns * side
    top = (height - rows * side) // 2 + inside // columns * side
    fullness = np.log(counts[inside]) / max(np.log(counts.max()), 1e-9)
    return Density(shown, np.stack([left, top, left + side, top + side], axis=1), fullness)


def draw_ground(density: Density, width: int, height: int, background: Rgb) -> Image.Image:
    """Draw the cells' grounds."""
    ground = np.empty((height, width, 3), dtype=np.uint8)
    ground[:] = background
    ink = np.array(ink_on(background), dtype=float)
    for (left, top, right, bottom), fullness in zip(density.boxes, density.fullness, strict=True):
        share = DARKEST * (0.15 + 0.85 * fullness)
        colour = np.array(background) * (1 - share) + ink * share
        ground[top:bottom, left:right] = np.rint(colour).astype(np.uint8)
    return Image.fromarray(ground)


def tile_sides(density: Density, side: int) -> Sequence[int]:
    """Choose the side of each image shown, pixels."""
    shares = SMALLEST_SHARE + (0.92 - SMALLEST_SHARE) * density.fullness
    return [max(1, int(side * share)) for share in shares]
