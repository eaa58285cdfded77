"""A work unit's images: their rows, and sheets of their thumbnails."""

import io
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from cnnvis_ray.report.pieces import FOLDER, Part, pack, short, write_piece
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes

TILE, COLUMNS = 64, 32  # a sheet of 32 x 32 is 2048 pixels wide, which every browser decodes
LARGE, LARGE_COLUMNS = 128, 16
QUALITY = 60  # 823 bytes for 64 pixels, measured; WebP saves 5 % and takes ten times as long
LARGE_QUALITY = 78


def unit_rows(store: Store, part: Part, columns: list[str]) -> pa.Table:
    """Read a unit's shown images, by id."""
    table = read_table(store, part.files[0], columns).sort_by("image_id")
    if part.ids is None:
        return table
    return table.filter(pc.is_in(table["image_id"], pa.array(part.ids, pa.int64())))


def make_images(
    store: Store, part: Part, labels: Sequence[str | None], large: bool
) -> list[ShardFile]:
    """Write a unit's rows and sheets.

    Args:
        store: the run's.
        part: the unit.
        labels: the present label of each shown image.
        large: whether sheets of 128 pixels are written beside those of 64.
    """
    columns = ["image_id", "key", "width", "height", "top5", "thumbnail"]
    table = unit_rows(store, part, columns)
    name = part.subject
    keys = table["key"].to_pylist()
    sizes = np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1)
    names, top = collect_top(table["top5"].to_pylist())
    classes = sorted({label for label in labels if label is not None})
    number = {label: index for index, label in enumerate(classes)}
    rows = {
        "classes": classes,
        "label": [-1 if label is None else number[label] for label in labels],
        "size": pack(sizes, "u4"),
        "names": names,
        "top": top,
    }
    files = [write_piece(store, f"keys/{name}", keys), write_piece(store, f"images/{name}", rows)]
    thumbnails = [decode(value.as_py()) for value in table["thumbnail"]]
    pictures = [square(image, TILE) for image in thumbnails]
    files.extend(write_sheets(store, f"sheets/images/{name}", pictures, TILE, COLUMNS, QUALITY))
    if large:
        whole = [fitted(image, LARGE) for image in thumbnails]
        path = f"sheets/large/{name}"
        files.extend(write_sheets(store, path, whole, LARGE, LARGE_COLUMNS, LARGE_QUALITY))
    return files


def collect_top(rows: Iterable[list[dict[str, object]] | None]) -> tuple[list[str], list[object]]:
    """Return the names that occur, and each image's pairs of name and probability."""
    names: dict[str, int] = {}
    top: list[object] = []
    for row in rows:
        pairs: list[float | None] = []
        for entry in row or []:
            name, probability = entry["name"], entry["probability"]
            assert isinstance(probability, float)
            pairs += [names.setdefault(str(name), len(names)), short(probability)]
        top.append(pairs)
    return list(names), top


def decode(data: bytes) -> Image.Image:
    """Decode a stored picture."""
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("RGB")


def square(image: Image.Image, side: int) -> Image.Image:
    """Cut the central square of a picture, shrunk or enlarged to a side."""
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    box = (left, top, left + shorter, top + shorter)
    method = Image.Resampling.BILINEAR if shorter >= side else Image.Resampling.NEAREST
    return image.resize((side, side), method, box, reducing_gap=2.0)


def fitted(image: Image.Image, longest: int) -> Image.Image:
    """Shrink or enlarge a whole picture so that its longer side has so many pixels."""
    longer = max(image.size)
    width, height = (max(1, (2 * longest * side + longer) // (2 * longer)) for side in image.size)
    method = Image.Resampling.BILINEAR if longer >= longest // 2 else Image.Resampling.NEAREST
    return image.resize((width, height), method)


def write_sheets(
    store: Store,
    path: str,
    pictures: Sequence[Image.Image],
    tile: int,
    columns: int,
    quality: int = QUALITY,
) -> list[ShardFile]:
    """Write tiles row by row on sheets of ``columns`` squared; the first sheet has no suffix."""
    files = []
    for start in range(0, len(pictures), columns**2):
        part = pictures[start : start + columns**2]
        sheet = Image.new("RGB", (tile * columns, tile * -(-len(part) // columns)), (128,) * 3)
        for place, picture in enumerate(part):
            sheet.paste(picture, (place % columns * tile, place // columns * tile))
        suffix = f"-{start // columns**2}" if start else ""
        files.append(write_bytes(store, f"{FOLDER}/{path}{suffix}.jpg", jpeg(sheet, quality)))
    return files


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode a picture as JPEG.

    Huffman tables of its own save 14 % of the bytes at quality 78 and 1 % at 60, and take 2.5
    times as long, measured on sheets of photos.
    """
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=quality > QUALITY)
    return buffer.getvalue()
