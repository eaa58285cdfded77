"""How true a map is to the points it was made of, as a whole and for each image.

Figures of a whole map come from a seeded sample, each of its points against all others, so memory
grows with the points times a small block and never with their square. Each figure comes beside the
same figure of two controls: the plane of the first two principal components, and the map with its
positions shuffled. `trust` of an image is the share of its 10 neighbours that the map keeps.

Figures of labels are apart (`judge_labels`): a renamed class costs them alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from cnnvis_ray.config import Reduce
from cnnvis_ray.reduction.alignment import align
from cnnvis_ray.reduction.neighbours import MISSING, Indices, Metric, Points, prepare
from cnnvis_ray.reduction.resources import num_threads
from cnnvis_ray.reduction.tsne import Positions, embed, principal_plane

Figures = dict[str, float | int | None]
Trust = npt.NDArray[np.float32]
Measure = Callable[[Points, Points], npt.NDArray[np.floating]]

MOST_JUDGED = 5_000
FEWEST_JUDGED = 1_000
MOST_PAIRS = 2_000_000_000  # of judged and other points: 2,000 judged of a million, in a minute
BLOCK_BYTES = 64 * 2**20  # of distances held at once
MOST_COLUMNS = 2**16  # of rows that are multiplied with one another
MOST_PAIRED = 2**23  # numbers of paired rows: 64 MiB
NUM_TRIPLETS = 20_000  # PaCMAP's evaluation draws 5 per point; 20,000 are exact to 0.003
TRUST_NEIGHBOURS = 10
LABEL_NEIGHBOURS = 4
MOST_SECOND = 5_000  # images of the second map; a map of so many takes 10 s
SECOND_REACH = 3  # neighbours of one map are looked for among so many times more of the other


@dataclass(frozen=True, slots=True)
class MapQuality:
    """Figures that say how far a map can be trusted, without labels.

    Attributes:
        figures: ``knn_preservation`` and ``knn_preservation_50`` (mean share of a point's 10 and
            50 nearest that the map shows among its nearest; by chance k / (N - 1)),
            ``trustworthiness`` at 10 (Venna and Kaski 2001; about 0.5 by chance),
            ``random_triplets`` (share of triplets whose order of distances the map keeps; 0.5 by
            chance) and ``judged_images``.
        controls: the same figures of the ``pca_plane`` and the ``shuffled`` map.
    """

    figures: Figures
    controls: dict[str, Figures]


def judge_map(
    points: Points,
    positions: Points,
    plane: Points | None = None,
    metric: Metric = "euclidean",
    seed: int = 0,
) -> MapQuality:
    """Measure a map and its controls against the points.

    Args:
        points: ``[N, D]``, N at least 3.
        positions: ``[N, 2]``.
        plane: ``[N, 2]`` first two principal components: the points' first two columns after
            PCA; found here without it.
        metric: under which the points' neighbours are.
        seed: of the sample, the triplets and the shuffled control.
    """
    sample = draw_sample(len(points), seed)
    shuffled = np.random.default_rng(seed).permutation(len(points))
    maps = {
        "map": positions,
        "pca_plane": principal_plane(points, seed) if plane is None else plane,
        "shuffled": positions[shuffled],
    }
    kept = judge_neighbours(points, maps, sample, metric)
    for name, order in triplet_agreement(points, maps, metric, seed).items():
        kept[name]["random_triplets"] = order
    figures = {**kept.pop("map"), "judged_images": len(sample)}
    return MapQuality(figures, kept)


def draw_sample(num_points: int, seed: int) -> Indices:
    """Choose the points to judge: all, or a seeded sample in ascending order."""
    most = max(FEWEST_JUDGED, min(MOST_JUDGED, MOST_PAIRS // max(1, num_points)))
    if num_points <= most:
        return np.arange(num_points)
    chosen = np.random.default_rng(seed).choice(num_points, most, replace=False)
    return np.sort(chosen)


def judge_neighbours(
    points: Points, maps: Mapping[str, Points], sample: Indices, metric: Metric
) -> dict[str, Figures]:
    """Measure kept neighbours and trustworthiness of several maps in one pass over distances.

    Trustworthiness equals ``sklearn.manifold.trustworthiness`` where all points are judged.
    """
    num_points = len(points)
    counts = [min(k, num_points - 1) for k in (10, 50)]
    near = max(1, min(10, (num_points - 1) // 2))  # below N / 2, as the measure needs
    shown = {name: shown_near(places, sample, counts[1]) for name, places in maps.items()}
    kept = {name: np.zeros(2) for name in maps}
    excess = dict.fromkeys(maps, 0)
    for rows, distances in distance_blocks(points, sample, metric):
        true = first_of(distances, counts[1])
        for name, each in shown.items():
            for index, count in enumerate(counts):
                kept[name][index] += shared(true[:, :count], each[rows, :count])
            theirs = np.take_along_axis(distances, each[rows, :near], axis=1)
            for column in range(near):
                ranks = np.count_nonzero(distances < theirs[:, column, None], axis=1) + 1
                excess[name] += int(np.maximum(ranks - near, 0).sum())
    worst = len(sample) * near * (2 * num_points - 3 * near - 1)
    return {
        name: {
            "knn_preservation": float(kept[name][0] / (len(sample) * counts[0])),
            "knn_preservation_50": float(kept[name][1] / (len(sample) * counts[1])),
            "trustworthiness": 1 - 2 * excess[name] / worst if worst > 0 else 1.0,
        }
        for name in maps
    }


def first_of(distances: npt.NDArray[np.floating], count: int) -> Indices:
    """Return the columns of the smallest distances of each row, nearest first."""
    if count < distances.shape[1]:
        found = np.argpartition(distances, count - 1, axis=1)[:, :count]
    else:
        found = np.broadcast_to(np.arange(count), (len(distances), count))
    order = np.take_along_axis(distances, found, axis=1).argsort(axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def shared(one: Indices, other: Indices) -> int:
    """Count what rows of two lists have in common; no row names anything twice."""
    both = np.sort(np.concatenate([one, other], axis=1), axis=1)
    return int(((both[:, 1:] == both[:, :-1]) & (both[:, 1:] != MISSING)).sum())


def triplet_agreement(
    points: Points, maps: Mapping[str, Points], metric: Metric, seed: int
) -> dict[str, float]:
    """Measure how often a map orders two distances from a point as the points do.

    Pairs that are equally far in one and not in the other count half.
    """
    generator = np.random.default_rng(seed)
    first, second, third = generator.integers(len(points), size=(3, NUM_TRIPLETS))
    prepared = prepare(points, metric)

    def order(values: Points, by: int) -> npt.NDArray[np.floating]:
        near = pair_distances(values, first, second, by)
        return np.asarray(np.sign(near - pair_distances(values, first, third, by)))

    distinct = (first != second) & (first != third) & (second != third)
    true = order(prepared, 1 if metric == "manhattan" else 2)
    found = {}
    for name, places in maps.items():
        agreement = 1 - np.abs(true - order(places, 2)) / 2
        found[name] = float(agreement[distinct].mean()) if distinct.any() else 1.0
    return found


def pair_distances(
    values: Points, one: Indices, other: Indices, by: int
) -> npt.NDArray[np.floating]:
    """Measure the distance of each pair of rows, with bounded memory.

    Rows wider than there are rows are multiplied with one another instead; the distances are then
    rounded to float32, so that equal ones stay equal.
    """
    rows, width = values.shape
    if by == 2 and width > rows:
        products = np.zeros((rows, rows))
        for start in range(0, width, MOST_COLUMNS):
            block = values[:, start : start + MOST_COLUMNS].astype(np.float64)
            products += block @ block.T
        squares = products.diagonal()
        squared = squares[one] + squares[other] - 2 * products[one, other]
        return np.sqrt(np.maximum(squared, 0)).astype(np.float32)
    step = max(1, MOST_PAIRED // width)
    return np.concatenate(
        [
            np.linalg.norm(
                values[one[first : first + step]].astype(np.float64)
                - values[other[first : first + step]],
                ord=by,
                axis=1,
            )
            for first in range(0, len(one), step)
        ]
    )


def shown_near(positions: Points, sample: Indices, k: int) -> Indices:
    """Find the k nearest other points on the map of each sampled one, nearest first."""
    tree = KDTree(positions)
    near = tree.query(positions[sample], k=k + 1, workers=num_threads())[1].astype(np.int64)
    others = near != sample[:, None]
    others[others.all(axis=1), -1] = False  # equal positions hid the point itself
    found: Indices = near[others].reshape(len(sample), k)
    return found


def distance_blocks(
    points: Points, sample: Indices, metric: Metric
) -> Iterator[tuple[slice, npt.NDArray[np.floating]]]:
    """Yield distances of sampled points to all, some rows at a time; to itself it is infinite."""
    from sklearn.metrics import pairwise_distances

    prepared = prepare(points, metric)
    known = "manhattan" if metric == "manhattan" else "euclidean"
    rows = max(1, BLOCK_BYTES // (8 * len(points)))
    for first in range(0, len(sample), rows):
        chosen = sample[first : first + rows]
        distances = pairwise_distances(prepared[chosen], prepared, metric=known)
        distances[np.arange(len(chosen)), chosen] = np.inf
        yield slice(first, first + rows), distances


def trust_of(neighbours: Indices, positions: Points) -> Trust:
    """Measure for each image the share of its 10 neighbours that the map keeps.

    Args:
        neighbours: ``[N, k]`` indices, nearest first, `MISSING` where there are fewer.
        positions: ``[N, 2]``.

    Returns:
        ``[N]`` in [0, 1].
    """
    count = min(TRUST_NEIGHBOURS, len(positions) - 1, neighbours.shape[1])
    true = neighbours[:, :count]
    trust = np.empty(len(positions), dtype=np.float32)
    for first in range(0, len(positions), 65_536):
        rows = np.arange(first, min(first + 65_536, len(positions)))
        shown = shown_near(positions, rows, count)
        same = (true[rows, :, None] == shown[:, None, :]).any(axis=2)
        found = np.maximum((true[rows] != MISSING).sum(axis=1), 1)
        trust[rows] = same.sum(axis=1) / found
    return trust


@dataclass(frozen=True, slots=True)
class SecondMap:
    """What a second map, made of a random start and another seed, says of the first.

    Attributes:
        sample: ``[n]`` indices of the images in it.
        positions: ``[n, 2]`` their positions, laid onto the first map by Procrustes.
        agreement: ``[N]`` for each image the share of its 10 nearest on the map that are among
            its 30 nearest on the second; where an image is not in the sample, that of the
            nearest one on the map.
    """

    sample: Indices
    positions: Positions
    agreement: Trust


def compare_seeds(points: Points, positions: Points, config: Reduce, seed: int) -> SecondMap:
    """Make a second map and compare it; of `MOST_SECOND` images where there are more.

    The arrangement of clusters differs between starts, so what is compared is who is near.
    """
    num_points = len(points)
    generator = np.random.default_rng(seed + 1)
    few = min(num_points, MOST_SECOND)
    sample = np.sort(generator.choice(num_points, few, replace=False))
    start = generator.normal(size=(few, 2))
    second = embed(points[sample], config, seed + 1, start=start).positions
    count = min(TRUST_NEIGHBOURS, few - 1)
    everyone = np.arange(few)
    here = shown_near(positions[sample], everyone, count)
    there = shown_near(second, everyone, min(SECOND_REACH * count, few - 1))
    same = np.fromiter(
        (np.isin(one, other).mean() for one, other in zip(here, there, strict=True)), np.float32
    )
    nearest = KDTree(positions[sample]).query(positions, workers=num_threads())[1]
    nearest[sample] = everyone
    laid = align(second, positions[sample])
    return SecondMap(sample, laid.astype(np.float32), same[nearest])


def judge_labels(
    positions: Points,
    labels: Sequence[str | None],
    neighbours: Indices | None = None,
    plane: Points | None = None,
    seed: int = 0,
) -> MapQuality:
    """Measure how pure neighbourhoods are in class, on the map and in the features.

    Args:
        positions: ``[N, 2]``.
        labels: N class names, `None` for an image without one.
        neighbours: ``[N, k]`` nearest by features, `MISSING` where there are fewer.
        plane: ``[N, 2]`` of the control.
        seed: of the sample and the shuffled control.

    Returns:
        ``label_agreement`` (mean share of the 4 nearest labelled on the map that bear the label),
        ``feature_label_agreement`` (the same by features) and ``label_chance``; the first two
        `None` where no class has two images.
    """
    agreement = label_agreement(positions, labels, seed=seed)
    controls: dict[str, Figures] = {}
    if plane is not None:
        controls["pca_plane"] = {"label_agreement": label_agreement(plane, labels, seed=seed)}
    order = np.random.default_rng(seed).permutation(len(positions))
    controls["shuffled"] = {
        "label_agreement": label_agreement(positions[order], labels, seed=seed)
    }
    figures: Figures = {
        "label_agreement": agreement,
        "feature_label_agreement": None,
        "label_chance": label_chance(labels),
    }
    if neighbours is not None:
        figures["feature_label_agreement"] = feature_agreement(neighbours, labels)
    return MapQuality(figures, controls)


def label_codes(labels: Sequence[str | None]) -> Indices:
    """Number the classes; an image without a label is -1."""
    numbers: dict[str, int] = {}
    return np.array(
        [-1 if label is None else numbers.setdefault(label, len(numbers)) for label in labels],
        dtype=np.int64,
    )


def has_pair(codes: Indices) -> bool:
    """Return whether any class has two images, so that neighbours may agree at all."""
    return bool((np.bincount(codes[codes >= 0], minlength=1) > 1).any())


def label_agreement(
    positions: Points, labels: Sequence[str | None], k: int = LABEL_NEIGHBOURS, seed: int = 0
) -> float | None:
    """Measure the share of each image's k nearest labelled images that bear its label.

    Returns:
        The mean share, `None` where no class has two images.
    """
    codes = label_codes(labels)
    labelled = codes >= 0
    if not has_pair(codes):
        return None
    codes = codes[labelled]
    sample = draw_sample(len(codes), seed)
    near = shown_near(positions[labelled], sample, min(k, len(codes) - 1))
    return float((codes[near] == codes[sample, None]).mean())


def feature_agreement(
    neighbours: Indices, labels: Sequence[str | None], k: int = LABEL_NEIGHBOURS
) -> float | None:
    """Measure the share of each labelled image's first k labelled neighbours with its label."""
    codes = label_codes(labels)
    if not has_pair(codes):
        return None
    near = np.where(neighbours == MISSING, -1, codes[neighbours])
    counted = (near >= 0) & (np.cumsum(near >= 0, axis=1) <= k) & (codes >= 0)[:, None]
    if not counted.any():
        return None
    same = (counted & (near == codes[:, None])).sum(axis=1)
    per_image = counted.sum(axis=1)
    return float((same[per_image > 0] / per_image[per_image > 0]).mean())


def label_chance(labels: Sequence[str | None]) -> float | None:
    """Return the chance that two different labelled images bear the same label."""
    codes = label_codes(labels)
    counts = np.bincount(codes[codes >= 0]).astype(np.float64)
    total = counts.sum()
    if total < 2:
        return None
    return float((counts * (counts - 1)).sum() / (total * (total - 1)))


def as_dict(
    parts: Sequence[MapQuality], **figures: float | int | None
) -> dict[str, float | int | dict[str, Figures] | None]:
    """Lay figures into one nested record: figures at the top, ``controls`` by name below.

    Args:
        parts: of one map; later ones win.
        figures: further ones: ``kl_divergence``, ``neighbour_recall``.
    """
    controls: dict[str, Figures] = {}
    flat: dict[str, float | int | dict[str, Figures] | None] = {}
    for part in parts:
        flat.update({name: shorten(value) for name, value in part.figures.items()})
        for name, values in part.controls.items():
            controls.setdefault(name, {}).update(
                {each: shorten(value) for each, value in values.items()}
            )
    flat.update({name: shorten(value) for name, value in figures.items()})
    return {**flat, "controls": controls}


def shorten(value: float | int | None) -> float | int | None:
    """Round a figure to the digits that mean something."""
    return round(value, 4) if isinstance(value, float) else value
