"""Principal components from Parquet beside scikit-learn, and at sizes that it cannot hold.

`benchmarks/reduction.py` runs these. Every side (`pca_sides`) runs in a fresh process, sides in
turn. Memory is the peak beyond what the imports take, of a worker all of it. Features are made
shard by shard and removed afterwards.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import median

import numpy as np
import pca_sides
import pyarrow as pa
import pyarrow.parquet as pq
from pca_sides import Array, Measured, Shape, incremental, ours, scikit
from timing import Figure, compare, report

NUM_WORKERS = 2  # of the sizes that a run reduces on its cluster
BATCHES = 64, 128, 256  # of IncrementalPCA, whose cost per row is least near its 50 components


@dataclass(frozen=True, slots=True)
class Shapes:
    """How large the features of each comparison are."""

    memory: Shape = 20_000, 2_048
    large: Shape = 200_000, 2_048
    tall: Shape = 1_000_000, 512
    wide: Shape = 1_000, 802_816
    limits: tuple[Shape, ...] = ((100_000, 4_096), (2_000, 802_816))
    linear: tuple[Shape, ...] = ((10_000, 2_048), (80_000, 2_048))
    solvers: tuple[Shape, ...] = ((20_000, 1_024), (2_000, 8_192), (1_000, 50_000))
    rounds: int = 3


SMALL = Shapes(
    (1_500, 128),
    (3_000, 128),
    (4_000, 64),
    (60, 20_000),
    ((80, 20_000),),
    ((1_000, 128), (4_000, 128)),
    ((1_000, 64),),
    1,
)


@lru_cache(1)
def directions_of(rank: int, width: int) -> Array:
    """Directions that all features of a width share."""
    generator = np.random.default_rng(0)
    return generator.standard_normal((rank, width), dtype=np.float32)


def falling(shape: Shape, first: int, rank: int = 100) -> Array:
    """Features with a falling spectrum and a large mean, as activations have."""
    generator = np.random.default_rng(first)
    strength = (1 / np.sqrt(1 + np.arange(rank))).astype(np.float32)
    weights = generator.standard_normal((shape[0], rank), dtype=np.float32) * strength
    signal = weights @ directions_of(rank, shape[1])
    signal += generator.standard_normal(shape, dtype=np.float32) * np.float32(0.1)
    signal += 4
    return signal.astype(np.float16)


def write_shards(folder: str, shape: Shape, rows: int = 256) -> list[str]:
    """Write features as a run does: fixed lists of half floats, in row groups of 8 MiB."""
    kind = pa.list_(pa.float16(), shape[1])
    group = max(1, min(4096, (8 << 20) // (2 * shape[1])))
    paths = []
    for first in range(0, shape[0], rows):
        paths.append(f"{first:08}.parquet")
        schema = pa.schema([("image_id", pa.int64()), ("feature", kind)])
        options = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}
        with pq.ParquetWriter(
            Path(folder, paths[-1]), schema, write_statistics=False, **options
        ) as writer:
            for start in range(first, min(first + rows, shape[0]), group):
                count = min(group, first + rows - start, shape[0] - start)
                values = pa.array(falling((count, shape[1]), start).ravel())
                features = pa.FixedSizeListArray.from_arrays(values, type=kind)
                ids = np.arange(start, start + count)
                writer.write_table(pa.table([ids, features], schema=schema))
    return paths


def alone(side: Callable[..., Measured], *arguments: object) -> Measured:
    """Run one side in a process of its own, which has no other imports."""
    command = [sys.executable, pca_sides.__file__, side.__name__, json.dumps(arguments)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return Measured(**json.loads(answer.stdout))


Side = Callable[[], Measured]


def compare_sides(
    what: str, peer: str, sides: tuple[Side, Side], rounds: int, time_goal: str, memory_goal: str
) -> tuple[Measured, Measured]:
    """Run ours and theirs in turn; report seconds, CPU seconds and peak memory."""
    found: tuple[list[Measured], list[Measured]] = ([], [])
    for _ in range(rounds):
        for side, own in zip(sides, found, strict=True):
            own.append(side())
    for name, unit, goal in (
        ("seconds", "s", time_goal),
        ("cpu", "CPU s", ""),
        ("peak", "MiB", memory_goal),
    ):
        values = [[max(1e-9, getattr(each, name)) for each in side] for side in found]
        compare("PCA", what, peer, values, unit=unit, goal=goal)
    return found[0][-1], found[1][-1]


def report_bounds(
    what: str, found: Measured, seconds: float | None = None, peak: float | None = None
) -> None:
    """Report seconds and the whole peak memory of a worker beside the limits of both."""
    wall = Figure("PCA", what, "the limit", found.seconds, seconds, goal="<= 1" if seconds else "")
    report(wall)
    report(Figure("PCA", what, "no peer", found.cpu, None, unit="CPU s"))
    worker = f"{what}, a worker with its imports"
    report(Figure("PCA", worker, "the limit", found.worker_peak, peak, unit="MiB", goal="<= 1"))


def named(shape: Shape) -> str:
    """Write a shape."""
    return f"{shape[0]:,} x {shape[1]:,} from Parquet"


def largest_error(found: list[float], exact: list[float]) -> float:
    """Return the largest relative error of a variance."""
    return float(np.abs(np.divide(found, exact) - 1).max())


def compare_memory(shapes: Shapes) -> None:
    """Few features, which scikit-learn holds in memory."""
    with tempfile.TemporaryDirectory() as folder:
        shape = shapes.memory
        write_shards(folder, shape)
        sides = partial(alone, ours, folder, shape), partial(alone, scikit, folder, shape)
        peer = "scikit-learn covariance_eigh"
        mine, _ = compare_sides(named(shape), peer, sides, shapes.rounds, "<= 1", "<= 0.5")
        exact = alone(scikit, folder, shape, "full").variances
        error = largest_error(mine.variances, exact)
        what = f"{named(shape)}, largest error of a variance"
        report(Figure("PCA", what, "full SVD, tolerance", error, 1e-4, unit="", goal="<= 1"))


def compare_large(shapes: Shapes) -> None:
    """Ten times as many: the peer's memory grows with them."""
    with tempfile.TemporaryDirectory() as folder:
        shape = shapes.large
        write_shards(folder, shape)
        sides = partial(alone, ours, folder, shape), partial(alone, scikit, folder, shape)
        peer = "scikit-learn covariance_eigh"
        compare_sides(named(shape), peer, sides, 1, "<= 1.1", "<= 0.15")


def compare_incremental(shapes: Shapes) -> None:
    """IncrementalPCA with the batch that is fastest on a part."""
    with tempfile.TemporaryDirectory() as folder:
        shape = shapes.memory
        write_shards(folder, shape)
        part = min(1_024, shape[0] // 2)
        tried = {
            batch: alone(incremental, folder, batch, part).cpu / (part // batch * batch)
            for batch in BATCHES
        }
        batch = min(tried, key=tried.__getitem__)
        sides = partial(alone, ours, folder, shape), partial(alone, incremental, folder, batch)
        peer = f"IncrementalPCA in batches of {batch}"
        mine, theirs = compare_sides(named(shape), peer, sides, 1, "<= 0.25", "")
        exact = alone(scikit, folder, shape).variances
        errors = [largest_error(each.variances, exact) for each in (mine, theirs)]
        what = f"{named(shape)}, largest relative error of a variance"
        report(Figure("PCA", what, peer, errors[0], errors[1], unit="", goal="<= 1e-4"))


def compare_tall(shapes: Shapes) -> None:
    """Many images."""
    with tempfile.TemporaryDirectory() as folder:
        write_shards(folder, shapes.tall, 4_096)
        found = alone(ours, folder, shapes.tall, "auto", NUM_WORKERS)
        report_bounds(named(shapes.tall), found, 60, 300)


def compare_wide(shapes: Shapes) -> None:
    """Many features."""
    with tempfile.TemporaryDirectory() as folder:
        write_shards(folder, shapes.wide)
        found = alone(ours, folder, shapes.wide, "auto", NUM_WORKERS)
        report_bounds(named(shapes.wide), found, 60, 400)


def compare_limits(shapes: Shapes) -> None:
    """Sizes at which a worker stays under 1 GiB."""
    for shape in shapes.limits:
        with tempfile.TemporaryDirectory() as folder:
            write_shards(folder, shape)
            found = alone(ours, folder, shape, "auto", NUM_WORKERS)
            report_bounds(named(shape), found, peak=1_024)


def compare_linear(shapes: Shapes) -> None:
    """CPU seconds per image of few and of many images, without what does not depend on them."""
    spent = []
    for shape in shapes.linear:
        with tempfile.TemporaryDirectory() as folder:
            write_shards(folder, shape)
            spent.append(alone(ours, folder, shape).cpu)
    (few, _), (many, _) = shapes.linear
    what = f"{many:,} images against {few:,}, CPU seconds per thousand"
    here, there = 1e3 * spent[1] / many, 1e3 * spent[0] / few
    report(Figure("PCA", what, f"{few:,}", here, there, unit="CPU s", goal="<= 1.1"))


def compare_solvers(shapes: Shapes) -> None:
    """The solver that is chosen by itself, beside the fastest other."""
    for shape in shapes.solvers:
        with tempfile.TemporaryDirectory() as folder:
            write_shards(folder, shape)
            others = ("covariance", "gram", "randomized")
            fits = [name for name in others if fits_in(name, shape)]
            spent = {
                name: median(alone(ours, folder, shape, name).cpu for _ in range(shapes.rounds))
                for name in ("auto", *fits)
            }
        best = min(fits, key=spent.__getitem__)
        note = ", ".join(f"{name} {spent[name]:.2f}" for name in fits)
        what = f"{named(shape)}, solver auto"
        report(
            Figure(
                "PCA",
                what,
                f"the fastest, {best}",
                spent["auto"],
                spent[best],
                unit="CPU s",
                note=note,
            )
        )


def fits_in(solver: str, shape: Shape) -> bool:
    """Whether a solver is exact, or the only one, for a shape."""
    exact = {"covariance": shape[1] <= 8_192, "gram": shape[0] <= 8_192}
    return exact.get(solver, not any(exact.values()))


COMPARISONS: dict[str, Callable[[Shapes], None]] = {
    "pca": compare_memory,
    "pca-large": compare_large,
    "pca-incremental": compare_incremental,
    "pca-tall": compare_tall,
    "pca-wide": compare_wide,
    "pca-limits": compare_limits,
    "pca-linear": compare_linear,
    "pca-solvers": compare_solvers,
}


def limit_threads(number: int) -> None:
    """Let BLAS and this project's threads use so many cores in the processes started later."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(number)
