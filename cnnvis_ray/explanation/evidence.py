"""Evidence in colour: signed values at full size, over the image, and with a bar of their range.

Where some evidence is against what is explained, colours diverge from white at zero: red is for
it, blue against it, on one scale (matplotlib's RdBu_r). Elsewhere they run from dark blue to
yellow (viridis), from the lowest value to the highest. Other colours show what is for it alone.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnnvis_ray.explanation.heat import colour, to_image
from cnnvis_ray.pictures.colours import Rgb, ink_on
from cnnvis_ray.pictures.lettering import font, width_of

NEGLIGIBLE = 0.01  # of the largest value: what is as little below zero counts as zero
FAINTEST, STRONGEST = 0.2, 0.75  # share of the colour over the image, at no evidence and at most
MAP_SIDE, BAR_WIDTH, BAR_HEIGHT, LETTERS = 180, 208, 12, 14  # pixels of a tile of 224


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one method found on one image.

    Attributes:
        values: ``side side``, any side; negative where it speaks against what is explained.
        unit: what the values are, for the caption.
        percent: of the pixels that the bar's range holds; a gradient has few that are ten times
            the others, beside which nothing else would show.
        name: of matplotlib's colours; auto: as above.
    """

    values: NDArray[np.float64]
    unit: str
    percent: float = 100
    name: str = "auto"

    def drawn_in(self, name: str) -> "Evidence":
        """Return it in other colours, which show what is above zero."""
        values = self.values if name == "auto" else np.maximum(self.values, 0)
        return replace(self, values=values, name=name)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest value that the colours tell apart."""
        beyond = (100 - self.percent) / 2
        low, high = np.percentile(self.values, [beyond, 100 - beyond])
        return float(low), float(high)

    @property
    def diverges(self) -> bool:
        """Whether some of it is negative."""
        low, high = self.range
        return low < -NEGLIGIBLE * max(abs(low), abs(high))

    def scale(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where values lie on the colour scale, 0 to 1."""
        low, high = self.range
        if self.diverges:
            bound = max(abs(low), abs(high))
            low, high = -bound, bound
        return np.clip((values - low) / (high - low if high > low else 1), 0, 1)

    def colours(self, values: NDArray[np.float64]) -> Image.Image:
        """Show values as colours."""
        usual = "RdBu_r" if self.diverges else "viridis"
        return colour(self.scale(values), usual if self.name == "auto" else self.name)


def overlay(pixels: NDArray[np.uint8], evidence: Evidence) -> Image.Image:
    """Lay the colours over the grey image ``height width colour``, the denser the stronger."""
    side = pixels.shape[0]
    values = resize(evidence.values, side)
    scaled = evidence.scale(values)
    strength = np.abs(2 * scaled - 1) if evidence.diverges else scaled
    share = (FAINTEST + (STRONGEST - FAINTEST) * strength)[:, :, None]
    grey = np.asarray(to_image(pixels).convert("L").convert("RGB"), np.float64)
    mixed = (1 - share) * grey + share * np.asarray(evidence.colours(values), np.float64)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def draw_legend(evidence: Evidence, side: int, paper: Rgb = (0, 0, 0)) -> Image.Image:
    """Draw the map in colours above a bar with its range, zero marked: a square of ``side``."""
    drawn, ink = Image.new("RGB", (side, side), paper), ink_on(paper)
    values = resize(evidence.values, MAP_SIDE)
    drawn.paste(evidence.colours(values), ((side - MAP_SIDE) // 2, 0))
    low, high = evidence.range
    ramp = np.repeat(np.linspace(low, high, BAR_WIDTH)[None], BAR_HEIGHT, 0)
    left, top = (side - BAR_WIDTH) // 2, MAP_SIDE + 6
    drawn.paste(evidence.colours(ramp), (left, top))
    draw, letters = ImageDraw.Draw(drawn), font(LETTERS)
    below = top + BAR_HEIGHT + 2
    texts = f"{low:.3g}", f"{high:.3g}"
    draw.text((left, below), texts[0], ink, letters)
    draw.text((left + BAR_WIDTH - width_of(texts[1], letters), below), texts[1], ink, letters)
    if low <= 0 <= high and high > low:
        zero = left + round((BAR_WIDTH - 1) * -low / (high - low))
        draw.line((zero, top - 3, zero, top + BAR_HEIGHT + 2), "white", 3)
        draw.line((zero, top - 3, zero, top + BAR_HEIGHT + 2), "black", 1)
        start = zero - width_of("0", letters) // 2
        ends = left + width_of(texts[0], letters), left + BAR_WIDTH - width_of(texts[1], letters)
        if ends[0] + 4 < start < ends[1] - width_of("0", letters) - 4:
            draw.text((start, below), "0", ink, letters)
    return drawn


def resize(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Resize a map, smoothly; its range does not grow."""
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float64)
