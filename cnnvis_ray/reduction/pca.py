"""Principal components of features that come in blocks; see `cnnvis_ray.reduction.solvers`.

All solvers agree: variances to 1e-6 of the largest one (``randomized`` 1e-3), directions where
variances differ. Signs are fixed: the largest entry of each direction is positive.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cnnvis_ray.errors import RefusedError, near
from cnnvis_ray.reduction.blocks import Block, Features, Ids, MapBlocks, in_threads, read_rows
from cnnvis_ray.reduction.exact import Problem, Solution
from cnnvis_ray.reduction.resources import one_thread_each
from cnnvis_ray.reduction.solvers import SOLVERS, choose_solver

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

# A direction with a smaller share of the first one's deviation is rounding (products are summed
# in float32 over a batch), and whitening must not blow it up.
LEAST_DEVIATION = 1e-4


@dataclass(frozen=True, slots=True)
class PcaOptions:
    """How components are found.

    Attributes:
        num_components: how many; fewer where the features have fewer.
        seed: of the random start where the solver needs one.
        solver: a name in `SOLVERS`, or "auto", which follows from the shape.
    """

    num_components: int = 50
    seed: int = 0
    solver: str = "auto"


@dataclass(frozen=True, slots=True)
class Pca:
    """Principal components.

    Attributes:
        mean: ``[D]`` of the features.
        components: ``[K, D]`` directions, largest variance first.
        explained_variance: ``[K]`` variance along each, with N - 1 in the denominator.
        explained_variance_ratio: ``[K]`` its share of all variance; 0 where there is none.
        notes: what a person should know: the solver, its residual, and what was adapted.
        num_images: N that were used.
        left_out: ids of images that hold NaN or infinity.
    """

    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]
    explained_variance: npt.NDArray[np.float64]
    explained_variance_ratio: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()
    num_images: int = 0
    left_out: tuple[int, ...] = ()


def fit_pca(
    blocks: Sequence[Block],
    shape: tuple[int, int],
    options: PcaOptions,
    map_blocks: MapBlocks = in_threads,
) -> Pca:
    """Find the principal components of features that come in blocks.

    Args:
        blocks: each reads ids ``[n]`` and features ``[n, D]`` of any float type; some may have
            no rows. Several to a shard where rows are wide, see `BLOCK_BYTES`.
        shape: ``(N, D)`` of all blocks together.
        options: how many components, and how they are found.
        map_blocks: applies a function to groups of blocks.

    Raises:
        RefusedError: fewer than two images with finite features, a block of another width, or
            no such solver.
        ValueError: the blocks do not add up to the shape.
    """
    num_images, num_features = shape
    if num_images < 2:
        raise RefusedError(f"PCA needs at least 2 images, there are {num_images}")
    solver = choose_solver(shape) if options.solver == "auto" else options.solver
    if solver not in SOLVERS:
        hints = near(solver, SOLVERS) or list(SOLVERS)
        raise RefusedError(f"no PCA solver {solver!r}; did you mean: {', '.join(hints)}?")
    number = min(options.num_components, num_images - 1, num_features)
    with one_thread_each():
        found = SOLVERS[solver](Problem(blocks, shape, number, options.seed, map_blocks))
    return finish(found, num_features, options.num_components)


def finish(found: Solution, num_features: int, asked: int) -> Pca:
    """Fix signs, turn scatter into variances, and note what was adapted."""
    components = found.components.astype(np.float32, copy=False)
    for direction in components:  # one by one: all together are as large as what a worker holds
        if direction[np.abs(direction).argmax()] < 0:
            direction *= -1
    scatter = np.maximum(found.scatter, 0).astype(np.float64)
    notes = [found.note]
    if len(components) < asked:
        notes.insert(
            0,
            f"pca_components {asked} is more than {found.count} images of "
            f"{num_features} features have: using {len(components)}",
        )
    if len(found.left_out):
        notes.append(f"{len(found.left_out)} images hold NaN or infinity and are left out")
    return Pca(
        found.mean.astype(np.float32),
        components,
        scatter / (found.count - 1),
        scatter / found.total if found.total > 0 else np.zeros_like(scatter),
        tuple(notes),
        found.count,
        tuple(int(each) for each in np.sort(found.left_out)),
    )


def project(pca: Pca, features: Features, whiten: bool = False) -> npt.NDArray[np.float32]:
    """Turn features into coordinates along the components.

    Args:
        pca: the components.
        features: ``[n, D]``, any float type.
        whiten: scale every coordinate to variance 1; one without variance becomes 0.

    Returns:
        ``[n, K]``.
    """
    centred: npt.NDArray[np.float32] = features.astype(np.float32)
    centred -= pca.mean
    with one_thread_each():
        coordinates = centred @ pca.components.T
    if not whiten:
        return coordinates
    deviation = np.sqrt(pca.explained_variance)
    known = deviation > LEAST_DEVIATION * deviation[0]
    scale = np.where(known, 1 / np.where(known, deviation, 1), 0).astype(np.float32)
    whitened: npt.NDArray[np.float32] = coordinates * scale
    return whitened


def project_block(
    block: Block, pca: Pca, whiten: bool = False
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Read a block and project it: ids and ``[n, K]`` of the images with finite features."""
    rows = read_rows(block, len(pca.mean))
    return rows.ids, project(pca, rows.features, whiten)


def pca_to_bytes(pca: Pca) -> bytes:
    """Write components as an npz archive without pickles; equal components give equal bytes."""
    archive = BytesIO()
    np.savez(
        archive,
        mean=pca.mean,
        components=pca.components,
        explained_variance=pca.explained_variance,
        explained_variance_ratio=pca.explained_variance_ratio,
        notes=np.array(pca.notes, dtype=np.str_),
        num_images=np.array(pca.num_images),
        left_out=np.array(pca.left_out, dtype=np.int64),
    )
    return archive.getvalue()


def pca_from_bytes(archive: bytes) -> Pca:
    """Read what `pca_to_bytes` wrote, also by versions without ``num_images``.

    Raises:
        ValueError: the archive holds pickled objects.
    """
    with np.load(BytesIO(archive), allow_pickle=False) as arrays:
        later = "num_images" in arrays
        return Pca(
            arrays["mean"],
            arrays["components"],
            arrays["explained_variance"],
            arrays["explained_variance_ratio"],
            tuple(str(note) for note in arrays["notes"]),
            int(arrays["num_images"]) if later else 0,
            tuple(int(each) for each in arrays["left_out"]) if later else (),
        )


def as_scikit_learn(pca: Pca, whiten: bool = False) -> "PCA":
    """Return the components as a fitted scikit-learn PCA: it transforms as `project` does."""
    from sklearn.decomposition import PCA

    number, num_features = pca.components.shape
    fitted = PCA(number, whiten=whiten)
    fitted.mean_, fitted.components_ = pca.mean, pca.components
    fitted.explained_variance_ = pca.explained_variance
    fitted.explained_variance_ratio_ = pca.explained_variance_ratio
    fitted.singular_values_ = np.sqrt(pca.explained_variance * max(0, pca.num_images - 1))
    fitted.n_components_, fitted.n_features_in_ = number, num_features
    fitted.n_samples_ = pca.num_images
    # What the components leave, spread over the directions left (Tipping and Bishop 1999).
    share = pca.explained_variance_ratio.sum()
    total = pca.explained_variance.sum() / share if share > 0 else 0.0
    left = min(num_features, pca.num_images) - number
    fitted.noise_variance_ = total * (1 - share) / left if left > 0 else 0.0
    return fitted
