"""The strip below a mosaic: what is shown, and which colour stands for which class.

The strip lies outside the drawing area, so that it never covers an image. It takes at most a
quarter of the height; what finds no room is counted ("and 12 more classes").
"""

from dataclasses import dataclass

from PIL import Image, ImageDraw

from cnnvis_ray.pictures.colours import OTHERS, ClassColours, Rgb, ink_on
from cnnvis_ray.pictures.lettering import Font, font, line_height, shorten, width_of

SMALLEST_CANVAS = 160  # pixels a side: below it a strip would take the picture's place
LARGEST_SHARE = 4  # the strip is at most the canvas height divided by this


@dataclass(frozen=True, slots=True)
class Entry:
    """A class in the legend, and the colour of its frame (none for the closing words)."""

    text: str
    colour: Rgb | None


@dataclass(frozen=True, slots=True)
class Footer:
    """A laid-out strip.

    Attributes:
        title: one line, already cut to the width.
        lines: the legend's lines, each a list of entries that fit the width.
        size: of the letters, pixels.
        height: of the strip, pixels; 0 for none.
    """

    title: str
    lines: tuple[tuple[Entry, ...], ...]
    size: int
    height: int


def lay_out(title: str, colours: ClassColours | None, width: int, height: int) -> Footer:
    """Decide what the strip below a canvas says and how high it is.

    Args:
        title: one line of text; empty for none.
        colours: of the classes, `None` where frames are off or nothing is labelled.
        width: of the whole canvas, pixels.
        height: of the whole canvas, pixels.
    """
    size = max(13, min(width, height) // 80)
    entries = legend_entries(colours) if colours else []
    if min(width, height) < SMALLEST_CANVAS or not (title or entries):
        return Footer("", (), size, 0)
    letters = font(size)
    line = step(letters)
    most_lines = max(0, (height // LARGEST_SHARE - size) // line - bool(title))
    lines = fill_lines(entries, width - 2 * size, letters, most_lines)
    strip = (len(lines) + bool(title)) * line + size
    return Footer(shorten(title, width - 2 * size, letters), lines, size, strip)


def legend_entries(colours: ClassColours) -> list[Entry]:
    """List the classes with a colour of their own, and what the shared colour stands for."""
    entries = [Entry(name, colour) for name, colour in colours.named.items()]
    if colours.num_others:
        entries.append(Entry(f"and {colours.num_others} more classes", OTHERS))
    return entries


def fill_lines(
    entries: list[Entry], width: int, letters: Font, most_lines: int
) -> tuple[tuple[Entry, ...], ...]:
    """Lay entries into lines; those beyond the last line are counted in its closing words."""
    shown = len(entries)
    lines = flow(entries, width, letters)
    while len(lines) > most_lines and shown > 0:
        shown -= 1
        closing = Entry(f"and {len(entries) - shown} more entries", None)
        lines = flow([*entries[:shown], closing], width, letters)
    return tuple(tuple(line) for line in lines[:most_lines])


def flow(entries: list[Entry], width: int, letters: Font) -> list[list[Entry]]:
    """Break entries into lines of at most a width."""
    lines: list[list[Entry]] = []
    used = width + 1
    for entry in entries:
        fitting = Entry(shorten(entry.text, width - indent(letters), letters), entry.colour)
        needed = entry_width(fitting, letters)
        if used + needed > width:
            lines.append([])
            used = 0
        lines[-1].append(fitting)
        used += needed + int(letters.size)
    return lines


def indent(letters: Font) -> int:
    """Return the width of a colour's square and its gap."""
    return int(letters.size * 1.4)


def step(letters: Font) -> int:
    """Return the distance of two lines of the strip, pixels."""
    return int(line_height(letters) * 1.2)


def entry_width(entry: Entry, letters: Font) -> int:
    """Measure one entry: the square of its colour and its name."""
    return width_of(entry.text, letters) + (indent(letters) if entry.colour else 0)


def draw_footer(footer: Footer, width: int, background: Rgb) -> Image.Image:
    """Draw a laid-out strip as an image of its own."""
    strip = Image.new("RGB", (width, footer.height), background)
    draw = ImageDraw.Draw(strip)
    letters, ink = font(footer.size), ink_on(background)
    top = footer.size // 2
    if footer.title:
        draw.text((footer.size, top), footer.title, font=letters, fill=ink)
        top += step(letters)
    for line in footer.lines:
        left = footer.size
        for entry in line:
            draw_entry(draw, (left, top), entry, letters, ink)
            left += entry_width(entry, letters) + footer.size
        top += step(letters)
    return strip


def draw_entry(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], entry: Entry, letters: Font, ink: Rgb
) -> None:
    """Draw one class: a square of its colour, then its name."""
    left, top = place
    if entry.colour:
        side = int(letters.size)
        low = top + (line_height(letters) - side) // 2
        draw.rectangle((left, low, left + side - 1, low + side - 1), fill=entry.colour)
        left += indent(letters)
    draw.text((left, top), entry.text, font=letters, fill=ink)
