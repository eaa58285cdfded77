"""Where images go on a canvas: scattered as on the map, or one to a cell of a grid.

Both layouts draw the map as a plot does: x grows to the right and y grows upwards. Positions
are ``[N, 2]`` in any unit; each axis is scaled to the canvas by itself.

A grid minimizes the sum of squared distances between an image's position on the map and its cell.
Up to `MOST_AT_ONCE` images that is solved exactly. Beyond it the map is first halved again and
again, images and cells alike, which is fast and keeps near together what is near; then square
blocks of cells are exchanged, large ones first and single cells last, each window of blocks solved
exactly. Measured on two cores and maps of 30 clusters: the sum ends within 0.2 % of what far
longer searches reach; 100,000 images take 7 seconds, 600,000 take 40.

An arrangement is ``[rows, columns]``: the image in each cell, `EMPTY` where there is none. Cells
left over are the last ones in reading order.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cnnvis_ray.errors import RefusedError

Positions = npt.NDArray[np.floating]
Pixels = npt.NDArray[np.int64]
Cells = npt.NDArray[np.int64]
Points = npt.NDArray[np.float64]

# A cell may be this much smaller than the largest possible one if that leaves fewer cells empty:
# 1,000 images on 4000 x 2820 pixels then fill 40 x 25 cells instead of 38 x 26 and 12 more.
NEARLY = 0.92
EMPTY = -1
MOST_AT_ONCE = 1_200  # 0.3 s and 12 MB here; the time grows with the cube (2,000 take 2.4 s)
WINDOW = 8  # blocks a side: of 16 is 4 times slower and gains 0.05 % of the sum
ROUNDS = 8  # a level, each with windows cut elsewhere


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


def grid_places(positions: Positions, columns: int, rows: int) -> Cells:
    """Assign every image a cell of its own.

    Args:
        positions: ``[N, 2]`` map positions in any unit, y upwards; they may all be equal.
        columns: of the grid.
        rows: of the grid, at least ``N / columns``.

    Returns:
        ``[N]`` cell of each image in reading order, ``row * columns + column``; all different.
        The same positions always give the same cells.

    Raises:
        ValueError: there are more images than cells, or a position is not finite.
    """
    num_images = len(positions)
    if num_images > columns * rows:
        raise ValueError(f"{num_images} images do not fit {columns} x {rows} cells")
    if num_images == 0:
        return np.zeros(0, dtype=np.int64)
    points = unit_square(positions) * [columns - 1, rows - 1]
    if num_images <= MOST_AT_ONCE:
        return assign(points, cell_centres(num_images, columns))
    arrangement = halve(points, columns, rows)
    return cells_of(exchange(arrangement, points), num_images)


def cell_centres(num_cells: int, columns: int) -> Points:
    """List x and y of the first cells in reading order, in cells."""
    row, column = np.divmod(np.arange(num_cells), columns)
    return np.stack([column, row], axis=1).astype(np.float64)


def assign(points: Points, places: Points) -> Cells:
    """Match as many points to as many places with the least sum of squared distances."""
    from scipy.optimize import linear_sum_assignment  # 0.5 s that a check of a colour need not pay

    difference = points[:, None, :] - places[None, :, :]
    chosen: Cells
    _, chosen = linear_sum_assignment(np.einsum("pqd,pqd->pq", difference, difference))
    return chosen


def cells_of(arrangement: Cells, num_images: int) -> Cells:
    """Turn an arrangement into the cell of each image."""
    flat = arrangement.ravel()
    taken = np.flatnonzero(flat != EMPTY)
    cells = np.empty(num_images, dtype=np.int64)
    cells[flat[taken]] = taken
    return cells


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of cells; the right and bottom edges are outside."""

    left: int
    top: int
    right: int
    bottom: int

    def halves(self) -> tuple["Region", "Region"]:
        """Cut across the longer side."""
        if self.is_wide():
            middle = (self.left + self.right) // 2
            return (
                Region(self.left, self.top, middle, self.bottom),
                Region(middle, self.top, self.right, self.bottom),
            )
        middle = (self.top + self.bottom) // 2
        return (
            Region(self.left, self.top, self.right, middle),
            Region(self.left, middle, self.right, self.bottom),
        )

    def is_wide(self) -> bool:
        """Whether the cut goes across the x axis."""
        return self.right - self.left >= self.bottom - self.top

    def capacity(self, num_images: int, columns: int) -> int:
        """Count the cells that will hold an image, when the first ones in reading order do."""
        full_rows, in_last = divmod(num_images, columns)
        whole = max(0, min(self.bottom, full_rows) - self.top) * (self.right - self.left)
        has_last = self.top <= full_rows < self.bottom
        return whole + (max(0, min(self.right, in_last) - self.left) if has_last else 0)


def halve(points: Points, columns: int, rows: int) -> Cells:
    """Arrange by halving the grid and the images together, down to single cells."""
    arrangement = np.full((rows, columns), EMPTY, dtype=np.int64)
    parts = [(Region(0, 0, columns, rows), np.arange(len(points)))]
    while parts:
        region, images = parts.pop()
        if len(images) == 1 and region.capacity(len(points), columns) == 1:
            arrangement[region.top, region.left] = images[0]
        elif len(images):
            first, second = region.halves()
            axis = 0 if region.is_wide() else 1
            keys = (points[images, 1 - axis], points[images, axis])
            ordered = images[np.lexsort(keys)]
            cut = first.capacity(len(points), columns)
            parts += [(first, ordered[:cut]), (second, ordered[cut:])]
    return arrangement


def exchange(arrangement: Cells, points: Points) -> Cells:
    """Lower the sum of squared distances by exchanging blocks of cells, from large to small."""
    rows, columns = arrangement.shape
    side = 1
    while (rows // side) * (columns // side) > MOST_AT_ONCE:
        side *= 2
    arrangement = exchange_blocks(arrangement, points, side, (max(rows, columns), 1))
    while side > 1:
        side //= 2
        arrangement = exchange_blocks(arrangement, points, side, (WINDOW, ROUNDS))
    return arrangement


def exchange_blocks(
    arrangement: Cells, points: Points, side: int, windows: tuple[int, int]
) -> Cells:
    """Exchange square blocks of one size; blocks with an empty cell stay where they are.

    Args:
        arrangement: what to start from.
        points: ``[N, 2]`` where each image would like to be, in cells.
        side: of a block, in cells.
        windows: blocks a side of a window, and how often all windows are solved.
    """
    window, rounds = windows
    down, across = (length // side for length in arrangement.shape)
    blocks = to_blocks(arrangement[: down * side, : across * side], side)
    full = (blocks != EMPTY).all(axis=-1)
    wishes = np.where(full[..., None], points[blocks].mean(axis=2), 0)
    centres = np.stack(np.meshgrid(np.arange(across), np.arange(down)), axis=-1)
    places = centres * side + (side - 1) / 2
    for shown in shifted_windows(down, across, window, rounds):
        movable = full[shown]
        if movable.sum() < 2:
            continue
        mine, theirs = wishes[shown][movable], places[shown][movable]
        source = np.argsort(assign(mine, theirs))
        wishes[shown][movable] = mine[source]
        blocks[shown][movable] = blocks[shown][movable][source]
    result = arrangement.copy()
    result[: down * side, : across * side] = from_blocks(blocks, side)
    return result


def to_blocks(cells: Cells, side: int) -> Cells:
    """Cut ``[down * side, across * side]`` cells into ``[down, across, side * side]``."""
    down, across = (length // side for length in cells.shape)
    cut = cells.reshape(down, side, across, side).transpose(0, 2, 1, 3)
    return cut.reshape(down, across, side * side).copy()


def from_blocks(blocks: Cells, side: int) -> Cells:
    """Join what `to_blocks` cut."""
    down, across, _ = blocks.shape
    cut = blocks.reshape(down, across, side, side).transpose(0, 2, 1, 3)
    return cut.reshape(down * side, across * side)


def shifted_windows(
    down: int, across: int, window: int, rounds: int
) -> Iterator[tuple[slice, slice]]:
    """Cover a grid of blocks with windows, shifted by half a window from round to round."""
    half = window // 2
    shifts = ((0, 0), (half, half), (half, 0), (0, half))
    for turn in range(rounds):
        up, left = shifts[turn % 4]
        for top in range(-up, down, window):
            for start in range(-left, across, window):
                yield (
                    slice(max(top, 0), min(top + window, down)),
                    slice(max(start, 0), min(start + window, across)),
                )


def grid_quality(
    positions: Positions, cells: Cells, columns: int, seed: int = 0
) -> tuple[float, float]:
    """Measure how well a grid keeps the map's neighbourhoods.

    Args:
        positions: ``[N, 2]`` map positions.
        cells: ``[N]`` from `grid_places`.
        columns: of the grid.
        seed: of the sample of 5,000 images, and of the control.

    Returns:
        The mean share of an image's 4 nearest on the map that lie among the 24 cells around its
        own, and the same with cells shuffled.
    """
    from scipy.spatial import KDTree  # 0.3 s that a check of a colour need not pay

    num_images = len(positions)
    if num_images < 2:
        return 1.0, 1.0
    generator = np.random.default_rng(seed)
    count = min(num_images, 5_000)
    sample = np.sort(generator.choice(num_images, count, replace=False))
    near = KDTree(positions).query(positions[sample], k=min(5, num_images))[1]
    places = np.stack(np.divmod(cells, columns), axis=1)
    others = near != sample[:, None]
    kept = []
    for order in (np.arange(num_images), generator.permutation(num_images)):
        steps = np.abs(places[order[near]] - places[order[sample], None]).max(axis=-1)
        kept.append(float((steps <= 2)[others].mean()))
    return kept[0], kept[1]
