"""Covering pixels: occlusion as a method, deletion and insertion as measures of any map.

Occlusion covers a square and measures the score: where it falls most, the network was looking.
Deletion takes the hottest pixels away first, insertion brings them back first; a map with meaning
has a small area under the first curve and a large one under the second, against a random order.
Covered images of many images share a batch.

References:
    Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks,
    doi:10.1007/978-3-319-10590-1_53. Petsiuk, Das, Saenko 2018, RISE, arXiv:1806.07421.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from cnnvis_ray.config.explanation import Explain
from cnnvis_ray.explanation.aims import Aimed, Aims
from cnnvis_ray.explanation.heat import enlarge
from cnnvis_ray.network import Preprocess

STEPS = 10  # points of a curve beside its start: two curves then fit in 22 forward passes

Square = tuple[int, int]
"""The top and left pixel of a covered square."""


def step_of(explain: Explain) -> int:
    """Return the pixels between squares: half of the patch where the stride is ``auto``."""
    return max(1, explain.patch // 2) if explain.stride == "auto" else explain.stride


def squares(side: int, patch: int, stride: int) -> list[Square]:
    """List the squares that cover an image, row by row; the last ones end at its border.

    Raises:
        ValueError: the patch is larger than the image.
    """
    if patch > side:
        raise ValueError(f"a patch of {patch} pixels does not fit an image of {side}")
    starts = list(range(0, side - patch + 1, stride))
    if starts[-1] != side - patch:
        starts.append(side - patch)
    return [(top, left) for top in starts for left in starts]


def cover(
    pixels: NDArray[np.uint8], square: Square, patch: int, fill: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Cover one square of a copy of an image ``height width colour``."""
    covered = pixels.copy()
    top, left = square
    covered[top : top + patch, left : left + patch] = fill
    return covered


def fill_colour(fill: tuple[int, int, int], colours: int) -> NDArray[np.uint8]:
    """Return the colour of covered pixels; a grey network's is the luma (ITU-R 601, as PIL)."""
    if colours == 3:
        return np.array(fill, np.uint8)
    red, green, blue = fill
    return np.array([(red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16], np.uint8)


def occluded_scores(
    aimed: Aimed,
    covered: Iterator[tuple[int, NDArray[np.uint8]]],
    aims: Aims,
    preprocess: Preprocess,
    batch_size: int,
) -> NDArray[np.float64]:
    """Score images that are given one by one, in batches whatever image they come from.

    Args:
        aimed: the network.
        covered: position in ``aims`` and pixels of each.
        aims: of the images as they are.
        preprocess: of the network.
        batch_size: images a forward pass; the last batch is padded.

    Returns:
        The scores, in the order given.
    """
    scores: list[float] = []
    device = str(aims.index.device)
    while batch := list(islice(covered, batch_size)):
        laid = np.zeros((batch_size, *batch[0][1].shape), np.uint8)
        laid[: len(batch)] = np.stack([pixels for _, pixels in batch])
        owners = [owner for owner, _ in batch] + [0] * (batch_size - len(batch))
        chosen = aims.of(torch.tensor(owners, device=aims.index.device))
        scored = aimed.score(preprocess.normalize(laid, device), chosen)
        scores.extend(scored[: len(batch)].tolist())
    return np.array(scores)


def spread(
    heat: NDArray[np.float64], covered: list[Square], patch: int, side: int
) -> NDArray[np.float64]:
    """Return at each pixel the mean heat of the squares that cover it, ``side side``."""
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for (top, left), value in zip(covered, heat, strict=True):
        total[top : top + patch, left : left + patch] += value
        count[top : top + patch, left : left + patch] += 1
    return np.asarray(total / np.maximum(count, 1))


def occlusion(
    aimed: Aimed,
    pixels: NDArray[np.uint8],
    aims: Aims,
    preprocess: Preprocess,
    patch: int,
    stride: int,
    fill: NDArray[np.uint8],
    batch_size: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Occlude images square by square.

    A probability's heat is 1 - p; a number, which has no upper end, counts by how far it moved.

    Args:
        aimed: the network.
        pixels: fitted images, ``image height width colour``.
        aims: theirs, at least as many.
        preprocess: of the network.
        patch: side of a square, pixels.
        stride: from square to square, pixels.
        fill: colour of covered pixels.
        batch_size: images per forward pass.

    Returns:
        Heat maps ``image height width`` and scores ``image square``.
    """
    regions = squares(pixels.shape[1], patch, stride)
    covered = (
        (owner, cover(image, square, patch, fill))
        for owner, image in enumerate(pixels)
        for square in regions
    )
    scores = occluded_scores(aimed, covered, aims, preprocess, batch_size)
    table = scores.reshape(len(pixels), len(regions))
    if aimed.kind == "numbers":
        heat = np.abs(table - aims.score[: len(table)].cpu().numpy()[:, None])
    else:
        heat = 1 - table
    return np.stack([spread(row, regions, patch, pixels.shape[1]) for row in heat]), table


def areas(
    aimed: Aimed,
    pixels: NDArray[np.uint8],
    heat: NDArray[np.floating],
    aims: Aims,
    preprocess: Preprocess,
    batch_size: int,
) -> tuple[float, float]:
    """Measure one image's map by deletion and insertion.

    Args:
        aimed: the network.
        pixels: the fitted image, ``height width colour``.
        heat: its map in [0, 1], any size.
        aims: of this one image.
        preprocess: of the network.
        batch_size: images per forward pass.

    Returns:
        Areas under deletion and insertion, scores averaged from no pixel to all of them.
    """
    order = np.argsort(-enlarge(heat, pixels.shape[0]).ravel(), kind="stable")
    curve = occluded_scores(aimed, both(pixels, order, preprocess), aims, preprocess, batch_size)
    deletion, insertion = curve[: STEPS + 1], curve[STEPS + 1 :]
    return area(deletion), area(insertion)


def area(curve: NDArray[np.float64]) -> float:
    """Integrate a curve over [0, 1] by trapezoids."""
    return float((curve[:-1] + curve[1:]).mean() / 2)


def both(
    pixels: NDArray[np.uint8], order: NDArray[np.intp], preprocess: Preprocess
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the images of the deletion curve, then those of the insertion curve."""
    empty = np.empty_like(pixels)
    empty[:] = np.rint(np.array(preprocess.mean) * 255).astype(np.uint8)
    for before, after in ((pixels, empty), (empty, pixels)):
        for step in range(STEPS + 1):
            mixed = before.copy().reshape(-1, pixels.shape[2])
            chosen = order[: len(order) * step // STEPS]
            mixed[chosen] = after.reshape(-1, pixels.shape[2])[chosen]
            yield 0, mixed.reshape(pixels.shape)
