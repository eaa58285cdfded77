"""Exact principal components of features that do not fit in memory.

- ``covariance``: one pass sums a scatter matrix, merged by Chan, Golub and LeVeque (1983), so any
  grouping of blocks gives the same up to rounding.
- ``gram``: the inner products of all images, then one pass for the directions. A task holds a
  group of images that all later blocks pass by.

Deviations are formed before products: features have large means. Products are summed in float32
over a batch and in float64 over batches.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.reduction.blocks import (
    Block,
    Features,
    Ids,
    MapBlocks,
    in_batches,
    join_ids,
    mean_of,
    read_rows,
    split,
)
from cnnvis_ray.reduction.resources import one_thread_each

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Basis = npt.NDArray[np.float32]

MOST_COLUMNS = 8_192  # half of the scatter matrix then takes 272 MiB in a worker
MOST_ROWS = 8_192  # the inner products then take 512 MiB in the driver
# Columns of a panel of the scatter matrix. Panels save what lies below the diagonal, nearly half
# of the memory and the products; narrower ones are no faster.
PANEL = 512
GRAM_COLUMNS = 16_384  # columns of wide features that are converted and multiplied at a time
GRAM_GROUPS = 26  # reading costs most: with 26 groups each image is read 13.5 times
LEAST_HELD, MOST_HELD = 64 << 20, 384 << 20  # bytes of the images that a task holds, float32
PIECE_BYTES = 96 << 20  # of a partial result, which a worker holds twice when it sends it
RESULT_BYTES = 256 << 20  # of partial results that the groups of one pass return together
MOST_GROUPS = 64
OVERSAMPLE = 10  # directions beside those asked for (Halko et al. 2011, section 4.2)


@dataclass(frozen=True, slots=True)
class Problem:
    """What a solver is asked.

    Attributes:
        blocks: readers of all features.
        shape: ``(N, D)`` of all blocks together.
        num_components: how many directions, at most ``min(N - 1, D)``.
        seed: of a random start.
        map_blocks: applies a function to items.
    """

    blocks: Sequence[Block]
    shape: tuple[int, int]
    num_components: int
    seed: int
    map_blocks: MapBlocks


@dataclass(frozen=True, slots=True)
class Solution:
    """Principal directions.

    Attributes:
        mean: ``[D]``.
        components: ``[K, D]`` orthonormal, largest scatter first.
        scatter: ``[K]`` sums of squared deviations along them.
        total: the sum of all squared deviations.
        count: images that were used.
        left_out: ids of images that hold NaN or infinity.
        note: how it was found.
    """

    mean: npt.NDArray[np.floating]
    components: npt.NDArray[np.floating]
    scatter: Vector
    total: float
    count: int
    left_out: Ids
    note: str


def check_count(count: int, num_left_out: int, num_images: int) -> None:
    """Compare the images found with the images announced."""
    if count + num_left_out != num_images:
        raise ValueError(
            f"the feature blocks hold {count + num_left_out} images, expected {num_images}"
        )
    if count < 2:
        raise RefusedError(
            f"PCA needs at least 2 images, there are {count} and {num_left_out} with NaN or "
            "infinity"
        )


def first_mean(problem: Problem) -> Basis:
    """Average the first block that has images: near enough to the mean to take off before it."""
    for block in problem.blocks:
        rows = read_rows(block, problem.shape[1])
        if len(rows.ids):
            return mean_of(rows.features).astype(np.float32)
    return np.zeros(problem.shape[1], np.float32)


def leading(
    rough: npt.NDArray[np.float32], multiply: Callable[[Matrix], Matrix], number: int
) -> tuple[Vector, Matrix]:
    """Find the largest eigenvalues of a symmetric matrix.

    LAPACK works in float32, which takes half its time and memory. Two power iterations and a
    Rayleigh-Ritz step in float64 then leave 2e-13 of its error of 3e-6 (2,048 columns).

    Args:
        rough: the matrix in float32, of which only the upper triangle is read; overwritten.
        multiply: the exact matrix times columns.
        number: how many eigenvalues.

    Returns:
        Values, largest first, and their vectors as columns.
    """
    size = len(rough)
    bounds = (max(0, size - number - OVERSAMPLE), size - 1)
    _, vectors = eigh(
        rough.T, subset_by_index=bounds, lower=True, overwrite_a=True, check_finite=False
    )
    basis = vectors.astype(np.float64)
    for _ in range(2):
        basis, _ = np.linalg.qr(multiply(basis))
    values, rotation = np.linalg.eigh(basis.T @ multiply(basis))
    return np.maximum(values[::-1][:number], 0), basis @ rotation[:, ::-1][:, :number]


@dataclass(slots=True)
class Moments:
    """Mergeable count, mean and scatter of some images.

    Attributes:
        count: of images.
        mean: ``[D]``.
        panels: the upper triangle of the ``[D, D]`` sums of products of deviations, in panels of
            `PANEL` rows, each from its first row's column to the last.
        left_out: ids of images that were not counted.
    """

    count: int
    mean: Vector
    panels: list[Matrix]
    left_out: Ids

    def add_shift(self, weight: float, shift: Vector) -> None:
        """Add the products of a vector with itself."""
        for panel in self.panels:
            later = shift[-panel.shape[1] :]
            for row, step in zip(panel, later, strict=False):
                row += weight * step * later

    def add(self, other: "Moments") -> None:
        """Take in the moments of other images."""
        count = self.count + other.count
        self.left_out = join_ids([self.left_out, other.left_out])
        if other.count == 0:
            return
        shift = other.mean - self.mean
        for panel, more in zip(self.panels, other.panels, strict=True):
            panel += more
        self.add_shift(self.count * other.count / count, shift)
        self.mean = self.mean + shift * (other.count / count)
        self.count = count

    def times(self, columns: Matrix) -> Matrix:
        """Multiply the scatter matrix with columns."""
        product = np.zeros_like(columns)
        for panel in self.panels:
            first = len(columns) - panel.shape[1]
            last = first + len(panel)
            product[first:last] += panel @ columns[first:]
            product[last:] += panel[:, len(panel) :].T @ columns[first:last]
        return product

    def upper(self) -> npt.NDArray[np.float32]:
        """Return the scatter matrix, zero below its diagonal but near it."""
        square = np.zeros((len(self.mean), len(self.mean)), np.float32)
        for panel in self.panels:
            first = len(square) - panel.shape[1]
            square[first : first + len(panel), first:] = panel
        return square


def measure(blocks: Sequence[Block], num_features: int) -> Moments:
    """Sum the moments of a group of blocks."""
    panels = [
        np.zeros((min(PANEL, num_features - first), num_features - first))
        for first in range(0, num_features, PANEL)
    ]
    found = Moments(0, np.zeros(num_features), panels, join_ids([]))
    left_out: list[Ids] = []

    def read() -> Iterator[Features]:
        for block in blocks:
            rows = read_rows(block, num_features)
            left_out.append(rows.left_out)
            if len(rows.ids):
                yield rows.features

    with one_thread_each():
        parts = read()
        start = next(parts, None)
        if start is not None:
            origin = mean_of(start)
            total = np.zeros(num_features)
            for centred in in_batches(chain([start], parts), origin):
                total += centred.sum(axis=0, dtype=np.float64)
                found.count += len(centred)
                for panel in panels:
                    later = centred[:, -panel.shape[1] :]
                    panel += later[:, : len(panel)].T @ later
            shift = total / found.count
            found.mean = origin + shift
            found.add_shift(-found.count, shift)
    found.left_out = join_ids(left_out)
    return found


def solve_covariance(problem: Problem) -> Solution:
    """Solve through the scatter matrix, summed in one pass over the blocks."""
    num_images, num_features = problem.shape
    # A result costs D x D numbers and a group's work n x D x D: with n = 2 D it is one in D.
    groups = min(MOST_GROUPS, max(4, num_images // (2 * num_features)))
    work = partial(measure, num_features=num_features)
    results = iter(problem.map_blocks(work, split(problem.blocks, groups)))
    moments = next(results)
    for other in results:
        moments.add(other)
    check_count(moments.count, len(moments.left_out), num_images)
    number = min(problem.num_components, moments.count - 1)
    total = float(sum(np.trace(panel) for panel in moments.panels))
    values, vectors = leading(moments.upper(), moments.times, number)
    note = f"PCA over {len(problem.blocks)} shards, exact, through the covariance"
    return Solution(moments.mean, vectors.T, values, total, moments.count, moments.left_out, note)


@dataclass(frozen=True, slots=True)
class Meeting:
    """A group of images that is held, and the blocks that pass by it."""

    held: Sequence[Block]
    passing: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Products:
    """Inner products of images less an origin, ``[rows, columns]``, and whose they are."""

    rows: Ids
    columns: Ids
    values: Matrix
    left_out: Ids


def multiply(meeting: Meeting, origin: Basis) -> Products:
    """Multiply the images of a held group with themselves and all that pass by."""
    mine = np.empty((0, len(origin)), np.float32)
    rows, left_out = [], []
    for block in meeting.held:
        read = read_rows(block, len(origin))
        rows.append(read.ids)
        left_out.append(read.left_out)
        first = len(mine)
        # realloc moves pages to a longer range: joining parts would hold all of them twice.
        mine.resize((first + len(read.ids), len(origin)), refcheck=False)
        np.subtract(read.features, origin, out=mine[first:])
    columns, values = rows[:], [multiply_parts(mine, mine, None)]
    for block in meeting.passing:
        read = read_rows(block, len(origin))
        columns.append(read.ids)
        values.append(multiply_parts(mine, read.features, origin))
    return Products(
        join_ids(rows), join_ids(columns), np.concatenate(values, axis=1), join_ids(left_out)
    )


def multiply_parts(mine: Basis, features: Features, origin: Basis | None) -> Matrix:
    """Multiply images with others, less an origin where there is one, some columns at a time."""
    product = np.zeros((len(mine), len(features)))
    with one_thread_each():
        for first in range(0, mine.shape[1], GRAM_COLUMNS):
            part = slice(first, first + GRAM_COLUMNS)
            theirs = features[:, part] if origin is None else features[:, part] - origin[part]
            product += mine[:, part] @ theirs.T
    return product


@dataclass(frozen=True, slots=True)
class Piece:
    """A group of images, and the first and last of the columns that are summed over them."""

    blocks: Sequence[Block]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Combination:
    """Sums of columns from ``first``: ``[K, columns]`` by weights, ``[columns]`` without."""

    first: int
    components: Basis
    total: Vector


def combine(piece: Piece, ids: Ids, weights: Basis, origin: Basis) -> Combination:
    """Sum the images of a group, less an origin, by weights ``[N, K]`` of the sorted ids."""
    width = piece.last - piece.first
    components = np.zeros((weights.shape[1], width), np.float32)
    total = np.zeros(width)
    with one_thread_each():
        for block in piece.blocks:
            rows = read_rows(block, len(origin))
            mine = weights[np.searchsorted(ids, rows.ids)].T
            for first in range(0, width, GRAM_COLUMNS):
                here = slice(first, min(first + GRAM_COLUMNS, width))
                there = slice(piece.first + here.start, piece.first + here.stop)
                centred = np.subtract(rows.features[:, there], origin[there], dtype=np.float32)
                components[:, here] += mine @ centred
                total[here] += centred.sum(axis=0, dtype=np.float64)
    return Combination(piece.first, components, total)


def cut_pieces(problem: Problem, number: int) -> list[Piece]:
    """Cut the sums of some directions so that a result is small; each piece reads all columns."""
    width = problem.shape[1]
    columns = max(1, min(width, PIECE_BYTES // (4 * number)))
    groups = max(1, min(MOST_GROUPS, RESULT_BYTES // (4 * number * columns)))
    return [
        Piece(group, first, min(first + columns, width))
        for group in split(problem.blocks, groups)
        for first in range(0, width, columns)
    ]


def solve_gram(problem: Problem) -> Solution:
    """Solve through the inner products of all images, then sum the directions."""
    origin = first_mean(problem)
    ids, inner, left_out = inner_products(problem, origin)
    count = len(ids)
    inner -= inner.mean(axis=0)
    inner -= inner.mean(axis=1, keepdims=True)
    total = float(np.trace(inner))
    number = min(problem.num_components, count - 1)
    values, vectors = leading(inner.astype(np.float32), inner.__matmul__, number)
    known = values > np.finfo(np.float32).eps * max(values[0], 0)
    scale = np.where(known, 1 / np.sqrt(np.where(known, values, 1)), 0)
    work = partial(combine, ids=ids, weights=(vectors * scale).astype(np.float32), origin=origin)
    components, sums = np.zeros((number, len(origin)), np.float32), np.zeros(len(origin))
    for found in problem.map_blocks(work, cut_pieces(problem, number)):
        part = slice(found.first, found.first + len(found.total))
        components[:, part] += found.components
        sums[part] += found.total
    return Solution(
        origin + sums / count,
        components,
        values,
        total,
        count,
        left_out,
        f"PCA over {len(problem.blocks)} shards, exact, through the inner products of {count} "
        "images",
    )


def inner_products(problem: Problem, origin: Basis) -> tuple[Ids, Matrix, Ids]:
    """Multiply every image with every other: sorted ids, ``[N, N]`` products, ids left out."""
    num_images, num_features = problem.shape
    held_bytes = min(MOST_HELD, max(LEAST_HELD, 4 * num_images * num_features // GRAM_GROUPS))
    per_group = max(1, held_bytes // (4 * num_features))
    groups = split(problem.blocks, -(-num_images // per_group))
    meetings = [
        Meeting(group, [block for later in groups[index + 1 :] for block in later])
        for index, group in enumerate(groups)
    ]
    found = list(problem.map_blocks(partial(multiply, origin=origin), meetings))
    left_out = join_ids(each.left_out for each in found)
    ids = np.sort(join_ids(each.rows for each in found))
    check_count(len(ids), len(left_out), num_images)
    inner = np.zeros((len(ids), len(ids)))
    for each in found:
        rows, columns = np.searchsorted(ids, each.rows), np.searchsorted(ids, each.columns)
        inner[np.ix_(rows, columns)] = each.values
        inner[np.ix_(columns, rows)] = each.values.T
    return ids, inner, left_out
