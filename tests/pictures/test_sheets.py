"""Contact sheets: pictures unharmed, text neither cut nor on top of anything."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnvis_ray.config import Pictures
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.pictures import (
    Tile,
    check_look,
    draw_sheet,
    lay_sheet,
    stack,
    text_tile,
    write_sheet,
)
from cnnvis_ray.pictures.drawing import Shown
from cnnvis_ray.pictures.lettering import font, plain, shorten, width_of, wrap
from cnnvis_ray.pictures.sheets import MARGIN
from cnnvis_ray.storage import Store


def red(side: int = 64) -> Image.Image:
    return Image.new("RGB", (side, side), (200, 0, 0))


def pixels_of(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def test_pictures_are_shown_whole_whatever_the_text() -> None:
    tiles = [Tile(red(), ("channel " * 20, "x" * 300)) for _ in range(7)]
    sheet = draw_sheet(tiles, 3, side=64, title="title " * 50, notes=["a note " * 50, "b"])
    assert pixels_of(sheet, (200, 0, 0)) == 7 * 64 * 64
    assert sheet.width == MARGIN + 3 * (64 + MARGIN)


def test_no_letter_reaches_the_edge_or_another_cell() -> None:
    tiles = [Tile(red(), ("W" * 200, "gjpqy" * 50)) for _ in range(4)]
    sheet = np.asarray(draw_sheet(tiles, 2, side=64, title="Wgjpqy " * 30, notes=["g" * 400]))
    ink = sheet.max(axis=-1) > 0
    assert not ink[:2].any() and not ink[-2:].any()
    assert not ink[:, :MARGIN].any() and not ink[:, -MARGIN:].any()
    cells_start = np.flatnonzero((sheet == (200, 0, 0)).all(axis=-1).any(axis=1))[0]
    between = slice(MARGIN + 64, MARGIN + 64 + MARGIN)
    assert not ink[cells_start:, between].any()
    assert not ink[cells_start - 1].any()  # the heading ends above the tiles


def test_dead_channels_are_words_in_a_box() -> None:
    sheet = draw_sheet([text_tile("dead", ("channel 7",)), Tile(red())], 2, side=64)
    box = np.asarray(sheet)[:, : MARGIN + 64]
    assert (box == 255).all(axis=-1).sum() > 4 * 63  # outline and letters
    assert (box == 0).all(axis=-1).mean() > 0.8  # no noise
    long = draw_sheet([text_tile("word " * 200)], 1, side=64)
    assert long.height < 64 + 3 * MARGIN


@pytest.mark.parametrize(
    ("given_side", "shown"), [(8, 64), (20, 60), (50, 50), (64, 64), (300, 64)]
)
def test_sizes_fit_the_square(given_side: int, shown: int) -> None:
    assert pixels_of(draw_sheet([Tile(red(given_side))], 1, side=64), (200, 0, 0)) == shown**2


def test_grey_and_framed_pictures() -> None:
    grey = Image.fromarray(np.full((64, 64), 90, dtype=np.uint8))
    sheet = draw_sheet([Tile(grey, frame=(255, 128, 0))], 1, side=64, background="white")
    assert pixels_of(sheet, (255, 128, 0)) == 64**2 - 58**2
    assert pixels_of(sheet, (90, 90, 90)) == 58**2


def test_print_has_twice_the_pixels_and_the_same_layout() -> None:
    detailed = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
    sheet = lay_sheet([Tile(detailed, ("a caption",))], 1, side=64, title="title")
    once, twice = np.asarray(sheet.image()), np.asarray(sheet.image(2))
    assert twice.shape[:2] == (2 * once.shape[0], 2 * once.shape[1])
    (shown,) = (item for item in sheet.items if isinstance(item, Shown))
    left, top = 2 * shown.left, 2 * shown.top
    assert (twice[top : top + 128, left : left + 128] == np.asarray(detailed)).all()
    letters = (once[: shown.top].max(axis=-1) > 0).any(axis=1)
    larger = (twice[:top].max(axis=-1) > 0).any(axis=1)
    assert np.flatnonzero(larger)[0] == pytest.approx(2 * np.flatnonzero(letters)[0], abs=4)


def test_vector_files_have_text_as_text_and_are_the_same_each_time() -> None:
    tiles = [Tile(red(), ("a caption",), label="7"), text_tile("dead & gone")]
    sheet = lay_sheet(tiles, 2, side=64, background="white", title="title")
    svg = sheet.vector("svg").decode()
    for text in ("title", "a caption", ">7<", "dead &amp;"):
        assert text in svg
    assert svg.count("<image") == 1
    pdf = sheet.vector("pdf")
    assert pdf.startswith(b"%PDF")
    assert b"FontFile2" in pdf  # letters, not drawings of letters
    assert (sheet.vector("pdf"), sheet.vector("svg").decode()) == (pdf, svg)


def test_sheets_are_stacked_and_written_for_print(tmp_path: Path) -> None:
    one = lay_sheet([Tile(red())], 1, side=64)
    both = stack([one, one], across=True)
    assert (both.width, both.height) == (2 * one.width, one.height)
    assert pixels_of(both.image(), (200, 0, 0)) == 2 * 64 * 64
    assert (stack([one, one]).width, stack([one, one]).height) == (one.width, 2 * one.height)
    store = Store(str(tmp_path))
    paths = [file.path for file in write_sheet(store, "a/b", one, Pictures(print="svg"))]
    assert paths == ["a/b.png", "a/b.svg"]
    (path,) = (file.path for file in write_sheet(store, "c", one, Pictures(print="png2x")))
    with Image.open(tmp_path / path) as opened:
        assert opened.size == (2 * one.width, 2 * one.height)


def test_a_label_stands_in_the_corner_of_its_picture() -> None:
    plain = np.asarray(draw_sheet([Tile(red(128))], 1))
    drawn = np.asarray(draw_sheet([Tile(red(128), label="25")], 1))
    rows, columns = np.nonzero((plain != drawn).any(axis=-1))
    assert rows.max() - rows.min() < 30
    assert rows.min() - MARGIN < 8
    assert columns.min() - MARGIN < 8
    corner = drawn[rows.min(), columns.min()]
    assert tuple(corner) == (200, 0, 0)  # round corners show the picture


@pytest.mark.parametrize(
    ("look", "message"),
    [
        ({"columns": {"pictrues": 4}}, "no kind 'pictrues'; did you mean pictures"),
        ({"heat": "Redz"}, "pictures.heat: matplotlib has no colours 'Redz'; did you mean Reds"),
        ({"channels": "auto"}, "pictures.channels: matplotlib has no colours 'auto'"),
        ({"background": "darkness"}, "no colour"),
    ],
)
def test_a_look_that_is_not_there_is_refused(look: dict[str, object], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        check_look(Pictures.model_validate(look))


def test_bad_sheets_are_refused() -> None:
    with pytest.raises(RefusedError, match="needs tiles and columns"):
        draw_sheet([], 3)
    with pytest.raises(RefusedError, match="needs tiles and columns"):
        draw_sheet([Tile(red())], 0)
    with pytest.raises(RefusedError, match="no colour"):
        draw_sheet([Tile(red())], 1, background="darkness")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.integers(1, 200), st.sampled_from([13, 14, 24]))
def test_text_fits_its_width(text: str, width: int, size: int) -> None:
    letters = font(size)
    assert width_of(shorten(text, width, letters), letters) <= width
    assert all(width_of(line, letters) <= width for line in wrap(text, width, letters))


def test_words_are_shortened_and_wrapped_by_hand() -> None:
    letters = font(14)
    assert shorten("short", 200, letters) == "short"
    assert shorten("a long caption", 60, letters).endswith("...")
    assert " ".join(wrap("one two three four", 60, letters)) == "one two three four"
    assert len(wrap("one two three four", 60, letters)) > 1
    assert wrap("", 60, letters) == []


def test_letters_that_the_font_lacks_become_plain() -> None:
    assert plain("araña Hündin 3 \u00d7 3 \u2013 a\tb\n") == "arana Hundin 3 x 3 - a b"
    assert plain("狗") == "?"
