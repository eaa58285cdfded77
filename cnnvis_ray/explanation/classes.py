"""How labels show in features: the selectivity of a channel, and a linear probe of a layer.

Selectivity is how much more the best class excites a channel than all others do. A probe is how
well one trained linear layer on frozen features separates the labels: logistic regression, stopped
after a number of steps and pulled towards zero. How strongly is chosen by cross-validation, since
no one penalty suits all layers: shallow ones, of few channels, need a weak one.

References:
    Morcos et al. 2018, On the importance of single directions for generalization,
    arXiv:1803.06959: (best - rest) / (best + rest) of class means, 1 for a channel that only one
    class excites, 0 for one that does not tell classes apart.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnvis_ray.network import make_pooling

MOST_IMAGES = 5000  # a sample of these fixes an accuracy to 0.014 at two standard errors
MOST_NUMBERS = 1024  # longer features are projected at random, which keeps distances
PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)  # of squared weights, on standardized features
WORSE = 0.02  # accuracy below the best so far at which no weaker penalty is tried
STEPS = 60
FOLDS = 5
STRONGEST = 3  # classes that a card and a row of the selectivity table name
CLASS = pa.struct([("name", pa.string()), ("mean", pa.float32())])
SELECTIVITY = pa.schema(
    [
        ("channel", pa.int32()),
        ("selectivity", pa.float32()),  # null for silent channels and negative activations
        ("classes", pa.list_(CLASS)),
    ]
)
PROBE = pa.schema(
    [
        ("layer", pa.string()),
        ("accuracy", pa.float32()),
        ("deviation", pa.float32()),  # over the folds
        ("chance", pa.float32()),  # of always naming the largest class
        ("map_agreement", pa.float32()),  # share of same-label neighbours in the map, if any
        ("images", pa.int64()),
        ("classes", pa.int64()),
        ("folds", pa.int64()),
        ("penalty", pa.float32()),  # null in rows of versions that had one for all layers
    ]
)
Floats = NDArray[np.floating]
Labelled = tuple[Sequence[str | None], Floats]
"""A block of images: their labels, and their features ``image feature``."""


@dataclass(frozen=True, slots=True)
class ClassMeans:
    """Mean activation of each class, ``class channel``, and how many images each has."""

    names: tuple[str, ...]
    means: NDArray[np.float64]
    counts: NDArray[np.int64]

    def selectivity(self) -> NDArray[np.float64]:
        """Return each channel's selectivity; NaN where a mean is negative or all are zero."""
        ordered = np.sort(self.means, axis=0)
        best = ordered[-1]
        at_best = self.means.argmax(axis=0)
        others = self.counts.sum() - self.counts[at_best]
        total = (self.means * self.counts[:, None]).sum(axis=0)
        rest = (total - best * self.counts[at_best]) / others
        with np.errstate(invalid="ignore", divide="ignore"):
            value = (best - rest) / (best + rest)
        return np.asarray(np.where((ordered[0] < 0) | (best + rest <= 0), np.nan, value))

    def strongest(self, channel: int) -> list[dict[str, object]]:
        """List the classes that excite a channel most, as entries of `CLASS`."""
        order = np.argsort(-self.means[:, channel], kind="stable")[:STRONGEST]
        return [
            {"name": self.names[index], "mean": float(self.means[index, channel])}
            for index in order
        ]

    def table(self) -> pa.Table:
        """Return a row of `SELECTIVITY` for every channel."""
        values = self.selectivity()
        columns = [
            pa.array(range(len(values)), pa.int32()),
            pa.array(values, pa.float32(), from_pandas=True),
            pa.array([self.strongest(channel) for channel in range(len(values))], pa.list_(CLASS)),
        ]
        return pa.table(columns, schema=SELECTIVITY)


def class_means(blocks: Iterable[Labelled], num_channels: int) -> ClassMeans | None:
    """Average activations by class, a block of images at a time.

    Args:
        blocks: labels, and activations ``image channel``; images without a label do not count.
        num_channels: of the layer.

    Returns:
        None where there are fewer than two classes, and where each has one image: the mean of
        one image says nothing about a class.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for labels, values in blocks:
        names, index = np.unique([label or "" for label in labels], return_inverse=True)
        for number_of, name in enumerate(names.tolist()):
            own = values[index == number_of].astype(np.float64)
            sums[name] = sums.get(name, np.zeros(num_channels)) + own.sum(axis=0)
            counts[name] = counts.get(name, 0) + len(own)
    known = sorted(name for name in sums if name)
    if len(known) < 2 or max(counts[name] for name in known) < 2:
        return None
    number = np.array([counts[name] for name in known], np.int64)
    means = np.stack([sums[name] for name in known]) / number[:, None]
    return ClassMeans(tuple(known), means, number)


def measure_classes(
    blocks: Iterable[Labelled], pooling: str, shape: Sequence[int]
) -> ClassMeans | None:
    """Average a layer's channels by class, from stored features.

    Args:
        blocks: labels, and features ``image feature``.
        pooling: how the features were made.
        shape: channels, then height and width, of the activation.

    Returns:
        Means over the map (maxima for ``max``); None for a sketch, which mixes channels, and
        where there are fewer than two classes.
    """
    known = make_pooling(pooling, 0)  # its seed changes no channel's value
    if not known.per_channel:
        return None
    values = ((labels, known.channel_values(features, shape)) for labels, features in blocks)
    return class_means(values, shape[0])


@dataclass(frozen=True, slots=True)
class Probe:
    """Cross-validated accuracy, its spread over the folds, and what guessing would reach."""

    accuracy: float
    deviation: float
    chance: float
    images: int
    classes: int
    folds: int
    penalty: float


def probe(features: NDArray[np.floating], labels: Sequence[str | None], seed: int) -> Probe | None:
    """Train one linear layer on features and test it on images that it did not see.

    A fold is scored with the penalty that is best on the other folds, so that the choice does not
    flatter it. ``penalty`` is the best of all folds together.

    Args:
        features: ``image feature``.
        labels: of the images; those without one, and classes of one image, are left out.
        seed: of the folds, the sample and the projection.

    Returns:
        None where fewer than two classes have two images.
    """
    counts = Counter(label for label in labels if label is not None)
    usable = [position for position, label in enumerate(labels) if label and counts[label] > 1]
    classes = {labels[position] for position in usable}
    if len(classes) < 2:
        return None
    random = np.random.default_rng(seed)
    if len(usable) > MOST_IMAGES:
        usable = sorted(random.choice(usable, MOST_IMAGES, replace=False).tolist())
        counts = Counter(label for position in usable if (label := labels[position]) is not None)
        usable = [position for position in usable if counts[labels[position] or ""] > 1]
    values = np.asarray(features[usable], np.float32)
    if values.shape[1] > MOST_NUMBERS:
        draw = random.standard_normal((values.shape[1], MOST_NUMBERS), np.float32)
        values = values @ draw / np.float32(np.sqrt(MOST_NUMBERS))
    named = np.array([labels[position] for position in usable])
    kinds, sizes = np.unique(named, return_counts=True)
    folds = int(min(FOLDS, sizes.min()))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    table = score_penalties(values, named, split)
    others = (table.sum(axis=1, keepdims=True) - table) / (folds - 1)
    scores = table[others.argmax(axis=0), np.arange(folds)]
    return Probe(
        accuracy=float(scores.mean()),
        deviation=float(scores.std()),
        chance=float(sizes.max() / sizes.sum()),
        images=len(named),
        classes=len(kinds),
        folds=folds,
        penalty=PENALTIES[int(table.mean(axis=1).argmax())],
    )


def score_penalties(
    values: Floats, labels: NDArray[np.str_], split: StratifiedKFold
) -> NDArray[np.float64]:
    """Return accuracies ``penalty fold``, from the strongest penalty until it gets worse."""
    found: list[NDArray[np.float64]] = []
    for penalty in PENALTIES:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=STEPS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            scores = cross_val_score(model, values, labels, cv=split, error_score="raise")
        found.append(scores)
        if scores.mean() < max(each.mean() for each in found) - WORSE:
            break
    return np.stack(found)


def probe_rows(
    layer: str, features: NDArray[np.floating], labels: Sequence[str | None], seed: int
) -> pa.Table:
    """Probe one layer: a table of `PROBE` with one row, or none where classes are too few."""
    found = probe(features, labels, seed)
    rows = [] if found is None else [{"layer": layer, **asdict(found)}]
    return pa.Table.from_pylist(rows, schema=PROBE)
