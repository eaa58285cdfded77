"""Channel cards, as rows and sheets: what a channel wants to see, what it saw, its numbers."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from operator import itemgetter
from typing import TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnnvis_ray.channels.histograms import NUM_BINS, ZERO_BIN, bin_of, middles, quantile
from cnnvis_ray.channels.tables import histogram_from
from cnnvis_ray.config.explanation import Pictures
from cnnvis_ray.explanation.classes import CLASS, ClassMeans
from cnnvis_ray.explanation.crops import Box, by_unit, find_place
from cnnvis_ray.network import Layer
from cnnvis_ray.pictures import Sheet, Tile, check_background, lay_sheet, text_tile
from cnnvis_ray.pictures.tiles import fit

SIDE = 144  # pixels of a tile
CHANNELS_PER_SHEET = 12
CROPS_PER_CARD = 6  # on a sheet; the table has all
NUM_BARS = 24
INK, ZERO_INK, PAPER, MARK = (94, 201, 98), (128, 128, 128), (24, 24, 24), (253, 231, 37)
LIGHT_INK, LIGHT_PAPER, LIGHT_MARK = (33, 145, 140), (236, 236, 236), (200, 30, 30)
CROP = pa.struct(
    [
        ("key", pa.string()),
        ("value", pa.float32()),
        ("whole_image", pa.bool_()),
        ("crop", pa.binary()),
        # the neuron's place: left, top, right, bottom as shares of the crop
        ("place", pa.list_(pa.float32())),
    ]
)
CARDS = pa.schema(
    [
        ("channel", pa.int32()),
        ("picture", pa.binary()),  # null where the channel was not maximized
        ("picture_activation", pa.float32()),
        ("picture_status", pa.string()),
        ("picture_percentile", pa.float32()),
        ("excited", pa.float32()),  # share of the images whose map maximum is above zero
        ("median", pa.float32()),  # of the images' map maxima, within 4.4 %
        ("top", pa.float32()),  # what 0.5 % of the images' map maxima exceed, within 4.4 %
        ("selectivity", pa.float32()),  # null without labels and for silent channels
        ("classes", pa.list_(CLASS)),
        ("histogram", pa.list_(pa.int64(), NUM_BINS)),  # of the images' map maxima
        ("crops", pa.list_(CROP)),
        ("mean_histogram", pa.list_(pa.int64(), NUM_BINS)),  # of the images' map means
    ]
)


class Class(TypedDict):
    """A class and the channel's mean activation over its images."""

    name: str
    mean: float


class Crop(TypedDict):
    """One exemplar's crop: JPEG, the map maximum of its image, and the neuron's place on it."""

    key: str
    value: float
    whole_image: bool
    crop: bytes
    place: Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Card:
    """One channel: a row of `CARDS`.

    Attributes:
        picture: PNG from maximization; None, as all that starts with it, if not maximized.
        excited: share of images above zero.
        median: of the images' map maxima.
        top: the value that 0.5 % of the images' map maxima exceed.
        selectivity: None without labels and for a silent channel.
        classes: those that excite it most.
        histogram: of the images' map maxima, in the bins of `channels.histograms`.
        crops: of the best images, best first.
        mean_histogram: of the images' map means, which a picture's activation compares with.
    """

    channel: int
    picture: bytes | None
    picture_activation: float | None
    picture_status: str | None
    picture_percentile: float | None
    excited: float
    median: float
    top: float
    selectivity: float | None
    classes: Sequence[Class]
    histogram: NDArray[np.int64]
    crops: Sequence[Crop]
    mean_histogram: NDArray[np.int64]

    @property
    def compares(self) -> bool:
        """Whether the picture's activation and the images' map means are the same number."""
        percentile = self.picture_percentile
        return percentile is not None and not math.isnan(percentile)


def build_cards(
    channels: Sequence[int],
    statistics: pa.Table,
    crops: Iterable[pa.Table],
    pictures: pa.Table | None,
    means: ClassMeans | None,
    layer: Layer,
    side: int,
) -> pa.Table:
    """Bring together what is known of some channels of a layer.

    Args:
        channels: which.
        statistics: the layer's, from `channels.merged_table`.
        crops: shards of `crops.CROPS`.
        pictures: the layer's catalogue, of several pictures of a channel the first is shown;
            None where it was not maximized.
        means: of its classes; None without labels.
        layer: of the channels.
        side: of the network's input, pixels.

    Returns:
        A row of `CARDS` per channel.
    """
    ordered = statistics.sort_by("channel")
    shown = [one for unit in by_unit(ordered, channels).values() for one in unit]
    places = {(one.channel, one.rank): find_place(layer, one, side) for one in shown}
    ranked = rank_crops(crops, places)
    found: dict[int, dict[str, object]] = {}
    if pictures is not None:
        columns = ["channel", "picture", "activation", "status", "percentile"]
        for row in reversed(pictures.select(columns).to_pylist()):
            found[row["channel"]] = row
    histogram = histogram_from(ordered, "peak_histogram")
    mean_histogram = histogram_from(ordered, "histogram")
    median, top = quantile(histogram, 0.5), quantile(histogram, 0.995)
    excited = ordered["peak_excited"].to_numpy()
    selectivity = None if means is None else means.selectivity()
    rows = []
    for channel in channels:
        picture = found.get(channel, {})
        rows.append(
            {
                "channel": channel,
                "picture": picture.get("picture"),
                "picture_activation": picture.get("activation"),
                "picture_status": picture.get("status"),
                "picture_percentile": picture.get("percentile"),
                "excited": excited[channel],
                "median": median[channel],
                "top": top[channel],
                "selectivity": None
                if selectivity is None or np.isnan(selectivity[channel])
                else selectivity[channel],
                "classes": [] if means is None else means.strongest(channel),
                "histogram": histogram[channel],
                "crops": ranked.get(channel, []),
                "mean_histogram": mean_histogram[channel],
            }
        )
    return pa.Table.from_pylist(rows, schema=CARDS)


def rank_crops(
    crops: Iterable[pa.Table], places: Mapping[tuple[int, int], Box | None]
) -> dict[int, list[Crop]]:
    """Return the crops of each channel, best first, with places by channel and rank."""
    ranked: dict[int, list[Crop]] = {}
    rows = (row for table in crops for row in table.to_pylist())
    for row in sorted(rows, key=itemgetter("rank")):
        place = places.get((row["channel"], row["rank"]))
        crop = Crop(
            key=row["key"],
            value=row["value"],
            whole_image=row["whole_image"],
            crop=row["crop"],
            place=None if place is None else share_of(place, row),
        )
        ranked.setdefault(row["channel"], []).append(crop)
    return ranked


def share_of(place: Box, row: Mapping[str, int]) -> list[float]:
    """Return a box of the network's input as shares of a crop, cut at its border."""
    across, down = row["right"] - row["left"], row["bottom"] - row["top"]
    corners = zip(place, ("left", "top") * 2, (across, down) * 2, strict=True)
    return [min(max((value - row[start]) / size, 0), 1) for value, start, size in corners]


def draw_card_sheets(
    table: pa.Table,
    layer: str,
    num_crops: int,
    notes: Sequence[str],
    class_names: Sequence[str],
    look: Pictures,
) -> Iterator[Sheet]:
    """Draw a layer's cards, a row per channel: words, picture, histogram, crops.

    Args:
        table: from `build_cards`.
        layer: for the title, with its network.
        num_crops: on a card, at most `CROPS_PER_CARD`.
        notes: below the title.
        class_names: by channel, of a layer whose channels are classes.
        look: background, and what is drawn on crops.

    Yields:
        Sheets of `CHANNELS_PER_SHEET` cards.
    """
    num_crops = min(num_crops, CROPS_PER_CARD)
    for start in range(0, table.num_rows, CHANNELS_PER_SHEET):
        rows = table.slice(start, CHANNELS_PER_SHEET).to_pylist()
        counts = ("histogram", "mean_histogram")
        cards = [Card(**row | {name: np.array(row[name]) for name in counts}) for row in rows]
        has_pictures = any(card.picture for card in cards)
        tiles = [
            tile
            for card in cards
            for tile in card_tiles(card, num_crops, has_pictures, class_names, look)
        ]
        title = f"{layer}: channels {cards[0].channel} to {cards[-1].channel}"
        columns = len(tiles) // len(cards)
        yield lay_sheet(tiles, columns, SIDE, look.background, title, notes)


def card_tiles(
    card: Card, num_crops: int, has_pictures: bool, class_names: Sequence[str], look: Pictures
) -> list[Tile]:
    """Lay one card out."""
    named = f" {class_names[card.channel]}" if card.channel < len(class_names) else ""
    silent = card.excited == 0
    captions = (f"channel {card.channel}{named}", "never excited" if silent else "")
    tiles = [text_tile(words_of(card), captions)]
    if has_pictures:
        tiles.append(picture_tile(card, look))
    mark = card.picture_activation if card.compares else None
    shown_counts = card.histogram if mark is None else card.mean_histogram
    kind = "map maxima, log scale" if mark is None else "means; line: picture"
    is_light = sum(check_background(look.background)) > 3 * 128
    bars = draw_histogram(shown_counts, mark, is_light)
    tiles.append(Tile(bars, (kind, scale_of(shown_counts))))
    # a maximum of exactly zero is a silent map, whose first place says nothing
    shown = [] if silent else [crop for crop in card.crops[:num_crops] if crop["value"] != 0]
    tiles += [crop_tile(crop, look) for crop in shown]
    missing = "never excited" if silent else "no further image excites it"
    return tiles + [text_tile(missing)] * (num_crops - len(shown))


def words_of(card: Card) -> str:
    """Describe a channel's numbers in few words."""
    parts = [f"excited by {card.excited:.1%} of images;", f"median {card.median:.3g};"]
    parts.append(f"top 0.5 % from {card.top:.3g};")
    if card.selectivity is not None:
        parts.append(f"selectivity {card.selectivity:.2f};")
    if card.classes and card.excited > 0:
        parts.append("most: " + ", ".join(entry["name"] for entry in card.classes))
    return " ".join(parts)


def picture_tile(card: Card, look: Pictures) -> Tile:
    """Show what maximization found, or why there is nothing."""
    if card.picture is None:
        return text_tile("not maximized")
    if card.picture_status == "dead":
        return text_tile("dead")
    rank = str(card.picture_status)
    if card.compares:
        rank = f"above {card.picture_percentile:.1f} %"
    with Image.open(BytesIO(card.picture)) as opened:
        shown = fit(opened.convert("RGB"), pixels_for(look), enlarge=True)
    return Tile(shown, (f"picture mean {card.picture_activation:.3g}", rank))


def pixels_for(look: Pictures) -> int:
    """Return the side of a tile's picture: print has twice the pixels."""
    return 2 * SIDE if look.print else SIDE


def crop_tile(crop: Crop, look: Pictures) -> Tile:
    """Show one crop, enlarged where it is small, with the neuron's place in a box."""
    with Image.open(BytesIO(crop["crop"])) as opened:
        shown = fit(opened.convert("RGB"), pixels_for(look), enlarge=True)
    if crop["place"] and look.crops == "box":
        left, top, right, bottom = crop["place"]
        corners = (left * shown.width, top * shown.height)
        box = (*corners, right * shown.width - 1, bottom * shown.height - 1)
        draw, line = ImageDraw.Draw(shown), pixels_for(look) // 72
        outer = (box[0] - line, box[1] - line, box[2] + line, box[3] + line)
        draw.rectangle(outer, outline="black", width=line)
        draw.rectangle(box, outline=MARK, width=line)
    value = f"maximum {crop['value']:.3g}" + (" whole image" if crop["whole_image"] else "")
    return Tile(shown, (value, crop["key"].rsplit("/", 1)[-1]))


def scale_of(counts: NDArray[np.int64]) -> str:
    """Return what a histogram's axis spans: the geometric middles of its outer bins."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return "no image"
    low, high = middles()[filled[[0, -1]]]
    return f"images {low:.2g} to {high:.2g}"


def draw_histogram(
    counts: NDArray[np.int64], mark: float | None = None, is_light: bool = False
) -> Image.Image:
    """Draw a channel's histogram: filled bins from left to right, the zero bin in grey.

    Args:
        counts: by bin.
        mark: a value that gets a line, and the axis reaches; the picture's.
        is_light: whether the sheet is.
    """
    ink, line, paper = (LIGHT_INK, LIGHT_MARK, LIGHT_PAPER) if is_light else (INK, MARK, PAPER)
    image = Image.new("RGB", (SIDE, SIDE), paper)
    filled = np.flatnonzero(counts)
    if not len(filled):
        return image
    first, last = int(filled[0]), int(filled[-1])
    marked = None if mark is None else int(bin_of(np.array([mark]))[0])
    if marked is not None:
        first, last = min(first, marked), max(last, marked)
    width = -(-(last - first + 1) // NUM_BARS)
    starts = range(first, last + 1, width)
    heights = [int(counts[start : start + width].sum()) for start in starts]
    draw = ImageDraw.Draw(image)
    step = SIDE / len(heights)
    for index, (start, height) in enumerate(zip(starts, heights, strict=True)):
        left, right = round(index * step), round((index + 1) * step) - 2
        top = min(SIDE - round((SIDE - 8) * height / max(heights)), SIDE - 1)
        holds_zero = start <= ZERO_BIN < start + width
        box = (left, top, max(left, right), SIDE - 1)
        if height:
            draw.rectangle(box, fill=ZERO_INK if holds_zero else ink)
        if marked is not None and start <= marked < start + width:
            middle = (left + right) // 2
            draw.rectangle((middle - 1, 0, middle + 1, SIDE - 1), fill=line)
    return image
