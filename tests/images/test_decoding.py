"""Whatever a file is, it becomes upright 8-bit RGB or a reject with a reason."""

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from cnnvis_ray.errors import ImageRejectedError
from cnnvis_ray.images import decode
from tests.images.bad_images import (
    animation,
    bomb,
    encoded,
    good_files,
    oriented,
    photo,
    png,
    sixteen_bit_grey,
    sixteen_bit_rgb,
    torn_exif,
    transparent_palette,
    undecodable_files,
)

MAX_PIXELS = 1_000_000


def pixels(raw: bytes | np.ndarray) -> np.ndarray:
    image = decode(raw, MAX_PIXELS)
    assert image.mode == "RGB"
    return np.asarray(image)


def reject(raw: bytes | np.ndarray, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(ImageRejectedError) as caught:
        decode(raw, max_pixels)
    assert caught.value.stage == "decode"
    return str(caught.value)


@pytest.mark.parametrize("name", good_files())
def test_every_odd_file_becomes_rgb(name: str) -> None:
    assert pixels(good_files()[name]).shape[2] == 3


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        "truncated.jpg": "truncated",
        "truncated.png": "truncated",
        "header_only.gif": "SyntaxError",
        "zero_bytes.jpg": "zero bytes",
        "text.jpg": "begins with b'<html>404 No'",
        "bomb.png": "20000 x 20000",
        "floats.tif": "floating-point",
        "postscript.jpg": "begins with",
    }.items(),
)
def test_every_bad_file_is_rejected_with_its_reason(name: str, reason: str) -> None:
    text = reject(undecodable_files()[name])
    assert reason in text
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(kind: str, orientation: int) -> None:
    """What a camera stored turned is turned back: undo each turn by its inverse."""
    stored_by = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = photo()
    stored = upright if stored_by is None else upright.transpose(stored_by)
    read = pixels(oriented(stored, orientation, kind)).astype(int)
    assert read.shape == (32, 48, 3)
    assert np.abs(read - np.asarray(upright).astype(int)).mean() < 6


@pytest.mark.parametrize(
    "raw",
    [torn_exif(), *(encoded(photo(), kind, exif=b"no EXIF") for kind in ("PNG", "WEBP"))],
    ids=["torn", "PNG", "WebP"],
)
def test_torn_exif_costs_the_orientation_and_not_the_image(raw: bytes) -> None:
    assert pixels(raw).shape == (32, 48, 3)


def test_cmyk_is_not_inverted() -> None:
    """Red stays red: Adobe stores CMYK JPEGs inverted."""
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    assert np.abs(pixels(encoded(red.convert("CMYK"), "JPEG")) - np.array([255, 0, 0])).max() < 8


def test_sixteen_bits_keep_their_high_byte() -> None:
    assert pixels(sixteen_bit_grey([0, 255, 256, 32768, 65535]))[0, :, 0].tolist() == [
        0, 0, 1, 128, 255,
    ]  # fmt: skip
    assert pixels(sixteen_bit_rgb([0, 256, 65535]))[0, 0].tolist() == [0, 1, 255]
    assert pixels(b"P5 2 1 65535\n" + struct.pack(">2H", 256, 65535))[0, :, 1].tolist() == [1, 255]


def grey_tiff(order: str, bits: int, width: int, samples: bytes) -> bytes:
    """Write an uncompressed grey TIFF of one line by hand."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: 1, 273: 8 + 2 + 12 * 8 + 4, 277: 1}
    tags[279] = len(samples)
    entries = b"".join(
        struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()
    )
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return header + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + samples


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_in_both_byte_orders(order: str) -> None:
    samples = np.array([0, 256, 65535], dtype=f"{order}u2").tobytes()
    assert pixels(grey_tiff(order, 16, 3, samples))[0, :, 0].tolist() == [0, 1, 255]


def test_twelve_bit_tiff_keeps_its_eight_highest() -> None:
    samples = bytes.fromhex("000010800fff")
    assert pixels(grey_tiff("<", 12, 4, samples))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "32-bit integers"),
        (Image.fromarray(np.full((2, 2), 0.5, np.float32)), "floating-point values"),
        (Image.new("LAB", (2, 2)), "CIELAB colours"),
    ],
    ids=["int32", "float32", "LAB"],
)
def test_values_without_a_range_are_rejected(image: Image.Image, reason: str) -> None:
    assert f"{reason} have no stated range" in reject(encoded(image, "TIFF"))


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (0, 0, 0, alpha))
    assert pixels(encoded(image, "PNG"))[0, :, 0].tolist() == [255, 127, 0]
    assert pixels(encoded(image.convert("LA"), "PNG"))[0, :, 0].tolist() == [255, 127, 0]


def test_transparent_palette_entries_lie_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG", transparency=b"\x00")).tolist() == [
        [[255, 255, 255], [200, 100, 50]]
    ]


def test_a_named_transparent_colour_lies_over_white() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    assert pixels(encoded(image, "PNG", transparency=(1, 2, 3))).tolist() == [
        [[255, 255, 255], [9, 9, 9]]
    ]


def test_one_bit_is_black_and_white() -> None:
    assert pixels(png(2, 1, 1, 0, b"\x00\x40"))[0, :, 0].tolist() == [0, 255]


def test_an_animation_gives_its_first_picture() -> None:
    first = np.asarray(photo().quantize(32).convert("RGB"))
    assert np.array_equal(pixels(animation()), first)


def test_one_pixel_stays_one_pixel() -> None:
    assert pixels(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).tolist() == [[[1, 2, 3]]]


def test_a_bomb_is_found_before_its_pixels_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert "more than images.max_pixels 100000000" in reject(bomb(), 100_000_000)


def test_max_pixels_is_the_only_limit() -> None:
    """PIL's own limit (179 million) neither warns nor refuses below ours."""
    raw = bomb()
    with pytest.raises(ImageRejectedError):
        decode(raw, 20_000 * 20_000 - 1)
    limit = Image.MAX_IMAGE_PIXELS
    image = decode(encoded(Image.new("1", (9_500, 9_500)), "PNG"), 100_000_000)
    assert image.size == (9_500, 9_500)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_result_keeps_nothing_of_the_file() -> None:
    assert decode(oriented(photo(), 1), MAX_PIXELS).info == {}


def test_pixels_of_an_array() -> None:
    colour = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(pixels(colour), colour)
    assert np.array_equal(pixels(colour[..., 0])[..., 2], colour[..., 0])
    assert np.array_equal(pixels(colour[..., :1])[..., 1], colour[..., 0])
    channels_first = np.ascontiguousarray(np.moveaxis(colour, -1, 0))
    assert np.array_equal(pixels(np.moveaxis(channels_first, 0, -1)), colour)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)],
)
def test_other_arrays_are_rejected(array: np.ndarray) -> None:
    assert "not uint8 RGB" in reject(array)


def test_arrays_obey_the_limits() -> None:
    assert "max_pixels 5" in reject(np.zeros((2, 3), np.uint8), 5)
    assert "no pixels" in reject(np.zeros((0, 3), np.uint8))


def test_warnings_stay_inside_and_filters_are_as_before() -> None:
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(pixels, [transparent_palette(), torn_exif()] * 20))
        inside = list(warnings.filters)
    assert not seen
    assert inside[1:] == before


def test_other_modules_may_warn_meanwhile() -> None:
    from cnnvis_ray.images.decoding import pil_warnings_ignored

    with pil_warnings_ignored(), pytest.raises(UserWarning):
        warnings.warn("mine", UserWarning, stacklevel=1)


FUZZED = {
    "jpeg": oriented(photo(), 6),
    "cmyk": encoded(photo().convert("CMYK"), "JPEG", progressive=True),
    "png": encoded(photo(), "PNG"),
    "palette": transparent_palette(),
    "sixteen": sixteen_bit_grey([0, 1, 2, 3]),
    "gif": animation(),
    "webp": encoded(photo(), "WEBP"),
    "tiff": oriented(photo(), 3, "TIFF"),
    "lzw": encoded(photo(), "TIFF", compression="tiff_lzw"),
    "bmp": encoded(photo(), "BMP"),
    "ppm": encoded(photo(), "PPM"),
}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Overwrite, cut out or insert bytes, mostly in the header, where the structure is."""
    raw = bytearray(FUZZED[draw(st.sampled_from(sorted(FUZZED)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, draw(st.sampled_from([40, 200, len(raw)]))))
        raw[at : at + draw(st.integers(0, 6))] = draw(st.binary(max_size=6))
    return bytes(raw[: draw(st.integers(0, len(raw)) | st.just(len(raw)))])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_damaged_files_are_rows_or_rejects(raw: bytes) -> None:
    try:
        assert decode(raw, MAX_PIXELS).mode == "RGB"
    except ImageRejectedError as rejected:
        assert rejected.stage == "decode"
        assert 0 < len(str(rejected)) <= 250


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_rejected(raw: bytes) -> None:
    reject(raw)


def test_a_reason_holds_no_address_of_memory() -> None:
    from cnnvis_ray.images.decoding import reason_of

    assert reason_of(OSError(f"cannot read {io.BytesIO()!r}")) == (
        "OSError: cannot read <_io.BytesIO object>"
    )
    assert reason_of(MemoryError()) == "MemoryError"
