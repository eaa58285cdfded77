"""A layer's map: positions of 4 bytes, regions with their words, and representatives.

Words of a region are those that c-TF-IDF finds in it (BERTopic, Grootendorst 2022,
arXiv:2203.05794, in the form of Embedding Atlas): ``tf * log(1 + mean words / df)``.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from cnnvis_ray.ledger import Run
from cnnvis_ray.report.catalogue import Catalogue
from cnnvis_ray.report.images import decode, square, write_sheets
from cnnvis_ray.report.pieces import pack, short, slug, write_piece
from cnnvis_ray.storage import ShardFile, read_table

STEPS = 65_535  # positions are told apart to 1/65,535 of the map's longer side
REGIONS = (6, 18, 54)  # at each zoom: about as many words as a screen holds
SAMPLE = 20_000  # positions that find the regions' centres
WORDS = 4
CELLS = (24, 48, 96)  # representatives across the map
LOD, LOD_COLUMNS = 48, 24
WITHOUT_LOD = 4096  # up to so many images the browser draws any of them from the units' sheets
OWN = ("image_id", "key", "label", "x", "y", "image")


def make_map(run: Run, catalogue: Catalogue, layer: str) -> list[ShardFile]:
    """Write one layer's map, and sheets of its representatives where images are many."""
    table = read_table(run.store, f"embedding/{layer}.parquet", map_columns(run, layer))
    index = catalogue.index_of(table["image_id"].to_numpy())
    value, index, chosen = describe_map(catalogue, table, index)
    files = write_representatives(run, catalogue, layer, index, chosen) if chosen else []
    return [write_piece(run.store, f"map/{slug(layer)}", value), *files]


def make_other_map(run: Run, catalogue: Catalogue, other: Run, layer: str) -> list[ShardFile]:
    """Write another run's map of the images that both runs have, by key."""
    table = read_table(
        other.store, f"embedding/{layer}.parquet", [*map_columns(other, layer), "key"]
    )
    rows = run.images(["image_id", "key"])
    ids = dict(zip(rows["key"].to_pylist(), rows["image_id"].to_pylist(), strict=True))
    own = np.array([ids.get(key, -1) for key in table["key"].to_pylist()], np.int64)
    value, _, _ = describe_map(catalogue, table.drop_columns("key"), catalogue.index_of(own))
    return [write_piece(run.store, f"map/{other_slug(layer)}", {**value, "lod": []})]


def other_slug(layer: str) -> str:
    """Return the file name of the other run's map of a layer."""
    return slug(f"other {layer}")


Chosen = dict[int, NDArray[np.int64]]


def describe_map(
    catalogue: Catalogue, table: pa.Table, index: NDArray[np.int64]
) -> tuple[dict[str, object], NDArray[np.int64], Chosen]:
    """Return a map's positions, regions and columns, its images, and its representatives.

    Args:
        catalogue: the shown images.
        table: with x, y and further columns.
        index: the number of each row's image; negative for one that is not shown.
    """
    shown = np.flatnonzero(index >= 0)
    order = shown[np.argsort(index[shown], kind="stable")]
    table, index = table.take(order), index[order]
    places = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1).astype(np.float64)
    grid, _ = quantize(places)
    everyone = len(index) == len(catalogue.image_id)
    value: dict[str, object] = {
        "count": len(index),
        "ids": None if everyone else pack(index, "u4"),
        "xy": pack(grid, "u2"),
        "regions": find_regions(grid, catalogue.words()[index], catalogue.classes),
        "columns": number_columns(table),
        "lod": [],
    }
    chosen: Chosen = {}
    if len(index) > WITHOUT_LOD:
        chosen = {cells: represent(grid, cells) for cells in CELLS}
        value["lod"] = [[cells, pack(points, "u4")] for cells, points in chosen.items()]
    return value, index, chosen


def map_columns(run: Run, layer: str) -> list[str]:
    """Name the columns of an embedding without its pictures and texts."""
    with run.store.open(f"embedding/{layer}.parquet") as file:
        schema = pq.read_schema(file)
    numbers = [
        field.name
        for field in schema
        if field.name not in OWN
        and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    ]
    return ["image_id", "x", "y", *numbers]


def quantize(places: NDArray[np.float64]) -> tuple[NDArray[np.uint16], float]:
    """Return positions in steps of the map's longer side, centred, and the length of a step."""
    if not len(places):
        return np.zeros((0, 2), np.uint16), 1.0
    low, high = places.min(axis=0), places.max(axis=0)
    span = float((high - low).max()) or 1.0
    steps = (places - (low + high) / 2) / span * STEPS + STEPS / 2
    return np.rint(steps).clip(0, STEPS).astype(np.uint16), span / STEPS


def number_columns(table: pa.Table) -> dict[str, object]:
    """Pack further columns of a map into a byte an image: low, high and 0 to 254; 255 is none."""
    packed: dict[str, object] = {}
    for name in table.column_names:
        if name in ("image_id", "x", "y"):
            continue
        values = table[name].to_numpy().astype(np.float64)
        known = np.isfinite(values)
        low, high = (values[known].min(), values[known].max()) if known.any() else (0.0, 0.0)
        steps = np.rint((values - low) / ((high - low) or 1.0) * 254)
        packed[name] = [short(low), short(high), pack(np.where(known, steps, 255), "u1")]
    return packed


def find_regions(
    grid: NDArray[np.uint16], words: NDArray[np.int32], names: list[str]
) -> list[list[object]]:
    """Find regions at three zooms and name each by its words.

    Returns:
        Rows of zoom, x, y, images, words and the share of the images that the words name.
    """
    called = words >= 0
    rows: list[list[object]] = []
    if called.sum() < 2 * REGIONS[0]:
        return rows
    sample = np.linspace(0, len(grid) - 1, min(SAMPLE, len(grid))).astype(np.int64)
    for zoom, wanted in enumerate(REGIONS):
        count = min(wanted, int(called.sum()) // 6)
        means = KMeans(count, n_init=1, random_state=0).fit(grid[sample].astype(np.float32))
        region = means.predict(grid.astype(np.float32))
        rows.extend(name_regions(zoom, grid, region, (words, names), count))
    return rows


def name_regions(
    zoom: int,
    grid: NDArray[np.uint16],
    region: NDArray[np.int32],
    called: tuple[NDArray[np.int32], list[str]],
    count: int,
) -> list[list[object]]:
    """Name the regions of one zoom by c-TF-IDF; a word that one image has names none."""
    words, names = called
    known = words >= 0
    pairs, frequency = np.unique(
        region[known].astype(np.int64) * len(names) + words[known], return_counts=True
    )
    total = np.bincount(words[known], minlength=len(names))
    mean = known.sum() / count
    score = frequency * np.log1p(mean / total[pairs % len(names)])
    rows: list[list[object]] = []
    for number in range(count):
        own = np.flatnonzero((pairs // len(names) == number) & (frequency >= 2))
        best = own[np.argsort(-score[own], kind="stable")][:WORDS]
        if not len(best):
            continue
        inside = region == number
        x, y = np.median(grid[inside], axis=0).astype(int).tolist()
        share = float(frequency[best].sum() / (known & inside).sum())
        found = [names[word] for word in (pairs[best] % len(names)).tolist()]
        rows.append([zoom, x, y, int(inside.sum()), found, short(share)])
    return rows


def represent(grid: NDArray[np.uint16], cells: int) -> NDArray[np.int64]:
    """Choose an image for each cell that has any: the one nearest to the cell's mean."""
    cell = (grid.astype(np.int64) * cells // (STEPS + 1)) @ np.array([1, cells])
    counts = np.maximum(np.bincount(cell, minlength=cells**2), 1)
    means = [np.bincount(cell, grid[:, axis], cells**2) / counts for axis in (0, 1)]
    distance = sum((grid[:, axis] - means[axis][cell]) ** 2 for axis in (0, 1))
    order = np.lexsort((distance, cell))
    first = np.unique(cell[order], return_index=True)[1]
    return np.asarray(order[first])


def write_representatives(
    run: Run,
    catalogue: Catalogue,
    layer: str,
    index: NDArray[np.int64],
    chosen: Chosen,
) -> list[ShardFile]:
    """Write sheets of the representatives of each zoom."""
    wanted = np.unique(np.concatenate([index[points] for points in chosen.values()]))
    pictures = {}
    for unit in catalogue.units:
        own = wanted[(wanted >= unit.first) & (wanted < unit.first + unit.rows)]
        if not len(own):
            continue
        table = read_table(run.store, unit.path, ["image_id", "thumbnail"])
        place = dict(zip(table["image_id"].to_pylist(), range(table.num_rows), strict=True))
        for image in own.tolist():
            row = place[int(catalogue.image_id[image])]
            pictures[image] = square(decode(table["thumbnail"][row].as_py()), LOD)
    files = []
    for cells, points in chosen.items():
        tiles = [pictures[image] for image in index[points].tolist()]
        path = f"sheets/lod/{slug(layer)}/{cells}"
        files.extend(write_sheets(run.store, path, tiles, LOD, LOD_COLUMNS))
    return files
