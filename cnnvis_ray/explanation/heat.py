"""Heat maps: small, in [0, 1], how they look on an image, and their means by class."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from cnnvis_ray.config.explanation import Pictures
from cnnvis_ray.network import Preprocess
from cnnvis_ray.pictures import Sheet, Tile, columns_of, lay_sheet
from cnnvis_ray.pictures.tiles import read_thumbnail

SIDE = 160  # pixels of a class's tile
CLASSES_PER_SHEET = 24
BACKDROPS = 8  # images whose mean stands behind a class's map


def heat_schema(side: int) -> pa.Schema:
    """Return the schema of heat maps, a row per image and method; the same in empty shards.

    ``map`` is row by row, in [0, 1]; raw values are low + map * (high - low). ``deletion`` and
    ``insertion`` are areas, null where no curve was asked; those of method ``random`` have no map.
    """
    return pa.schema(
        [
            ("image_id", pa.int64()),
            ("key", pa.string()),
            ("method", pa.string()),
            ("target", pa.int32()),
            ("name", pa.string()),
            ("score", pa.float32()),
            ("low", pa.float32()),
            ("high", pa.float32()),
            ("map", pa.list_(pa.field("item", pa.float16()), side * side)),
            ("deletion", pa.float32()),
            ("insertion", pa.float32()),
        ],
        metadata={"side": str(side)},
    )


CLASS_MAPS = pa.schema(
    [
        ("label", pa.string()),
        ("method", pa.string()),
        ("images", pa.int64()),
        ("map", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, slots=True)
class Heat:
    """One heat map, ``side side`` in [0, 1]; raw values are low + map * (high - low)."""

    map: NDArray[np.float64]
    low: float
    high: float

    @property
    def is_flat(self) -> bool:
        """Whether nothing stands out, so that the map says nothing."""
        return not self.high > self.low


def shrink(heat: NDArray[np.floating], side: int) -> Heat:
    """Average a map over a coarser grid and scale it to [0, 1]; a flat map becomes zero."""
    exact = torch.from_numpy(np.asarray(heat, np.float64))[None, None]
    pooled = torch.nn.functional.adaptive_avg_pool2d(exact, min(side, heat.shape[0]))[0, 0].numpy()
    low, high = float(pooled.min()), float(pooled.max())
    gap = high - low
    return Heat((pooled - low) / gap if gap > 0 else np.zeros_like(pooled), low, high)


def enlarge(heat: NDArray[np.floating], side: int) -> NDArray[np.float64]:
    """Resize a map to an image's side; values stay in [0, 1]."""
    image = Image.fromarray(np.asarray(heat, np.float32))
    resized = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float64)
    return np.clip(resized, 0, 1)


def multiply(pixels: NDArray[np.uint8], heat: NDArray[np.floating]) -> Image.Image:
    """Multiply a map onto an image ``height width colour``: what is not hot goes dark."""
    mask = enlarge(heat, pixels.shape[0])[:, :, None]
    return to_image((pixels * mask).astype(np.uint8))


def colour(values: NDArray[np.floating], name: str = "viridis") -> Image.Image:
    """Show values in [0, 1] in matplotlib's colours of that name."""
    return Image.fromarray(colormaps[name](values, bytes=True)[..., :3])


def to_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Make an RGB image of pixels ``height width 1`` or ``height width 3``."""
    plane = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(plane)).convert("RGB")


@dataclass(slots=True)
class Mean:
    """A running mean of maps, and the first image ids of a class."""

    total: NDArray[np.float64]
    count: int = 0
    images: list[int] = field(default_factory=list)


@dataclass(slots=True)
class HeatSummary:
    """Heat maps of all images, averaged.

    Attributes:
        means: by method and class.
        areas: by method, areas under deletion and insertion of each image measured.
    """

    means: dict[tuple[str, str], Mean] = field(default_factory=dict)
    areas: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Methods that have a map, by name."""
        return sorted({method for method, _ in self.means})

    def fidelity(self) -> dict[str, dict[str, float]]:
        """Average the areas of each method over its images."""
        averaged = {}
        for method, pairs in self.areas.items():
            deletion, insertion = np.mean(pairs, axis=0)
            averaged[method] = {
                "images": len(pairs),
                "deletion": round(float(deletion), 4),
                "insertion": round(float(insertion), 4),
            }
        return averaged

    def table(self) -> pa.Table:
        """Lay the mean maps out as rows of `CLASS_MAPS`."""
        rows = [
            {
                "label": label,
                "method": method,
                "images": mean.count,
                "map": (mean.total / mean.count).ravel(),
            }
            for (method, label), mean in sorted(self.means.items())
        ]
        return pa.Table.from_pylist(rows, schema=CLASS_MAPS)


def summarize_heat(
    shards: Iterable[pa.Table], label_of: Callable[[str], str | None]
) -> HeatSummary:
    """Average maps by class, and collect the areas under deletion and insertion.

    Args:
        shards: of `heat_schema`, read one at a time.
        label_of: image key -> label; an image without one counts for what the network calls it.
    """
    summary = HeatSummary()
    for table in shards:
        side = int(table.schema.metadata[b"side"])
        kept = table.filter(pc.greater(table["high"], table["low"]))  # flat maps say nothing
        maps = kept["map"].combine_chunks().flatten().to_numpy().reshape(-1, side, side)
        rows = kept.select(["image_id", "key", "method", "name"]).to_pylist()
        for row, values in zip(rows, maps, strict=True):
            key = (row["method"], label_of(row["key"]) or row["name"])
            mean = summary.means.setdefault(key, Mean(np.zeros((side, side))))
            mean.total += values
            mean.count += 1
            if len(mean.images) < BACKDROPS:
                mean.images.append(row["image_id"])
        measured = table.filter(table["deletion"].is_valid())
        for row in measured.select(["method", "deletion", "insertion"]).to_pylist():
            areas = summary.areas.setdefault(row["method"], [])
            areas.append((row["deletion"], row["insertion"]))
    return summary


def draw_class_heat(
    summary: HeatSummary,
    method: str,
    read_thumbnails: Callable[[set[int]], Mapping[int, bytes]],
    preprocess: Preprocess,
    look: Pictures,
) -> Sheet:
    """Draw one method's mean maps, the classes with most images first.

    Args:
        summary: of all shards.
        method: one of its methods.
        read_thumbnails: image ids -> their thumbnails, for the means behind the maps.
        preprocess: of the network, whose cut the thumbnails get.
        look: background, columns and colours.
    """
    colours = "viridis" if look.heat == "auto" else look.heat
    own = [(label, mean) for (name, label), mean in summary.means.items() if name == method]
    shown = sorted(own, key=lambda pair: (-pair[1].count, pair[0]))[:CLASSES_PER_SHEET]
    thumbnails = read_thumbnails({image for _, mean in shown for image in mean.images})
    tiles = []
    for label, mean in shown:
        heat = mean.total / mean.count
        counted = f"{mean.count} image" + ("s" if mean.count > 1 else "")
        tiles.append(Tile(colour(enlarge(heat, SIDE), colours), (label, counted)))
        backdrop = mean_image([thumbnails[image] for image in mean.images], preprocess)
        gap = float(heat.max() - heat.min())  # means are paler than maps
        stretched = (heat - heat.min()) / gap if gap > 0 else heat
        tiles.append(Tile(multiply(backdrop, stretched), (label, "x their mean")))
    notes = [
        f"{method.replace('_', ' ')}, averaged over the images of a class, each map from its own "
        f"lowest to its highest value; colours: {colours}"
    ]
    if len(own) > len(shown):
        notes.append(f"the {len(shown)} largest of {len(own)} classes")
    title = "Where the network looks, by class"
    columns = columns_of(look, "classes") or len(tiles)
    return lay_sheet(tiles, columns, SIDE, look.background, title, notes)


def draw_examples(examples: Mapping[str, bytes], look: Pictures) -> Sheet:
    """Draw one image of each class, by label -> thumbnail."""
    tiles = [Tile(read_thumbnail(data, SIDE), (label,)) for label, data in examples.items()]
    columns = columns_of(look, "examples") or len(tiles)
    return lay_sheet(tiles, columns, SIDE, look.background, "One image of each class")


def mean_image(thumbnails: Sequence[bytes], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Average some images' thumbnails, cut as the network's input is."""
    resize = max(SIDE, round(SIDE * preprocess.resize / preprocess.crop))
    scaled = replace(preprocess, resize=resize, crop=SIDE)
    images = [scaled.fit(read_thumbnail(data, resize)) for data in thumbnails]
    return np.asarray(np.mean(images, axis=0).astype(np.uint8))
