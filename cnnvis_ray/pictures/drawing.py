"""A sheet as a list of what is where, and how it is drawn: as pixels at any scale, or as vectors.

All lengths are pixels at 100 %. The text of a PDF or SVG file is text, in the font that Pillow
carries, which the file carries too.
"""

import io
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from cnnvis_ray.config.explanation import Pictures
from cnnvis_ray.pictures.colours import Rgb
from cnnvis_ray.pictures.lettering import font
from cnnvis_ray.pictures.tiles import add_frame, fit
from cnnvis_ray.storage import ShardFile, Store, write_bytes

if TYPE_CHECKING:  # it takes 0.3 seconds to import
    from matplotlib.axes import Axes

POINTS = 0.75  # of a pixel at 100 %: 96 pixels per inch
FAMILY = ["Aileron", "Helvetica", "Arial", "sans-serif"]  # the first is Pillow's


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture in its box."""

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
        """Draw it as pixels."""
        drawn.paste(self.resized(scale), (self.left * scale, self.top * scale))

    def plot(self, axes: "Axes", letters: str) -> None:
        """Draw it with all its pixels."""
        image = self.image if self.frame is None else self.resized(2)
        extent = (self.left, self.left + self.width, self.top + self.height, self.top)
        axes.imshow(image, extent=extent, aspect="auto", interpolation="none")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, from its top left corner."""

    left: int
    top: int
    text: str
    size: int
    ink: Rgb

    def paste(self, drawn: Image.Image, scale: int) -> None:
        """Draw it as pixels."""
        corner = (self.left * scale, self.top * scale)
        ImageDraw.Draw(drawn).text(corner, self.text, self.ink, font(self.size * scale))

    def plot(self, axes: "Axes", letters: str) -> None:
        """Draw it as text in the font of a file."""
        from matplotlib.font_manager import FontProperties

        face = FontProperties(family=FAMILY, fname=letters, size=self.size * POINTS)
        base = self.top + font(self.size).getmetrics()[0]
        axes.text(self.left, base, self.text, color=ratio(self.ink), font=face)


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
        """Draw it as pixels."""
        left, top = self.left * scale, self.top * scale
        box = (left, top, left + self.width * scale - 1, top + self.height * scale - 1)
        draw = ImageDraw.Draw(drawn)
        draw.rounded_rectangle(box, self.radius * scale, self.fill, self.outline, width=scale)

    def plot(self, axes: "Axes", letters: str) -> None:
        """Draw it as a path."""
        from matplotlib.patches import FancyBboxPatch

        style = f"round,pad=0,rounding_size={self.radius}" if self.radius else "square,pad=0"
        patch = FancyBboxPatch((self.left, self.top), self.width, self.height, style)
        edge, face = (ratio(one) if one else "none" for one in (self.outline, self.fill))
        patch.set(edgecolor=edge, facecolor=face, linewidth=POINTS)
        axes.add_patch(patch)


Item = Shown | Line | Box


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is where on a sheet, in the order of drawing."""

    width: int
    height: int
    paper: Rgb
    items: tuple[Item, ...]

    def image(self, scale: int = 1) -> Image.Image:
        """Draw it as pixels."""
        drawn = Image.new("RGB", (self.width * scale, self.height * scale), self.paper)
        for item in self.items:
            item.paste(drawn, scale)
        return drawn

    def png(self, scale: int = 1) -> bytes:
        """Draw it as a PNG file."""
        return encode_png(self.image(scale))

    def vector(self, kind: str) -> bytes:
        """Draw it as a PDF or SVG file; the same sheet gives the same bytes.

        Args:
            kind: ``pdf`` or ``svg``.
        """
        import matplotlib
        from matplotlib.figure import Figure

        inches = (self.width * POINTS / 72, self.height * POINTS / 72)
        figure = Figure(figsize=inches, facecolor=ratio(self.paper))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        carried, buffer = font(16).font_bytes, io.BytesIO()
        undated = {"pdf": "CreationDate", "svg": "Date"}[kind]
        with (
            tempfile.NamedTemporaryFile(suffix=".ttf") as file,
            matplotlib.rc_context(
                {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "cnnvis"}
            ),
        ):
            file.write(carried)
            file.flush()
            for item in self.items:
                item.plot(axes, file.name)
            axes.set(xlim=(0, self.width), ylim=(self.height, 0))
            figure.savefig(buffer, format=kind, metadata={undated: None})
        if kind == "pdf":
            return buffer.getvalue()
        source = f"data:font/ttf;base64,{b64encode(carried).decode()}"
        face = f"<style>@font-face{{font-family:{FAMILY[0]};src:url({source})}}</style>"
        return buffer.getvalue().decode().replace("<defs>", f"<defs>{face}", 1).encode()


def encode_png(picture: Image.Image) -> bytes:
    """Encode as PNG; level 3 halves the time and costs a few percent of the size."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def ratio(colour: Rgb) -> tuple[float, float, float]:
    """Return a colour as matplotlib takes it."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def stack(sheets: Sequence[Sheet], across: bool = False) -> Sheet:
    """Put sheets one below another, or side by side."""
    items: list[Item] = []
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
