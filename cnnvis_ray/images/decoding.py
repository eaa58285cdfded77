"""From the bytes or pixels that a reader fetched to an upright RGB image.

The first bytes decide what a file is, not its name. Its size is read from its header and checked
before any pixel is decoded. Of animations and multi-page files the first picture is decoded. EXIF
orientation is applied. Whatever bad bytes make PIL raise becomes a reject with its reason, and
PIL's global settings are neither read (`MAX_IMAGE_PIXELS`) nor changed.

Lack of memory is not a fault of an image unless it requests more than its pixels need: otherwise
it is raised, so that the work unit is tried again.

PIL warns of oddities in metadata (torn EXIF, TIFF tags, APNG), once per image, on the terminal of
whoever runs the job. On Python 3.11 filters hold for the whole process and `catch_warnings` is
not safe in threads, so one filter for PIL's modules is in place while any thread decodes.
"""

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, cast

import numpy as np
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cnnvis_ray.errors import ImageRejectedError
from cnnvis_ray.images.memory import allocate_once, lacks_memory
from cnnvis_ray.images.rgb import to_rgb
from cnnvis_ray.images.sources import Raw

FORMATS: Final[dict[str, tuple[re.Pattern[bytes], type[ImageFile]]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImageFile),
    "WebP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImageFile),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    "PPM": (re.compile(rb"P[1-6]\s"), PpmImageFile),
}
"""What is decoded, and by which first bytes it is known.

PIL's own `Image.open` would also try formats that start other programs (EPS), and would compare
the size with a limit of its own.
"""

FAULTS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    EOFError,
    ArithmeticError,
    MemoryError,
    BufferError,
    RuntimeError,
    SystemError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What PIL raises for bad bytes. Of 1.6 million mutated files the rejected ones met OSError,
SyntaxError, ValueError and DecompressionBombError; the others are in its plugins' code."""

TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what sets the picture upright (EXIF 2.32, tag 0x0112)."""

REASON_CHARACTERS: Final = 200

BYTES_PER_PIXEL: Final = 13
"""Decoding needs at most this: 4 of the file's mode, 4 of RGBA, 3 of RGB, and a turned copy
of which the first is freed (measured with RGBA and CMYK files of all formats)."""

HEADER_BYTES: Final = 64 << 20
"""What a header may need beside the pixels."""

IGNORE_PIL: Final = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
"""Action, message, category, module, line: what `warnings.filters` holds."""

ALONE = threading.Lock()
"""Held by the one thread that decodes again after memory ran out."""


def decode(raw: Raw, max_pixels: int) -> Image.Image:
    """Return one image as upright RGB; needs up to `BYTES_PER_PIXEL` meanwhile.

    Args:
        raw: a file's bytes, or pixels as a reader returns them (uint8).
        max_pixels: the largest width times height that is decoded.

    Raises:
        ImageRejectedError: it cannot be decoded; stage ``decode``, with a short reason.
        MemoryError: the machine has no memory for an image of this size now.
    """
    if isinstance(raw, np.ndarray):
        return from_pixels(raw, max_pixels)
    with pil_warnings_ignored():
        try:
            return from_bytes(raw, max_pixels)
        except FAULTS as fault:
            if not lacks_memory(fault):
                raise ImageRejectedError("decode", reason_of(fault)) from None
        return decode_again(raw, max_pixels)


def decode_again(raw: bytes, max_pixels: int) -> Image.Image:
    """Decode an image during which memory ran out, once its pixels' memory is seen to be free.

    Raises:
        ImageRejectedError: it fails although there is enough memory for its pixels.
        MemoryError: there is not.
    """
    with ALONE:
        try:
            with format_of(raw)(io.BytesIO(raw)) as image:
                num_pixels = image.width * image.height
        except FAULTS:
            num_pixels = 0
        allocate_once(BYTES_PER_PIXEL * num_pixels + HEADER_BYTES)
        try:
            return from_bytes(raw, max_pixels)
        except FAULTS as fault:
            reason = reason_of(fault)
            if lacks_memory(fault):
                reason = f"it requests more memory than its {num_pixels:,} pixels need"
            raise ImageRejectedError("decode", reason) from None


def from_pixels(pixels: np.ndarray, max_pixels: int) -> Image.Image:
    """Return an array, grey or colour, as an RGB image."""
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (grey or colour):
        shape = "x".join(str(length) for length in pixels.shape)
        raise ImageRejectedError("decode", f"pixels are {shape} {pixels.dtype}, not uint8 RGB")
    check_size(pixels.shape[1], pixels.shape[0], max_pixels)
    plane = pixels.reshape(pixels.shape[:2]) if grey else pixels
    return Image.fromarray(np.ascontiguousarray(plane)).convert("RGB")


def from_bytes(raw: bytes, max_pixels: int) -> Image.Image:
    """Decode a file's bytes; PIL's exceptions pass through."""
    with format_of(raw)(io.BytesIO(raw)) as image:
        check_size(*image.size, max_pixels)
        image.load()
        rgb = to_rgb(image)
        turn = TURNS.get(orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def format_of(raw: bytes) -> type[ImageFile]:
    """Return PIL's class for the first bytes."""
    for signature, image_class in FORMATS.values():
        if signature.match(raw):
            return image_class
    begins = f"it begins with {raw[:12]!r}" if raw else "zero bytes"
    raise ImageRejectedError("decode", f"not a {', '.join(FORMATS)} image: {begins}")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Reject what would need too much memory, or has no pixels."""
    if width * height > max_pixels:
        raise ImageRejectedError(
            "decode", f"{width} x {height} pixels are more than images.max_pixels {max_pixels}"
        )
    if width < 1 or height < 1:
        raise ImageRejectedError("decode", f"{width} x {height}: no pixels")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, where the metadata is torn."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except FAULTS as fault:
        if lacks_memory(fault):
            raise
        return 1
    return value if isinstance(value, int) else 1


def reason_of(fault: BaseException) -> str:
    """Return PIL's message in one line, the same in every process."""
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(fault).split()))
    return f"{type(fault).__name__}: {text}"[:REASON_CHARACTERS].rstrip(": ")


class _Decoders:
    """How many threads decode at this moment."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0


_DECODERS = _Decoders()


@contextmanager
def pil_warnings_ignored() -> Iterator[None]:
    """Ignore warnings of PIL's modules until the last thread has left the block."""
    # Direct, since warnings.filterwarnings would also forget which warnings were shown already.
    filters = cast("list[tuple[object, ...]]", warnings.filters)
    with _DECODERS.lock:
        _DECODERS.count += 1
        if filters[:1] != [IGNORE_PIL]:
            filters.insert(0, IGNORE_PIL)
    try:
        yield
    finally:
        with _DECODERS.lock:
            _DECODERS.count -= 1
            if _DECODERS.count == 0:
                current = cast("list[tuple[object, ...]]", warnings.filters)
                current[:] = [one for one in current if one != IGNORE_PIL]
