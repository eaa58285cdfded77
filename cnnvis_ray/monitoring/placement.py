"""New images on a frozen map: no image that was there before moves.

A new image starts where its nearest reference image is and takes 250 steps of openTSNE's
`transform` (Policar, Strazar and Zupan 2019, doi:10.1007/978-3-030-33778-0_18), in which new
images are pulled by their neighbours in the reference and pushed by all of it, and ignore one
another. So a position depends on the image, the reference and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.spatial import KDTree

from cnnvis_ray.errors import RefusedError

Points = npt.NDArray[np.floating]
Positions = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

NUM_NEIGHBOURS = 45
# Measured on 300 held-out digits: neighbours kept 0.561 of 0.602 when fitted together (0.534 with
# openTSNE's perplexity 5, 0.515 by one neighbour alone), purity 0.988 of 0.993.
PERPLEXITY = 15
ITERATIONS = 250
EXAGGERATION = 1.5
LEARNING_RATE = 0.1
LARGEST_STEP = 0.25  # of the gradient: a point that starts on another is not thrown off the map
MOST_BY_TREE = 10_000  # above it the repulsion of the reference is interpolated on a grid
MOST_JUDGED = 5_000  # new images on which the quality is measured


@dataclass(frozen=True, slots=True)
class PlacementQuality:
    """How true the new images' positions are.

    Attributes:
        kept: mean share of a new image's 10 nearest reference images that are among its 10
            nearest on the map.
        reference_kept: the same for reference images among themselves, a sample.
        purity: mean share of the 4 nearest reference images on the map that bear the new image's
            label; `None` where no label of the night occurs in the reference.
        features_purity: the same by neighbours in the features.
        num_judged: new images that this was measured on.
    """

    kept: float
    reference_kept: float
    purity: float | None
    features_purity: float | None
    num_judged: int


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest reference images of some images, nearest first.

    Attributes:
        indices: rows of the reference, ``image neighbour``.
        distances: ``image neighbour``.
    """

    indices: Indices
    distances: npt.NDArray[np.float64]


def find_neighbours(reference: Points, images: Points, count: int = NUM_NEIGHBOURS) -> Neighbours:
    """Search the reference exactly; a large one is better searched through an index.

    Args:
        reference: ``[N, D]``.
        images: ``[n, D]``.
        count: neighbours per image; lowered to N.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(count, len(reference))).fit(reference)
    distances, indices = search.kneighbors(images)
    return Neighbours(indices.astype(np.int64), distances.astype(np.float64))


def place_images(
    positions: npt.NDArray[np.floating], neighbours: Neighbours, num_jobs: int = 1
) -> Positions:
    """Return positions of new images on a frozen map.

    Args:
        positions: of the reference, ``[N, 2]``; not changed.
        neighbours: of the new images, at least one each; 45 are used.
        num_jobs: threads; the positions do not depend on it.

    Raises:
        RefusedError: the map holds no image, or a position or distance is not finite.
    """
    if len(positions) == 0:
        raise RefusedError("the map holds no image; run reduce first")
    if not (np.isfinite(positions).all() and np.isfinite(neighbours.distances).all()):
        raise RefusedError("the map or the features hold values that are not finite")
    frozen = np.asarray(positions, dtype=np.float64)
    indices = neighbours.indices[:, :NUM_NEIGHBOURS]
    if len(indices) == 0 or indices.shape[1] < 2:
        return frozen[indices[:, 0]].astype(np.float32)
    middle = (frozen.max(axis=0) + frozen.min(axis=0)) / 2  # openTSNE centres its grid there
    moved = transform(frozen - middle, indices, neighbours.distances[:, :NUM_NEIGHBOURS], num_jobs)
    return np.asarray(moved + middle, dtype=np.float32)


def transform(
    frozen: npt.NDArray[np.float64],
    indices: Indices,
    distances: npt.NDArray[np.float64],
    num_jobs: int,
) -> npt.NDArray[np.float64]:
    """Move each new image from its nearest reference image to where its neighbours pull it."""
    from openTSNE.affinity import PrecomputedAffinities, joint_probabilities_nn
    from openTSNE.tsne import PartialTSNEEmbedding, TSNEEmbedding

    count = len(frozen)
    pull = joint_probabilities_nn(
        indices,
        distances,
        [min(PERPLEXITY, indices.shape[1] / 3)],
        symmetrize=False,
        normalization="point-wise",
        n_reference_samples=count,
        n_jobs=num_jobs,
    )
    nothing = PrecomputedAffinities(csr_matrix((count, count)), normalize=False)
    moving = PartialTSNEEmbedding(
        frozen[indices[:, 0]],
        TSNEEmbedding(frozen, nothing, random_state=0),
        pull,
        dof=1,
        n_interpolation_points=3,
        min_num_intervals=50,
        ints_in_interval=1,
        negative_gradient_method="bh" if count <= MOST_BY_TREE else "fft",
    )
    found = moving.optimize(
        n_iter=ITERATIONS,
        learning_rate=LEARNING_RATE,
        exaggeration=EXAGGERATION,
        momentum=0.8,
        max_grad_norm=LARGEST_STEP,
        n_jobs=num_jobs,
    )
    return np.asarray(found, dtype=np.float64)


def judge_placement(
    reference: Points,
    positions: npt.NDArray[np.floating],
    images: Points,
    placed: npt.NDArray[np.floating],
    reference_labels: Sequence[str | None],
    labels: Sequence[str | None],
    seed: int = 0,
) -> PlacementQuality | None:
    """Measure how true the new positions are; `None` where there is no new image.

    Args:
        reference: features, ``[N, D]``.
        positions: of the reference, ``[N, 2]``.
        images: features of the new images, ``[n, D]``.
        placed: their positions, ``[n, 2]``.
        reference_labels: N class names, `None` for an image without one.
        labels: n class names.
        seed: of the samples.
    """
    if len(images) == 0 or len(reference) < 2:
        return None
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(len(images))[:MOST_JUDGED])
    count = min(10, len(reference) - 1)
    true = find_neighbours(reference, images[sample], count).indices
    shown = KDTree(positions).query(placed[sample], k=range(1, count + 1))[1]
    own = np.sort(rng.permutation(len(reference))[: len(sample)])
    own_true = find_neighbours(reference, reference[own], count + 1).indices[:, 1:]
    own_shown = KDTree(positions).query(positions[own], k=range(2, count + 2))[1]
    wanted = [labels[row] for row in sample]
    return PlacementQuality(
        share_kept(true, shown),
        share_kept(own_true, own_shown),
        measure_purity(shown[:, :4], reference_labels, wanted),
        measure_purity(true[:, :4], reference_labels, wanted),
        len(sample),
    )


def share_kept(true: Indices, shown: Indices) -> float:
    """Return the mean share of the true neighbours that are among the shown ones."""
    return float((true[:, :, None] == shown[:, None, :]).any(axis=2).mean())


def measure_purity(
    near: Indices, reference_labels: Sequence[str | None], labels: Sequence[str | None]
) -> float | None:
    """Return the mean share of neighbours that bear an image's label, over known labels."""
    known = {label for label in reference_labels if label is not None}
    rows = [row for row, label in enumerate(labels) if label in known]
    if not rows:
        return None
    same = [[reference_labels[index] == labels[row] for index in near[row]] for row in rows]
    return float(np.mean(same))
