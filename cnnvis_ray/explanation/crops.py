"""Crops: exactly what the neuron at a channel's maximum can see, cut at the image's border."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from cnnvis_ray.config import Channels, parse_range
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.explanation.heat import enlarge, to_image
from cnnvis_ray.ledger.units import SLOTS
from cnnvis_ray.network import Layer, Preprocess

Box = tuple[float, float, float, float]
LONGEST = 160  # pixels of a stored crop: larger than a card's tile at 100 %
QUALITY = 90
DARKER = 4  # what a masked pixel is divided by
CROPS = pa.schema(
    [
        ("channel", pa.int32()),
        ("rank", pa.int32()),
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("value", pa.float32()),
        ("left", pa.int32()),  # pixels of the network's input
        ("top", pa.int32()),
        ("right", pa.int32()),
        ("bottom", pa.int32()),
        ("source_left", pa.float32()),  # pixels of the source image, upright
        ("source_top", pa.float32()),
        ("source_right", pa.float32()),
        ("source_bottom", pa.float32()),
        ("whole_image", pa.bool_()),
        ("crop", pa.binary()),  # JPEG
    ]
)


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One crop: the channel's image of that rank, and the place of its maximum."""

    channel: int
    rank: int
    image_id: int
    key: str
    value: float
    y: int
    x: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """One image as the network takes it, ``height width colour``, and its size before."""

    pixels: NDArray[np.uint8]
    width: int
    height: int


def chosen_channels(asked: Channels, num_channels: int, layer: str) -> list[int]:
    """Choose the channels that get a card: all, a range, or a list.

    Those that a layer lacks are left out, since layers of different width share the section.

    Raises:
        RefusedError: none is left.
    """
    if asked == "all":
        return list(range(num_channels))
    if isinstance(asked, str):
        try:
            chosen = [channel for channel in parse_range(asked) if channel < num_channels]
        except ValueError as fault:
            raise RefusedError(f"explain.channels: {fault}") from None
    else:
        chosen = sorted({channel for channel in asked if channel < num_channels})
    if not chosen:
        raise RefusedError(
            f"explain.channels: {asked} names no channel of {layer} ({num_channels} channels); "
            f'use "0:{min(num_channels, 16)}" up to "0:{num_channels}", a list, or all'
        )
    return chosen


def by_unit(statistics: pa.Table, channels: Sequence[int]) -> dict[int, list[Exemplar]]:
    """Sort the exemplars of some channels by the unit that their image is of.

    Args:
        statistics: a layer's, from `channels.merged_table`, a row per channel in order.
        channels: which.
    """
    units: dict[int, list[Exemplar]] = {}
    entries = statistics["exemplars"].take(channels).to_pylist()
    for channel, ranked in zip(channels, entries, strict=True):
        for rank, entry in enumerate(ranked):
            exemplar = Exemplar(channel, rank, **entry)
            units.setdefault(exemplar.image_id // SLOTS, []).append(exemplar)
    return units


def find_place(layer: Layer, exemplar: Exemplar, side: int) -> Box | None:
    """Return where a neuron lies: its cell of the map, in the middle of what it sees.

    Args:
        layer: the neuron's.
        exemplar: its row and column of the map.
        side: of the network's input, pixels.

    Returns:
        Left, top, right, bottom in the network's input, cut at its border; None for a vector, and
        for tokens that see the whole image.
    """
    sides = []
    for place, places, name in (
        (exemplar.x, layer.width, "width"),
        (exemplar.y, layer.height, "height"),
    ):
        if layer.field is not None:
            axis = getattr(layer.field, name)
            jump, middle = axis.jump, axis.start + place * axis.jump + axis.size / 2
        elif (places or 1) > 1:
            jump = side / (places or 1)
            middle = (place + 0.5) * jump
        else:
            return None
        first, last = middle - jump / 2, middle + jump / 2
        sides.append((min(max(first, 0), side - 1), max(min(last, side), 1)))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def darken(
    pixels: NDArray[np.uint8], values: NDArray[np.floating], peak: float
) -> NDArray[np.uint8]:
    """Darken an image ``height width colour`` where a channel is below half of its maximum.

    Args:
        pixels: the network's input.
        values: the channel's map ``height width``, resized to the image as in network dissection
            (Bau et al. 2017, arXiv:1704.05796).
        peak: its maximum.
    """
    if values.ndim < 2 or peak <= 0:
        return pixels
    bright = enlarge(values / peak, pixels.shape[0]) >= 0.5
    return np.where(bright[:, :, None], pixels, pixels // DARKER).astype(np.uint8)


def crop_row(
    exemplar: Exemplar, layer: Layer, fitted: Fitted, preprocess: Preprocess
) -> dict[str, object]:
    """Return a row of `CROPS`: the crop, and its box in the network's input and in the source."""
    left, top, right, bottom = layer.crop(exemplar.y, exemplar.x, preprocess.crop)
    source = source_box((left, top, right, bottom), preprocess, fitted.width, fitted.height)
    return {
        **asdict(exemplar),
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
        **dict(zip(SOURCE, source, strict=True)),
        "whole_image": (left, top, right, bottom) == (0, 0, preprocess.crop, preprocess.crop),
        "crop": encode(to_image(fitted.pixels[top:bottom, left:right])),
    }


SOURCE = ("source_left", "source_top", "source_right", "source_bottom")


def source_box(box: Box, preprocess: Preprocess, width: int, height: int) -> Box:
    """Carry a box from the network's input back to the source image.

    Args:
        box: left, top, right, bottom in the input.
        preprocess: how the image was resized and cropped.
        width: of the source image, pixels.
        height: of the source image, pixels.

    Returns:
        The box in pixels of the source image, cut at its border.
    """
    shorter = min(width, height)
    resized = (int(preprocess.resize * width / shorter), int(preprocess.resize * height / shorter))
    sides = []
    for axis, length in enumerate((width, height)):
        margin = crop_start(resized[axis], preprocess.crop)
        first, last = box[axis] + margin, box[axis + 2] + margin
        scale = length / resized[axis]
        sides.append((min(max(first * scale, 0), length), min(max(last * scale, 0), length)))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def crop_start(length: int, crop: int) -> int:
    """Return where the central crop starts on one axis; negative where borders were added."""
    return -((crop - length) // 2) if length < crop else round((length - crop) / 2.0)


def encode(image: Image.Image) -> bytes:
    """Encode a crop as JPEG without thinning its colours out, shrunk if it is large."""
    if max(image.size) > LONGEST:
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
