"""The images that excite a channel most, with the place of the maximum; ties: the first key."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOBODY = -1


@dataclass(frozen=True, slots=True)
class Exemplars:
    """The best images of each channel, best first; every array is ``channel rank``.

    Attributes:
        value: the map's maximum, in activation units; -inf where there is no image.
        image_id: the image, or `NOBODY`.
        place: row and column of the maximum in the map, ``channel rank 2``.
        keys: the key of every image that occurs.
    """

    value: NDArray[np.float32]
    image_id: NDArray[np.int64]
    place: NDArray[np.int32]
    keys: dict[int, str]


def nobody(num_channels: int, best: int) -> Exemplars:
    """Exemplars of no image."""
    return Exemplars(
        np.full((num_channels, best), -np.inf, np.float32),
        np.full((num_channels, best), NOBODY, np.int64),
        np.zeros((num_channels, best, 2), np.int32),
        {},
    )


def candidates(
    exemplars: Exemplars,
    peaks: NDArray[np.floating],
    image_ids: Sequence[int],
    keys: Sequence[str],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find who enters the best before any place is looked up (few do, after the first images).

    Args:
        exemplars: the best so far.
        peaks: map maxima of new images, ``image channel``.
        image_ids: their ids.
        keys: their keys.

    Returns:
        Image and channel index of each entry, sorted by image, then channel.
    """
    best = exemplars.value.shape[1]
    ids = np.asarray(image_ids, np.int64)
    (moved,) = np.nonzero(peaks.max(axis=0) >= exemplars.value[:, -1])  # the others cannot enter
    everyone = np.concatenate([exemplars.image_id[moved], np.tile(ids, (len(moved), 1))], axis=1)
    fresh = peaks.T[moved].astype(np.float32)
    values = np.concatenate([exemplars.value[moved], fresh], axis=1)
    names = {**exemplars.keys, **dict(zip(ids.tolist(), keys, strict=True))}
    chosen = best_places(values, everyone, names, best)
    row, rank = np.nonzero(chosen >= best)
    channel, image = moved[row], chosen[row, rank] - best
    order = np.lexsort((channel, image))
    return image[order], channel[order]


def entered(
    entries: tuple[NDArray[np.intp], NDArray[np.intp]],
    peaks: NDArray[np.floating],
    places: NDArray[np.int32],
    image_ids: Sequence[int],
    keys: Sequence[str],
    shape: tuple[int, int],
) -> Exemplars:
    """Return exemplars of the entries alone, to be merged with the others.

    Args:
        entries: image and channel index, from `candidates`.
        peaks: map maxima, ``image channel``.
        places: row and column of each entry's maximum, ``entry 2``.
        image_ids: ids of the images.
        keys: keys of the images.
        shape: channels and best.
    """
    image, channel = entries
    fresh = nobody(*shape)
    order = np.lexsort((image, channel))
    first = np.searchsorted(channel[order], channel[order])
    rank = np.arange(len(order)) - first
    ids = np.asarray(image_ids, np.int64)
    rows, images = channel[order], image[order]
    fresh.value[rows, rank] = peaks[images, rows]
    fresh.image_id[rows, rank] = ids[images]
    fresh.place[rows, rank] = places[order]
    fresh.keys.update({int(ids[i]): keys[i] for i in np.unique(image).tolist()})
    return fresh


def merge(left: Exemplars, right: Exemplars) -> Exemplars:
    """Return the best of both."""
    best = left.value.shape[1]
    value = np.concatenate([left.value, right.value], axis=1)
    ids = np.concatenate([left.image_id, right.image_id], axis=1)
    place = np.concatenate([left.place, right.place], axis=1)
    keys = {**left.keys, **right.keys}
    chosen = best_places(value, ids, keys, best)
    kept_ids = np.take_along_axis(ids, chosen, axis=1)
    occurring = set(np.unique(kept_ids).tolist()) - {NOBODY}
    return Exemplars(
        np.take_along_axis(value, chosen, axis=1),
        kept_ids,
        np.take_along_axis(place, chosen[:, :, None], axis=1),
        {image_id: keys[image_id] for image_id in sorted(occurring)},
    )


def best_places(
    values: NDArray[np.float32], ids: NDArray[np.int64], keys: dict[int, str], best: int
) -> NDArray[np.intp]:
    """Order each channel's images by value, then key, and give the first ones' positions."""
    known = sorted(keys, key=lambda image_id: keys[image_id])
    by_id = np.argsort(known, kind="stable")
    position = np.searchsorted(np.asarray(known, np.int64)[by_id], ids)
    rank = np.append(by_id, len(known))[np.where(ids == NOBODY, len(known), position)]
    return np.lexsort((rank, -values), axis=1)[:, :best]
