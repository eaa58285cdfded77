"""A grid of any number of images as a Deep Zoom pyramid: small JPEG tiles that a viewer loads.

The pyramid is an XML file ``NAME.dzi`` beside ``NAME_files/LEVEL/COLUMN_ROW.jpg`` (Deep Zoom, as
OpenSeadragon reads it): the highest level is the whole canvas, each lower one half as wide, level
0 one pixel. It is made in tasks whose memory grows neither with the canvas nor with the images:

1. `sort_thumbnails`, a task per group of shards: the group's thumbnails by band, where a band is
   a strip of the canvas `BLOCK_PIXELS` high. One Arrow file with a record batch per band.
2. `draw_band`, a task per band: reads its batch of each file, draws block after block, and writes
   the tiles of the lowest levels that a block fills.
3. `shrink_band`, a task per band of the level reached, until level 0 is: reads tiles, writes the
   next levels.

Every function returns what it wrote, so that images can be counted.
"""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from PIL import Image

from cnnvis_ray.pictures.colours import Rgb
from cnnvis_ray.pictures.layouts import Cells, grid_shape
from cnnvis_ray.pictures.tiles import add_frame, fit, read_thumbnail

Write = Callable[[str, bytes], object]
Read = Callable[[str], bytes]
Open = Callable[[str], AbstractContextManager[BinaryIO]]
ThumbnailBlock = Callable[[], tuple[Cells, Sequence[bytes]]]

TILE_PIXELS = 512  # four times fewer files than 256, and still one request in view
BLOCK_TILES = 4  # tiles a side of what is drawn at once: 12 MB of pixels
BLOCK_PIXELS = BLOCK_TILES * TILE_PIXELS
LEVELS_PER_PASS = int(math.log2(BLOCK_TILES))  # levels below its own that a block fills whole
CELL_PIXELS = 128
GAP_SHARE = 25  # of a cell's side is left between images
JPEG_QUALITY = 85
SORTED = pa.schema([("cell", pa.int64()), ("colour", pa.int32()), ("thumbnail", pa.binary())])
NO_FRAME = -1


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The canvas of a pyramid.

    Attributes:
        name: path of the ``.dzi`` without its ending, such as ``mosaic/features.12-grid``.
        columns: of cells.
        rows: of cells.
        background: between images.
        cell: side of a cell, pixels; a power of two up to `BLOCK_PIXELS`.
    """

    name: str
    columns: int
    rows: int
    background: Rgb = (255, 255, 255)
    cell: int = CELL_PIXELS

    @property
    def top(self) -> int:
        """The highest level."""
        return math.ceil(math.log2(max(self.columns, self.rows) * self.cell))

    def size(self, level: int) -> tuple[int, int]:
        """Width and height of a level, pixels."""
        scale = 2 ** (self.top - level)
        return -(-self.columns * self.cell // scale), -(-self.rows * self.cell // scale)

    def num_bands(self, level: int) -> int:
        """Count the bands of a level."""
        return -(-self.size(level)[1] // BLOCK_PIXELS)

    def levels_read(self) -> list[int]:
        """List the levels whose tiles `shrink_band` reads, in the order to work through."""
        return list(range(self.top - LEVELS_PER_PASS, 0, -LEVELS_PER_PASS))

    def tile_path(self, level: int, column: int, row: int) -> str:
        """Path of a tile."""
        return f"{self.name}_files/{level}/{column}_{row}.jpg"


def plan_pyramid(
    num_images: int, name: str, width: int, height: int, background: Rgb = (255, 255, 255)
) -> Pyramid:
    """Choose columns and rows of a canvas with the proportions of a width and a height."""
    scale = math.ceil(math.sqrt(num_images)) + 1  # so that any number of cells fits
    columns, rows = grid_shape(num_images, width * scale, height * scale)
    return Pyramid(name, columns, rows, background)


def write_description(pyramid: Pyramid, write: Write) -> None:
    """Write the ``.dzi`` file."""
    width, height = pyramid.size(pyramid.top)
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpg" Overlap="0" '
        f'TileSize="{TILE_PIXELS}">\n  <Size Width="{width}" Height="{height}"/>\n</Image>\n'
    )
    write(f"{pyramid.name}.dzi", text.encode())


def sort_thumbnails(
    blocks: Iterable[ThumbnailBlock],
    pyramid: Pyramid,
    cells: Cells,
    colours: Cells,
    ids: Cells,
) -> bytes:
    """Sort a group of thumbnails by band.

    Args:
        blocks: each reads image ids and their encoded thumbnails; some 4,000 images together.
        pyramid: the canvas.
        cells: ``[N]`` cell of each image of the map, from `grid_places`.
        colours: ``[N]`` ``red << 16 | green << 8 | blue`` of its frame, or `NO_FRAME`.
        ids: ``[N]`` ascending ids of the images of the map; others are left out.

    Returns:
        An Arrow file with a record batch per band, to be kept until the bands are drawn.
    """
    found_cells: list[int] = []
    found_colours: list[int] = []
    thumbnails: list[bytes] = []
    for block in blocks:
        own, encoded = block()
        places = np.minimum(np.searchsorted(ids, own), len(ids) - 1)
        for image, place, thumbnail in zip(own, places, encoded, strict=True):
            if ids[place] == image:
                found_cells.append(int(cells[place]))
                found_colours.append(int(colours[place]))
                thumbnails.append(thumbnail)
    where = np.array(found_cells, dtype=np.int64)
    bands = where // pyramid.columns * pyramid.cell // BLOCK_PIXELS
    memory = io.BytesIO()
    with pa.ipc.new_file(memory, SORTED) as file:
        for band in range(pyramid.num_bands(pyramid.top)):
            chosen = np.flatnonzero(bands == band)
            columns = [
                pa.array(where[chosen]),
                pa.array([found_colours[index] for index in chosen], pa.int32()),
                pa.array([thumbnails[index] for index in chosen], pa.binary()),
            ]
            file.write_batch(pa.record_batch(columns, schema=SORTED))
    return memory.getvalue()


def draw_band(
    band: int, pyramid: Pyramid, sorted_paths: Sequence[str], open_file: Open, write: Write
) -> int:
    """Draw a strip of the canvas and write its tiles, and those of the levels a block fills.

    Returns:
        The number of images drawn.
    """
    batches = []
    for path in sorted_paths:
        with open_file(path) as file:  # of which only this band's part is read
            batch = pa.ipc.open_file(pa.PythonFile(file, "r")).get_batch(band)
            if batch.num_rows:
                batches.append(batch)
    table = pa.Table.from_batches(batches, schema=SORTED)
    row, column = np.divmod(table["cell"].to_numpy(), pyramid.columns)
    blocks = column * pyramid.cell // BLOCK_PIXELS
    width, height = pyramid.size(pyramid.top)
    for block in range(-(-width // BLOCK_PIXELS)):
        left, top = block * BLOCK_PIXELS, band * BLOCK_PIXELS
        size = (min(BLOCK_PIXELS, width - left), min(BLOCK_PIXELS, height - top))
        canvas = Image.new("RGB", size, pyramid.background)
        for index in np.flatnonzero(blocks == block):
            corner = (column[index] * pyramid.cell - left, row[index] * pyramid.cell - top)
            draw_image(
                canvas,
                table["thumbnail"][index].as_py(),
                table["colour"][index].as_py(),
                (int(corner[0]), int(corner[1])),
                pyramid.cell,
            )
        write_block(canvas, pyramid, pyramid.top, (block, band), write, skip=0)
    return int(table.num_rows)


def draw_image(
    canvas: Image.Image, thumbnail: bytes, colour: int, corner: tuple[int, int], cell: int
) -> None:
    """Draw one framed image into the middle of its cell.

    An image that fits its cell without a gap loses 2 pixels at each edge: resizing it by as little
    costs more than decoding it (0.26 and 0.22 ms).
    """
    side = cell - cell // GAP_SHARE
    image = read_thumbnail(thumbnail, side)
    if side < max(image.size) <= cell:
        width, height = (min(length, side) for length in image.size)
        x, y = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((x, y, x + width, y + height))
    else:
        image = fit(image, side, enlarge=True)
    frame = None if colour == NO_FRAME else (colour >> 16, colour >> 8 & 255, colour & 255)
    left = corner[0] + (cell - image.width) // 2
    top = corner[1] + (cell - image.height) // 2
    canvas.paste(add_frame(image, frame), (left, top))


def write_block(
    block: Image.Image,
    pyramid: Pyramid,
    level: int,
    place: tuple[int, int],
    write: Write,
    skip: int,
) -> int:
    """Write the tiles of a block and, halved again and again, of the levels below.

    Args:
        block: pixels of a level.
        pyramid: the canvas.
        level: of the pixels.
        place: column and row of the block among blocks.
        write: takes path and bytes.
        skip: 1 where the block's own tiles exist.
    """
    written = 0
    for step in range(LEVELS_PER_PASS + 1):
        if level < step:
            break
        if step:
            block = block.reduce(2)
        if step < skip:
            continue
        across = BLOCK_TILES >> step
        for top in range(0, block.height, TILE_PIXELS):
            for left in range(0, block.width, TILE_PIXELS):
                box = (
                    left,
                    top,
                    min(left + TILE_PIXELS, block.width),
                    min(top + TILE_PIXELS, block.height),
                )
                column = place[0] * across + left // TILE_PIXELS
                row = place[1] * across + top // TILE_PIXELS
                write(pyramid.tile_path(level - step, column, row), encode_jpeg(block.crop(box)))
                written += 1
    return written


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode a tile."""
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=JPEG_QUALITY)
    return memory.getvalue()


def shrink_band(band: int, pyramid: Pyramid, level: int, read: Read, write: Write) -> int:
    """Read a strip of a level's tiles and write the levels below it.

    Returns:
        The number of tiles written.
    """
    width, _ = pyramid.size(level)
    written = 0
    for block in range(-(-width // BLOCK_PIXELS)):
        area = (
            block * BLOCK_PIXELS,
            band * BLOCK_PIXELS,
            (block + 1) * BLOCK_PIXELS,
            (band + 1) * BLOCK_PIXELS,
        )
        pixels = read_area(pyramid, level, area, read)
        written += write_block(pixels, pyramid, level, (block, band), write, skip=1)
    return written


def read_area(
    pyramid: Pyramid, level: int, area: tuple[int, int, int, int], read: Read
) -> Image.Image:
    """Read part of a level: left, top, right, bottom at tile borders, cut to the canvas."""
    left, top = area[:2]
    width, height = pyramid.size(level)
    right, bottom = min(area[2], width), min(area[3], height)
    canvas = Image.new("RGB", (right - left, bottom - top), pyramid.background)
    for row in range(top // TILE_PIXELS, -(-bottom // TILE_PIXELS)):
        for column in range(left // TILE_PIXELS, -(-right // TILE_PIXELS)):
            with Image.open(io.BytesIO(read(pyramid.tile_path(level, column, row)))) as piece:
                canvas.paste(piece, (column * TILE_PIXELS - left, row * TILE_PIXELS - top))
    return canvas


def read_overview(pyramid: Pyramid, width: int, height: int, read: Read) -> Image.Image:
    """Read the pyramid as one picture that fits a size in pixels."""
    level = pyramid.top
    while (
        level > 0 and pyramid.size(level - 1)[0] >= width and pyramid.size(level - 1)[1] >= height
    ):
        level -= 1
    whole = read_area(pyramid, level, (0, 0, *pyramid.size(level)), read)
    whole.thumbnail((width, height), Image.Resampling.BOX)
    return whole


def pack_colours(frames: Iterable[Rgb | None]) -> Cells:
    """Pack frame colours as `sort_thumbnails` takes them."""
    return np.array(
        [
            NO_FRAME if frame is None else frame[0] << 16 | frame[1] << 8 | frame[2]
            for frame in frames
        ],
        dtype=np.int64,
    )
