"""What a run may have beyond rows, maps and channels: heat, neighbours, mosaics and rejects."""

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from cnnvis_ray.ledger import Run
from cnnvis_ray.ledger.units import SLOTS
from cnnvis_ray.report.catalogue import Catalogue
from cnnvis_ray.report.images import decode, jpeg
from cnnvis_ray.report.pieces import FOLDER, pack, short, slug, write_piece
from cnnvis_ray.storage import ShardFile, read_table, write_bytes

NEIGHBOURS = 8  # on an image's page, of the twelve that a run may keep
SMALL_IMAGES, SMALL_NUMBERS = 5000, 200_000_000  # exact neighbours up to here: a few seconds
DEEP_TILE = 512
PREVIEW = 1200  # pixels of a mosaic's longer side on the overview
REJECTS = 10_000
INFERNO = [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)]
"""Five stops of matplotlib's inferno, readable by the colour blind."""


def heat_png(values: NDArray[np.float32]) -> str:
    """Draw values in [0, 1] in colours, a pixel each, as base64 of a PNG with a palette."""
    image = Image.fromarray((values.clip(0, 1) * 255).astype(np.uint8), "P")
    stops = np.array(INFERNO)
    shades = [
        np.interp(np.arange(256) / 255 * (len(stops) - 1), np.arange(len(stops)), stops[:, i])
        for i in range(3)
    ]
    image.putpalette(np.rint(np.stack(shades, axis=1)).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def make_heat(run: Run, catalogue: Catalogue) -> list[ShardFile]:
    """Write the heat maps of explained images by work unit, and the classes' mean maps."""
    units: dict[int, dict[int, list[dict[str, object]]]] = {}
    for file in run.files("explain", "explanation/heat"):
        table = read_table(run.store, file.path)
        side = int(table.schema.metadata[b"side"])
        table = table.filter(pc.greater(table["high"], table["low"]))
        index = catalogue.index_of(table["image_id"].to_numpy()).tolist()
        for row, image in zip(table.to_pylist(), index, strict=True):
            if image < 0:
                continue
            found = {
                "method": row["method"],
                "name": row["name"],
                "score": short(row["score"]),
                "png": heat_png(np.array(row["map"], np.float32).reshape(side, side)),
            }
            own = units.setdefault(row["image_id"] // SLOTS, {})
            own.setdefault(image, []).append(found)
    files = [
        write_piece(run.store, f"heat/{number:06d}", images) for number, images in units.items()
    ]
    path = "explanation/classes.parquet"
    if run.store.exists(path):
        files.append(write_piece(run.store, "classheat", class_heat(run, catalogue, path)))
    return files


def class_heat(run: Run, catalogue: Catalogue, path: str) -> dict[str, object]:
    """Return mean maps by class and method, stretched to their range."""
    number = {name: index for index, name in enumerate(catalogue.classes)}
    found: dict[str, list[dict[str, object]]] = {}
    for row in read_table(run.store, path).to_pylist():
        if row["label"] not in number:
            continue
        heat = np.array(row["map"], np.float32)
        span = float(heat.max() - heat.min()) or 1.0
        side = round(len(heat) ** 0.5)
        drawn = heat_png(((heat - heat.min()) / span).reshape(side, side))
        found.setdefault(str(number[row["label"]]), []).append(
            {"method": row["method"], "images": row["images"], "png": drawn}
        )
    return dict(found)


def explained_images(run: Run, catalogue: Catalogue) -> list[int]:
    """List the images that have heat maps, by number."""
    ids: set[int] = set()
    for file in run.files("explain", "explanation/heat"):
        ids.update(read_table(run.store, file.path, ["image_id"])["image_id"].to_pylist())
    index = catalogue.index_of(np.array(sorted(ids), np.int64))
    return [int(image) for image in index if image >= 0]


def has_neighbours(run: Run, catalogue: Catalogue, layer: str) -> bool:
    """Return whether a layer's neighbours are stored, or found in a few seconds."""
    if run.store.names(f"neighbours/{layer}"):
        return True
    files = run.files("extract", f"features/{layer}")
    if not files or not 1 < len(catalogue.image_id) <= SMALL_IMAGES:
        return False
    return feature_width(run, files[0].path) * len(catalogue.image_id) <= SMALL_NUMBERS


def feature_width(run: Run, path: str) -> int:
    """Return how many numbers a feature has."""
    with run.store.open(path) as file:
        return int(pq.read_schema(file).field("feature").type.list_size)


def make_neighbours(run: Run, catalogue: Catalogue, layer: str) -> list[ShardFile]:
    """Write each image's nearest images in a layer, a file per work unit."""
    nearest = stored_neighbours(run, catalogue, layer)
    if nearest is None:
        nearest = exact_neighbours(run, catalogue, layer)
    files = []
    for unit in catalogue.units:
        own = nearest[unit.first : unit.first + unit.rows]
        value = {"width": own.shape[1], "images": pack(own, "i4")}
        files.append(write_piece(run.store, f"neighbours/{slug(layer)}/{unit.name}", value))
    return files


def stored_neighbours(run: Run, catalogue: Catalogue, layer: str) -> NDArray[np.int64] | None:
    """Read the run's neighbours as ``image rank`` of numbers, -1 where one is not shown."""
    folder = f"neighbours/{layer}"
    names = [name for name in run.store.names(folder) if name.endswith(".parquet")]
    if not names:
        return None
    nearest = np.full((len(catalogue.image_id), NEIGHBOURS), -1)
    for name in names:
        table = read_table(run.store, f"{folder}/{name}", ["image_id", "neighbours"])
        width = table.schema.field("neighbours").type.list_size
        ids = table["neighbours"].combine_chunks().flatten().to_numpy()
        found = catalogue.index_of(ids).reshape(-1, width)[:, :NEIGHBOURS]
        own = catalogue.index_of(table["image_id"].to_numpy())
        nearest[own[own >= 0], : found.shape[1]] = found[own >= 0]
    return nearest


def exact_neighbours(run: Run, catalogue: Catalogue, layer: str) -> NDArray[np.int64]:
    """Find the nearest images by Euclidean distance of features."""
    blocks = list(run.feature_blocks(layer))
    index = catalogue.index_of(np.concatenate([ids for ids, _ in blocks]))
    values = np.concatenate([block for _, block in blocks])[index >= 0].astype(np.float32)
    index = index[index >= 0]
    square = (values**2).sum(axis=1)
    count = min(NEIGHBOURS, len(values) - 1)
    nearest = np.full((len(catalogue.image_id), NEIGHBOURS), -1)
    for start in range(0, len(values), 512):
        part = values[start : start + 512]
        distance = square - 2 * part @ values.T
        distance[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        found = np.argsort(distance, axis=1, kind="stable")[:, :count]
        nearest[index[start : start + 512], :count] = index[found]
    return nearest


def make_mosaic(run: Run, name: str) -> list[ShardFile]:
    """Cut a mosaic's PNG to a pyramid of JPEG tiles, and describe it for the viewer."""
    if run.store.exists(f"mosaic/{name}.dzi"):
        return copy_pyramid(run, name)
    data = run.store.read(f"mosaic/{name}.png")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the run's own picture
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    width, height = image.size
    level = (max(width, height) - 1).bit_length()
    folder = f"{FOLDER}/mosaic/{slug(name)}_files"
    files = [write_preview(run, name, image)]
    while level >= 0 and (level >= 8 or max(image.size) > 1):
        for y in range(0, image.height, DEEP_TILE):
            for x in range(0, image.width, DEEP_TILE):
                box = (x, y, min(x + DEEP_TILE, image.width), min(y + DEEP_TILE, image.height))
                path = f"{folder}/{level}/{x // DEEP_TILE}_{y // DEEP_TILE}.jpg"
                files.append(write_bytes(run.store, path, jpeg(image.crop(box), 85)))
        level -= 1
        smaller = ((image.width + 1) // 2, (image.height + 1) // 2)
        image = image.resize(smaller, Image.Resampling.BOX)
    value = {"width": width, "height": height, "tileSize": DEEP_TILE, "tileOverlap": 0}
    return [*files, write_piece(run.store, f"mosaics/{slug(name)}", value)]


def write_preview(run: Run, name: str, image: Image.Image) -> ShardFile:
    """Write a mosaic as one small picture."""
    small = image.copy()
    small.thumbnail((PREVIEW, PREVIEW))
    return write_bytes(run.store, f"{FOLDER}/mosaic/{slug(name)}.jpg", jpeg(small, 82))


def copy_pyramid(run: Run, name: str) -> list[ShardFile]:
    """Copy a mosaic that is a Deep Zoom pyramid, so that the report is one folder."""
    described = ElementTree.fromstring(run.store.read(f"mosaic/{name}.dzi"))
    size = next(child for child in described if child.tag.endswith("Size"))
    start = f"mosaic/{name}_files/"
    files = []
    for path in run.store.files(start.rstrip("/")):
        copy = f"{FOLDER}/mosaic/{slug(name)}_files/{path.removeprefix(start)}"
        files.append(write_bytes(run.store, copy, run.store.read(path)))
    files.append(write_preview(run, name, join_tiles(run, start, described, size)))
    value = {
        "width": int(size.attrib["Width"]),
        "height": int(size.attrib["Height"]),
        "tileSize": int(described.attrib["TileSize"]),
        "tileOverlap": int(described.attrib["Overlap"]),
    }
    return [*files, write_piece(run.store, f"mosaics/{slug(name)}", value)]


def join_tiles(
    run: Run, start: str, described: ElementTree.Element, size: ElementTree.Element
) -> Image.Image:
    """Join the tiles of the smallest level of a pyramid that is as large as a preview."""
    width, height, tile = (
        int(size.attrib["Width"]),
        int(size.attrib["Height"]),
        int(described.attrib["TileSize"]),
    )
    top = (max(width, height) - 1).bit_length()
    level = next((n for n in range(top + 1) if max(width, height) >> (top - n) >= PREVIEW), top)
    width, height = (-(-side // 2 ** (top - level)) for side in (width, height))
    image = Image.new("RGB", (width, height))
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            path = f"{start}{level}/{x // tile}_{y // tile}.{described.attrib['Format']}"
            image.paste(decode(run.store.read(path)), (x, y))
    return image


def make_rejects(run: Run) -> list[ShardFile]:
    """Write the images that could not be used, the first ten thousand."""
    rows = run.rejects().sort_by("image_id").slice(0, REJECTS)
    value = rows.select(["key", "stage", "error"]).to_pydict()
    return [write_piece(run.store, "rejects", value)]
