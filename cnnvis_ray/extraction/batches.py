"""A unit's images as batches: decoded ahead in threads, cut by position in the unit.

A reject leaves its slot empty and a short batch is padded with zeros, so an image meets the same
arithmetic whatever the other images of its batch are, and memory is bounded by the batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnvis_ray.errors import ImageRejectedError
from cnnvis_ray.extraction.tasks import ExtractionSetup, ExtractionTask
from cnnvis_ray.images import Reader, prepared, thumbnail
from cnnvis_ray.ledger import image_id
from cnnvis_ray.network import Preprocess

BATCHES_AHEAD = 1  # decoded images wait for at most this many batches beside the present one


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One decoded image: network input ``height width channel`` uint8, and what its row keeps."""

    pixels: NDArray[np.uint8]
    thumbnail: bytes | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Reject:
    """One image that could not be used."""

    slot: int
    image_id: int
    key: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class BatchImage:
    """One usable image and its position in the batch."""

    position: int
    image_id: int
    key: str
    label: str | None
    image: PreparedImage


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive slots of a unit.

    Attributes:
        images: the usable ones, by position.
        rejects: those that turned out unusable.
    """

    images: tuple[BatchImage, ...]
    rejects: tuple[Reject, ...]

    @property
    def positions(self) -> list[int]:
        """Positions of the usable images."""
        return [image.position for image in self.images]

    def pixels(self, batch_size: int, preprocess: Preprocess) -> NDArray[np.uint8]:
        """Return the network input, ``batch height width channel``; empty positions are zero."""
        side, colours = preprocess.crop, preprocess.channels
        pixels = np.zeros((batch_size, side, side, colours), np.uint8)
        for image in self.images:
            pixels[image.position] = image.image.pixels
        return pixels


def batches(
    setup: ExtractionSetup, task: ExtractionTask, reader: Reader, threads: int, size: int
) -> Iterator[Batch]:
    """Decode a unit's images and yield its batches in order.

    Args:
        setup: preprocess and limits.
        task: the unit; known rejects are not read again, a probe reads its slots.
        reader: the open source.
        threads: decoding threads.
        size: images per batch.
    """
    keep_thumbnail = task.images is not None
    preprocess = setup.network.preprocess

    def prepare(image: Image.Image) -> PreparedImage:
        small = thumbnail(image, setup.images.thumbnail) if keep_thumbnail else None
        return PreparedImage(preprocess.fit(image), small, image.width, image.height)

    ordered = list(task.unit.images())
    labels = dict(zip((slot for slot, _ in ordered), task.labels, strict=True))
    ahead = size * (1 + BATCHES_AHEAD)
    stream = prepared(reader, task.wanted, prepare, setup.images.max_pixels, threads, ahead)
    images: list[BatchImage] = []
    rejects: list[Reject] = []
    current = 0
    for slot, key, outcome in stream:
        if slot // size != current:
            yield Batch(tuple(images), tuple(rejects))
            images, rejects, current = [], [], slot // size
        identity = image_id(task.unit.number, slot)
        if isinstance(outcome, ImageRejectedError):
            rejects.append(Reject(slot, identity, key, outcome.stage, str(outcome)))
        else:
            images.append(BatchImage(slot % size, identity, key, labels[slot], outcome))
    if images or rejects:
        yield Batch(tuple(images), tuple(rejects))
