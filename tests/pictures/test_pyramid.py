"""Pyramids: every image once, levels that halve one another, tasks in any order, small memory."""

import io
import re
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cnnvis_ray.config import Mosaic
from cnnvis_ray.pictures import (
    Pyramid,
    draw_band,
    draw_overview,
    grid_places,
    pack_colours,
    plan_pyramid,
    shrink_band,
    sort_thumbnails,
    write_description,
)
from cnnvis_ray.pictures import pyramid as module

Ids = npt.NDArray[np.int64]
Files = dict[str, bytes]


def colour_of(image: int) -> tuple[int, int, int]:
    return (40 + image % 200, 255 - image // 200 % 6 * 40, 100)


def thumbnail(image: int) -> bytes:
    memory = io.BytesIO()
    Image.new("RGB", (20, 20), colour_of(image)).save(memory, "PNG")
    return memory.getvalue()


def block(ids: Ids) -> tuple[Ids, list[bytes]]:
    return ids, [thumbnail(int(image)) for image in ids]


def make(num_images: int, name: str = "mosaic/layer-grid") -> tuple[Pyramid, Files, int, Ids]:
    """Draw a pyramid of images with one colour each, in groups of shards and in any order."""
    ids = np.arange(num_images) * 3
    positions = np.random.default_rng(0).normal(size=(num_images, 2))
    canvas = plan_pyramid(num_images, name, 400, 300)
    cells = grid_places(positions, canvas.columns, canvas.rows)
    colours = pack_colours([None] * num_images)
    files: Files = {}
    blocks = [partial(block, part) for part in np.array_split(np.append(ids, 999_999), 7)]
    for number, group in enumerate((blocks[:3], blocks[3:])):
        files[f"sorted/{number}"] = sort_thumbnails(group, canvas, cells, colours, ids)
    paths = sorted(files)

    def open_file(path: str) -> io.BytesIO:
        return io.BytesIO(files[path])

    def write(path: str, data: bytes) -> None:
        assert path not in files
        files[path] = data

    bands = range(canvas.num_bands(canvas.top))
    drawn = sum(draw_band(band, canvas, paths, open_file, write) for band in reversed(bands))
    for level in canvas.levels_read():
        for band in range(canvas.num_bands(level)):
            shrink_band(band, canvas, level, files.__getitem__, write)
    write_description(canvas, write)
    return canvas, files, drawn, cells


@pytest.mark.parametrize("num_images", [1, 2, 300, 1500])
def test_every_image_is_drawn_once_and_every_level_is_whole(num_images: int) -> None:
    canvas, files, drawn, cells = make(num_images)
    assert drawn == num_images
    tiles = {path for path in files if path.endswith(".jpg")}
    expected = set()
    for level in range(canvas.top + 1):
        width, height = canvas.size(level)
        for column in range(-(-width // module.TILE_PIXELS)):
            for row in range(-(-height // module.TILE_PIXELS)):
                path = f"mosaic/layer-grid_files/{level}/{column}_{row}.jpg"
                expected.add(path)
                with Image.open(io.BytesIO(files[path])) as tile:
                    assert tile.size == (
                        min(512, width - 512 * column),
                        min(512, height - 512 * row),
                    )
    assert tiles == expected
    assert canvas.size(0) == (1, 1)
    for image in (0, num_images // 2, num_images - 1):
        row, column = divmod(int(cells[image]), canvas.columns)
        x, y = column * canvas.cell + 64, row * canvas.cell + 64
        path = canvas.tile_path(canvas.top, x // 512, y // 512)
        with Image.open(io.BytesIO(files[path])) as tile:
            shown = np.asarray(tile.convert("RGB"))[y % 512, x % 512].astype(int)
        assert np.abs(np.subtract(shown, colour_of(image * 3))).max() < 12


def test_a_level_is_the_one_above_halved() -> None:
    canvas, files, _, _ = make(300)
    read = files.__getitem__
    for level in range(canvas.top, canvas.top - 3, -1):
        above = module.read_area(canvas, level, (0, 0, *canvas.size(level)), read)
        below = module.read_area(canvas, level - 1, (0, 0, *canvas.size(level - 1)), read)
        assert above.reduce(2).size == below.size
        error = np.abs(np.asarray(above.reduce(2), float) - np.asarray(below, float))
        assert error.mean() < 6


def test_the_description_is_deep_zoom() -> None:
    canvas, files, _, _ = make(300)
    text = files["mosaic/layer-grid.dzi"].decode()
    width, height = canvas.columns * 128, canvas.rows * 128
    assert re.search(f'Width="{width}" Height="{height}"', text)
    assert 'TileSize="512"' in text and 'Format="jpg"' in text
    assert 2 ** (canvas.top - 1) < max(width, height) <= 2**canvas.top


def test_frames_have_the_colour_of_their_class() -> None:
    assert pack_colours([(1, 2, 3), None]).tolist() == [0x010203, -1]
    canvas = Pyramid("m", 1, 1)
    files: Files = {}
    ids = np.array([5])
    data = sort_thumbnails(
        [partial(block, ids)], canvas, ids * 0, pack_colours([(0, 0, 250)]), ids
    )
    draw_band(0, canvas, ["p"], lambda _: io.BytesIO(data), files.__setitem__)
    with Image.open(io.BytesIO(files[canvas.tile_path(7, 0, 0)])) as tile:
        line = np.asarray(tile.convert("RGB"))[64]
    red, green, blue = line[line[:, 0].argmin() + 1].tolist()
    assert blue > 180 and red < 80 and green < 80


def test_the_overview_has_title_and_legend() -> None:
    canvas, files, _, _ = make(300)
    labels: list[str | None] = ["a", "b", "c"] * 100
    mosaic = Mosaic(width=800, height=600)
    picture = draw_overview(canvas, files.__getitem__, labels, mosaic, "a layer")
    assert picture.size == (800, 600)
    assert (np.asarray(picture) != 255).any(axis=-1).mean() > 0.2
    plain = draw_overview(canvas, files.__getitem__, [None] * 300, mosaic)
    assert plain.tobytes() != picture.tobytes()


@pytest.mark.parametrize(("size", "shown"), [((128, 96), (123, 96)), ((200, 100), (123, 62))])
def test_an_image_nearly_as_large_as_its_cell_is_cut_and_not_resized(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    canvas, memory = Image.new("RGB", (128, 128), (255, 255, 255)), io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 200, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(memory, "PNG")
    module.draw_image(canvas, memory.getvalue(), module.NO_FRAME, (0, 0), 128)
    drawn = np.asarray(canvas)
    rows, columns = np.nonzero((drawn != 255).any(axis=2))
    assert (int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1) == shown
    if size == (128, 96):
        inside = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        np.testing.assert_array_equal(inside, noise[:, 2:125])
