"""PCA, neighbours, t-SNE and pyramids beside their peers; sides alternate, memory is measured.

    python benchmarks/reduction.py            # the sizes of the README's table, half an hour
    python benchmarks/reduction.py --small    # the same code in a minute, for CI
    python benchmarks/reduction.py --only pca tsne

Every line names both sides, the median seconds of each, and what each needs or finds. Peak memory
is that of a fresh process that does the work once.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from timing import Figure, alternate, compare
from timing import report as note

from cnnvis_ray.config import Reduce
from cnnvis_ray.pictures import (
    draw_band,
    grid_places,
    pack_colours,
    plan_pyramid,
    shrink_band,
    sort_thumbnails,
    write_description,
)
from cnnvis_ray.reduction import (
    Block,
    PcaOptions,
    affinity_neighbours,
    build_index,
    embed,
    fit_pca,
    judge_map,
    search_index,
)

Array = npt.NDArray[np.floating]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    tall: tuple[int, int]
    wide: tuple[int, int]
    points: int
    thumbnails: int
    rounds: int


FULL = Sizes((20_000, 2_048), (1_000, 802_816), 60_000, 100_000, 3)
SMALL = Sizes((1_500, 128), (60, 20_000), 500, 400, 1)


def falling(shape: tuple[int, int], first: int, rank: int = 100) -> Array:
    """Features with a falling spectrum and a large mean, as activations have."""
    generator = np.random.default_rng(first)
    strength = 1 / np.sqrt(1 + np.arange(rank))
    directions = np.random.default_rng(0).standard_normal((rank, shape[1]), dtype=np.float32)
    signal = (generator.normal(size=(shape[0], rank)) * strength).astype(np.float32) @ directions
    noise = generator.standard_normal(shape, dtype=np.float32) * np.float32(0.1)
    return (4 + signal + noise).astype(np.float16)


def write_shards(folder: Path, shape: tuple[int, int], rows: int) -> list[Path]:
    """Write features as a run does: fixed lists of half floats, in row groups of 8 MiB."""
    kind = pa.list_(pa.float16(), shape[1])
    group = max(1, min(4096, (8 << 20) // (2 * shape[1])))
    paths = []
    for first in range(0, shape[0], rows):
        count = min(rows, shape[0] - first)
        values = pa.array(falling((count, shape[1]), first).ravel())
        features = pa.FixedSizeListArray.from_arrays(values, type=kind)
        table = pa.table({"image_id": np.arange(first, first + count), "feature": features})
        paths.append(folder / f"{first:08}.parquet")
        pq.write_table(
            table,
            paths[-1],
            row_group_size=group,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
        )
    return paths


def read_groups(path: Path, groups: Sequence[int]) -> tuple[Ids, Array]:
    """Read some row groups of a shard."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        table = file.read_row_groups(groups)
    width = table.schema.field("feature").type.list_size
    values = table["feature"].combine_chunks().flatten().to_numpy()
    return table["image_id"].to_numpy(), values.reshape(-1, width)


def blocks_of(paths: Sequence[Path], groups_each: int) -> list[Block]:
    """Cut shards into readers of some row groups each."""
    blocks: list[Block] = []
    for path in paths:
        with pq.ParquetFile(path) as file:
            total = file.num_row_groups
        for first in range(0, total, groups_each):
            groups = list(range(first, min(first + groups_each, total)))
            blocks.append(partial(read_groups, path, groups))
    return blocks


def ours_pca(paths: Sequence[Path], shape: tuple[int, int], groups_each: int) -> Array:
    """Components by this project, over blocks."""
    blocks = blocks_of(paths, groups_each)
    return fit_pca(blocks, shape, PcaOptions(50)).explained_variance


def scikit_pca(paths: Sequence[Path], solver: str) -> Array:
    """Components by scikit-learn, of everything in memory as float32."""
    from sklearn.decomposition import PCA

    parts = [read_groups(path, range(pq.ParquetFile(path).num_row_groups))[1] for path in paths]
    features = np.concatenate(parts).astype(np.float32)
    found: Array = PCA(50, svd_solver=solver, copy=False).fit(features).explained_variance_
    return found


def incremental_pca(paths: Sequence[Path]) -> Array:
    """Components by scikit-learn's IncrementalPCA, a shard at a time."""
    from sklearn.decomposition import IncrementalPCA

    fitted = IncrementalPCA(50)
    for path in paths:
        values = read_groups(path, range(pq.ParquetFile(path).num_row_groups))[1]
        fitted.partial_fit(values.astype(np.float32))
    found: Array = fitted.explained_variance_
    return found


def measure_peak(work: Callable[[], object]) -> int:
    """Do work in a fresh process and return its peak memory beyond its imports, MiB."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(peak_of, work).result()


def peak_of(work: Callable[[], object]) -> int:
    """Do work and return how far it raised this process's peak, MiB."""
    import scipy.linalg  # noqa: F401
    import sklearn.decomposition  # noqa: F401

    before = peak_kib()
    work()
    return (peak_kib() - before) // 1024


def peak_kib() -> int:
    """Read this process's peak memory (Linux); getrusage's would be the parent's after exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def report(name: str, sides: dict[str, Callable[[], object]], rounds: int) -> None:
    """Print seconds and peak memory of each side."""
    seconds = alternate(list(sides.values()), rounds)
    for (side, work), own in zip(sides.items(), seconds, strict=True):
        print(f"{name:28} {side:28} {median(own):8.2f} s {measure_peak(work):7,} MiB", flush=True)


def compare_pca(sizes: Sizes) -> None:
    """Tall and wide features from Parquet."""
    with tempfile.TemporaryDirectory() as folder:
        tall = write_shards(Path(folder), sizes.tall, 256)
        name = f"PCA {sizes.tall[0]:,} x {sizes.tall[1]:,}"
        sides: dict[str, Callable[[], object]] = {
            "cnnvis_ray, over blocks": partial(ours_pca, tall, sizes.tall, 4),
            "scikit-learn covariance_eigh": partial(scikit_pca, tall, "covariance_eigh"),
            "scikit-learn IncrementalPCA": partial(incremental_pca, tall),
        }
        report(name, sides, sizes.rounds)
        exact = scikit_pca(tall, "full")
        for side, work in sides.items():
            error = np.abs(np.asarray(work()) / exact - 1).max()
            print(f"{name:28} {side:28} largest relative error of a variance {error:.1e}")
    with tempfile.TemporaryDirectory() as folder:
        wide = write_shards(Path(folder), sizes.wide, 64)
        name = f"PCA {sizes.wide[0]:,} x {sizes.wide[1]:,}"
        report(name, {"cnnvis_ray, over blocks": partial(ours_pca, wide, sizes.wide, 4)}, 1)


def clusters(num_points: int) -> Array:
    """Two hundred clusters of several widths, with a falling spectrum in 50 dimensions."""
    generator = np.random.default_rng(0)
    fall = np.sqrt(1 + np.arange(50))
    centres = generator.normal(size=(200, 50)) / fall * 6
    label = generator.integers(200, size=num_points)
    width = generator.uniform(0.6, 1.6, (200, 1))[label]
    noise = generator.normal(size=(num_points, 50)) / np.sqrt(fall)
    return (centres[label] + noise * width).astype(np.float32)


def compare_neighbours(sizes: Sizes) -> None:
    """Ninety neighbours of each point: an index and its search."""
    points = clusters(sizes.points)
    found: dict[str, Ids] = {}

    def ours() -> None:
        found["ours"] = search_index(build_index(points), points, 90)[0]

    def annoy() -> None:
        from openTSNE.nearest_neighbors import Annoy

        forest = Annoy(data=points, k=90, metric="euclidean", n_jobs=-1, random_state=0)
        found["annoy"] = forest.build()[0]

    what = f"90 neighbours of {sizes.points:,} x 50"
    if find_spec("annoy") or find_spec("openTSNE.dependencies.annoy"):
        compare("maps", what, "annoy", alternate([ours, annoy], sizes.rounds), goal="<= 0.25")
    else:
        seconds = median(alternate([ours], sizes.rounds)[0])
        note(Figure("maps", what, "annoy", seconds, None, note="annoy is not installed"))
    chosen = np.random.default_rng(0).choice(len(points), min(500, len(points)), replace=False)
    recalls = {side: recall_of(points, near, chosen) for side, near in found.items()}
    note(
        Figure("maps", f"{what}, recall", "annoy", recalls["ours"], recalls.get("annoy"), "share")
    )


def recall_of(points: Array, near: Ids, chosen: Ids) -> float:
    """Return the share of the true neighbours of some points that were found."""
    count, shares = near.shape[1], []
    for index in chosen:
        distances = np.square(points - points[index]).sum(axis=1)
        distances[index] = np.inf
        true = set(np.argpartition(distances, count)[:count].tolist())
        shares.append(len(true & set(near[index].tolist())) / count)
    return float(np.mean(shares))


def compare_tsne(sizes: Sizes) -> None:
    """A map by defaults: this project's, and openTSNE's, one after the other."""
    from openTSNE import TSNE

    points = clusters(sizes.points)
    config, what = Reduce(), f"t-SNE of {sizes.points:,} x 50"
    started = time.perf_counter(), time.process_time()
    near = search_index(build_index(points), points, affinity_neighbours(config, len(points)))
    ours = embed(points, config, 0, neighbours=near).positions
    between = time.perf_counter(), time.process_time()
    theirs = np.asarray(TSNE(n_jobs=-1, random_state=0).fit(points))
    ended = time.perf_counter(), time.process_time()
    for unit, start, middle, end in zip(("s", "CPU s"), started, between, ended, strict=True):
        peer = "openTSNE's default"
        note(Figure("maps", what, peer, middle - start, end - middle, unit, goal="<= 0.5"))
    mine, other = (judge_map(points, places).figures for places in (ours, theirs))
    for name, goal in (
        ("knn_preservation", ">= 0.88"),
        ("knn_preservation_50", ">= 0.95"),
        ("trustworthiness", ""),
    ):
        own, peers = float(mine[name] or 0), float(other[name] or 0)
        words = f"{what}, {name.replace('_', ' ')}"
        note(Figure("maps", words, "openTSNE's default", own, peers, "share", goal=goal))


def thumbnails(ids: Ids) -> tuple[Ids, list[bytes]]:
    """Make thumbnails of noise, 128 pixels, about as large as photos' are."""
    encoded = []
    for image in ids:
        generator = np.random.default_rng(int(image))
        coarse = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        memory = io.BytesIO()
        coarse.resize((128, 96), Image.Resampling.BICUBIC).save(memory, "JPEG", quality=85)
        encoded.append(memory.getvalue())
    return ids, encoded


def read_thumbnails(path: Path) -> tuple[Ids, list[bytes]]:
    """Read a shard of thumbnails."""
    table = pq.read_table(path)
    return table["image_id"].to_numpy(), table["thumbnail"].to_pylist()


def make_pyramid(folder: Path, num_images: int) -> int:
    """Draw a pyramid of thumbnails in shards; return the images drawn."""
    positions = np.random.default_rng(0).normal(size=(num_images, 2))
    canvas = plan_pyramid(num_images, str(folder / "grid"), 4000, 3000)
    cells = grid_places(positions, canvas.columns, canvas.rows)
    ids, frames = np.arange(num_images), pack_colours([None] * num_images)
    shards = sorted(folder.glob("*.parquet"))
    paths = []
    for first in range(0, len(shards), 16):
        group = [partial(read_thumbnails, path) for path in shards[first : first + 16]]
        paths.append(str(folder / f"{first}.arrow"))
        write_file(paths[-1], sort_thumbnails(group, canvas, cells, frames, ids))
    bands = range(canvas.num_bands(canvas.top))
    drawn = sum(draw_band(band, canvas, paths, open_file, write_file) for band in bands)
    for level in canvas.levels_read():
        for band in range(canvas.num_bands(level)):
            shrink_band(band, canvas, level, read_file, write_file)
    write_description(canvas, write_file)
    assert drawn == num_images, f"{drawn} of {num_images} images drawn"
    return drawn


def open_file(path: str) -> io.BufferedReader:
    """Open a file to read at any place."""
    return Path(path).open("rb")


def read_file(path: str) -> bytes:
    """Read a file."""
    return Path(path).read_bytes()


def write_file(path: str, data: bytes) -> None:
    """Write a file and the folders above it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


def compare_pyramid(sizes: Sizes) -> None:
    """A pyramid from thumbnails in shards, in one process."""
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, sizes.thumbnails, 256):
            ids, encoded = thumbnails(np.arange(first, min(first + 256, sizes.thumbnails)))
            table = pa.table({"image_id": ids, "thumbnail": encoded})
            pq.write_table(table, Path(folder) / f"{first:08}.parquet")
        work = partial(make_pyramid, Path(folder), sizes.thumbnails)
        name = f"pyramid of {sizes.thumbnails:,} thumbnails, one process"
        started = time.perf_counter(), time.process_time()
        work()
        ended = time.perf_counter(), time.process_time()
        bounds = (60.0, 60.0) if sizes is FULL else (None, None)
        for unit, start, end, most in zip(("s", "CPU s"), started, ended, bounds, strict=True):
            note(Figure("maps", name, "the bound", end - start, most, unit, goal="<= 1"))
        peak = float(measure_peak(work))
        note(Figure("maps", f"{name}, peak", "the bound", peak, 256.0, "MiB", goal="<= 1"))


COMPARISONS: dict[str, Callable[[Sizes], None]] = {
    "pca": compare_pca,
    "neighbours": compare_neighbours,
    "tsne": compare_tsne,
    "pyramid": compare_pyramid,
}


def main() -> None:
    """Run the comparisons asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--small", action="store_true", help="sizes that take a minute")
    choices = [*COMPARISONS, "million"]
    parser.add_argument("--only", nargs="+", choices=choices, default=list(COMPARISONS))
    parser.add_argument("--images", type=int, default=1_000_000, help="of --only million")
    parser.add_argument("--folder", type=Path, help="of --only million: kept, and gone on with")
    given = parser.parse_args()
    if "million" in given.only:
        from million import run_million

        with tempfile.TemporaryDirectory() as folder:
            run_million(given.folder or Path(folder), given.images)
    for name in [each for each in given.only if each in COMPARISONS]:
        COMPARISONS[name](SMALL if given.small else FULL)


if __name__ == "__main__":
    main()
