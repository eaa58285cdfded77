"""Colours that stand for classes.

A colour means one class. With more classes than colours the most frequent keep one of their own
and all others share `OTHERS`, since a colour that stood for two classes would tell a lie.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageColor

from cnnvis_ray.errors import RefusedError, near

Rgb = tuple[int, int, int]

# Chosen greedily, each as far as possible from those before it in OKLab (chroma weighted 1.3),
# among colours with a contrast of at least 1.9 to white and 2.6 to black; then put in an order
# in which the first ten are the plainest.
PALETTE: tuple[Rgb, ...] = (
    (225, 30, 60),
    (0, 30, 255),
    (0, 210, 0),
    (240, 165, 0),
    (240, 0, 255),
    (0, 165, 150),
    (120, 60, 150),
    (255, 135, 180),
    (165, 105, 30),
    (165, 180, 255),
    (30, 120, 210),
    (255, 105, 15),
    (0, 150, 15),
    (135, 0, 255),
    (150, 195, 120),
    (210, 0, 150),
    (150, 45, 75),
    (180, 105, 225),
    (60, 90, 30),
    (180, 105, 135),
)
OTHERS: Rgb = (128, 128, 128)


@dataclass(frozen=True, slots=True)
class ClassColours:
    """Which colour stands for which class.

    Attributes:
        named: the classes with a colour of their own, in alphabetical order.
        num_others: how many further classes share `OTHERS`.
    """

    named: dict[str, Rgb]
    num_others: int

    def of(self, label: str | None) -> Rgb | None:
        """Return a label's colour; an image without a label has none."""
        return None if label is None else self.named.get(label, OTHERS)


def class_colours(labels: Sequence[str | None]) -> ClassColours:
    """Choose colours for the classes among the labels of all images.

    Up to 20 classes have a colour each. Above that the 20 most frequent do (ties go to the name
    that sorts first), so the same labels give the same colours in any order of images.
    """
    counts = Counter(label for label in labels if label is not None)
    by_frequency = sorted(counts, key=lambda name: (-counts[name], name))
    named = sorted(by_frequency[: len(PALETTE)])
    return ClassColours(dict(zip(named, PALETTE, strict=False)), len(counts) - len(named))


def check_background(name: str) -> Rgb:
    """Read a colour by name or as #rrggbb.

    Raises:
        RefusedError: there is no such colour.
    """
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError:
        hints = near(name.lower(), ImageColor.colormap) or ["white", "black", "dimgray"]
        raise RefusedError(
            f"no colour {name!r}; near: {', '.join(hints)}; or write it as #rrggbb"
        ) from None
    return red, green, blue


def ink_on(background: Rgb) -> Rgb:
    """Choose black or white letters, whichever stands out more (Rec. 601 luma)."""
    red, green, blue = background
    return (0, 0, 0) if 299 * red + 587 * green + 114 * blue > 140_000 else (255, 255, 255)
