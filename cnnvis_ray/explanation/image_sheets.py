"""Image sheets: one image, what the network calls it, where it looks, and what channels say."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnnvis_ray.config.explanation import Explain
from cnnvis_ray.explanation.evidence import Evidence, draw_legend, overlay
from cnnvis_ray.explanation.heat import Heat, colour, multiply, to_image
from cnnvis_ray.explanation.occlusion import Square, cover
from cnnvis_ray.pictures import Tile, draw_sheet, text_tile
from cnnvis_ray.pictures.lettering import font, line_height, shorten

SIDE = 224  # pixels of a heat map's tile
CHANNEL_SIDE = 112  # pixels of a channel's tile
CHANNEL_COLUMNS = 8
FEWEST = 4  # tiles that a grid is wide at least, so that its title fits
MOST_OCCLUDED = 64  # images on a sheet of occluded ones
OCCLUDED_SIDE = 128
NAME_PIXELS = 28  # height of a run's name above its sheet


def draw_overview(
    title: str,
    notes: Sequence[str],
    pixels: NDArray[np.uint8],
    heats: Mapping[str, Heat],
    evidence: Mapping[str, Evidence],
) -> Image.Image:
    """Draw the image with its heat maps: multiplied onto it, in colour over it, with their range.

    Args:
        title: one line.
        notes: what the network says of the image.
        pixels: the network's input, ``height width colour``.
        heats: by method; a flat one is stated in words.
        evidence: by method, signed and at full size where the method has that.
    """
    rows = [[Tile(tile_of(to_image(pixels)), ("the network's input",))]]
    if heats:
        words = "for what is explained: yellow, or red where blue is against it; bar: range, zero"
        rows += [[text_tile("colours over the image")], [text_tile(words)]]
    for method, heat in heats.items():
        name = method.replace("_", " ")
        if heat.is_flat:
            for row in rows:
                row.append(text_tile("flat: nothing stands out", (name,)))
            continue
        found = evidence[method]
        rows[0].append(Tile(tile_of(multiply(pixels, heat.map)), (f"{name} x image",)))
        rows[1].append(Tile(tile_of(overlay(pixels, found)), (name,)))
        rows[2].append(Tile(draw_legend(found, SIDE), (name, found.unit)))
        if method == "occlusion":
            squared = Evidence(heat.map**2, "of the largest")
            name = "occlusion squared"
            rows[0].append(Tile(tile_of(multiply(pixels, squared.values)), (name,)))
            rows[1].append(Tile(tile_of(overlay(pixels, squared)), (name,)))
            rows[2].append(Tile(draw_legend(squared, SIDE), (name, squared.unit)))
    tiles = [tile for row in rows for tile in row]
    return draw_sheet(tiles, len(rows[0]), SIDE, title=title, notes=notes)


def draw_occluded(
    title: str,
    pixels: NDArray[np.uint8],
    scores: NDArray[np.floating],
    covered: Sequence[Square],
    patch: int,
    fill: NDArray[np.uint8],
) -> Image.Image:
    """Draw the occluded images with the score that each got.

    Args:
        title: one line.
        pixels: the network's input, ``height width colour``.
        scores: one per square.
        covered: the squares.
        patch: their side, pixels.
        fill: their colour.
    """
    step = -(-len(covered) // MOST_OCCLUDED)
    tiles = [
        Tile(to_image(cover(pixels, covered[index], patch, fill)), (f"{scores[index]:.3f}",))
        for index in range(0, len(covered), step)
    ]
    notes = ["below each: the score of the same target"]
    if step > 1:
        notes.append(f"every {step}th of {len(covered)} squares")
    columns = len({left for _, left in covered}) if step == 1 else 8
    return draw_sheet(tiles, min(columns, 8), OCCLUDED_SIDE, title=title, notes=notes)


def choose_shown(peaks: NDArray[np.floating], explain: Explain) -> list[int]:
    """Choose which channels are shown: the first, the strongest, or a list."""
    if isinstance(explain.shown, list):
        return [channel for channel in explain.shown if channel < len(peaks)]
    if explain.shown == "first":
        return list(range(min(explain.num_shown, len(peaks))))
    return [int(channel) for channel in np.argsort(-peaks, kind="stable")[: explain.num_shown]]


def draw_grid(name: str, maps: NDArray[np.floating], explain: Explain) -> Image.Image | None:
    """Draw one layer's channels for one image.

    Args:
        name: of the layer.
        maps: its activation, ``channel height width`` (a vector layer: ``channel``).
        explain: which channels, and whether they share a colour scale.

    Returns:
        A sheet; None where the list of channels names none of this layer.
    """
    peaks = maps.reshape(len(maps), -1).max(axis=1)
    chosen = choose_shown(peaks, explain)
    if not chosen:
        return None
    if maps.ndim == 1:
        tiles: Sequence[Tile] = [
            text_tile(f"{maps[channel]:.4g}", (f"channel {channel}",)) for channel in chosen
        ]
        note = "one number a channel"
    else:
        bounds = (float(maps[chosen].min()), float(maps[chosen].max()))
        own = explain.scale == "own"
        tiles = [draw_map(channel, maps[channel], None if own else bounds) for channel in chosen]
        shared = f"one colour scale, {bounds[0]:.4g} to {bounds[1]:.4g}"
        note = "each from its own minimum to its maximum, written below" if own else shared
    shown = explain.shown if isinstance(explain.shown, str) else "chosen"
    blank = Tile(Image.new("RGB", (CHANNEL_SIDE, CHANNEL_SIDE)))
    tiles = [*tiles, *[blank] * (FEWEST - len(tiles))]
    title = f"{name}: {shown} {len(chosen)} of {len(maps)} channels"
    return draw_sheet(tiles, CHANNEL_COLUMNS, CHANNEL_SIDE, title=title, notes=[note])


def draw_map(
    channel: int, values: NDArray[np.floating], bounds: tuple[float, float] | None
) -> Tile:
    """Draw one channel's map; one that is the same everywhere says so in words."""
    low, high = (float(values.min()), float(values.max())) if bounds is None else bounds
    caption = (f"channel {channel}", f"{values.min():.3g} to {values.max():.3g}")
    if high <= low:
        return text_tile("silent" if high == 0 else f"{high:.3g} everywhere", caption)
    scaled = colour((values - low) / (high - low))
    width, height = scaled.size
    factor = CHANNEL_SIDE / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return Tile(scaled.resize(size, Image.Resampling.NEAREST), caption)


def tile_of(image: Image.Image) -> Image.Image:
    """Resize a square to the sheet's tile."""
    smooth = Image.Resampling.BILINEAR if image.width > SIDE // 4 else Image.Resampling.NEAREST
    return image.resize((SIDE, SIDE), smooth)


def stack(sheets: Sequence[Image.Image], background: str = "black") -> Image.Image:
    """Put sheets one below another."""
    size = (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets))
    joined = Image.new("RGB", size, background)
    top = 0
    for sheet in sheets:
        joined.paste(sheet, (0, top))
        top += sheet.height
    return joined


def beside(sheets: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Put named sheets side by side, each below its name."""
    letters = font(NAME_PIXELS)
    above = line_height(letters) + NAME_PIXELS
    width = sum(sheet.width for _, sheet in sheets)
    joined = Image.new("RGB", (width, above + max(sheet.height for _, sheet in sheets)))
    draw = ImageDraw.Draw(joined)
    left = 0
    for name, sheet in sheets:
        shown_name = shorten(name, sheet.width - NAME_PIXELS, letters)
        draw.text(
            (left + NAME_PIXELS // 2, NAME_PIXELS // 2), shown_name, (255, 255, 255), letters
        )
        joined.paste(sheet, (left, above))
        left += sheet.width
    return joined
