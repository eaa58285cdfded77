"""The stage ``mosaic``: maps to pictures. Reads the embeddings alone, never the source.

Mosaics take seconds, so another recipe makes them again without being asked. Above
`WHOLE_GRID` images, or on request, the grid is a Deep Zoom pyramid, drawn band by band in tasks.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cnnvis_ray.cluster import Session
from cnnvis_ray.config import Mosaic, recipe_of
from cnnvis_ray.ledger import Pass
from cnnvis_ray.pictures import (
    LAYOUTS,
    Pyramid,
    check_background,
    check_layouts,
    choose_images,
    class_colours,
    colour_groups,
    draw_band,
    draw_overview,
    encode_png,
    grid_places,
    grid_quality,
    pack_colours,
    plan_pyramid,
    shrink_band,
    sort_thumbnails,
    write_description,
)
from cnnvis_ray.reduction import MapBlocks, in_turn
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.reduce import FEW_IMAGES, map_on
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes

log = logging.getLogger(__name__)

WHOLE_GRID = 100_000  # images of a grid that is one picture; more are a pyramid
GROUP_IMAGES = 4_000  # whose thumbnails one task sorts: some 20 MB, held three times

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """What a task that draws one layer's map needs.

    Attributes:
        network: its name, for the title.
    """

    run_dir: str
    layer: str
    network: str
    config: Mosaic
    seed: int


@dataclass(frozen=True, slots=True)
class MapRows:
    """The rows of a map that a mosaic shows, without thumbnails.

    Attributes:
        rows: their numbers in the map, ascending.
        title: network, layer and how many of the images are shown.
    """

    rows: Ids
    ids: Ids
    positions: NDArray[np.float32]
    labels: list[str | None]
    title: str


@dataclass(slots=True)
class Mosaics:
    """The mosaics of some layers; which of them are due is known once the maps are."""

    job: Job
    layers: tuple[str, ...]
    units: None = None

    def do(self, session: Session, summary: Summary) -> None:
        """Draw each map in each layout, where it is not drawn yet."""
        job, made = self.job, False
        maps = {file.path: file for file in job.ledger.files("embedding", "embedding")}
        values = recipe_of(job.config.mosaic, {"layers"})
        recipe = {f"mosaic.{key}": value for key, value in values.items()}
        for layer in self.layers:
            file = maps.get(f"embedding/{layer}.parquet")
            if file is None:
                log.info("mosaic: %s has no map", layer)
                continue
            wanted = Pass("mosaic", recipe, (layer,), file.sha256)
            draw = partial(draw_layouts, job, session, layer, file.rows)
            made |= job.ledger.make(wanted, draw, "mosaic" in job.replace)[1]
        if made or summary.unfinished:
            job.ledger.sweep(("mosaic",), ["mosaic"])


def decide(job: Job) -> Mosaics:
    """Check layouts and colours.

    Raises:
        RefusedError: there is no such layout or colour.
    """
    check_layouts(job.config.mosaic.layouts)
    check_background(job.config.mosaic.background)
    return Mosaics(job, tuple(layer.name for layer in job.chosen(job.config.mosaic.layers)))


def draw_layouts(job: Job, session: Session, layer: str, rows: int) -> Iterator[ShardFile]:
    """Draw one layer's mosaics: here, or in tasks where its map has many images."""
    config = job.config.mosaic
    shown = min(rows, config.max_images or rows)
    pyramid = config.pyramid is True or (config.pyramid == "auto" and shown > WHOLE_GRID)
    mapped = map_on(job, session, cpus=1) if rows > FEW_IMAGES else in_turn
    network = job.vision.network.name
    request = DrawRequest(job.config.run_dir, layer, network, config, job.config.seed)
    whole = [each for each in config.layouts if not (each == "grid" and pyramid)]
    yield from mapped(partial(draw_layout, request), whole)
    if len(whole) < len(config.layouts):
        yield from draw_pyramid(job, mapped, request, shown)


def draw_layout(request: DrawRequest, layout: str) -> ShardFile:
    """Draw a map as one picture."""
    store, shown = Store(request.run_dir), read_map(request)
    thumbnails = read_thumbnails(store, f"embedding/{request.layer}.parquet", shown.rows)
    draw = LAYOUTS[layout]
    picture = draw(thumbnails, shown.positions, shown.labels, request.config, shown.title)
    return write_bytes(store, f"mosaic/{request.layer}-{layout}.png", encode_png(picture))


def read_map(request: DrawRequest) -> MapRows:
    """Read the rows of a map that a mosaic shows: all, or a sample spread over the labels."""
    path = f"embedding/{request.layer}.parquet"
    table = read_table(Store(request.run_dir), path, ["image_id", "label", "x", "y"])
    rows = choose_images(table["label"].to_pylist(), request.config, request.seed)
    kept = table.take(pa.array(rows))
    positions = np.stack([kept["x"].to_numpy(), kept["y"].to_numpy()], axis=1)
    title = f"{request.network}  {request.layer}  {len(rows):,} images"
    if len(rows) < table.num_rows:
        title += f" of {table.num_rows:,}"
    ids, labels = kept["image_id"].to_numpy(), kept["label"].to_pylist()
    return MapRows(rows, ids, positions, labels, title)


def read_thumbnails(store: Store, path: str, rows: Ids) -> Iterator[bytes]:
    """Read the thumbnails of some rows of a map, in order, a batch at a time."""
    wanted, first = iter(rows.tolist()), 0
    row = next(wanted, None)
    with store.open(path) as file:
        for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(1024, columns=["image"]):
            while row is not None and row < first + batch.num_rows:
                yield batch["image"][row - first]["bytes"].as_py()
                row = next(wanted, None)
            first += batch.num_rows


@dataclass(frozen=True, slots=True)
class Band:
    """What the tasks of a pyramid share.

    Attributes:
        shards: of image rows with thumbnails, in groups.
        folder: start of the names of cells and sorted thumbnails, which go when all is drawn.
    """

    request: DrawRequest
    pyramid: Pyramid
    shards: tuple[tuple[str, ...], ...]
    folder: str

    @property
    def cells(self) -> str:
        """The file of each image's cell and colour."""
        return f"{self.folder}-cells.npz"

    def sorted(self, group: int) -> str:
        """Name the file of a group's sorted thumbnails."""
        return f"{self.folder}-{group:06d}.arrow"


def draw_pyramid(
    job: Job, mapped: MapBlocks, request: DrawRequest, num_images: int
) -> Iterator[ShardFile]:
    """Draw a layer's grid as a Deep Zoom pyramid, and one picture of the whole."""
    config, store, layer = request.config, job.store, request.layer
    background = check_background(config.background)
    pyramid = plan_pyramid(
        num_images, f"mosaic/{layer}-grid", config.width, config.height, background
    )
    band = Band(request, pyramid, group_shards(job), f"mosaic/.part-{layer}")
    for kept, chance in mapped(arrange_grid, [band]):
        log.info(
            "mosaic %s: %.3f of near images are near on the grid, %.3f by chance",
            layer,
            kept,
            chance,
        )
    groups = list(range(len(band.shards)))
    list(mapped(partial(sort_group, band), groups))
    log.info("mosaic %s: %d groups of thumbnails are sorted", layer, len(groups))
    drawn = 0
    bands = list(range(pyramid.num_bands(pyramid.top)))
    for written, count in mapped(partial(draw_one, band), bands):
        yield from written
        drawn += count
        log.info("mosaic %s: %d of %d images are drawn", layer, drawn, num_images)
    for level in pyramid.levels_read():
        for written in mapped(
            partial(shrink_one, band, level), list(range(pyramid.num_bands(level)))
        ):
            yield from written
    store.delete([band.cells, *map(band.sorted, groups)])
    if drawn != num_images:
        log.warning("mosaic %s: only %d of %d images are drawn", layer, drawn, num_images)
    for written in mapped(describe_pyramid, [band]):
        yield from written


def arrange_grid(band: Band) -> tuple[float, float]:
    """Write the cell and the colour of each image; return the grid's quality and its control."""
    request, pyramid = band.request, band.pyramid
    shown = read_map(request)
    cells = grid_places(shown.positions, pyramid.columns, pyramid.rows)
    groups = colour_groups(shown.labels, request.config)
    frames = class_colours(groups) if any(group is not None for group in groups) else None
    colours = pack_colours(frames.of(group) if frames else None for group in groups)
    order = np.argsort(shown.ids)
    memory = io.BytesIO()
    np.savez(memory, ids=shown.ids[order], cells=cells[order], colours=colours[order])
    Store(request.run_dir).write(band.cells, memory.getvalue())
    return grid_quality(shown.positions, cells, pyramid.columns, request.seed)


def describe_pyramid(band: Band) -> list[ShardFile]:
    """Write what a viewer opens, and one picture of the whole with title and legend."""
    request, files = band.request, list[ShardFile]()
    store, shown = Store(request.run_dir), read_map(request)
    write_description(
        band.pyramid, lambda path, data: files.append(write_bytes(store, path, data))
    )
    picture = draw_overview(band.pyramid, store.read, shown.labels, request.config, shown.title)
    path = f"mosaic/{request.layer}-grid.png"
    return [*files, write_bytes(store, path, encode_png(picture))]


def group_shards(job: Job) -> tuple[tuple[str, ...], ...]:
    """Put image shards together until a group has `GROUP_IMAGES` images."""
    groups: list[list[str]] = [[]]
    count = 0
    for file in job.ledger.files("images", "images"):
        if count >= GROUP_IMAGES:
            groups.append([])
            count = 0
        groups[-1].append(file.path)
        count += file.rows
    return tuple(map(tuple, groups))


def read_block(store: Store, path: str) -> tuple[Ids, Sequence[bytes]]:
    """Read ids and thumbnails of one shard of images."""
    table = read_table(store, path, ["image_id", "thumbnail"])
    return table["image_id"].to_numpy(), table["thumbnail"].to_pylist()


def sort_group(band: Band, number: int) -> None:
    """Sort the thumbnails of one group of shards by band."""
    store = Store(band.request.run_dir)
    blocks = [partial(read_block, store, path) for path in band.shards[number]]
    with store.open(band.cells) as file, np.load(file, allow_pickle=False) as held:
        ids, cells, colours = (held[name] for name in ("ids", "cells", "colours"))
    store.write(band.sorted(number), sort_thumbnails(blocks, band.pyramid, cells, colours, ids))


def draw_one(band: Band, number: int) -> tuple[list[ShardFile], int]:
    """Draw one band; return its tiles and how many images it shows."""
    store, files = Store(band.request.run_dir), list[ShardFile]()
    paths = [band.sorted(group) for group in range(len(band.shards))]
    count = draw_band(
        number,
        band.pyramid,
        paths,
        store.open,
        lambda path, data: files.append(write_bytes(store, path, data)),
    )
    return files, count


def shrink_one(band: Band, level: int, number: int) -> list[ShardFile]:
    """Write the levels below one band of a level."""
    store, files = Store(band.request.run_dir), list[ShardFile]()
    shrink_band(
        number,
        band.pyramid,
        level,
        store.read,
        lambda path, data: files.append(write_bytes(store, path, data)),
    )
    return files
