"""A map of images: t-SNE (van der Maaten and Hinton 2008) through openTSNE.

Values as openTSNE recommends them: principal components scaled to a standard deviation of 1e-4 as
the start (Kobak and Berens 2019, doi:10.1038/s41467-019-13056-x), learning rate N / exaggeration
(Belkina et al. 2019), exaggeration in the first third of the iterations, 250 at most. Above
`LONG_MAP` points the iterations end at a plateau of the KL divergence. Above `LargeRecipe.above`
points the start is a map of a sample, see there.

The same points, configuration and seed give the same map, whatever the number of threads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cnnvis_ray.config import Reduce
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.pictures.layouts import sample_by_label
from cnnvis_ray.reduction.neighbours import (
    MISSING,
    Distances,
    Indices,
    Points,
    nearest,
    prepare,
    search_pieces,
)
from cnnvis_ray.reduction.resources import num_threads, one_thread_each

if TYPE_CHECKING:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import Affinities

Positions = npt.NDArray[np.float32]
Start = npt.NDArray[np.floating]
Neighbours = tuple[Indices, Distances]
Progress = Callable[[int, float], object]

FEWEST_IMAGES = 5  # with 4 the perplexity would be 1: one neighbour each, no map
MOST_EXAGGERATED = 250  # iterations (openTSNE)
# Above so many points an iteration takes a tenth of a second and more: a map ends at a plateau.
# 60,000 points of 200 clusters, CPU seconds, kept neighbours at 10 and 50: openTSNE's 250 and 500
# iterations with annoy 144 s, 0.178, 0.374; 150 and 250 with faiss 64 s, 0.159, 0.370.
LONG_MAP = 10_000
FEW_EXAGGERATED = 150
PLATEAU = 0.03  # share of the KL divergence that 50 iterations must take off, or the map ends
START_DEVIATION = 1e-4
JITTER = 0.01  # of the start's deviation, so that equal points can part (openTSNE)
REPORT_EVERY = 50  # iterations between two calls of a progress function


@dataclass(frozen=True, slots=True)
class LargeRecipe:
    """How openTSNE's documentation maps 1.3 million points ("Embedding large data sets").

    A sample is mapped with a large perplexity, which arranges clusters; the others start on their
    nearest sampled point; then all move, first strongly exaggerated, then weakly, until the KL
    divergence falls by less than a share in 50 iterations.
    """

    above: int = 200_000
    sample: int = 25_000
    sample_perplexity: float = 500
    early_iterations: int = 500
    early_exaggeration: float = 12
    late_iterations: int = 250
    late_exaggeration: float = 4
    plateau: float = 0.0005


LARGE = LargeRecipe()


@dataclass(frozen=True, slots=True)
class Phase:
    """Some iterations of one optimization.

    Attributes:
        iterations: at most.
        exaggeration: factor of the attraction.
        plateau: end when the KL divergence falls by less than this share in 50 iterations; 0
            never ends early.
    """

    iterations: int
    exaggeration: float
    plateau: float = 0


@dataclass(frozen=True, slots=True)
class Embedding:
    """A map.

    Attributes:
        positions: ``[N, 2]``, centred, in t-SNE's own unit.
        kl_divergence: what t-SNE minimizes, at the end; comparable for the same points only.
        notes: what was adapted, a line each.
    """

    positions: Positions
    kl_divergence: float
    notes: tuple[str, ...] = ()


def embed(
    points: Points,
    config: Reduce,
    seed: int,
    start: Start | None = None,
    neighbours: Neighbours | None = None,
    labels: Sequence[str | None] | None = None,
    progress: Progress | None = None,
    large: LargeRecipe = LARGE,
) -> Embedding:
    """Make a map of points.

    Args:
        points: ``[N, D]`` finite, N at least 5; equal ones are allowed.
        config: perplexity, metric, learning rate, theta, iterations.
        seed: of jitter, sample and approximate search.
        start: ``[N, 2]`` a map whose arrangement shall be kept, of another layer say; without it
            the principal components, or the map of a sample for many points.
        neighbours: indices and distances of at least ``affinity_neighbours(config, N)`` nearest
            points each, from `search_index`; searched here without them.
        labels: N class names from which a sample is drawn evenly.
        progress: called with iteration and KL divergence every 50 iterations.
        large: the recipe for many points.

    Raises:
        RefusedError: too few points, a value is not finite, or the optimization diverged.
        ValueError: ``start`` is not a position for each point.
    """
    check_points(points)
    if start is not None and start.shape != (len(points), 2):
        raise ValueError(f"a start of shape {start.shape} for {len(points)} points")
    if config.landmarks != "auto":
        large = replace(large, above=config.landmarks, sample=config.landmarks)
    many = len(points) > large.above
    perplexity, notes = fit_perplexity(config.perplexity, len(points))
    found = neighbours or nearest(
        points, affinity_neighbours(config, len(points)), config.metric, seed
    )
    with one_thread_each():
        if start is None and many:
            start = start_from_sample(points, config, seed, labels, large)
        plane = principal_plane(points, seed) if start is None else start
        affinities = affinities_of(found, perplexity)
    if many:
        phases = [
            Phase(large.early_iterations, large.early_exaggeration),
            Phase(large.late_iterations, large.late_exaggeration, large.plateau),
        ]
    else:
        long = len(points) > LONG_MAP
        exaggerated = min(FEW_EXAGGERATED if long else MOST_EXAGGERATED, config.iterations // 3)
        phases = [
            Phase(exaggerated, config.early_exaggeration),
            Phase(config.iterations - exaggerated, 1, PLATEAU if long else 0),
        ]
    moved = optimize(affinities, scale_start(plane, seed), config, phases, progress)
    positions = np.asarray(moved, dtype=np.float32)
    if not np.isfinite(positions).all():
        raise RefusedError(
            f"t-SNE diverged with reduce.learning_rate {config.learning_rate}; set it to auto"
        )
    return Embedding(positions, float(moved.kl_divergence), notes)


def check_points(points: Points) -> None:
    """Refuse points of which no map can be made."""
    if len(points) < FEWEST_IMAGES:
        raise RefusedError(f"a map needs at least {FEWEST_IMAGES} images, there are {len(points)}")
    if not np.isfinite(points).all():
        raise RefusedError("the features hold NaN or infinity, of which no map can be made")


def fit_perplexity(asked: float, num_images: int) -> tuple[float, tuple[str, ...]]:
    """Lower a perplexity that needs more neighbours than there are.

    A perplexity of P needs 3 P neighbours, hence 3 P + 1 images.
    """
    largest = (num_images - 1) / 3
    if asked <= largest:
        return asked, ()
    needed = int(np.ceil(3 * asked)) + 1
    note = f"perplexity {asked:g} needs {needed} images, there are {num_images}: "
    return largest, (f"{note}using {largest:.1f}",)


def affinity_neighbours(config: Reduce, num_images: int) -> int:
    """Count the neighbours that a map needs of each point: 3 times the perplexity."""
    perplexity, _ = fit_perplexity(config.perplexity, num_images)
    return min(num_images - 1, max(1, int(3 * perplexity)))


def map_bytes(num_images: int, num_components: int, perplexity: float) -> int:
    """Estimate the memory that the task of one map needs beside its interpreter.

    Per image: its point, as read and as searched; 3 neighbours per unit of perplexity with their
    distances (24 bytes, copied once); and the affinities, symmetric, where each neighbour becomes
    up to 2 entries of 12 bytes that exist twice while they are summed.
    """
    neighbours = min(num_images - 1, int(3 * perplexity))
    return num_images * (8 * num_components + neighbours * (2 * 24 + 2 * 24) + 200)


def affinities_of(neighbours: Neighbours, perplexity: float) -> "Affinities":
    """Weigh how strongly near points attract one another.

    A neighbour that an approximate search did not find attracts nobody.
    """
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    count = max(1, min(neighbours[0].shape[1], int(3 * perplexity)))
    indices, distances = neighbours[0][:, :count], neighbours[1][:, :count].astype(np.float64)
    missing = indices == MISSING
    if missing.any():
        indices = np.where(missing, np.arange(len(indices))[:, None], indices)
        distances[missing] = 1e3 * max(1.0, float(distances[~missing].max(initial=0)))
    index = PrecomputedNeighbors(indices, distances)
    return PerplexityBasedNN(perplexity=perplexity, knn_index=index, n_jobs=num_threads())


def principal_plane(points: Points, seed: int) -> npt.NDArray[np.float64]:
    """Project points onto their first two principal components; missing ones are 0."""
    from sklearn.decomposition import PCA

    plane = np.zeros((len(points), 2))
    number = min(2, points.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):  # equal points: 0 / 0 as a ratio
        solver = "covariance_eigh" if points.shape[1] <= 1000 else "randomized"
        found = PCA(number, svd_solver=solver, random_state=seed).fit_transform(points)
    plane[:, :number] = found
    return plane


def start_from_sample(
    points: Points,
    config: Reduce,
    seed: int,
    labels: Sequence[str | None] | None,
    large: LargeRecipe,
) -> Start:
    """Map a sample, and start every point on its nearest sampled one."""
    import faiss

    sample = sample_by_label(labels or [None] * len(points), large.sample, seed)
    wanted = {"perplexity": large.sample_perplexity, "landmarks": "auto"}
    broad = config.model_copy(update=wanted)
    # Above any number of points, so that a sample is mapped in the ordinary way.
    whole = LargeRecipe(above=len(points))
    mapped = embed(points[sample], broad, seed, large=whole)
    prepared = prepare(points, config.metric)
    kind = faiss.METRIC_L1 if config.metric == "manhattan" else faiss.METRIC_L2
    index = faiss.IndexFlat(prepared.shape[1], kind)
    index.add(prepared[sample])
    return mapped.positions[search_pieces(index, prepared, 1)[1][:, 0]]


def scale_start(start: Start, seed: int) -> npt.NDArray[np.float64]:
    """Shrink start positions to the deviation that t-SNE needs, and part equal ones."""
    centred: npt.NDArray[np.float64] = start.astype(np.float64) - start.mean(axis=0)
    deviation = float(centred.std(axis=0).max())
    noise: npt.NDArray[np.float64] = np.random.default_rng(seed).normal(
        0, START_DEVIATION, centred.shape
    )
    if deviation <= np.finfo(np.float32).eps * max(1.0, float(np.abs(start).max())):
        return noise
    return centred * (START_DEVIATION / deviation) + JITTER * noise


def optimize(
    affinities: "Affinities",
    initial: npt.NDArray[np.float64],
    config: Reduce,
    phases: Sequence[Phase],
    progress: Progress | None,
) -> "TSNEEmbedding":
    """Move the points until attraction and repulsion balance."""
    from openTSNE import TSNEEmbedding

    embedding = TSNEEmbedding(
        initial,
        affinities,
        learning_rate=config.learning_rate,
        negative_gradient_method="auto" if config.theta is None else "bh",
        theta=0.5 if config.theta is None else config.theta,
        n_jobs=num_threads(),
    )
    done = 0
    for phase in phases:
        if phase.iterations:
            watch = watcher(done, phase, progress)
            embedding.optimize(
                phase.iterations,
                exaggeration=phase.exaggeration,
                momentum=0.8,
                inplace=True,
                callbacks=watch,
                callbacks_every_iters=REPORT_EVERY,
            )
        done += phase.iterations
    return embedding


def watcher(
    done: int, phase: Phase, progress: Progress | None
) -> Callable[[int, float, object], bool]:
    """Return what openTSNE calls every 50 iterations; true ends the phase."""
    before = np.inf

    def watch(iteration: int, divergence: float, positions: object) -> bool:
        nonlocal before
        if progress:
            progress(done + iteration, float(divergence))
        settled = before - divergence < phase.plateau * abs(before)
        before = divergence
        return bool(settled and phase.plateau)

    return watch
