"""Image sources: what they hold, how it is cut, and one image by its key as RGB; without torch.

The way of an image: `open_source` -> `Source.list` -> `cut` -> (in a worker) `Source.open` ->
`prepared`: `Reader.fetch` -> `decode` -> what the network needs, and its `thumbnail`.
"""

from cnnvis_ray.images.decoding import decode
from cnnvis_ray.images.entries import Entry, Listing, cut, images_of
from cnnvis_ray.images.labels import Labels
from cnnvis_ray.images.opening import SOURCES, absolute_source, is_same_source, open_source
from cnnvis_ray.images.prefetching import prepared
from cnnvis_ray.images.sources import Raw, Reader, Source
from cnnvis_ray.images.thumbnails import thumbnail

__all__ = [
    "SOURCES",
    "Entry",
    "Labels",
    "Listing",
    "Raw",
    "Reader",
    "Source",
    "absolute_source",
    "cut",
    "decode",
    "images_of",
    "is_same_source",
    "open_source",
    "prepared",
    "thumbnail",
]
