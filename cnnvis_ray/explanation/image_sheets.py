"""Image sheets: one image, what the network calls it, where it looks, and what channels say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnnvis_ray.config.explanation import Explain, Pictures
from cnnvis_ray.explanation.evidence import Evidence, draw_legend, overlay
from cnnvis_ray.explanation.heat import Heat, colour, multiply, to_image
from cnnvis_ray.explanation.occlusion import Square, cover
from cnnvis_ray.pictures import (
    Rgb,
    Sheet,
    Tile,
    check_background,
    columns_of,
    lay_sheet,
    text_tile,
)
from cnnvis_ray.pictures.colours import OTHERS, PALETTE, ink_on
from cnnvis_ray.pictures.footer import Entry, draw_entry
from cnnvis_ray.pictures.lettering import font, line_height, shorten
from cnnvis_ray.pictures.sheets import MARGIN

SIDE = 224  # pixels of a heat map's tile
CHANNEL_SIDE = 112  # pixels of a channel's tile
NARROWEST = 4 * (CHANNEL_SIDE + MARGIN)  # pixels of a grid of few channels: its title fits
MOST_OCCLUDED = 64  # images on a sheet of occluded ones
OCCLUDED_SIDE = 128
NAME_PIXELS = 28  # height of a run's name above its sheet


@dataclass(frozen=True, slots=True)
class Mask:
    """What a segmentation network calls each pixel, ``height width``, and the classes' names."""

    classes: NDArray[np.integer]
    names: Mapping[int, str]

    def tiles(self, pixels: NDArray[np.uint8], paper: Rgb) -> list[Tile]:
        """Draw it over the image, alone, and its classes with their shares of the image.

        Args:
            pixels: the network's input, ``height width colour``.
            paper: behind the names.
        """
        index, counts = np.unique(self.classes, return_counts=True)
        order = index[np.argsort(-counts, kind="stable")]
        share = counts / self.classes.size
        palette = {int(one): PALETTE[n] for n, one in enumerate(order[: len(PALETTE)])}
        painted = np.array([palette.get(int(one), OTHERS) for one in index], np.uint8)
        plane = Image.fromarray(painted[np.searchsorted(index, self.classes)])
        plane = plane.resize(pixels.shape[1::-1], Image.Resampling.NEAREST)
        over = Image.blend(to_image(pixels), plane, 0.5)
        legend = Image.new("RGB", (SIDE, SIDE), paper)
        draw, letters = ImageDraw.Draw(legend), font(14)
        for row, one in enumerate(order[: SIDE // (line_height(letters) + 4)]):
            text = f"{self.names[int(one)]} {share[index == one][0]:.1%}"
            entry = Entry(shorten(text, SIDE - 30, letters), palette.get(int(one), OTHERS))
            draw_entry(
                draw, (4, 4 + row * (line_height(letters) + 4)), entry, letters, ink_on(paper)
            )
        return [
            Tile(tile_of(over), ("predicted mask",)),
            Tile(tile_of(plane), ("predicted mask",)),
            Tile(legend, ("its classes", "share of the image")),
        ]


def draw_overview(
    title: str,
    notes: Sequence[str],
    pixels: NDArray[np.uint8],
    heats: Mapping[str, Heat],
    evidence: Mapping[str, Evidence],
    look: Pictures,
    label: str | None = None,
    mask: Mask | None = None,
) -> Sheet:
    """Draw the image with its heat maps: multiplied onto it, in colour over it, with their range.

    Args:
        title: one line.
        notes: what the network says of the image.
        pixels: the network's input, ``height width colour``.
        heats: by method; a flat one is stated in words.
        evidence: by method, signed and at full size where the method has that.
        look: background and colours.
        label: of the image.
        mask: what a segmentation network returned.
    """
    paper = check_background(look.background)
    rows = [[Tile(tile_of(to_image(pixels)), ("the network's input", label or ""))]]
    masks = mask.tiles(pixels, paper) if mask else []
    if not heats:
        rows[0] += masks
    else:
        colours = "yellow, or red where blue is against it" if look.heat == "auto" else look.heat
        words = f"for what is explained: {colours}; bar: range, zero"
        rows += [[text_tile("colours over the image")], [text_tile(words)]]
        for row, tile in zip(rows, masks, strict=False):
            row.append(tile)
    for method, heat in heats.items():
        name = method.replace("_", " ")
        if heat.is_flat:
            for row in rows:
                row.append(text_tile("flat: nothing stands out", (name,)))
            continue
        drawn = [(name, heat.map, evidence[method])]
        if method == "occlusion":
            squared = heat.map**2
            drawn.append(("occlusion squared", squared, Evidence(squared, "of the largest")))
        for name, values, found in drawn:
            found = found.drawn_in(look.heat)
            rows[0].append(Tile(tile_of(multiply(pixels, values)), (f"{name} x image",)))
            rows[1].append(Tile(tile_of(overlay(pixels, found)), (name,)))
            rows[2].append(Tile(draw_legend(found, SIDE, paper), (name, found.unit)))
    tiles = [tile for row in rows for tile in row]
    return lay_sheet(tiles, len(rows[0]), SIDE, look.background, title, notes)


def draw_occluded(
    title: str,
    pixels: NDArray[np.uint8],
    scores: NDArray[np.floating],
    covered: Sequence[Square],
    patch: int,
    fill: NDArray[np.uint8],
    look: Pictures,
) -> Sheet:
    """Draw the occluded images with the score that each got.

    Args:
        title: one line.
        pixels: the network's input, ``height width colour``.
        scores: one per square.
        covered: the squares.
        patch: their side, pixels.
        fill: their colour.
        look: background and columns.
    """
    step = -(-len(covered) // MOST_OCCLUDED)
    tiles = [
        Tile(to_image(cover(pixels, covered[index], patch, fill)), (f"{scores[index]:.3f}",))
        for index in range(0, len(covered), step)
    ]
    notes = ["below each: the score of the same target"]
    if step > 1:
        notes.append(f"every {step}th of {len(covered)} squares")
    fitting = min(len({left for _, left in covered}), 8) if step == 1 else 8
    columns = columns_of(look, "occluded") or fitting
    return lay_sheet(tiles, columns, OCCLUDED_SIDE, look.background, title, notes)


def choose_shown(peaks: NDArray[np.floating], explain: Explain) -> list[int]:
    """Choose which channels are shown: the first, the strongest, or a list."""
    if isinstance(explain.shown, list):
        return [channel for channel in explain.shown if channel < len(peaks)]
    if explain.shown == "first":
        return list(range(min(explain.num_shown, len(peaks))))
    return [int(channel) for channel in np.argsort(-peaks, kind="stable")[: explain.num_shown]]


def draw_grid(
    name: str, maps: NDArray[np.floating], explain: Explain, look: Pictures
) -> Sheet | None:
    """Draw one layer's channels for one image.

    Args:
        name: of the layer.
        maps: its activation, ``channel height width`` (a vector layer: ``channel``).
        explain: which channels, and whether they share a colour scale.
        look: background, columns, colours and what the first channel is called.

    Returns:
        A sheet; None where the list of channels names none of this layer.
    """
    peaks = maps.reshape(len(maps), -1).max(axis=1)
    chosen = choose_shown(peaks, explain)
    if not chosen:
        return None
    if maps.ndim == 1:
        tiles: Sequence[Tile] = [
            text_tile(f"{maps[channel]:.4g}", (f"channel {channel + look.first_channel}",))
            for channel in chosen
        ]
        note = "one number per channel"
    else:
        bounds = (float(maps[chosen].min()), float(maps[chosen].max()))
        own = explain.scale == "own"
        tiles = [
            draw_map(channel, maps[channel], None if own else bounds, look) for channel in chosen
        ]
        shared = f"one colour scale, {bounds[0]:.4g} to {bounds[1]:.4g}"
        note = "each from its own minimum to its maximum, written below" if own else shared
    shown = explain.shown if isinstance(explain.shown, str) else "chosen"
    if look.first_channel:
        note += f"; channels count from {look.first_channel}"
    title = f"{name}: {shown} {len(chosen)} of {len(maps)} channels"
    columns = columns_of(look, "channels") or len(tiles)
    return lay_sheet(tiles, columns, CHANNEL_SIDE, look.background, title, [note], NARROWEST)


def draw_map(
    channel: int,
    values: NDArray[np.floating],
    bounds: tuple[float, float] | None,
    look: Pictures,
) -> Tile:
    """Draw one channel's map; one that is the same everywhere says so in words."""
    low, high = (float(values.min()), float(values.max())) if bounds is None else bounds
    caption = (
        f"channel {channel + look.first_channel}",
        f"{values.min():.3g} to {values.max():.3g}",
    )
    if high <= low:
        return text_tile("silent" if high == 0 else f"{high:.3g} everywhere", caption)
    scaled = colour((values - low) / (high - low), look.channels)
    width, height = scaled.size
    factor = CHANNEL_SIDE / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return Tile(scaled.resize(size, Image.Resampling.NEAREST), caption)


def tile_of(image: Image.Image) -> Image.Image:
    """Resize a square to the sheet's tile."""
    smooth = Image.Resampling.BILINEAR if image.width > SIDE // 4 else Image.Resampling.NEAREST
    return image.resize((SIDE, SIDE), smooth)


def beside(sheets: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Put named sheets side by side, each below its name."""
    letters = font(NAME_PIXELS)
    above = line_height(letters) + NAME_PIXELS
    width = sum(sheet.width for _, sheet in sheets)
    paper = sheets[0][1].getpixel((0, 0))
    assert isinstance(paper, tuple)
    red, green, blue = (int(value) for value in paper)
    size = (width, above + max(sheet.height for _, sheet in sheets))
    joined, ink = Image.new("RGB", size, (red, green, blue)), ink_on((red, green, blue))
    draw = ImageDraw.Draw(joined)
    left = 0
    for name, sheet in sheets:
        shown_name = shorten(name, sheet.width - NAME_PIXELS, letters)
        draw.text((left + NAME_PIXELS // 2, NAME_PIXELS // 2), shown_name, ink, letters)
        joined.paste(sheet, (left, above))
        left += sheet.width
    return joined
