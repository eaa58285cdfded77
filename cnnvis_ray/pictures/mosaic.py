"""The picture drawn from an embedding: all images at once, placed by what a layer sees in them.

Thumbnails come as an iterable of encoded images in the order of the positions and are read once,
so a caller can stream them from shards: memory is bounded by the canvas, not by the images.

`scatter` places images where the map has them. Where two overlap, which one lies in front is
drawn once by a fixed seed, so neither the order of the images nor that of their classes decides,
and the picture is the same however the images are streamed. `grid` gives every image a cell.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from cnnvis_ray.config import Mosaic
from cnnvis_ray.errors import RefusedError, near
from cnnvis_ray.pictures.colours import ClassColours, Rgb, check_background, class_colours
from cnnvis_ray.pictures.density import Density, choose_shown, draw_ground, tile_sides
from cnnvis_ray.pictures.footer import Footer, draw_footer, lay_out
from cnnvis_ray.pictures.layouts import (
    Pixels,
    Positions,
    cell_boxes,
    grid_places,
    grid_shape,
    sample_by_label,
    scatter_places,
)
from cnnvis_ray.pictures.pyramid import Pyramid, Read, read_overview
from cnnvis_ray.pictures.tiles import add_frame, tile

# All thumbnails in the order of the positions, or a function that reads those of some indices.
Thumbnails = Iterable[bytes] | Callable[[Pixels], Iterable[bytes]]
Labels = Sequence[str | None]
Canvas = npt.NDArray[np.uint8]
Depth = npt.NDArray[np.int32]

# Tiles shrink until together they would cover the canvas this many times: images of a cluster
# still overlap, yet hardly any is hidden. 1,000 images keep 100 pixels on 4000 x 3000, 10,000
# have 33 (with 1.5 one image in ten was hidden on a Gaussian map).
SCATTER_COVER = 1.0
SMALLEST_TILE = 8  # pixels: below it scatter tiles do not shrink further but overlap more
DENSITY_CELLS = 6_000  # about so many images are shown where a canvas cannot hold all
FEWEST_DENSITY_PIXELS = 16  # side of such a cell, at least
LARGEST_GROWTH = 2  # in a grid of few images a tile grows to this many times mosaic.tile
GAP_SHARE = 25  # of a grid cell's side is left between tiles


@dataclass(frozen=True, slots=True)
class Sheet:
    """A canvas divided into the drawing area above and the footer below.

    Attributes:
        width: pixels.
        height: of the drawing area, pixels.
        footer: what stands below.
        background: colour of both.
        colours: of the frames; `None` for no frames.
    """

    width: int
    height: int
    footer: Footer
    background: Rgb
    colours: ClassColours | None

    def frame_of(self, label: str | None) -> Rgb | None:
        """Frame colour of an image, if it has one."""
        return self.colours.of(label) if self.colours else None


def draw_scatter(
    thumbnails: Thumbnails, positions: Positions, labels: Labels, mosaic: Mosaic, title: str = ""
) -> Image.Image:
    """Draw images where the map has them.

    Args:
        thumbnails: N encoded images (JPEG, PNG) in the order of the positions.
        positions: ``[N, 2]`` map positions in any unit, x to the right and y upwards.
        labels: N class names, `None` for an image without one.
        mosaic: canvas size, largest tile, background, frames.
        title: one line below the picture.

    Returns:
        RGB image of exactly ``mosaic.width`` x ``mosaic.height`` pixels; no tile is cut.

    Raises:
        RefusedError: there are no images, a thumbnail is damaged, the background is not a colour.
    """
    sheet = prepare(positions, labels, mosaic, title)
    if len(positions) * SMALLEST_TILE**2 > sheet.width * sheet.height:
        return draw_density(thumbnails, positions, labels, mosaic, title)
    side = scatter_side(len(positions), sheet, mosaic.tile)
    corners = scatter_places(positions, sheet.width, sheet.height, side)
    boxes = np.concatenate([corners, corners + side], axis=1)
    everyone = np.arange(len(positions))
    tiles = (tile(each, side, enlarge=False) for each in pick(thumbnails, everyone, len(everyone)))
    return finish(draw_tiles(tiles, boxes, colour_groups(labels, mosaic), sheet), sheet)


def draw_density(
    thumbnails: Thumbnails, positions: Positions, labels: Labels, mosaic: Mosaic, title: str = ""
) -> Image.Image:
    """Draw how many images are where and one image of each place; see `density`.

    Args and errors are those of `draw_scatter`. The title says how many images are visible.
    """
    sheet = prepare(positions, labels, mosaic, title)
    density = lay_density(positions, sheet, mosaic)
    visible = f"{len(density.shown):,} of {len(positions):,} visible"
    sheet = prepare(positions, labels, mosaic, f"{title}, {visible}" if title else visible)
    density = lay_density(positions, sheet, mosaic)
    sides = tile_sides(density, int(density.boxes[0, 2] - density.boxes[0, 0]))
    ground = np.asarray(draw_ground(density, sheet.width, sheet.height, sheet.background)).copy()
    groups = colour_groups(labels, mosaic)
    chosen = pick(thumbnails, density.shown, len(positions))
    shown = zip(chosen, density.shown, density.boxes, sides, strict=True)
    depth = np.zeros(ground.shape[:2], dtype=np.int32)
    for thumbnail, index, box, side in shown:
        framed = add_frame(tile(thumbnail, side, enlarge=False), sheet.frame_of(groups[index]))
        lay(np.asarray(framed), box, 1, ground, depth)
    return finish(ground, sheet)


def lay_density(positions: Positions, sheet: "Sheet", mosaic: Mosaic) -> Density:
    """Choose the images shown on a sheet."""
    side = int(math.sqrt(sheet.width * sheet.height / DENSITY_CELLS))
    side = min(max(side, FEWEST_DENSITY_PIXELS), mosaic.tile, sheet.width, sheet.height)
    return choose_shown(positions, sheet.width, sheet.height, side)


def pick(thumbnails: Thumbnails, chosen: Pixels, num_images: int) -> Iterable[bytes]:
    """Yield the thumbnails of ascending indices.

    Raises:
        ValueError: a stream does not hold as many thumbnails as there are images.
    """
    if callable(thumbnails):
        yield from thumbnails(chosen)
        return
    wanted = np.zeros(num_images, dtype=bool)
    wanted[chosen] = True
    for thumbnail, shown in zip(thumbnails, wanted, strict=True):
        if shown:
            yield thumbnail


def draw_grid(
    thumbnails: Thumbnails, positions: Positions, labels: Labels, mosaic: Mosaic, title: str = ""
) -> Image.Image:
    """Draw every image once, in a grid that fills the canvas and keeps neighbours together.

    Args and errors are those of `draw_scatter`; further, a canvas with fewer pixels than images
    is refused. Tiles shrink below ``mosaic.tile`` for many images and grow to twice it for few.
    """
    sheet = prepare(positions, labels, mosaic, title)
    columns, rows = grid_shape(len(positions), sheet.width, sheet.height)
    cells = cell_boxes(columns, rows, sheet.width, sheet.height)
    boxes = cells[grid_places(positions, columns, rows)]
    side = grid_side(sheet.width // columns, sheet.height // rows, mosaic.tile)
    everyone = np.arange(len(positions))
    tiles = (tile(each, side, enlarge=True) for each in pick(thumbnails, everyone, len(everyone)))
    return finish(draw_tiles(tiles, boxes, colour_groups(labels, mosaic), sheet), sheet)


Layout = Callable[[Thumbnails, Positions, Labels, Mosaic, str], Image.Image]
LAYOUTS: dict[str, Layout] = {"scatter": draw_scatter, "grid": draw_grid}


def check_layouts(names: Sequence[str]) -> None:
    """Refuse a layout that is not in `LAYOUTS`, with near ones."""
    for name in names:
        if name not in LAYOUTS:
            hints = near(name, LAYOUTS) or list(LAYOUTS)
            raise RefusedError(
                f"mosaic.layouts: {name!r} is not a layout; did you mean {', '.join(hints)}?"
            )


def colour_groups(labels: Labels, mosaic: Mosaic) -> Labels:
    """Return what each image is coloured by: its label, its super-class, or nothing.

    A label that the super-classes do not name has no colour.
    """
    if mosaic.frame == "none" or mosaic.colour == "none":
        return [None] * len(labels)
    if isinstance(mosaic.colour, str):
        return labels
    return [None if label is None else mosaic.colour.get(label) for label in labels]


def choose_images(labels: Labels, mosaic: Mosaic, seed: int) -> Pixels:
    """Choose at most ``mosaic.max_images`` images so that each class keeps its share.

    Returns:
        Ascending indices of the images to draw.
    """
    return sample_by_label(labels, mosaic.max_images or len(labels), seed)


def draw_overview(
    pyramid: Pyramid, read: Read, labels: Labels, mosaic: Mosaic, title: str = ""
) -> Image.Image:
    """Draw a whole pyramid as one picture with title and legend, at most as large as a mosaic."""
    sheet = prepare(np.zeros((len(labels), 2)), labels, mosaic, title)
    whole = read_overview(pyramid, sheet.width, sheet.height, read)
    canvas = Image.new("RGB", (sheet.width, sheet.height), sheet.background)
    corner = ((sheet.width - whole.width) // 2, (sheet.height - whole.height) // 2)
    canvas.paste(whole, corner)
    return finish(np.asarray(canvas), sheet)


def prepare(positions: Positions, labels: Labels, mosaic: Mosaic, title: str) -> Sheet:
    """Check the input and divide the canvas."""
    if len(positions) == 0:
        raise RefusedError("a mosaic needs at least one image, there are none")
    if len(labels) != len(positions):
        raise ValueError(f"{len(labels)} labels for {len(positions)} positions")
    background = check_background(mosaic.background)
    groups = colour_groups(labels, mosaic)
    colours = class_colours(groups) if any(group is not None for group in groups) else None
    footer = lay_out(title, colours, mosaic.width, mosaic.height)
    return Sheet(mosaic.width, mosaic.height - footer.height, footer, background, colours)


def scatter_side(num_images: int, sheet: Sheet, largest: int) -> int:
    """Choose the tile side of a scatter, pixels: smaller when many images share the canvas."""
    shared = int(math.sqrt(SCATTER_COVER * sheet.width * sheet.height / num_images))
    return min(largest, max(shared, SMALLEST_TILE), sheet.width, sheet.height)


def grid_side(width: int, height: int, largest: int) -> int:
    """Choose the tile side in a grid cell of a width and height, pixels."""
    cell = min(width, height)
    return min(cell - cell // GAP_SHARE, LARGEST_GROWTH * largest)


def draw_tiles(
    tiles: Iterable[Image.Image], boxes: Pixels, labels: Labels, sheet: Sheet
) -> Canvas:
    """Lay framed tiles into the middle of their boxes; a fixed draw decides who is in front."""
    canvas = np.full((sheet.height, sheet.width, 3), sheet.background, dtype=np.uint8)
    depth = np.zeros(canvas.shape[:2], dtype=np.int32)
    ranks = np.random.default_rng(0).permutation(len(boxes)) + 1
    for image, box, label, rank in zip(tiles, boxes, labels, ranks, strict=True):
        framed = np.asarray(add_frame(image, sheet.frame_of(label)))
        lay(framed, box, int(rank), canvas, depth)
    return canvas


def lay(framed: Canvas, box: Pixels, rank: int, canvas: Canvas, depth: Depth) -> None:
    """Lay one tile into the middle of its box, behind all that have a higher rank."""
    height, width = framed.shape[:2]
    left = (int(box[0]) + int(box[2]) - width) // 2
    top = (int(box[1]) + int(box[3]) - height) // 2
    window = np.s_[top : top + height, left : left + width]
    in_front = depth[window] < rank
    depth[window][in_front] = rank
    canvas[window][in_front] = framed[in_front]


def finish(canvas: Canvas, sheet: Sheet) -> Image.Image:
    """Join the drawing area and the footer."""
    drawing = Image.fromarray(canvas)
    if sheet.footer.height == 0:
        return drawing
    whole = Image.new("RGB", (sheet.width, sheet.height + sheet.footer.height), sheet.background)
    whole.paste(drawing, (0, 0))
    whole.paste(draw_footer(sheet.footer, sheet.width, sheet.background), (0, sheet.height))
    return whole
