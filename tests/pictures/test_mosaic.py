"""Mosaics: every image in sight, nothing cut, frames and legend as the labels say."""

from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cnnvis_ray.config import Mosaic
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.pictures import (
    LAYOUTS,
    check_layouts,
    choose_images,
    class_colours,
    colour_groups,
    draw_grid,
    draw_scatter,
)
from cnnvis_ray.pictures.footer import fill_lines, lay_out, legend_entries
from cnnvis_ray.pictures.lettering import font, width_of

Array = npt.NDArray[np.floating]
Rgb = tuple[int, int, int]


def encode(image: Image.Image) -> bytes:
    memory = BytesIO()
    image.save(memory, "PNG")
    return memory.getvalue()


def block(colour: Rgb, width: int = 20, height: int = 20) -> bytes:
    return encode(Image.new("RGB", (width, height), colour))


def spots(count: int) -> tuple[list[bytes], Array, list[Rgb]]:
    """Images of one colour each, and a map of them."""
    generator = np.random.default_rng(0)
    colours: list[Rgb] = [(5 * index + 5, 250 - 5 * index, 3 * index) for index in range(count)]
    return [block(colour) for colour in colours], generator.normal(size=(count, 2)), colours


def count_pixels(picture: Image.Image, colour: Rgb) -> int:
    return int((np.asarray(picture) == colour).all(axis=-1).sum())


SMALL = Mosaic(width=120, height=90, tile=10)


def test_a_grid_shows_every_image_once_and_equally_large() -> None:
    thumbnails, positions, colours = spots(48)
    picture = draw_grid(thumbnails, positions, [None] * 48, SMALL)
    assert picture.size == (120, 90) and picture.mode == "RGB"
    assert {count_pixels(picture, colour) for colour in colours} == {15 * 15}


def test_a_scatter_cuts_no_tile() -> None:
    thumbnails, positions, colours = spots(2)
    picture = draw_scatter(thumbnails, positions, [None] * 2, SMALL)
    assert picture.size == (120, 90)
    assert [count_pixels(picture, colour) for colour in colours] == [100, 100]


def test_who_lies_in_front_does_not_depend_on_classes_or_streaming() -> None:
    thumbnails, _, colours = spots(40)
    stacked = np.zeros((40, 2))
    picture = draw_scatter(iter(thumbnails), stacked, [None] * 40, SMALL)
    shown = [index for index, colour in enumerate(colours) if count_pixels(picture, colour)]
    assert len(shown) == 1 and shown != [39]
    again = draw_scatter(thumbnails, stacked, [None] * 40, SMALL)
    assert picture.tobytes() == again.tobytes()


def test_thumbnails_are_streamed() -> None:
    held = []

    def stream() -> Iterator[bytes]:
        for index in range(30):
            held.append(index)
            yield block((index, 0, 0))

    draw_scatter(stream(), np.random.default_rng(0).normal(size=(30, 2)), [None] * 30, SMALL)
    assert held == list(range(30))
    with pytest.raises(ValueError, match="longer"):
        draw_grid([block((0, 0, 0))], np.zeros((2, 2)), [None] * 2, SMALL)


def test_a_canvas_that_cannot_hold_all_shows_density_and_one_image_of_each_cell() -> None:
    count = 2000
    generator = np.random.default_rng(0)
    positions = np.concatenate(
        [generator.normal(-3, 0.1, size=(1900, 2)), generator.uniform(-4, 4, size=(100, 2))]
    )
    read: list[int] = []

    def thumbnails(chosen: npt.NDArray[np.int64]) -> Iterator[bytes]:
        read.extend(chosen.tolist())
        return (block((200, 0, 0)) for _ in chosen)

    mosaic = Mosaic(width=320, height=240, tile=20)
    picture = draw_scatter(thumbnails, positions, [None] * count, mosaic)
    assert picture.size == (320, 240)
    assert 40 < len(read) < 120 and read == sorted(set(read))
    drawing = np.asarray(picture)
    red = (drawing == (200, 0, 0)).all(axis=-1)
    assert red.sum() >= 8 * 8 * len(read)
    grey = (drawing == drawing[..., :1]).all(axis=-1) & (drawing[..., 0] < 250)
    assert drawing[grey].min() < 140 and len(np.unique(drawing[grey])) > 3  # several densities
    streamed = draw_scatter([block((200, 0, 0))] * count, positions, [None] * count, mosaic)
    assert streamed.tobytes() == picture.tobytes()
    with pytest.raises(ValueError, match="longer"):
        draw_scatter([block((200, 0, 0))] * 1999, positions, [None] * count, mosaic)


def test_ten_thousand_equal_positions_show_one_image() -> None:
    picture = draw_scatter(
        lambda chosen: [block((200, 0, 0))] * len(chosen),
        np.zeros((10_000, 2)),
        [None] * 10_000,
        Mosaic(width=320, height=240),
    )
    assert 0 < count_pixels(picture, (200, 0, 0)) <= 20 * 20


def test_images_are_coloured_by_super_classes_or_by_nothing() -> None:
    labels: list[str | None] = ["cat", "dog", "oak", "rock", None]
    by_kind = Mosaic(colour={"cat": "animal", "dog": "animal", "oak": "plant"})
    assert colour_groups(labels, by_kind) == ["animal", "animal", "plant", None, None]
    assert colour_groups(labels, Mosaic(colour="none")) == [None] * 5
    assert colour_groups(labels, Mosaic(frame="none")) == [None] * 5
    assert colour_groups(labels, Mosaic()) == labels


def test_a_layout_is_one_entry_of_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    check_layouts(["grid", "scatter"])
    with pytest.raises(RefusedError, match="'gird' is not a layout; did you mean grid\\?"):
        check_layouts(["gird"])
    monkeypatch.setitem(LAYOUTS, "gird", draw_grid)
    check_layouts(["gird"])


def test_images_are_chosen_by_label() -> None:
    labels = ["a"] * 900 + ["b"] * 90 + ["c"] * 9 + ["d"]
    chosen = choose_images(labels, Mosaic(max_images=100), seed=0)
    counts = Counter(labels[index] for index in chosen)
    assert counts["a"] in range(87, 91) and counts["b"] in range(8, 11)
    assert counts["c"] >= 1 and counts["d"] == 1 and len(set(chosen.tolist())) == 100
    assert len(choose_images(labels, Mosaic(), seed=0)) == 1000
    other = choose_images(labels, Mosaic(max_images=100), seed=1)
    assert set(other.tolist()) != set(chosen.tolist())
    assert len(choose_images(labels, Mosaic(max_images=2), seed=0)) == 2


def test_aspect_is_kept() -> None:
    wide = [block((200, 0, 0), 60, 30)]
    picture = draw_scatter(wide, np.zeros((1, 2)), [None], Mosaic(width=200, height=200, tile=50))
    red = (np.asarray(picture) == (200, 0, 0)).all(axis=-1)
    assert (red.any(axis=0).sum(), red.any(axis=1).sum()) == (50, 25)
    assert red.any(axis=0).argmax() == 75  # in the middle


def test_tiny_images_are_enlarged_pixel_by_pixel() -> None:
    digit = load_digits().images[0]
    pixels = np.repeat((digit * 15).astype(np.uint8)[..., None], 3, axis=2)
    picture = draw_scatter(
        [encode(Image.fromarray(pixels))],
        np.zeros((1, 2)),
        [None],
        Mosaic(width=150, height=150, tile=100),
    )
    crop = np.asarray(picture)[27:123, 27:123]
    np.testing.assert_array_equal(crop, pixels.repeat(12, axis=0).repeat(12, axis=1))


def test_grid_tiles_shrink_for_many_and_grow_for_few() -> None:
    few = draw_grid([block((200, 0, 0), 64, 64)], np.zeros((1, 2)), [None], SMALL)
    assert count_pixels(few, (200, 0, 0)) == 20 * 20  # twice mosaic.tile
    many = draw_grid([block((200, 0, 0))] * 2700, np.zeros((2700, 2)), [None] * 2700, SMALL)
    assert count_pixels(many, (200, 0, 0)) == 120 * 90  # 2 x 2 pixels each
    with pytest.raises(RefusedError, match="do not fit a grid"):
        draw_grid([], np.zeros((20_000, 2)), [None] * 20_000, SMALL)


def test_scatter_tiles_shrink_when_they_would_hide_one_another() -> None:
    mosaic = Mosaic(width=400, height=300, tile=100)
    thumbnails, positions, colours = spots(45)
    picture = draw_scatter(thumbnails, positions, [None] * 45, mosaic)
    largest = max(count_pixels(picture, colour) for colour in colours)
    assert largest == 40 * 40  # twice 20 pixels, where 51 would be allowed
    assert sum(count_pixels(picture, colour) > 0 for colour in colours) >= 44


def test_frames_and_legend_name_the_classes() -> None:
    labels: list[str | None] = ["cat", "dog", "cat", None]
    mosaic = Mosaic(width=400, height=300, tile=60)
    thumbnails = [block((1, 2, 3), 60, 60)] * 4
    corners = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    picture = draw_scatter(thumbnails, corners, labels, mosaic, title="features.12")
    colours = class_colours(labels).named
    top = 300 - lay_out("features.12", class_colours(labels), 400, 300).height
    drawing = picture.crop((0, 0, 400, top))
    frame = 60**2 - 54**2
    assert count_pixels(drawing, colours["cat"]) == 2 * frame
    assert count_pixels(drawing, colours["dog"]) == frame
    legend = picture.crop((0, top, 400, 300))
    assert count_pixels(legend, colours["cat"]) == count_pixels(legend, colours["dog"]) == 13**2
    assert count_pixels(legend, (0, 0, 0)) > 50  # letters
    plain = draw_scatter(thumbnails, corners, labels, mosaic.model_copy(update={"frame": "none"}))
    assert count_pixels(plain, colours["cat"]) == 0
    unlabelled = draw_scatter(thumbnails, corners, [None] * 4, mosaic)
    assert unlabelled.tobytes() == plain.tobytes()


@pytest.mark.parametrize("num_classes", [1, 7, 20, 21, 400])
@pytest.mark.parametrize("size", [(160, 160), (640, 480), (4000, 3000), (300, 2000)])
def test_a_footer_fits_its_canvas(num_classes: int, size: tuple[int, int]) -> None:
    width, height = size
    names = [f"a rather long class name {index}" for index in range(num_classes)]
    footer = lay_out("title " * 100, class_colours(names), width, height)
    assert 0 < footer.height <= height / 4
    letters = font(footer.size)
    assert width_of(footer.title, letters) <= width - 2 * footer.size
    for line in footer.lines:
        ends = [
            width_of(entry.text, letters) + (int(footer.size * 1.4) if entry.colour else 0)
            for entry in line
        ]
        assert sum(ends) + footer.size * (len(line) - 1) <= width - 2 * footer.size


def test_a_legend_says_how_many_it_leaves_out() -> None:
    entries = legend_entries(class_colours([f"class {index:03}" for index in range(200)]))
    assert len(entries) == 21
    assert entries[-1].text == "and 180 more classes"
    (line,) = fill_lines(entries, 400, font(13), most_lines=1)
    hidden = len(entries) - (len(line) - 1)
    assert line[-1].text == f"and {hidden} more entries"
    assert fill_lines(entries, 400, font(13), most_lines=0) == ()


def test_small_canvases_have_no_footer() -> None:
    assert lay_out("title", class_colours(["a"]), 159, 400).height == 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(RefusedError, match="at least one image"):
        draw_grid([], np.zeros((0, 2)), [], SMALL)
    with pytest.raises(ValueError, match="1 labels for 2 positions"):
        draw_scatter([], np.zeros((2, 2)), ["a"], SMALL)
    with pytest.raises(RefusedError, match="stored thumbnail of 7 bytes cannot be read"):
        draw_scatter([b"no JPEG"], np.zeros((1, 2)), [None], SMALL)
    with pytest.raises(RefusedError, match="no colour 'nowhere'"):
        draw_grid([b""], np.zeros((1, 2)), [None], Mosaic(background="nowhere"))


@pytest.mark.photos
def test_photos_make_a_full_size_mosaic(shared: Path) -> None:
    files = sorted((shared / "data" / "photos").rglob("*.jpg"))[:60]
    positions = np.random.default_rng(0).normal(size=(len(files), 2))
    labels = [file.parent.name for file in files]
    for draw in (draw_scatter, draw_grid):
        picture = draw((file.read_bytes() for file in files), positions, labels, Mosaic())
        assert picture.size == (4000, 3000)
        assert (np.asarray(picture) != 255).any(axis=-1).mean() > 0.02
