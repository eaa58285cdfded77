"""How principal components are found, by the shape of the features; none needs them in memory.

- ``covariance`` up to `MOST_COLUMNS` features and ``gram`` up to `MOST_ROWS` images, both exact:
  see `cnnvis_ray.reduction.exact`.
- ``randomized`` where both are large: blocked subspace iteration (Halko, Martinsson and Tropp
  2011, doi:10.1137/090771806) with QR between 2 to 4 power iterations. It is checked on a sample
  against the exact one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cnnvis_ray.reduction.blocks import (
    Block,
    Features,
    Ids,
    in_batches,
    join_ids,
    read_rows,
    split,
)
from cnnvis_ray.reduction.exact import (
    GRAM_COLUMNS,
    MOST_COLUMNS,
    MOST_GROUPS,
    MOST_ROWS,
    OVERSAMPLE,
    RESULT_BYTES,
    Basis,
    Matrix,
    Problem,
    Solution,
    Vector,
    check_count,
    first_mean,
    solve_covariance,
    solve_gram,
)
from cnnvis_ray.reduction.resources import one_thread_each

FEWEST_POWERS, MOST_POWERS = 2, 4  # after the first pass, which finds the range
# Power iterations end when no variance asked for changes by more than this share of the largest.
TOLERANCE = 1e-4
SAMPLE_ROWS = 2_048  # images on which the randomized solver is checked
BASIS_ROWS = 65_536  # of a basis that are held in float64 at a time


@dataclass(slots=True)
class Powers:
    """What a power iteration sums for features X less an origin, and a basis Q.

    Attributes:
        count: of images.
        sums: ``[D]`` of X.
        squares: of all of X.
        image: ``[D, k]`` X' X Q.
        inner: ``[k, k]`` Q' X' X Q.
        left_out: ids of images that were not counted.
    """

    count: int
    sums: Vector
    squares: float
    image: Basis
    inner: Matrix
    left_out: Ids

    def add(self, other: "Powers") -> None:
        """Take in the sums of other images."""
        self.count += other.count
        self.sums += other.sums
        self.squares += other.squares
        self.image += other.image
        self.inner += other.inner
        self.left_out = join_ids([self.left_out, other.left_out])

    def centre(self, basis: Basis) -> Vector:
        """Turn deviations from the origin into those from the mean; return the mean less it."""
        shift = self.sums / self.count
        seen = shift @ basis
        self.squares -= self.count * float(shift @ shift)
        self.image -= np.outer(self.count * shift, seen).astype(np.float32)
        self.inner -= self.count * np.outer(seen, seen)
        return shift


def raise_power(blocks: Sequence[Block], origin: Basis, basis: Basis) -> Powers:
    """Multiply a group of blocks by a basis: what it adds to the sums of an iteration."""
    width, columns = basis.shape
    inner = np.zeros((columns, columns))
    found = Powers(0, np.zeros(width), 0.0, np.zeros_like(basis), inner, join_ids([]))
    left_out: list[Ids] = []

    def read(block: Block) -> Features:
        rows = read_rows(block, width)
        left_out.append(rows.left_out)
        return rows.features

    with one_thread_each():
        for centred in in_batches(map(read, blocks), origin):
            found.count += len(centred)
            found.sums += centred.sum(axis=0, dtype=np.float64)
            found.squares += float(np.einsum("ij,ij->i", centred, centred).sum(dtype=np.float64))
            seen = centred @ basis
            for first in range(0, width, GRAM_COLUMNS):
                part = slice(first, first + GRAM_COLUMNS)
                found.image[part] += centred[:, part].T @ seen
            exact = seen.astype(np.float64)
            found.inner += exact.T @ exact
    found.left_out = join_ids(left_out)
    return found


def solve_randomized(problem: Problem) -> Solution:
    """Solve by subspace iteration and compare with an exact solver on a sample."""
    found = iterate(problem)
    stride = max(1, problem.shape[0] // SAMPLE_ROWS)
    sample = problem.blocks[::stride] if len(problem.blocks) > stride else problem.blocks[:1]
    shape = (sum(problem.map_blocks(count_images, sample)), problem.shape[1])
    if found.total <= 0 or shape[0] <= problem.num_components or shape[0] > MOST_ROWS:
        return found
    few = replace(problem, blocks=sample, shape=shape)
    exact, rough = solve_gram(few), iterate(few)
    best = exact.total - exact.scatter.sum()
    share = (rough.total - rough.scatter.sum()) / best if best > 1e-6 * exact.total else 1.0
    note = f"{found.note}; its residual is {share:.4f} of the exact one on {exact.count} images"
    return replace(found, note=note)


def count_images(block: Block) -> int:
    """Count the images of a block."""
    return len(block()[0])


def iterate(problem: Problem) -> Solution:
    """Find the leading directions by blocked subspace iteration."""
    num_images, width = problem.shape
    columns = min(problem.num_components + OVERSAMPLE, width, num_images)
    generator = np.random.default_rng(problem.seed)
    basis = orthonormal(generator.standard_normal((width, columns), dtype=np.float32))
    groups = max(1, min(MOST_GROUPS, 2 * RESULT_BYTES // (4 * columns * width)))
    origin = first_mean(problem)
    before = np.zeros(problem.num_components)
    for power in range(MOST_POWERS + 1):
        work = partial(raise_power, origin=origin, basis=basis)
        results = iter(problem.map_blocks(work, split(problem.blocks, groups)))
        sums = next(results)
        for other in results:
            sums.add(other)
        check_count(sums.count, len(sums.left_out), num_images)
        mean = origin + sums.centre(basis)
        values, rotation = np.linalg.eigh(sums.inner)
        found = values[::-1][: problem.num_components]
        settled = np.abs(found - before).max() <= TOLERANCE * max(found[0], 0)
        if power == MOST_POWERS or (settled and power >= FEWEST_POWERS):
            break
        before, basis, origin = found, orthonormal(sums.image), mean.astype(np.float32)
    number = min(problem.num_components, sums.count - 1)
    rotated = rotation[:, ::-1][:, :number].astype(np.float32)
    return Solution(
        mean,
        (basis @ rotated).T,
        np.maximum(found[:number], 0),
        sums.squares,
        sums.count,
        sums.left_out,
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
