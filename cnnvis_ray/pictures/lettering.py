"""Text in pictures: letters that exist, lines that fit.

The only font is the one that Pillow carries (Aileron, Latin letters without accents), so that a
picture is the same on every machine. Other letters lose their accent or become "?".
"""

import unicodedata
from functools import lru_cache

from PIL import ImageFont

PLAINER = str.maketrans({"\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u2026": "..."})
ELLIPSIS = "..."
Font = ImageFont.FreeTypeFont


@lru_cache(maxsize=32)
def font(size_pixels: int) -> Font:
    """Load Pillow's own font at a size in pixels.

    Raises:
        OSError: this Pillow was built without FreeType, which its wheels are not.
    """
    loaded = ImageFont.load_default(size=size_pixels)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise OSError("Pillow lacks FreeType; install the wheel: pip install --force pillow")
    return loaded


def line_height(letters: Font) -> int:
    """Measure the height of a line of text, pixels."""
    ascent, descent = letters.getmetrics()
    return ascent + descent + max(1, ascent // 8)


def width_of(text: str, letters: Font) -> int:
    """Measure a line of plain text, pixels."""
    return int(letters.getlength(text) + 0.999)


def plain(text: str) -> str:
    """Write a text in one line with letters that the font has, "?" in place of others."""
    decomposed = unicodedata.normalize("NFKD", " ".join(text.translate(PLAINER).split()))
    kept = (letter for letter in decomposed if not unicodedata.combining(letter))
    return "".join(letter if is_drawable(letter) else "?" for letter in kept)


@lru_cache(maxsize=4096)
def is_drawable(letter: str) -> bool:
    """Return whether the font has a letter, by comparing it with one that no font has."""
    letters = font(16)
    return letter == " " or bytes(letters.getmask(letter)) != bytes(letters.getmask("\uffff"))


def shorten(text: str, width: int, letters: Font) -> str:
    """Cut a text to a width in pixels, with an ellipsis where something was lost."""
    text = plain(text)
    if width_of(text, letters) <= width:
        return text
    longest = bisect_length(text, width - width_of(ELLIPSIS, letters), letters)
    if longest:
        return text[:longest].rstrip() + ELLIPSIS
    return text[: bisect_length(text, width, letters)]


def bisect_length(text: str, width: int, letters: Font) -> int:
    """Find how many of the first letters fit into a width."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width_of(text[:middle], letters) <= width:
            low = middle
        else:
            high = middle - 1
    return low


def wrap(text: str, width: int, letters: Font) -> list[str]:
    """Break a text into lines of at most a width in pixels; a word too long is shortened."""
    lines: list[str] = []
    for word in plain(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, letters) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(word, width, letters))
    return lines
