"""The small JPEG that is kept beside every row, so that later stages need not read the source.

Large images shrink, aspect kept. Small ones are kept as they are, and tiny ones, like the 8 x 8
digits, are enlarged by a whole number without smoothing: JPEG works on blocks of 8 pixels, so
their pixels come back unchanged, and a mosaic may scale the tile as it likes.
"""

import io

from PIL import Image

TINY_SHARE = 8
"""An image is tiny when it fits this often into the thumbnail: 16 pixels for one of 128."""

QUALITY, SMALL_QUALITY = 85, 95
SMALL_PIXELS = 64
"""Up to this longer side a few more bytes keep colours and edges (measured: 1 to 3 kB)."""


def thumbnail(image: Image.Image, size: int) -> bytes:
    """Return a JPEG whose longer side is at most ``size`` pixels."""
    width, height = image.size
    longer = max(width, height)
    if longer > size:
        scaled = (max(1, round(width * size / longer)), max(1, round(height * size / longer)))
        return jpeg(image.resize(scaled, Image.Resampling.HAMMING, reducing_gap=2.0))
    if longer * TINY_SHARE <= size:
        times = size // longer
        image = image.resize((width * times, height * times), Image.Resampling.NEAREST)
        return jpeg(image, small=True)
    return jpeg(image, small=longer <= SMALL_PIXELS)


def jpeg(image: Image.Image, small: bool = False) -> bytes:
    """Encode an image; a small one without colour subsampling."""
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "JPEG", quality=SMALL_QUALITY, subsampling=0, optimize=True)
    else:
        image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
