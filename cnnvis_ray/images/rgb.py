"""From whatever PIL opens to 8-bit RGB, as a viewer on a white page shows it.

Transparency is composited over white. Sixteen bits keep their high byte. Colour profiles are not
applied (torchvision's loaders do not either). Values without a stated range (32-bit integers,
floats) are rejected, since stretching them would make brightness depend on the rest of the image.
"""

import numpy as np
from PIL import Image
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from cnnvis_ray.errors import ImageRejectedError

WHITE = (255, 255, 255)

UNRANGED = {
    "I": "32-bit integers",
    "F": "floating-point values",
    "LAB": "CIELAB colours",
}
"""PIL's modes whose values have no stated conversion to 8 bits, as in a reject's reason."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to RGB; the result shares nothing with the file.

    Raises:
        ImageRejectedError: its pixels have no stated range.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and isinstance(image, PpmImageFile)):
        rgb = Image.fromarray(high_bytes(image)).convert("RGB")
    elif image.mode in UNRANGED:
        raise ImageRejectedError(
            "decode", f"{UNRANGED[image.mode]} have no stated range; convert to 8 or 16 bits"
        )
    elif image.has_transparency_data:
        rgb = over_white(image.convert("RGBA"))
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def high_bytes(image: Image.Image) -> np.ndarray:
    """Return the eight highest of the bits that a grey image states."""
    values = np.asarray(image)
    return (values >> (bits_of(image) - 8)).astype(np.uint8)


def bits_of(image: Image.Image) -> int:
    """Return the bits of a sample: 16, unless a TIFF states 12."""
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2[BITSPERSAMPLE][0])
    return 16


def over_white(image: Image.Image) -> Image.Image:
    """Lay an RGBA image over a white page."""
    page = Image.new("RGB", image.size, WHITE)
    page.paste(image, mask=image.getchannel("A"))
    return page
