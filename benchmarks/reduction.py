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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import pca
import pyarrow as pa
import pyarrow.parquet as pq
from pca_sides import peak_mib
from PIL import Image
from timing import alternate

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
    from openTSNE.nearest_neighbors import Annoy

    points = clusters(sizes.points)
    found: dict[str, Ids] = {}

    def ours() -> None:
        found["cnnvis_ray (faiss)"] = search_index(build_index(points), points, 90)[0]

    def annoy() -> None:
        forest = Annoy(data=points, k=90, metric="euclidean", n_jobs=-1, random_state=0)
        found["openTSNE (annoy)"] = forest.build()[0]

    seconds = alternate([ours, annoy], sizes.rounds)
    chosen = np.random.default_rng(0).choice(len(points), min(500, len(points)), replace=False)
    truth = []
    for index in chosen:
        distances = np.square(points - points[index]).sum(axis=1)
        distances[index] = np.inf
        truth.append(set(np.argpartition(distances, 90)[:90].tolist()))
    for side, own in zip(("cnnvis_ray (faiss)", "openTSNE (annoy)"), seconds, strict=True):
        shares = [
            len(true & set(near.tolist())) / 90
            for true, near in zip(truth, found[side][chosen], strict=True)
        ]
        name = f"neighbours {sizes.points:,} x 50"
        print(f"{name:28} {side:28} {median(own):8.2f} s recall {np.mean(shares):.3f}")


def compare_tsne(sizes: Sizes) -> None:
    """A map by defaults: this project's, and openTSNE's."""
    points = clusters(sizes.points)
    config, maps = Reduce(), {}

    def ours() -> None:
        count = affinity_neighbours(config, len(points))
        near = search_index(build_index(points), points, count)
        maps["cnnvis_ray"] = embed(points, config, 0, neighbours=near).positions

    def theirs() -> None:
        from openTSNE import TSNE

        maps["openTSNE default"] = np.asarray(TSNE(n_jobs=-1, random_state=0).fit(points))

    seconds = alternate([ours, theirs], 1)
    for side, own in zip(("cnnvis_ray", "openTSNE default"), seconds, strict=True):
        figures = judge_map(points, maps[side]).figures
        name = f"t-SNE {sizes.points:,} x 50"
        print(
            f"{name:28} {side:28} {median(own):8.2f} s kept@10 {figures['knn_preservation']:.3f} "
            f"@50 {figures['knn_preservation_50']:.3f} trust {figures['trustworthiness']:.3f}"
        )


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
        seconds = alternate([work], 1)[0]
        name = f"pyramid of {sizes.thumbnails:,}"
        peak = measure_peak(work)
        print(f"{name:28} {'cnnvis_ray, one process':28} {seconds[0]:8.2f} s {peak:7,} MiB")


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
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("shared", nargs="?", help="folder of shared data; not used here")
    given = parser.parse_args()
    pca.limit_threads(len(os.sched_getaffinity(0)))
    for name in given.only:
        if name in pca.COMPARISONS:
            pca.COMPARISONS[name](pca.SMALL if given.small else pca.Shapes())
        else:
            COMPARISONS[name](SMALL if given.small else FULL)


if __name__ == "__main__":
    main()
