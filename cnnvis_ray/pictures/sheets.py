"""Labelled contact sheets: pictures in rows, each with lines of text below it.

Text is never drawn over a picture, never overlaps other text and is never cut: a line that does
not fit ends in an ellipsis, notes are wrapped. At 100 % the smallest letters are 14 pixels high.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.pictures.colours import Rgb, check_background, ink_on
from cnnvis_ray.pictures.lettering import font, line_height, shorten, width_of, wrap
from cnnvis_ray.pictures.tiles import add_frame, fit

CAPTION_PIXELS = 14
TITLE_PIXELS = 24
NOTE_PIXELS = 16
MARGIN = 12  # pixels around the sheet and between tiles
NARROWEST = 64  # pixels of a column, so that a caption of eight letters fits


@dataclass(frozen=True, slots=True)
class Tile:
    """One place on a sheet.

    Attributes:
        image: what is shown; `None` for a tile of words, see `text_tile`.
        captions: the lines below it.
        words: what stands inside a tile without an image.
        frame: colour of a border, `None` for no border.
    """

    image: Image.Image | None
    captions: tuple[str, ...] = ()
    words: str = ""
    frame: Rgb | None = None


def text_tile(words: str, captions: tuple[str, ...] = ()) -> Tile:
    """Make a tile that states why there is no picture, such as "dead"."""
    return Tile(None, captions, words)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where everything on a sheet goes, pixels."""

    columns: int
    rows: int
    side: int
    cell_width: int
    cell_height: int
    heading: tuple[tuple[str, int], ...]
    top: int

    def size(self) -> tuple[int, int]:
        """Return the sheet's width and height."""
        width = MARGIN + self.columns * (self.cell_width + MARGIN)
        return width, self.top + self.rows * self.cell_height

    def corner(self, index: int) -> tuple[int, int]:
        """Return the top left pixel of a cell."""
        row, column = divmod(index, self.columns)
        return (
            MARGIN + column * (self.cell_width + MARGIN),
            self.top + row * self.cell_height,
        )


def draw_sheet(
    tiles: Sequence[Tile],
    columns: int,
    side: int = 128,
    background: str = "black",
    title: str = "",
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw tiles in rows, in the order given.

    Args:
        tiles: what to show.
        columns: tiles a row; fewer tiles make a narrower sheet.
        side: of the square that a picture fits, pixels; larger ones shrink, tiny ones grow.
        background: a colour by name or as #rrggbb.
        title: one line above all.
        notes: paragraphs between title and tiles, wrapped to the sheet's width.

    Raises:
        RefusedError: there are no tiles or no columns, or the background is not a colour.
    """
    if not tiles or columns < 1:
        raise RefusedError(f"a sheet needs tiles and columns, there are {len(tiles)} x {columns}")
    paper = check_background(background)
    plan = lay_out(tiles, columns, side, title, notes)
    sheet = Image.new("RGB", plan.size(), paper)
    draw_heading(sheet, plan, ink_on(paper))
    for index, tile in enumerate(tiles):
        draw_tile(sheet, tile, plan.corner(index), plan, ink_on(paper))
    return sheet


def lay_out(
    tiles: Sequence[Tile], columns: int, side: int, title: str, notes: Sequence[str]
) -> Plan:
    """Measure a sheet."""
    columns = min(columns, len(tiles))
    cell_width = max(side, NARROWEST)
    width = columns * (cell_width + MARGIN) - MARGIN
    heading = [(line, TITLE_PIXELS) for line in wrap(title, width, font(TITLE_PIXELS))]
    heading += [
        (line, NOTE_PIXELS) for note in notes for line in wrap(note, width, font(NOTE_PIXELS))
    ]
    most_lines = max(len(tile.captions) for tile in tiles)
    return Plan(
        columns,
        rows=-(-len(tiles) // columns),
        side=side,
        cell_width=cell_width,
        cell_height=side + most_lines * line_height(font(CAPTION_PIXELS)) + MARGIN,
        heading=tuple(heading),
        top=MARGIN + sum(line_height(font(size)) for _, size in heading),
    )


def draw_heading(sheet: Image.Image, plan: Plan, ink: Rgb) -> None:
    """Write title and notes."""
    draw = ImageDraw.Draw(sheet)
    top = MARGIN // 2
    for line, size in plan.heading:
        draw.text((MARGIN, top), line, font=font(size), fill=ink)
        top += line_height(font(size))


def draw_tile(
    sheet: Image.Image, tile: Tile, corner: tuple[int, int], plan: Plan, ink: Rgb
) -> None:
    """Draw one picture, or the words in its place, and the captions below."""
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    if tile.image is None:
        draw_words(draw, tile, corner, plan, ink)
    else:
        shown = add_frame(fit(tile.image.convert("RGB"), plan.side, enlarge=False), tile.frame)
        across = left + (plan.cell_width - shown.width) // 2
        sheet.paste(shown, (across, top + (plan.side - shown.height) // 2))
    letters = font(CAPTION_PIXELS)
    for number, caption in enumerate(tile.captions):
        line = shorten(caption, plan.cell_width, letters)
        across = left + (plan.cell_width - width_of(line, letters)) // 2
        down = top + plan.side + number * line_height(letters)
        draw.text((across, down), line, font=letters, fill=ink)


def draw_words(
    draw: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], plan: Plan, ink: Rgb
) -> None:
    """Draw an outlined square with words in its middle."""
    left, top = corner
    start = left + (plan.cell_width - plan.side) // 2
    box = (start, top, start + plan.side - 1, top + plan.side - 1)
    draw.rectangle(box, outline=tile.frame or ink, width=1)
    letters = font(CAPTION_PIXELS)
    room = (plan.side - 8) // line_height(letters)
    lines = wrap(tile.words, plan.side - 8, letters)[: max(1, room)]
    down = top + (plan.side - len(lines) * line_height(letters)) // 2
    for number, line in enumerate(lines):
        across = start + (plan.side - width_of(line, letters)) // 2
        draw.text((across, down + number * line_height(letters)), line, font=letters, fill=ink)
