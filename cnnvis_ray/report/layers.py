"""A layer's channels: what each wants to see, what it saw, its numbers and its neighbours."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnvis_ray.channels.histograms import NUM_BINS, middles
from cnnvis_ray.ledger import Run
from cnnvis_ray.ledger.reading import read_features, read_shape
from cnnvis_ray.report.catalogue import Catalogue
from cnnvis_ray.report.images import decode, jpeg, square, write_sheets
from cnnvis_ray.report.pieces import pack, short, shorts, slug, write_piece
from cnnvis_ray.storage import ShardFile, Store, read_table

PER_PIECE = 16  # channels whose details are one file
PICTURE, PICTURE_COLUMNS = 96, 16
CROP, CROP_COLUMNS, CROPS = 64, 16, 4  # on a layer's page; a channel's own page has all
LONGEST_PICTURE = 512  # pixels of a picture on a channel's page
BARS = 32
SIMILAR, CLASSES, INPUTS = 8, 6, 12
STRONGEST = 12  # channels kept for an image: six are shown after division by their spread
FACTS = (
    ("mean", "mean", False),
    ("peak_maximum", "largest value", False),
    ("excited", "excited by", True),
    ("sparsity", "sparsity", False),
    ("selectivity", "selectivity", False),
    ("strongest", "leads in", True),
)
NUMBERS = ("mean", "maximum", "peak_maximum", "excited", "sparsity", "strongest")

Floats = NDArray[np.float64]
Inputs = tuple[str, NDArray[np.floating]]
"""The layer that feeds a layer, and the norm of each kernel, ``channel input``."""


class Exemplar(TypedDict):
    """One of a channel's best images, as the statistics name it."""

    image_id: int
    value: float
    y: int
    x: int


class PictureRow(TypedDict):
    """One row of a catalogue of pictures."""

    channel: int
    picture: bytes
    status: str
    activation: float
    start_activation: float
    percentile: float | None
    best_image: float | None
    note: str
    curve: list[float] | None


class Crop(TypedDict):
    """One crop: the image's number, the box in its pixels, and what it shows."""

    image: int
    value: float | None
    box: list[float | None]
    whole: bool
    jpeg: str


Spot = dict[str, float | None]
"""An exemplar without a crop: image, value, and the maximum's place as a share of the input."""


@dataclass(slots=True)
class Responses:
    """Sums over the images of a layer's features, one value per channel."""

    count: int
    total: Floats
    products: Floats
    by_class: Floats
    images: NDArray[np.int64]

    def similarity(self) -> Floats:
        """Return the correlation of every two channels over the images; 0 for constant ones."""
        mean = self.total / max(self.count, 1)
        covariance = self.products / max(self.count, 1) - np.outer(mean, mean)
        spread = np.sqrt(np.maximum(np.diag(covariance), 0))
        spread[spread < 1e-6 * np.abs(mean)] = 0
        scale = np.outer(spread, spread)
        found = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
        return np.asarray(found)

    def scores(self) -> Floats:
        """Return by how many spreads each class lies above the mean, ``class channel``."""
        mean = self.total / max(self.count, 1)
        spread = np.sqrt(np.maximum(np.diag(self.products) / max(self.count, 1) - mean**2, 0))
        means = self.by_class / np.maximum(self.images, 1)[:, None]
        return np.divide(means - mean, spread, out=np.zeros_like(means), where=spread > 0)


def channel_values(
    features: NDArray[np.floating], pooling: str, shape: Sequence[int]
) -> NDArray[np.float32] | None:
    """Return one value per channel of pooled features, ``image channel``; None for a sketch."""
    if pooling.startswith("sketch"):
        return None
    values = features.astype(np.float32)
    return np.asarray(values.reshape(len(values), shape[0], -1).mean(axis=2))


def measure(run: Run, catalogue: Catalogue, layer: str) -> Responses | None:
    """Add up a layer's features, shard by shard; None where channels are not apart in them."""
    found: Responses | None = None
    words = catalogue.words()
    for file in run.files("extract", f"features/{layer}"):
        pooling, shape = read_shape(run.store, file.path)
        ids, features = read_features(run.store, file.path)
        values = channel_values(features, pooling, shape)
        if values is None:
            return None
        index = catalogue.index_of(ids)
        values, index = values[index >= 0].astype(np.float64), index[index >= 0]
        width = values.shape[1]
        if found is None:
            classes = len(catalogue.classes)
            found = Responses(
                0,
                np.zeros(width),
                np.zeros((width, width)),
                np.zeros((classes, width)),
                np.zeros(classes, np.int64),
            )
        found.count += len(values)
        found.total += values.sum(axis=0)
        found.products += values.T @ values
        called = words[index]
        np.add.at(found.by_class, called[called >= 0], values[called >= 0])
        found.images += np.bincount(called[called >= 0], minlength=len(catalogue.classes))
    return found if found is not None and found.count else None


def make_layer(
    run: Run, catalogue: Catalogue, layer: str, inputs: Mapping[str, Inputs]
) -> list[ShardFile]:
    """Write one layer's table of channels, their details, pictures and crops.

    Args:
        run: the run.
        catalogue: the shown images.
        layer: a layer with statistics.
        inputs: kernel norms by layer, where they are known.
    """
    statistics = run.statistics(layer).sort_by("channel")
    number = statistics.num_rows
    pictures = read_pictures(run, layer)
    crops = read_crops(run, catalogue, layer)
    responses = measure(run, catalogue, layer)
    if responses is not None and len(responses.total) != number:
        responses = None
    means = responses.scores() if responses is not None else None
    rows = [pictures.get(channel) for channel in range(number)]
    numbers = {
        name: shorts(statistics[name].to_numpy())
        for name in NUMBERS
        if name in statistics.column_names
    }
    numbers["percentile"] = [short(row["percentile"]) if row else None for row in rows]
    numbers |= read_selectivity(run, layer, number)
    table = {
        "count": number,
        "numbers": numbers,
        "spread": shorts(np.sqrt(statistics["variance"].to_numpy())),
        "classes": None if means is None else best_classes(means, responses),
        "picture": orders(pictures, number),
        "status": [row["status"] if row else None for row in rows],
        "crops": orders(crops, number),
        "best": best_images(catalogue, statistics["exemplars"].to_pylist()),
    }
    name = slug(layer)
    store = run.store
    files = [write_piece(store, f"layers/{name}", table)]
    tiles = [square(decode(pictures[channel]["picture"]), PICTURE) for channel in sorted(pictures)]
    files.extend(
        write_sheets(store, f"sheets/pictures/{name}", tiles, PICTURE, PICTURE_COLUMNS, 80)
    )
    files.extend(write_crops(store, name, crops))
    joined = joined_details(run, catalogue, layer, (pictures, crops, responses))
    for channel, detail in enumerate(joined):
        detail["facts"] = describe_channel(numbers, channel, rows[channel])
        if layer in inputs and channel < len(inputs[layer][1]):
            detail["inputs"] = strongest_inputs(inputs[layer], channel)
    for start in range(0, number, PER_PIECE):
        value = joined[start : start + PER_PIECE]
        files.append(write_piece(store, f"channels/{name}/{start // PER_PIECE:04d}", value))
    if means is not None and responses is not None:
        files.append(write_piece(store, f"classes/{name}", class_channels(means, responses)))
    return files


def orders(found: Mapping[int, object], number: int) -> list[int]:
    """Return each channel's place on the sheets of those that have any; -1 for the others."""
    place = {channel: order for order, channel in enumerate(sorted(found))}
    return [place.get(channel, -1) for channel in range(number)]


def describe_channel(
    numbers: Mapping[str, list[float | None]], channel: int, picture: PictureRow | None
) -> list[list[str]]:
    """Return the figures of a channel as terms and texts; what is not known is left out."""
    shown: list[tuple[str, float | None, bool]] = []
    if picture:
        percentile = picture["percentile"]
        above = None if percentile is None else percentile / 100
        shown = [
            ("picture", picture["activation"], False),
            ("above images", above, True),
            ("best image", picture["best_image"], False),
        ]
    for name, term, is_share in FACTS:
        shown.append((term, numbers[name][channel] if name in numbers else None, is_share))
    return [
        [term, f"{value:.1%}".replace("%", " %") if is_share else f"{value:.3g}"]
        for term, value, is_share in shown
        if value is not None
    ]


def strongest_inputs(inputs: Inputs, channel: int) -> list[object]:
    """Return the layer before and its channels with the largest kernels into one channel."""
    before, norms = inputs
    order = np.argsort(-norms[channel], kind="stable")[:INPUTS]
    return [before, [[int(place), short(float(norms[channel][place]))] for place in order]]


def best_classes(means: Floats, responses: Responses | None) -> list[int | None]:
    """Return the class that excites each channel most, of those with two images or more."""
    assert responses is not None
    known = np.flatnonzero(responses.images >= 2)
    if not len(known):
        return [None] * means.shape[1]
    best, above = known[means[known].argmax(axis=0)], means[known].max(axis=0) > 0
    return [int(place) if excited else None for place, excited in zip(best, above, strict=True)]


def class_channels(means: Floats, responses: Responses) -> dict[str, list[list[float | None]]]:
    """Return each class's channels: those furthest above their mean, in spreads."""
    found = {}
    for label in np.flatnonzero(responses.images).tolist():
        order = np.argsort(-means[label], kind="stable")[:CLASSES]
        found[str(label)] = [[int(place), short(float(means[label][place]))] for place in order]
    return found


def joined_details(
    run: Run,
    catalogue: Catalogue,
    layer: str,
    known: tuple[dict[int, PictureRow], dict[int, list[Crop]], Responses | None],
) -> list[dict[str, object]]:
    """Bring together the details of each channel, by channel."""
    pictures, crops, responses = known
    statistics = run.statistics(layer).sort_by("channel")
    histogram = statistics["peak_histogram"].combine_chunks().flatten().to_numpy()
    bars = [bars_of(counts) for counts in histogram.reshape(-1, NUM_BINS)]
    similar = None if responses is None else responses.similarity()
    means = None if responses is None else responses.scores()
    files = run.files("extract", f"features/{layer}")
    shape = read_shape(run.store, files[0].path)[1] if files else []
    details = []
    for channel, found in enumerate(statistics["exemplars"].to_pylist()):
        detail: dict[str, object] = {
            "bars": bars[channel],
            "seen": crops.get(channel) or exemplars(catalogue, found, shape),
        }
        if channel in pictures:
            detail["picture"] = describe_picture(pictures[channel])
        if similar is not None and means is not None and responses is not None:
            detail["similar"] = nearest_channels(similar[channel], channel)
            seen = np.where(responses.images >= 2, means[:, channel], -np.inf)
            order = np.argsort(-seen, kind="stable")[:CLASSES]
            pairs = [(int(place), float(seen[place])) for place in order]
            detail["classes"] = [[name, short(score)] for name, score in pairs if score > 0]
        details.append(detail)
    return details


def best_images(catalogue: Catalogue, found: list[list[Exemplar]]) -> list[int | None]:
    """Return each channel's strongest image that is shown; None for a silent channel."""
    best: list[int | None] = []
    for rows in found:
        ids = np.array([row["image_id"] for row in rows if row["value"] != 0], np.int64)
        shown = [index for index in catalogue.index_of(ids).tolist() if index >= 0]
        best.append(shown[0] if shown else None)
    return best


def nearest_channels(similar: Floats, channel: int) -> list[list[float | None]]:
    """Return the channels that answer most alike, and their correlation."""
    order = [int(place) for place in np.argsort(-similar, kind="stable") if place != channel]
    pairs = [(place, float(similar[place])) for place in order[:SIMILAR]]
    return [[place, short(value)] for place, value in pairs if value > 0.05]


def bars_of(counts: NDArray[np.int64]) -> list[object]:
    """Sum a histogram's filled bins to a few bars: lower value of the bins, width, counts."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return [None, None, []]
    first, last = int(filled[0]), int(filled[-1])
    width = -(-(last - first + 1) // BARS)
    starts = range(first, last + 1, width)
    heights = [int(counts[start : start + width].sum()) for start in starts]
    values = [float(middles()[min(start, NUM_BINS - 1)]) for start in (*starts, last)]
    return [[short(value) for value in values[:-1]], short(values[-1]), heights]


def exemplars(catalogue: Catalogue, found: list[Exemplar], shape: Sequence[int]) -> list[Spot]:
    """Return image, value and the place of the maximum as a share of the network's input."""
    ids = np.array([row["image_id"] for row in found], np.int64)
    rows: list[Spot] = []
    for row, index in zip(found, catalogue.index_of(ids).tolist(), strict=True):
        if index < 0 or row["value"] == 0:
            continue  # a maximum of exactly zero is a silent map
        spot: Spot = {"image": index, "value": short(row["value"])}
        if len(shape) == 3:
            spot["x"] = short((row["x"] + 0.5) / shape[2])
            spot["y"] = short((row["y"] + 0.5) / shape[1])
        rows.append(spot)
    return rows


def read_pictures(run: Run, layer: str) -> dict[int, PictureRow]:
    """Read the first picture of each channel, of the first catalogue that has the layer."""
    for name in sorted(
        run.store.names("maximization"), key=lambda name: (name != "default", name)
    ):
        path = f"maximization/{name}/{layer}.parquet"
        if run.store.exists(path):
            rows = read_table(run.store, path).sort_by("channel").to_pylist()
            return {row["channel"]: row for row in reversed(rows)}
    return {}


def describe_picture(row: PictureRow) -> dict[str, object]:
    """Return one picture with its status, its note and its curve."""
    image = decode(row["picture"])
    image.thumbnail((LONGEST_PICTURE, LONGEST_PICTURE))
    return {
        "jpeg": base64.b64encode(jpeg(image, 88)).decode(),
        "status": row["status"],
        "note": row["note"],
        "curve": [short(value) for value in thin(row["curve"] or [])],
    }


def thin(values: Sequence[float], most: int = 96) -> list[float]:
    """Keep at most so many values, evenly spread, with both ends."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def read_crops(run: Run, catalogue: Catalogue, layer: str) -> dict[int, list[Crop]]:
    """Read a layer's crops by channel, best first, with their boxes as shares of the image."""
    found: dict[int, list[tuple[int, Crop]]] = {}
    for file in run.files("crops", f"explanation/crops/{layer}"):
        table = read_table(run.store, file.path)
        index = catalogue.index_of(table["image_id"].to_numpy()).tolist()
        for row, image in zip(table.to_pylist(), index, strict=True):
            if row["value"] == 0 or image < 0:
                continue
            sides = ("source_left", "source_top", "source_right", "source_bottom")
            crop: Crop = {
                "image": image,
                "value": short(row["value"]),
                "box": [short(row[side]) for side in sides],
                "whole": row["whole_image"],
                "jpeg": base64.b64encode(row["crop"]).decode(),
            }
            found.setdefault(row["channel"], []).append((row["rank"], crop))
    ordered = {channel: sorted(rows, key=lambda pair: pair[0]) for channel, rows in found.items()}
    return {channel: [crop for _, crop in rows] for channel, rows in ordered.items()}


def write_crops(store: Store, name: str, crops: Mapping[int, Sequence[Crop]]) -> list[ShardFile]:
    """Write sheets of the best crops, four of a channel beside one another."""
    empty = Image.new("RGB", (CROP, CROP), (128,) * 3)
    tiles = []
    for channel in sorted(crops):
        best = [
            square(decode(base64.b64decode(crop["jpeg"])), CROP) for crop in crops[channel][:CROPS]
        ]
        tiles.extend(best + [empty] * (CROPS - len(best)))
    return write_sheets(store, f"sheets/crops/{name}", tiles, CROP, CROP_COLUMNS, 70)


def read_selectivity(run: Run, layer: str, number: int) -> dict[str, list[float | None]]:
    """Read the channels' selectivity where the run has measured it."""
    path = f"explanation/selectivity/{layer}.parquet"
    if not run.store.exists(path):
        return {}
    table = read_table(run.store, path, ["channel", "selectivity"])
    values = dict(zip(table["channel"].to_pylist(), table["selectivity"].to_pylist(), strict=True))
    return {"selectivity": [short(values.get(channel)) for channel in range(number)]}


def make_strongest(store: Store, layer: str, unit: str, path: str, ids: object) -> list[ShardFile]:
    """Write the strongest channels of each image of a unit; nothing of a sketch."""
    pooling, shape = read_shape(store, path)
    images, features = read_features(store, path)
    values = channel_values(features, pooling, shape)
    if values is None:
        return []
    order = np.argsort(images, kind="stable")
    images, values = images[order], values[order]
    if isinstance(ids, tuple):
        kept = np.isin(images, np.array(ids, np.int64))
        values = values[kept]
    best = np.argsort(-values, axis=1, kind="stable")[:, :STRONGEST]
    value = {
        "width": best.shape[1],
        "channel": pack(best, "u2"),
        "value": pack(np.take_along_axis(values, best, axis=1), "f4"),
    }
    return [write_piece(store, f"strongest/{slug(layer)}/{unit}", value)]
