"""Labels that look wrong.

An image is judged by what was learned without it: a linear discriminant cross-fitted over five
folds, and the labels of its nearest neighbours. Each names the label that the image would get;
both shares of the label that it has make its score.

A score becomes a chance of being wrong by injecting faults: 5 % of the labels are exchanged, and
the same judgement is made again, three times. The chance is the estimated share of wrong labels
times how much more frequent a score is among exchanged labels than among kept ones. An image that
is hard for its class scores like a wrong label, so the chance is an upper bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cnnvis_ray.monitoring.duplicates import Images, Indices, Points

Scores = npt.NDArray[np.float64]

NUM_FOLDS = 5
NUM_VOTES = 10
SMALLEST_VOTE = 0.02  # stands for none among so few neighbours
MOST_COMPONENTS = 100  # of the features that the discriminant reads
MOST_TRAINED = 20_000  # images that it learns from
INJECTED_SHARE = 0.05
NUM_INJECTIONS = 3
LEAST_CHANCE = 0.5  # of a wrong label, from which an image is listed
MOST_CHANCE = 0.99
FEWEST_LABELLED = 20
# Of a class: below it hard images score like wrong labels. Measured on photos of which each class
# has 5 and no label is known to be wrong: 115 of 1,000 had a chance of a half or more, of which
# 70 of 1.
FEWEST_PER_CLASS = 10

SUSPECTS = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("probe_label", pa.string()),
        ("neighbour_label", pa.string()),
        ("score", pa.float32()),
        ("chance", pa.float32()),  # of a wrong label, at most; null in too small a class
    ]
)


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """What the search for wrong labels found of injected ones.

    Attributes:
        auroc: chance that an exchanged label scores above a kept one.
        precision: share of exchanged labels among as many highest scores as were exchanged.
        num_injected: labels that were exchanged, over three searches.
        num_judged: images with a label that another image bears too.
        num_without_chance: those of them whose class has too few images for a chance.
        wrong_share: estimated share of wrong labels among the others, an upper bound; `None`
            where there are none.
    """

    auroc: float
    precision: float
    num_injected: int
    num_judged: int
    num_without_chance: int
    wrong_share: float | None


@dataclass(frozen=True, slots=True)
class Opinions:
    """Which label each judged image would get.

    Attributes:
        rows: the judged images.
        names: of the classes.
        own: the class each image bears, an index of ``names``.
        probe: share of each class by the discriminant, ``image class``.
        votes: share of each class among the neighbours, ``image class``.
    """

    rows: Indices
    names: Sequence[str]
    own: Indices
    probe: Scores
    votes: Scores

    @property
    def score(self) -> Scores:
        """How surprising the own label is to both, nats: minus the logarithms of its shares.

        Measured on photos of which each class has 5, 5 % of the labels exchanged: AUROC 0.86; by
        the margin to the best other class 0.67 (few neighbours agree on anything there).
        """
        rows = np.arange(len(self.own))
        probe, votes = self.probe[rows, self.own], self.votes[rows, self.own]
        return np.asarray(-np.log(probe + 1e-9) - np.log(votes + SMALLEST_VOTE))

    @property
    def large(self) -> npt.NDArray[np.bool_]:
        """Which images are of a class large enough for a chance."""
        return np.asarray(np.bincount(self.own)[self.own] >= FEWEST_PER_CLASS)


def find_suspects(
    images: Images, features: Points, neighbours: Indices, seed: int = 0
) -> tuple[pa.Table, LabelCalibration | None]:
    """List images whose label is probably wrong, most probable first.

    Images of classes too small for a chance follow, at most 5 % of them, highest score first.

    Args:
        images: all images; those without a label, or alone in their class, are not judged.
        features: ``image feature``.
        neighbours: rows of the nearest other images, ``image neighbour``.
        seed: of folds and injected faults.

    Returns:
        Schema `SUSPECTS`, and what the same search finds of injected wrong labels; an empty
        table and `None` for fewer than 20 judged images or two classes.
    """
    opinions = judge_labels(images.labels, features, neighbours, seed)
    if opinions is None:
        return SUSPECTS.empty_table(), None
    found, truths, large = [], [], []
    for number in range(NUM_INJECTIONS):
        wrong_labels, wrong = inject_errors(images.labels, opinions, (seed, number + 1))
        injected = judge_labels(wrong_labels, features, neighbours, seed)
        if injected is not None:
            found.append(injected.score)
            truths.append(wrong[injected.rows])
            large.append(injected.large)
    truth = np.concatenate(truths or [np.zeros(0, np.bool_)])
    if not truth.any() or truth.all():
        return SUSPECTS.empty_table(), None
    injected_scores, judged, scores = np.concatenate(found), opinions.large, opinions.score
    chances, wrong_share = np.full(len(scores), np.nan), None
    usable = np.concatenate(large)
    if judged.any() and truth[usable].any() and not truth[usable].all():
        chances[judged], wrong_share = learn_chances(
            injected_scores[usable], truth[usable], scores[judged]
        )
    table = pa.Table.from_pylist(
        [
            describe_suspect(images, opinions, index, float(scores[index]), float(chances[index]))
            for index in choose_suspects(scores, chances)
        ],
        schema=SUSPECTS,
    )
    auroc, precision = rate_scores(injected_scores, truth)
    small = int(np.isnan(chances).sum())
    return table, LabelCalibration(
        auroc, precision, int(truth.sum()), len(scores), small, wrong_share
    )


def choose_suspects(scores: Scores, chances: Scores) -> list[int]:
    """Return the images to list: by chance, then those without one by score."""
    order = np.lexsort((-scores, -chances))
    likely = [int(index) for index in order if chances[index] >= LEAST_CHANCE]
    small = [
        int(index) for index in np.argsort(-scores, kind="stable") if np.isnan(chances[index])
    ]
    return likely + small[: round(INJECTED_SHARE * len(small))]


def judge_labels(
    labels: Sequence[str | None], features: Points, neighbours: Indices, seed: int
) -> Opinions | None:
    """Return the opinions on all images whose class has another image; `None` for too few."""
    named = np.array([label or "" for label in labels])
    given = np.array([label is not None for label in labels])
    names, codes, counts = np.unique(named[given], return_inverse=True, return_counts=True)
    rows = np.flatnonzero(given)[counts[codes] >= 2] if len(names) else np.empty(0, np.int64)
    if len(rows) < FEWEST_LABELLED or (counts >= 2).sum() < 2:
        return None
    every = np.full(len(labels), -1)
    every[given] = codes
    return Opinions(
        rows,
        [str(name) for name in names],
        every[rows],
        probe_classes(features, every, rows, len(names), seed),
        count_votes(neighbours, every, rows, len(names)),
    )


def probe_classes(
    features: Points, codes: Indices, rows: Indices, num_classes: int, seed: int
) -> Scores:
    """Return each row's class shares by discriminants that were fitted without it."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(seed)
    count = min(MOST_COMPONENTS, features.shape[1], len(rows) - 1)
    basis = PCA(count, random_state=seed).fit(features[rng.permutation(rows)[:MOST_TRAINED]])
    points = basis.transform(features[rows])
    folds = rng.permutation(len(rows)) % NUM_FOLDS
    shares = np.zeros((len(rows), num_classes))
    for fold in range(NUM_FOLDS):
        inside = rng.permutation(np.flatnonzero(folds != fold))[:MOST_TRAINED]
        judged = np.flatnonzero(folds == fold)
        known, own = np.unique(codes[rows[inside]], return_inverse=True)
        shares[np.ix_(judged, known)] = discriminate(points[inside], own, points[judged])
    return shares


def discriminate(points: Points, codes: Indices, judged: Points) -> Scores:
    """Return class shares by a linear discriminant with one covariance for all classes.

    The covariance within classes is shrunk (Ledoit and Wolf 2004). With few images per class a
    covariance of each class's own, as scikit-learn averages them, knows nothing: measured on
    photos, 4 images per class, AUROC 0.69.
    """
    from sklearn.covariance import ledoit_wolf

    counts = np.bincount(codes)
    means = np.zeros((len(counts), points.shape[1]))
    np.add.at(means, codes, points)
    means /= counts[:, None]
    within = ledoit_wolf(points - means[codes], assume_centered=True)[0]
    within *= len(points) / max(1, len(points) - len(counts))  # means took degrees of freedom
    weights = np.linalg.solve(within + 1e-9 * np.trace(within) * np.eye(len(within)), means.T)
    logits = judged @ weights - (means.T * weights).sum(axis=0) / 2
    logits -= logits.max(axis=1, keepdims=True)
    shares = np.exp(logits)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def count_votes(neighbours: Indices, codes: Indices, rows: Indices, num_classes: int) -> Scores:
    """Return the share of each class among the labelled neighbours of each row, nearer ones more.

    The vote of the neighbour of rank r counts 1 / (r + 1).
    """
    votes = np.zeros((len(rows), num_classes))
    for rank in range(min(NUM_VOTES, neighbours.shape[1])):
        near = neighbours[rows, rank]
        voter = np.where(near >= 0, codes[near], -1)
        heard = np.flatnonzero(voter >= 0)
        votes[heard, voter[heard]] += 1 / (rank + 2)
    return np.asarray(votes / np.maximum(votes.sum(axis=1, keepdims=True), 1e-12))


def inject_errors(
    labels: Sequence[str | None], opinions: Opinions, seed: tuple[int, int]
) -> tuple[list[str | None], npt.NDArray[np.bool_]]:
    """Exchange 5 % of the labels for others, drawn by how frequent they are."""
    rng = np.random.default_rng(seed)
    count = max(1, round(INJECTED_SHARE * len(opinions.rows)))
    wrong_labels = list(labels)
    wrong = np.zeros(len(labels), np.bool_)
    for index in rng.choice(len(opinions.rows), count, replace=False):
        others = opinions.own[opinions.own != opinions.own[index]]
        row = int(opinions.rows[index])
        wrong_labels[row] = opinions.names[int(rng.choice(others))]
        wrong[row] = True
    return wrong_labels, wrong


def learn_chances(
    scores: Scores, truth: npt.NDArray[np.bool_], wanted: Scores
) -> tuple[Scores, float]:
    """Return the chance of a wrong label for each score, and the share of wrong labels.

    The labels that were not exchanged hold an unknown share of wrong ones, which score as the
    exchanged do: at most the share of kept labels beyond a score divided by that of exchanged
    ones, at the score where this is least beyond doubt, four standard deviations of the count
    (Blanchard, Lee and Scott 2010, Semi-supervised novelty detection). It is lowered by one, since
    hard images are among the highest scores of any set. Measured on 1,000 photos in classes of 20
    to 200 of which no label is known to be wrong: 0 to 8 are listed, without that 2 to 10.

    Args:
        scores: of the searches with exchanged labels.
        truth: which were exchanged.
        wanted: scores to judge.
    """
    from sklearn.isotonic import IsotonicRegression

    wrong, kept = scores[truth], np.sort(scores[~truth])
    limits = np.quantile(wrong, np.linspace(0.3, 0.9, 25))
    wrong_beyond = (wrong >= limits[:, None]).mean(axis=1)
    beyond = (len(kept) - np.searchsorted(kept, limits)) / NUM_INJECTIONS
    best = int(np.argmin((beyond + 4 * np.sqrt(beyond + 1)) / wrong_beyond))
    count = max(0.0, beyond[best] - np.sqrt(beyond[best]))
    share = float(count / (len(kept) / NUM_INJECTIONS) / wrong_beyond[best])
    rising = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    learned = rising.fit(scores, truth.astype(np.float64)).predict(wanted)
    learned = np.minimum(learned, 1 - 1 / len(scores))
    ratio = learned / (1 - learned) * len(kept) / len(wrong)
    return np.asarray(np.minimum(MOST_CHANCE, share * ratio)), share


def rate_scores(scores: Scores, truth: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return AUROC and precision of scores for injected faults."""
    from sklearn.metrics import roc_auc_score

    best = np.argsort(-scores, kind="stable")[: int(truth.sum())]
    return float(roc_auc_score(truth, scores)), float(truth[best].mean())


def describe_suspect(
    images: Images, opinions: Opinions, index: int, score: float, chance: float
) -> dict[str, object]:
    """Return one row of the table."""
    row = int(opinions.rows[index])
    return {
        "image_id": images.image_ids[row],
        "key": images.keys[row],
        "label": images.labels[row],
        "probe_label": opinions.names[int(opinions.probe[index].argmax())],
        "neighbour_label": opinions.names[int(opinions.votes[index].argmax())],
        "score": score,
        "chance": None if np.isnan(chance) else chance,
    }
