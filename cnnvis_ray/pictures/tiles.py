"""A tile: one image made to fit a square, with its aspect kept and perhaps a coloured frame."""

from io import BytesIO

from PIL import Image, ImageDraw, UnidentifiedImageError

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.pictures.colours import Rgb

# Images up to this many pixels (digits are 8 x 8) are enlarged pixel by pixel, so that each pixel
# stays a crisp square; a photograph's thumbnail is larger and enlarged smoothly.
TINY_PIXELS = 48


def read_thumbnail(thumbnail: bytes, side: int) -> Image.Image:
    """Decode a stored thumbnail, at reduced size where that is faster and large enough.

    Args:
        thumbnail: an encoded image, JPEG or PNG.
        side: the side in pixels that the tile will have.

    Raises:
        RefusedError: the bytes are not an image.
    """
    try:
        with Image.open(BytesIO(thumbnail)) as image:
            image.draft("RGB", (side, side))
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError) as failure:
        raise RefusedError(
            f"a stored thumbnail of {len(thumbnail)} bytes cannot be read "
            f"({' '.join(str(failure).split())}); look for damage with: cnnvis verify RUN"
        ) from failure


def tile(thumbnail: bytes, side: int, *, enlarge: bool) -> Image.Image:
    """Decode a stored thumbnail and make it fit a square; see `fit`."""
    return fit(read_thumbnail(thumbnail, side), side, enlarge=enlarge)


def fit(image: Image.Image, side: int, *, enlarge: bool) -> Image.Image:
    """Scale an image to fit a square, with its aspect kept.

    Tiny images are always enlarged, by a whole factor and without smoothing. Others shrink to
    the square, and grow to it only with ``enlarge``.
    """
    longest = max(image.size)
    if longest <= min(TINY_PIXELS, side):
        factor = side // longest
        width, height = image.size
        return image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    if longest < side and not enlarge:
        return image
    width, height = (max(1, round(length * side / longest)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def add_frame(image: Image.Image, colour: Rgb | None) -> Image.Image:
    """Draw a border inside an image's edge; images too small to bear one are left as they are."""
    thickness = frame_pixels(max(image.size))
    if colour is None or thickness == 0:
        return image
    framed = image.copy()
    width, height = framed.size
    box = (0, 0, width - 1, height - 1)
    ImageDraw.Draw(framed).rectangle(box, outline=colour, width=thickness)
    return framed


def frame_pixels(side: int) -> int:
    """Return the thickness of a frame: a twentieth of the side, none below 10 pixels."""
    return 0 if side < 10 else max(1, side // 20)
