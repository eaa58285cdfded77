"""How principal components are found, by the shape of the features; none needs them in memory.

- ``covariance``: one pass that sums an exact scatter matrix, up to `MOST_COLUMNS` features.
- ``gram``: the inner products of all images, up to `MOST_ROWS` of them, then one pass for the
  directions; exact as well. Groups of images that a task holds meet all later blocks.
- ``randomized``: blocked subspace iteration (Halko, Martinsson and Tropp 2011,
  doi:10.1137/090771806) with QR between 2 to 4 power iterations, where both are large. It is
  checked on a sample against the exact one.

Every sum is merged by Chan, Golub and LeVeque (1983), so any grouping of blocks gives the same up
to rounding. Deviations are formed before products: features have large means.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.reduction.blocks import (
    BLOCK_BYTES,
    Block,
    Features,
    Ids,
    MapBlocks,
    in_batches,
    join_ids,
    read_rows,
    split,
)
from cnnvis_ray.reduction.resources import one_thread_each

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Basis = npt.NDArray[np.float32]

MOST_COLUMNS = 8_192  # the scatter matrix then takes 512 MiB in a worker
MOST_ROWS = 8_192  # and so do the inner products, in the driver
COLUMNS = 2_048  # of a scatter matrix that are multiplied at a time
GRAM_COLUMNS = 16_384  # columns of wide features that are converted and multiplied at a time
RESULT_BYTES = 256 << 20  # of partial results that the groups of one pass return together
MOST_GROUPS = 64

OVERSAMPLE = 10  # directions beside those asked for (Halko et al., section 4.2)
FEWEST_POWERS, MOST_POWERS = 2, 4  # after the first pass, which finds the range
# Power iterations end when no variance asked for changes by more than this share of the largest.
TOLERANCE = 1e-4
SAMPLE_ROWS = 2_048  # images on which the randomized solver is checked
BASIS_ROWS = 65_536  # of a basis that are held in float64 at a time


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


@dataclass(slots=True)
class Moments:
    """Mergeable count, mean and scatter of some images.

    Attributes:
        count: of images.
        mean: ``[D]``.
        scatter: ``[D, D]`` sums of products of deviations of which the upper triangle holds, or
            ``[D]``, its diagonal.
        left_out: ids of images that were not counted.
    """

    count: int
    mean: Vector
    scatter: npt.NDArray[np.float64]
    left_out: Ids

    def add(self, other: "Moments") -> None:
        """Take in the moments of other images."""
        count = self.count + other.count
        self.left_out = join_ids([self.left_out, other.left_out])
        if other.count == 0:
            return
        shift = other.mean - self.mean
        weight = self.count * other.count / count
        self.scatter += other.scatter
        if self.scatter.ndim == 1:
            self.scatter += weight * shift**2
        else:
            for row, step in zip(self.scatter, shift, strict=True):
                row += weight * step * shift
        self.mean = self.mean + shift * (other.count / count)
        self.count = count


def measure(blocks: Sequence[Block], num_features: int, full: bool) -> Moments:
    """Sum the moments of a group of blocks, with the whole scatter matrix or its diagonal."""
    shape = (num_features, num_features) if full else (num_features,)
    found = Moments(0, np.zeros(num_features), np.zeros(shape), join_ids([]))
    left_out: list[Ids] = []

    def read() -> Iterator[Features]:
        for block in blocks:
            rows = read_rows(block, num_features)
            left_out.append(rows.left_out)
            yield rows.features

    origin: Features | None = None
    total = np.zeros(num_features)
    with one_thread_each():
        for batch in in_batches(read()):
            origin = batch.mean(axis=0) if origin is None else origin
            centred = batch - origin
            total += centred.sum(axis=0, dtype=np.float64)
            found.count += len(centred)
            if full:
                add_products(found.scatter, centred)
            else:
                for image in centred:
                    found.scatter += np.square(image, dtype=np.float64)
    if origin is not None:
        shift = total / found.count
        found.mean = origin + shift
        if full:
            for row, step in zip(found.scatter, shift, strict=True):
                row -= found.count * step * shift
        else:
            found.scatter -= found.count * shift**2
    found.left_out = join_ids(left_out)
    return found


def add_products(scatter: Matrix, centred: Features) -> None:
    """Add the products of all columns with one another; below the diagonal only near it."""
    width = len(scatter)
    for first in range(0, width, COLUMNS):
        last = min(first + COLUMNS, width)
        part = centred[:, first:last]
        scatter[first:last, first:last] += part.T @ part
        if last < width:
            scatter[first:last, last:] += part.T @ centred[:, last:]


def merge_moments(problem: Problem, full: bool) -> Moments:
    """Sum the moments of all blocks, in groups whose results stay few."""
    num_images, num_features = problem.shape
    # A result costs D x D numbers and a group's work n x D x D: with n = 2 D it is one in D.
    groups = num_images // (2 * num_features) if full else RESULT_BYTES // (16 * num_features)
    groups = min(MOST_GROUPS, max(4, groups))
    work = partial(measure, num_features=num_features, full=full)
    results = iter(problem.map_blocks(work, split(problem.blocks, groups)))
    moments = next(results)
    for other in results:
        moments.add(other)
    check_count(moments.count, len(moments.left_out), num_images)
    return moments


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


def solve_covariance(problem: Problem) -> Solution:
    """Solve through the scatter matrix, summed in one pass over the blocks."""
    moments = merge_moments(problem, full=True)
    number = min(problem.num_components, moments.count - 1)
    total = float(np.trace(moments.scatter))
    values, vectors = leading(moments.scatter, number)
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
    """Multiply the images of a held group with all that pass by."""
    held = [read_rows(block, len(origin)) for block in meeting.held]
    mine = np.concatenate([rows.features for rows in held])
    left_out = join_ids(rows.left_out for rows in held)
    ids = join_ids(rows.ids for rows in held)
    held.clear()  # the joined copy is enough
    columns, values = [], []
    with one_thread_each():
        for block in meeting.passing:
            passing = read_rows(block, len(origin))
            product = np.zeros((len(mine), len(passing.ids)))
            for first in range(0, len(origin), GRAM_COLUMNS):
                part = slice(first, first + GRAM_COLUMNS)
                start = origin[part]
                product += (mine[:, part] - start) @ (passing.features[:, part] - start).T
            columns.append(passing.ids)
            values.append(product)
    return Products(ids, join_ids(columns), np.concatenate(values, axis=1), left_out)


@dataclass(slots=True)
class Combination:
    """Sums over images: ``[K, D]`` weighted by each direction, and ``[D]`` unweighted."""

    components: Basis
    total: Vector


def combine(blocks: Sequence[Block], ids: Ids, weights: Basis, origin: Basis) -> Combination:
    """Sum the images of a group, less an origin, by weights ``[N, K]`` of the sorted ids."""
    found = Combination(
        np.zeros((weights.shape[1], len(origin)), np.float32), np.zeros(len(origin))
    )
    with one_thread_each():
        for block in blocks:
            rows = read_rows(block, len(origin))
            mine = weights[np.searchsorted(ids, rows.ids)].T
            for first in range(0, len(origin), GRAM_COLUMNS):
                part = slice(first, first + GRAM_COLUMNS)
                centred = (rows.features[:, part] - origin[part]).astype(np.float32)
                found.components[:, part] += mine @ centred
                found.total[part] += centred.sum(axis=0, dtype=np.float64)
    return found


def solve_gram(problem: Problem) -> Solution:
    """Solve through the inner products of all images, then sum the directions."""
    origin = first_mean(problem)
    ids, inner, left_out = inner_products(problem, origin)
    count = len(ids)
    inner -= inner.mean(axis=0)
    inner -= inner.mean(axis=1, keepdims=True)
    total = float(np.trace(inner))
    number = min(problem.num_components, count - 1)
    values, vectors = leading(inner, number)
    known = values > np.finfo(np.float32).eps * max(values[0], 0)
    scale = np.where(known, 1 / np.sqrt(np.where(known, values, 1)), 0)
    work = partial(combine, ids=ids, weights=(vectors * scale).astype(np.float32), origin=origin)
    groups = max(1, min(MOST_GROUPS, RESULT_BYTES // (4 * number * len(origin))))
    results = iter(problem.map_blocks(work, split(problem.blocks, groups)))
    found = next(results)
    for other in results:
        found.components += other.components
        found.total += other.total
    return Solution(
        origin + found.total / count,
        found.components,
        values,
        total,
        count,
        left_out,
        f"PCA over {len(problem.blocks)} shards, exact, through the inner products of {count} "
        "images",
    )


def first_mean(problem: Problem) -> Basis:
    """Average the first block that has images: near enough to the mean to take off before it."""
    for block in problem.blocks:
        rows = read_rows(block, problem.shape[1])
        if len(rows.ids):
            mean: Basis = rows.features.mean(axis=0, dtype=np.float64).astype(np.float32)
            return mean
    return np.zeros(problem.shape[1], np.float32)


def inner_products(problem: Problem, origin: Basis) -> tuple[Ids, Matrix, Ids]:
    """Multiply every image with every other: sorted ids, ``[N, N]`` products, ids left out."""
    num_images, num_features = problem.shape
    per_group = max(1, 2 * BLOCK_BYTES // (2 * num_features))  # images, of float16
    groups = split(problem.blocks, -(-num_images // per_group))
    meetings = [
        Meeting(group, [block for later in groups[index:] for block in later])
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


@dataclass(slots=True)
class Powers:
    """What a power iteration sums for centred features X and a basis Q.

    Attributes:
        image: ``[D, k]`` X' X Q.
        inner: ``[k, k]`` Q' X' X Q.
    """

    image: Basis
    inner: Matrix


def raise_power(blocks: Sequence[Block], mean: Basis, basis: Basis) -> Powers:
    """Multiply a group of blocks by a basis: what it adds to the sums of an iteration."""
    found = Powers(np.zeros_like(basis), np.zeros((basis.shape[1], basis.shape[1])))
    with one_thread_each():
        for block in blocks:
            centred = read_rows(block, len(mean)).features.astype(np.float32)
            centred -= mean
            seen = centred @ basis
            for first in range(0, len(mean), GRAM_COLUMNS):
                part = slice(first, first + GRAM_COLUMNS)
                found.image[part] += centred[:, part].T @ seen
            exact = seen.astype(np.float64)
            found.inner += exact.T @ exact
    return found


def solve_randomized(problem: Problem) -> Solution:
    """Solve by subspace iteration and compare with an exact solver on a sample."""
    found = iterate(problem)
    stride = max(1, problem.shape[0] // SAMPLE_ROWS)
    sample = problem.blocks[::stride] if len(problem.blocks) > stride else problem.blocks[:1]
    shape = (sum(problem.map_blocks(count_images, sample)), problem.shape[1])
    few = Problem(sample, shape, problem.num_components, problem.seed, problem.map_blocks)
    if found.total <= 0 or shape[0] <= problem.num_components or shape[0] > MOST_ROWS:
        return found
    exact, rough = solve_gram(few), iterate(few)
    best = exact.total - exact.scatter.sum()
    share = (rough.total - rough.scatter.sum()) / best if best > 1e-6 * exact.total else 1.0
    note = f"{found.note}; its residual is {share:.4f} of the exact one on {exact.count} images"
    return Solution(
        found.mean,
        found.components,
        found.scatter,
        found.total,
        found.count,
        found.left_out,
        note,
    )


def count_images(block: Block) -> int:
    """Count the images of a block."""
    return len(block()[0])


def iterate(problem: Problem) -> Solution:
    """Find the leading directions by blocked subspace iteration."""
    spread = merge_moments(problem, full=False)
    width = len(spread.mean)
    number = min(problem.num_components, spread.count - 1)
    columns = min(number + OVERSAMPLE, width, spread.count)
    generator = np.random.default_rng(problem.seed)
    basis = orthonormal(generator.standard_normal((width, columns), dtype=np.float32))
    groups = max(1, min(MOST_GROUPS, 2 * RESULT_BYTES // (4 * columns * width)))
    mean = spread.mean.astype(np.float32)
    before = np.zeros(number)
    for power in range(MOST_POWERS + 1):
        work = partial(raise_power, mean=mean, basis=basis)
        results = iter(problem.map_blocks(work, split(problem.blocks, groups)))
        total = next(results)
        for other in results:
            total.image += other.image
            total.inner += other.inner
        values, rotation = np.linalg.eigh(total.inner)
        found = values[::-1][:number]
        settled = np.abs(found - before).max() <= TOLERANCE * max(found[0], 0)
        if power == MOST_POWERS or (settled and power >= FEWEST_POWERS):
            break
        before, basis = found, orthonormal(total.image)
    rotated = rotation[:, ::-1][:, :number].astype(np.float32)
    return Solution(
        spread.mean,
        (basis @ rotated).T,
        np.maximum(found, 0),
        float(spread.scatter.sum()),
        spread.count,
        spread.left_out,
        f"PCA over {len(problem.blocks)} shards, randomized, {power} power iterations",
    )


def orthonormal(columns: Basis) -> Basis:
    """Make columns orthonormal, keeping what they span.

    Two rounds of Cholesky (Fukaya et al. 2014): 2 s for 802,816 x 60 where LAPACK's QR takes
    10 s, which is left for columns that depend on one another.
    """
    basis = columns
    try:
        for _ in range(2):
            inner = np.zeros((columns.shape[1], columns.shape[1]))
            for first in range(0, len(basis), BASIS_ROWS):
                exact = basis[first : first + BASIS_ROWS].astype(np.float64)
                inner += exact.T @ exact
            basis = basis @ np.linalg.inv(np.linalg.cholesky(inner)).T.astype(np.float32)
    except np.linalg.LinAlgError:
        basis, _ = np.linalg.qr(columns)
    return basis


def leading(matrix: Matrix, number: int) -> tuple[Vector, Matrix]:
    """Find the largest eigenvalues of a symmetric matrix given above its diagonal.

    The matrix is overwritten.

    Returns:
        Values, largest first, and their vectors as columns.
    """
    size = len(matrix)
    bounds = (size - number, size - 1)
    values, vectors = eigh(matrix, subset_by_index=bounds, lower=False, overwrite_a=True)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


Solver = Callable[[Problem], Solution]
SOLVERS: dict[str, Solver] = {
    "covariance": solve_covariance,
    "gram": solve_gram,
    "randomized": solve_randomized,
}


def choose_solver(shape: tuple[int, int]) -> str:
    """Choose the exact solver that costs less, or the randomized one where none can."""
    num_images, num_features = shape
    if num_images < num_features and num_images <= MOST_ROWS:
        return "gram"
    return "covariance" if num_features <= MOST_COLUMNS else "randomized"
