"""Maps that can be compared: one laid onto another, and how far each image then moved.

t-SNE fixes neither rotation, reflection nor scale. Maps to be compared start from one
initialization (`embed(start=...)`), and Procrustes (Schonemann 1966) removes what is left.
"""

import numpy as np
import numpy.typing as npt

from cnnvis_ray.reduction.neighbours import Points

Exact = npt.NDArray[np.float64]


def align(positions: Points, reference: Points, *, scale: bool = True) -> Exact:
    """Turn, mirror, scale and shift a map so that it lies nearest to another of the same images.

    Args:
        positions: ``[N, 2]``.
        reference: ``[N, 2]`` of the same images in the same order.
        scale: without it the map keeps its own unit and is centred at 0.

    Returns:
        ``[N, 2]`` in the reference's unit.

    Raises:
        ValueError: the maps hold different numbers of images.
    """
    if positions.shape != reference.shape:
        raise ValueError(f"maps of {len(positions)} and {len(reference)} images")
    moved: Exact = positions.astype(np.float64) - positions.mean(axis=0)
    centre = reference.mean(axis=0, dtype=np.float64)
    fixed = reference.astype(np.float64) - centre
    size = np.square(moved).sum()
    if size <= 0:
        moved[:] = centre
        return moved
    left, strength, right = np.linalg.svd(moved.T @ fixed)
    turned: Exact = moved @ (left @ right)
    return turned * (strength.sum() / size) + centre if scale else turned


def displacements(positions: Points, reference: Points) -> npt.NDArray[np.float32]:
    """Measure how far each image is from its place on another map, after `align`.

    Returns:
        ``[N]`` distances in units of the reference's deviation (root mean square distance from
        its centre), so that a shuffled map has a mean near 1.3 and an equal one 0.
    """
    steps = np.linalg.norm(align(positions, reference) - reference, axis=1)
    spread = np.sqrt(np.square(reference - reference.mean(axis=0)).sum(axis=1).mean())
    return np.asarray(steps / spread if spread > 0 else steps * 0, dtype=np.float32)
