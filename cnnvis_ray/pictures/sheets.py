"""Labelled contact sheets: pictures in rows, each with lines of text below it.

`lay_sheet` decides where everything goes and returns a `Sheet`, which is drawn later: so print has
sharper letters and pictures in the same layout, and sheets are stacked before they are drawn.

Text never overlaps other text and is never cut: a line that does not fit ends in an ellipsis,
notes are wrapped. Only a tile's ``label`` is drawn over its picture. At 100 % the smallest letters
are 14 pixels high.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from cnnvis_ray.config.explanation import Pictures
from cnnvis_ray.errors import RefusedError, did_you_mean
from cnnvis_ray.pictures.colours import Rgb, check_background, ink_on
from cnnvis_ray.pictures.drawing import Box, Item, Line, Sheet, Shown
from cnnvis_ray.pictures.lettering import font, line_height, shorten, width_of, wrap
from cnnvis_ray.pictures.tiles import fit

CAPTION_PIXELS = 14
TITLE_PIXELS = 24
NOTE_PIXELS = 16
MARGIN = 12  # pixels around the sheet and between tiles
NARROWEST = 64  # pixels of a column, so that a caption of eight letters fits
# Kinds of sheets and their tiles per row; None fits the number of tiles.
SHEETS: dict[str, int | None] = {
    "pictures": None,
    "channels": 8,
    "occluded": None,
    "classes": 8,
    "examples": 5,
    "weights": 16,
}


def columns_of(look: Pictures, kind: str) -> int | None:
    """Return a kind of sheet's tiles per row; None fits the number of tiles."""
    return look.columns.get(kind, SHEETS[kind])


def check_look(look: Pictures) -> None:
    """Check what a configuration alone cannot: colours, colour maps and kinds of sheets.

    Raises:
        RefusedError: one is unknown, with what is near.
    """
    from matplotlib import colormaps

    check_background(look.background)
    for name in look.columns:
        if name not in SHEETS:
            hint = did_you_mean(name, SHEETS)
            known = ", ".join(SHEETS)
            raise RefusedError(f"pictures.columns: no kind {name!r}{hint} (known: {known})")
    for key, name in (("heat", look.heat), ("channels", look.channels)):
        if name not in colormaps and (key, name) != ("heat", "auto"):
            hint = did_you_mean(name, colormaps)
            raise RefusedError(
                f"pictures.{key}: matplotlib has no colours {name!r}{hint}; use one like viridis, "
                "gray, Reds or RdBu_r"
            )


@dataclass(frozen=True, slots=True)
class Tile:
    """One place on a sheet.

    Attributes:
        image: what is shown; `None` for a tile of words, see `text_tile`.
        captions: the lines below it.
        words: what stands inside a tile without an image.
        frame: colour of a border, `None` for no border.
        label: what is written on it, in its upper left corner.
    """

    image: Image.Image | None
    captions: tuple[str, ...] = ()
    words: str = ""
    frame: Rgb | None = None
    label: str = ""


def text_tile(words: str, captions: tuple[str, ...] = ()) -> Tile:
    """Make a tile that states why there is no picture, such as "dead"."""
    return Tile(None, captions, words)


def draw_sheet(
    tiles: Sequence[Tile],
    columns: int,
    side: int = 128,
    background: str = "black",
    title: str = "",
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw the sheet of `lay_sheet` as pixels."""
    return lay_sheet(tiles, columns, side, background, title, notes).image()


def lay_sheet(
    tiles: Sequence[Tile],
    columns: int,
    side: int = 128,
    background: str = "black",
    title: str = "",
    notes: Sequence[str] = (),
    narrowest: int = 0,
) -> Sheet:
    """Lay tiles out in rows, in the order given.

    Args:
        tiles: what to show.
        columns: tiles per row; fewer tiles make a narrower sheet.
        side: of the square that a picture fits, pixels; larger ones shrink, tiny ones grow.
        background: a colour by name or as #rrggbb.
        title: one line above all.
        notes: paragraphs between title and tiles, wrapped to the sheet's width.
        narrowest: a sheet of few tiles is at least so wide, pixels.

    Raises:
        RefusedError: there are no tiles or no columns, or the background is not a colour.
    """
    if not tiles or columns < 1:
        raise RefusedError(f"a sheet needs tiles and columns, there are {len(tiles)} x {columns}")
    paper = check_background(background)
    columns = min(columns, len(tiles))
    cell_width = max(side, NARROWEST)
    width = max(MARGIN + columns * (cell_width + MARGIN), narrowest)
    ink = ink_on(paper)
    items: list[Item] = []
    top = MARGIN // 2
    for size, texts in ((TITLE_PIXELS, [title]), (NOTE_PIXELS, notes)):
        for line in (
            part for text in texts for part in wrap(text, width - 2 * MARGIN, font(size))
        ):
            items.append(Line(MARGIN, top, line, size, ink))
            top += line_height(font(size))
    top += MARGIN // 2
    most_lines = max(len(tile.captions) for tile in tiles)
    cell_height = side + most_lines * line_height(font(CAPTION_PIXELS)) + MARGIN
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        corner = (MARGIN + column * (cell_width + MARGIN), top + row * cell_height)
        items.extend(lay_tile(tile, corner, side, cell_width, ink))
    return Sheet(width, top + -(-len(tiles) // columns) * cell_height, paper, tuple(items))


def lay_tile(
    tile: Tile, corner: tuple[int, int], side: int, cell_width: int, ink: Rgb
) -> Iterator[Item]:
    """Lay out one picture, or the words in its place, its label, and the captions below."""
    left, top = corner
    across = left + (cell_width - side) // 2
    letters = font(CAPTION_PIXELS)
    if tile.image is None:
        yield Box(across, top, side, side, outline=tile.frame or ink)
        most = max(1, (side - 8) // line_height(letters))
        lines = wrap(tile.words, side - 8, letters)[:most]
        down = top + (side - len(lines) * line_height(letters)) // 2
    else:
        lines, down = [], top
        image = tile.image.convert("RGB")
        width, height = fit(image, side, enlarge=False).size
        across, above = across + (side - width) // 2, top + (side - height) // 2
        yield Shown(across, above, width, height, image, tile.frame)
    if tile.label:
        text = shorten(tile.label, side - 24, letters)
        size = (width_of(text, letters) + 16, line_height(letters) + 4)
        above = top + 4 if tile.image is None else above + 4
        yield Box(across + 4, above, *size, fill=ink_on(ink), outline=ink, radius=size[1] // 2)
        yield Line(across + 12, above + 2, text, CAPTION_PIXELS, ink)
    captions = [shorten(caption, cell_width, letters) for caption in tile.captions]
    for start, texts in ((down, lines), (top + side, captions)):
        for number, text in enumerate(texts):
            middle = left + (cell_width - width_of(text, letters)) // 2
            yield Line(middle, start + number * line_height(letters), text, CAPTION_PIXELS, ink)
