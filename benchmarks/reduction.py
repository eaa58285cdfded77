"""PCA, neighbours, t-SNE and pyramids beside their peers; sides alternate, memory is measured.

    python benchmarks/reduction.py            # the sizes of the README's table, half an hour
    python benchmarks/reduction.py --small    # the same code in a minute, for CI
    python benchmarks/reduction.py --only pca tsne

Every line names both sides, the median seconds of each, and what each needs or finds. Peak memory
is that of a fresh process that does the work once.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import pca
import pyarrow as pa
import pyarrow.parquet as pq
from million import run_million
from pca_sides import peak_mib
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
    affinity_neighbours,
    build_index,
    embed,
    judge_map,
    search_index,
)

Array = npt.NDArray[np.floating]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    points: int
    thumbnails: int
    rounds: int


FULL = Sizes(60_000, 100_000, 3)
SMALL = Sizes(500, 400, 1)


def measure_peak(work: Callable[[], object]) -> int:
    """Do work in a fresh process and return its peak memory beyond its imports, MiB."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(peak_of, work).result()


def peak_of(work: Callable[[], object]) -> int:
    """Do work and return how far it raised this process's peak, MiB."""
    before = peak_mib()
    work()
    return int(peak_mib() - before)


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
    "neighbours": compare_neighbours,
    "tsne": compare_tsne,
    "pyramid": compare_pyramid,
}


def main() -> None:
    """Run the comparisons asked for."""
    names = [*pca.COMPARISONS, *COMPARISONS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--small", action="store_true", help="sizes that take a minute")
    parser.add_argument("--only", nargs="+", choices=[*names, "million"], default=names)
    parser.add_argument("--images", type=int, default=1_000_000, help="of --only million")
    parser.add_argument("--folder", type=Path, help="of --only million: kept, and gone on with")
    parser.add_argument("shared", nargs="?", help="folder of shared data; not used here")
    given = parser.parse_args()
    pca.limit_threads(len(os.sched_getaffinity(0)))
    for name in given.only:
        if name in pca.COMPARISONS:
            pca.COMPARISONS[name](pca.SMALL if given.small else pca.Shapes())
        elif name in COMPARISONS:
            COMPARISONS[name](SMALL if given.small else FULL)
        else:
            with tempfile.TemporaryDirectory() as folder:
                run_million(given.folder or Path(folder), given.images)


if __name__ == "__main__":
    main()
