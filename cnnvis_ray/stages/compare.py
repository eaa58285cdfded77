"""The verb ``compare``: the same images through several networks or layers, side by side.

Only reads the runs, and writes into the first one's compare/NAME. No network is loaded.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from io import BytesIO
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.explanation import Compared, compare_layers, gram
from cnnvis_ray.explanation.image_sheets import beside
from cnnvis_ray.explanation.plots import draw_matrix
from cnnvis_ray.ledger import Run, by_number, open_run
from cnnvis_ray.pictures import encode_png
from cnnvis_ray.storage import write_bytes, write_table

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ESTIMATES = {"cka": "biased", "cka_unbiased": "unbiased"}
MOST_IMAGES = 1000  # bounds memory: 16 MB per layer
FEWEST_IMAGES = 5


def compare(paths: Sequence[str], patterns: Sequence[str], name: str) -> list[str]:
    """Compare the layers of some runs by linear CKA, and put the image sheets side by side.

    Args:
        paths: run directories, at least one.
        patterns: names or globs of layers; none means all that have features.
        name: of the comparison, a folder in the first run.

    Returns:
        The last screen.

    Raises:
        RefusedError: there is no run, no layer, or the runs share too few images.
    """
    if not NAME.fullmatch(name):
        raise RefusedError(
            f"compare --name: {name!r} is not a name; use letters, digits, '.', '_' and '-'"
        )
    runs = [open_run(path) for path in paths]
    keys = shared_keys(runs)
    layers = [layer for run in runs for layer in read_layers(run, patterns, keys)]
    if len(layers) < 2:
        raise RefusedError(
            f"compare needs two layers, there {'is' if len(layers) == 1 else 'are'} {len(layers)}"
            f" in {', '.join(paths)}" + (f" that fit {', '.join(patterns)}" if patterns else "")
        )
    folder = f"compare/{name}"
    store = runs[0].store
    table = compare_layers(layers)
    write_table(store, f"{folder}/cka.parquet", table)
    named = [f"{layer.run}  {layer.layer}" for layer in layers]
    for column, estimate in ESTIMATES.items():
        title = f"Linear CKA, {estimate} estimate, {len(keys):,} images"
        values = table[column].to_numpy().reshape(len(layers), len(layers))
        write_bytes(store, f"{folder}/{column}.png", draw_matrix(title, named, values))
    count = 0
    for sheets in side_by_side(runs):
        path = f"{folder}/images/{PurePosixPath(sheets[0][1]).name}"
        write_bytes(store, path, encode_png(join_sheets(sheets)))
        count += 1
    lines = [f"{len(layers)} layers compared on {len(keys):,} images"]
    lines.append(f"table     {store.root}/{folder}/cka.parquet")
    lines.append(f"pictures  {store.root}/{folder}/cka.png (biased), cka_unbiased.png")
    if count:
        lines.append(f"sheets    {store.root}/{folder}/images ({count})")
    return lines


def shared_keys(runs: Sequence[Run]) -> list[str]:
    """Find the images that all runs have, evenly spread where there are too many.

    Raises:
        RefusedError: there are too few.
    """
    present = [set(run.images(["key"])["key"].to_pylist()) for run in runs]
    common = sorted(set.intersection(*present))
    if len(common) < FEWEST_IMAGES:
        raise RefusedError(
            f"the runs share {len(common)} images by key, at least {FEWEST_IMAGES} are needed; "
            "compare runs on the same source"
        )
    count = min(MOST_IMAGES, len(common))
    return [common[number * len(common) // count] for number in range(count)]


def read_layers(run: Run, patterns: Sequence[str], keys: Sequence[str]) -> Iterator[Compared]:
    """Read each wanted layer of a run as the Gram matrix of its features."""
    name = PurePosixPath(run.store.root.rstrip("/")).name
    rows = run.images(["image_id", "key"])
    ids = dict(zip(rows["key"].to_pylist(), rows["image_id"].to_pylist(), strict=True))
    wanted = np.array([ids[key] for key in keys], np.int64)
    for layer in order_layers([owner.layers for owner in run.passes("extract")]):
        if not patterns or any(fnmatchcase(layer, pattern) for pattern in patterns):
            yield Compared(name, layer, gram(features_of(run, layer, wanted)))


def order_layers(passes: Sequence[Sequence[str]]) -> list[str]:
    """Return all layers in the order of execution, as far as the passes know it.

    A pass lists its layers in that order. Between layers of different passes, names decide.
    """
    before: dict[str, set[str]] = {layer: set() for layers in passes for layer in layers}
    for layers in passes:
        for earlier, later in pairwise(layers):
            before[later].add(earlier)
    ordered: list[str] = []
    while before:
        ready = [layer for layer in before if not before[layer] & before.keys()]
        ordered.append(min(ready or before, key=by_number))
        del before[ordered[-1]]
    return ordered


def features_of(run: Run, layer: str, wanted: NDArray[np.int64]) -> NDArray[np.floating]:
    """Read a layer's features of some images, in their order, a shard at a time."""
    found: dict[int, NDArray[np.floating]] = {}
    chosen = set(wanted.tolist())
    for ids, values in run.feature_blocks(layer):
        kept = [row for row, image in enumerate(ids.tolist()) if image in chosen]
        found.update(zip(ids[kept].tolist(), values[kept], strict=True))
    missing = len(wanted) - len(found)
    if missing:
        raise RefusedError(
            f"{run.store.root!r}: {layer} has no features of {missing} of the {len(wanted)} "
            f"compared images; finish them first: cnnvis extract {run.store.root}"
        )
    return np.stack([found[image] for image in wanted.tolist()])


def side_by_side(runs: Sequence[Run]) -> Iterator[list[tuple[Run, str]]]:
    """Find the images of which every run has a sheet: each run's path of it."""
    if len(runs) < 2:
        return
    found = [sheets_of(run) for run in runs]
    for key in sorted(set.intersection(*(set(sheets) for sheets in found))):
        yield [(run, sheets[key]) for run, sheets in zip(runs, found, strict=True)]


def sheets_of(run: Run) -> dict[str, str]:
    """List a run's image sheets by key; file names start with the image's id."""
    paths = [file.path for file in run.files("explain", "explanation/images")]
    shown = [path for path in paths if path.endswith(".png") and not is_occluded(path)]
    ids = {int(PurePosixPath(path).name[:12]): path for path in shown}
    if not ids:
        return {}
    rows = run.images(["image_id", "key"])
    pairs = zip(rows["image_id"].to_pylist(), rows["key"].to_pylist(), strict=True)
    return {key: ids[image] for image, key in pairs if image in ids}


def is_occluded(path: str) -> bool:
    """Whether a sheet shows occluded images and not an image's channels."""
    return path.endswith("-occluded.png")


def join_sheets(sheets: Sequence[tuple[Run, str]]) -> Image.Image:
    """Put the runs' sheets of one image side by side."""
    named = []
    for run, path in sheets:
        with Image.open(BytesIO(run.store.read(path))) as opened:
            sheet = opened.convert("RGB")
        named.append((PurePosixPath(run.store.root.rstrip("/")).name, sheet))
    return beside(named)
