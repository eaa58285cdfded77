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
from PIL import Image

from cnnvis_ray.cluster import Session
from cnnvis_ray.config import recipe_of
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
class MapRows:
    """The rows of a map that a mosaic shows, without thumbnails.

    Attributes:
        rows: their numbers in the map, ascending.
        total: how many images the map has.
    """

    rows: Ids
    ids: Ids
    positions: NDArray[np.float32]
    labels: list[str | None]
    total: int


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
            draw = partial(draw_layouts, job, session, layer)
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


def draw_layouts(job: Job, session: Session, layer: str) -> Iterator[ShardFile]:
    """Draw one layer's mosaics and write them."""
    config = job.config.mosaic
    shown = read_map(job, layer)
    title = f"{job.vision.network.name}  {layer}  {len(shown.rows):,} images"
    if len(shown.rows) < shown.total:
        title += f" of {shown.total:,}"
    pyramid = config.pyramid is True or (config.pyramid == "auto" and len(shown.rows) > WHOLE_GRID)
    for layout in config.layouts:
        path = f"mosaic/{layer}-{layout}.png"
        if layout == "grid" and pyramid:
            yield from draw_pyramid(job, session, layer, shown, title)
            continue
        thumbnails = read_thumbnails(job.store, f"embedding/{layer}.parquet", shown.rows)
        picture = LAYOUTS[layout](thumbnails, shown.positions, shown.labels, config, title)
        yield write_bytes(job.store, path, encode(picture))


def read_map(job: Job, layer: str) -> MapRows:
    """Read the rows of a map that a mosaic shows: all, or a sample spread over the labels."""
    table = read_table(job.store, f"embedding/{layer}.parquet", ["image_id", "label", "x", "y"])
    labels = table["label"].to_pylist()
    rows = choose_images(labels, job.config.mosaic, job.config.seed)
    kept = table.take(pa.array(rows))
    positions = np.stack([kept["x"].to_numpy(), kept["y"].to_numpy()], axis=1)
    ids = kept["image_id"].to_numpy()
    return MapRows(rows, ids, positions, kept["label"].to_pylist(), table.num_rows)


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


def encode(picture: Image.Image) -> bytes:
    """Encode as PNG; level 3 halves the time and costs a few percent of the size."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Band:
    """What the tasks of a pyramid share.

    Attributes:
        shards: of image rows with thumbnails.
        cells: of the map's images, by ascending id.
        folder: of the sorted thumbnails, which go when the pyramid is drawn.
    """

    run_dir: str
    pyramid: Pyramid
    shards: tuple[tuple[str, ...], ...]
    ids: Ids
    cells: Ids
    colours: Ids
    folder: str


def draw_pyramid(
    job: Job, session: Session, layer: str, shown: MapRows, title: str
) -> Iterator[ShardFile]:
    """Draw a layer's grid as a Deep Zoom pyramid, and one picture of the whole."""
    config, store = job.config.mosaic, job.store
    background = check_background(config.background)
    pyramid = plan_pyramid(
        len(shown.rows), f"mosaic/{layer}-grid", config.width, config.height, background
    )
    cells = grid_places(shown.positions, pyramid.columns, pyramid.rows)
    kept, chance = grid_quality(shown.positions, cells, pyramid.columns, job.config.seed)
    log.info(
        "mosaic %s: %.3f of near images are near on the grid, %.3f by chance", layer, kept, chance
    )
    groups = colour_groups(shown.labels, config)
    frames = class_colours(groups) if any(group is not None for group in groups) else None
    colours = pack_colours(frames.of(group) if frames else None for group in groups)
    order = np.argsort(shown.ids)
    shards = group_shards(job)
    folder = f"mosaic/.part-{layer}"
    band = Band(
        job.config.run_dir,
        pyramid,
        shards,
        shown.ids[order],
        cells[order],
        colours[order],
        folder,
    )
    large = len(shown.rows) > FEW_IMAGES
    mapped: MapBlocks = map_on(job, session) if large else in_turn
    list(mapped(partial(sort_group, band), list(range(len(shards)))))
    files: list[ShardFile] = []
    drawn = 0
    for written, count in mapped(
        partial(draw_one, band), list(range(pyramid.num_bands(pyramid.top)))
    ):
        files.extend(written)
        drawn += count
    for level in pyramid.levels_read():
        bands = list(range(pyramid.num_bands(level)))
        for written in mapped(partial(shrink_one, band, level), bands):
            files.extend(written)
    store.delete(f"{folder}-{number:06d}.arrow" for number in range(len(shards)))
    if drawn != len(shown.rows):
        log.warning("mosaic %s: %d of %d images are drawn", layer, drawn, len(shown.rows))
    yield from files
    described: list[ShardFile] = []
    write_description(pyramid, lambda path, data: described.append(write_bytes(store, path, data)))
    yield from described
    overview = draw_overview(pyramid, store.read, shown.labels, config, title)
    yield write_bytes(store, f"mosaic/{layer}-grid.png", encode(overview))


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
    store = Store(band.run_dir)
    blocks = [partial(read_block, store, path) for path in band.shards[number]]
    data = sort_thumbnails(blocks, band.pyramid, band.cells, band.colours, band.ids)
    store.write(f"{band.folder}-{number:06d}.arrow", data)


def draw_one(band: Band, number: int) -> tuple[list[ShardFile], int]:
    """Draw one band; return its tiles and how many images it shows."""
    store, files = Store(band.run_dir), list[ShardFile]()
    paths = [f"{band.folder}-{group:06d}.arrow" for group in range(len(band.shards))]
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
    store, files = Store(band.run_dir), list[ShardFile]()
    shrink_band(
        number,
        band.pyramid,
        level,
        store.read,
        lambda path, data: files.append(write_bytes(store, path, data)),
    )
    return files
