"""Labelled contact sheets: pictures in rows, each with lines of text below it.

`lay_sheet` decides where everything goes, in pixels at 100 %. The `Sheet` that it returns is drawn
at any scale by `Sheet.image`, or with text as text by `Sheet.vector`, so that print has sharper
letters and pictures and the same layout. Sheets are stacked before they are drawn.

Text never overlaps other text and is never cut: a line that does not fit ends in an ellipsis,
notes are wrapped. Only a tile's ``label`` is drawn over its picture. At 100 % the smallest letters
are 14 pixels high.
"""

import io
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from cnnvis_ray.config.explanation import Pictures
from cnnvis_ray.errors import RefusedError, did_you_mean
from cnnvis_ray.pictures.colours import Rgb, check_background, ink_on
from cnnvis_ray.pictures.lettering import font, line_height, shorten, width_of, wrap
from cnnvis_ray.pictures.tiles import add_frame, fit
from cnnvis_ray.storage import ShardFile, Store, write_bytes

CAPTION_PIXELS = 14
TITLE_PIXELS = 24
NOTE_PIXELS = 16
MARGIN = 12  # pixels around the sheet and between tiles
NARROWEST = 64  # pixels of a column, so that a caption of eight letters fits
FAMILY = ["Aileron", "Helvetica", "Arial", "sans-serif"]  # Pillow's, which a file carries
POINTS = 0.75  # of a pixel at 100 %: 96 pixels per inch
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


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture in its box; all sizes are pixels at 100 %."""

    left: int
    top: int
    width: int
    height: int
    image: Image.Image
    frame: Rgb | None

    def resized(self, scale: int) -> Image.Image:
        """Return the picture in its size at some scale, with its frame."""
        size = (self.width * scale, self.height * scale)
        shown = self.image
        if shown.size != size:
            shown = fit(shown, max(size), enlarge=True).resize(size, Image.Resampling.LANCZOS)
        return add_frame(shown, self.frame)

    def paste(self, drawn: Image.Image, scale: int) -> None:
        """Draw it."""
        drawn.paste(self.resized(scale), (self.left * scale, self.top * scale))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, from its top left corner."""

    left: int
    top: int
    text: str
    size: int
    ink: Rgb

    def paste(self, drawn: Image.Image, scale: int) -> None:
        """Draw it."""
        corner = (self.left * scale, self.top * scale)
        ImageDraw.Draw(drawn).text(corner, self.text, self.ink, font(self.size * scale))


@dataclass(frozen=True, slots=True)
class Box:
    """An outlined square, or a filled one with round corners."""

    left: int
    top: int
    width: int
    height: int
    outline: Rgb | None = None
    fill: Rgb | None = None
    radius: int = 0

    def paste(self, drawn: Image.Image, scale: int) -> None:
        """Draw it."""
        left, top = self.left * scale, self.top * scale
        box = (left, top, left + self.width * scale - 1, top + self.height * scale - 1)
        draw = ImageDraw.Draw(drawn)
        draw.rounded_rectangle(box, self.radius * scale, self.fill, self.outline, width=scale)


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is where on a sheet, pixels at 100 %, in the order of drawing."""

    width: int
    height: int
    paper: Rgb
    items: tuple[Shown | Line | Box, ...]

    def image(self, scale: int = 1) -> Image.Image:
        """Draw it as pixels."""
        drawn = Image.new("RGB", (self.width * scale, self.height * scale), self.paper)
        for item in self.items:
            item.paste(drawn, scale)
        return drawn

    def png(self, scale: int = 1) -> bytes:
        """Draw it as a PNG file."""
        buffer = io.BytesIO()
        self.image(scale).save(buffer, "PNG", compress_level=3)
        return buffer.getvalue()

    def vector(self, kind: str) -> bytes:
        """Draw it as a PDF or SVG file: text is text, pictures have all their pixels.

        Args:
            kind: ``pdf`` or ``svg``.
        """
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.font_manager import FontProperties
        from matplotlib.patches import FancyBboxPatch

        inches = (self.width * POINTS / 72, self.height * POINTS / 72)
        figure = Figure(figsize=inches, facecolor=ratio(self.paper))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(self.height, 0))
        axes.axis("off")
        with tempfile.NamedTemporaryFile(suffix=".ttf") as file:
            file.write(font(CAPTION_PIXELS).font_bytes)
            file.flush()
            for item in self.items:
                if isinstance(item, Line):
                    letters = FontProperties(
                        family=FAMILY, fname=file.name, size=item.size * POINTS
                    )
                    base = item.top + font(item.size).getmetrics()[0]
                    axes.text(item.left, base, item.text, color=ratio(item.ink), font=letters)
                    continue
                right, bottom = item.left + item.width, item.top + item.height
                if isinstance(item, Shown):
                    extent = (item.left, right, bottom, item.top)
                    image = item.image if item.frame is None else item.resized(2)
                    axes.imshow(image, extent=extent, aspect="auto", interpolation="none")
                    continue
                style = (
                    f"round,pad=0,rounding_size={item.radius}" if item.radius else "square,pad=0"
                )
                edge, face = (ratio(c) if c else "none" for c in (item.outline, item.fill))
                corner = (item.left, item.top)
                patch = FancyBboxPatch(corner, item.width, item.height, style)
                patch.set(edgecolor=edge, facecolor=face, linewidth=POINTS)
                axes.add_patch(patch)
            axes.set(xlim=(0, self.width), ylim=(self.height, 0))
            buffer = io.BytesIO()
            dated = {"pdf": "CreationDate", "svg": "Date"}[kind]  # the same sheet, the same bytes
            with matplotlib.rc_context(
                {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "cnnvis"}
            ):
                figure.savefig(buffer, format=kind, metadata={dated: None})
        if kind == "pdf":
            return buffer.getvalue()
        carried = b64encode(font(CAPTION_PIXELS).font_bytes).decode()
        face = f"@font-face{{font-family:{FAMILY[0]};src:url(data:font/ttf;base64,{carried})}}"
        text = buffer.getvalue().decode()
        return text.replace("<defs>", f"<defs><style>{face}</style>", 1).encode()


def ratio(colour: Rgb) -> tuple[float, float, float]:
    """Return a colour as matplotlib takes it."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def stack(sheets: Sequence[Sheet], across: bool = False) -> Sheet:
    """Put sheets one below another, or side by side."""
    items: list[Shown | Line | Box] = []
    left = top = width = height = 0
    for sheet in sheets:
        moved = (replace(one, left=one.left + left, top=one.top + top) for one in sheet.items)
        items.extend(moved)
        width, height = max(width, left + sheet.width), max(height, top + sheet.height)
        left, top = (width, 0) if across else (0, height)
    return Sheet(width, height, sheets[0].paper, tuple(items))


def write_sheet(store: Store, stem: str, sheet: Sheet, look: Pictures) -> Iterator[ShardFile]:
    """Write a sheet as ``STEM.png``, and for print as the configuration asks."""
    yield write_bytes(store, f"{stem}.png", sheet.png(2 if look.print == "png2x" else 1))
    if look.print in ("pdf", "svg"):
        yield write_bytes(store, f"{stem}.{look.print}", sheet.vector(look.print))


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
    items: list[Shown | Line | Box] = []
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
) -> Iterator[Shown | Line | Box]:
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
