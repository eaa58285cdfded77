"""What chance does to a night: nights drawn from the reference, and the threshold that follows.

Three figures of each channel: how far its mean lies from the reference's (`SHIFT`), how far its
histogram does (`DISTANCE`: the largest distance of the cumulative histograms at the reference's
quintiles), and how far the mean of its residual does (`OWN_SHIFT`: what the layer's other channels
do not explain, see `residuals`). A layer's figure is the logarithm of the mean over the five
channels that moved most, centred and scaled by its distribution over the drawn nights. A layer's
score is its `OWN_SHIFT`, or one of the other two where that is higher by `HANDICAP`, centred and
scaled again.

A fault moves neighbouring layers together, so a night's score is the mean of its two highest
layers'. The threshold is one for all channels, layers and figures: where a normal distribution
with the drawn scores' mean and deviation has `false_alarm_rate` times `DRAWN_SHARE` beyond it. It
is never below what a share of `false_alarm_rate` of the drawn scores exceeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.sparse import csr_matrix

from cnnvis_ray.monitoring.residuals import SMALLEST_SCALE, Residuals, bound, fit_residuals

Values = npt.NDArray[np.floating]  # image channel: activations averaged over the map
Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]

MOST_SCORED = 5  # measured on photos at half resolution: 3 and 5 find it in 94 %, 10 in 83 %
SHIFT, DISTANCE, OWN_SHIFT = range(3)
# Measured on photos, 20 of 100 at half resolution: residuals alone find it in 78 % of nights, all
# three on a par in 62 to 67 %, with this handicap in 77 %. Without the others, a layer too wide
# for residuals would not be judged.
HANDICAP = np.array([1.0, 1.0, 0.0])
NUM_HIGHEST = 2  # layers; the highest alone finds it in 66 %, three in 75 %
# Five layers of 500 channels of so many images take 100 MB in float32, and 17 s in one thread.
MOST_REFERENCE = 10_000
NUM_NIGHTS = 1_000
# Drawn nights hold the reference's own images, a new night others, whose tails reach further, and
# the scores are skewed. Measured on photos: with a threshold of 3 deviations, which 0.135 % of a
# normal distribution exceed, 7 of 600 unchanged nights raise an alarm.
DRAWN_SHARE = 0.135
SPARSE_SHARE = 16  # nights of less than a sixteenth of the reference are summed sparsely
QUANTILES = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True, slots=True)
class LayerReference:
    """One layer's reference, ready to be compared with nights of one size.

    Attributes:
        values: standardized, ``image channel``.
        mean: in activation units, ``channel``.
        scale: standard deviation in activation units, ``channel``; 0 in a layer of constants.
        edges: quintiles of the standardized values, ``edge channel``.
        offset: mean of the bounded standardized values, ``channel``.
        below: share of the reference's images at or below each edge, ``edge channel``.
        residuals: how the layer is whitened; `None` for a very wide one.
        drawn: the drawn nights, ``figure night channel``.
        centre: mean of each figure over the drawn nights, ``figure``.
        spread: its standard deviation, ``figure``.
        usual: mean and standard deviation over the drawn nights of the best figure.
    """

    values: Array
    mean: Numbers
    scale: Numbers
    edges: Array
    offset: Array
    below: Array
    residuals: Residuals | None
    drawn: Array
    centre: Numbers
    spread: Numbers
    usual: tuple[float, float]

    @property
    def is_constant(self) -> bool:
        """Whether no channel of the layer varies over the reference."""
        return not bool(self.scale.any())


@dataclass(frozen=True, slots=True)
class Calibration:
    """What nights of one size do by chance.

    Attributes:
        layers: those that vary over the reference.
        constant: names of those that do not.
        num_images: in a night.
        num_reference: in the reference.
        false_alarm_rate: share of unchanged nights that raise an alarm.
        threshold: of a night's score, the mean of its two highest layers'.
        seed: of all that was drawn.
    """

    layers: Mapping[str, LayerReference]
    constant: tuple[str, ...]
    num_images: int
    num_reference: int
    false_alarm_rate: float
    threshold: float
    seed: int

    @property
    def chance(self) -> float:
        """What chance moves a mean by, in standard deviations of one image."""
        return float(np.sqrt(1 / self.num_images + 1 / self.num_reference))


def draw_reference(num_images: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the rows that stand for a reference: all, or `MOST_REFERENCE` drawn by the seed."""
    if num_images <= MOST_REFERENCE:
        return np.arange(num_images)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(num_images, MOST_REFERENCE, replace=False))


def calibrate(
    reference: Mapping[str, Values], num_images: int, false_alarm_rate: float, seed: int = 0
) -> Calibration:
    """Draw nights from the reference and find the threshold.

    Args:
        reference: by layer, ``image channel``.
        num_images: in a night.
        false_alarm_rate: share of the drawn nights above the threshold.
        seed: of the drawn nights; they hold the same images in every layer.
    """
    num_reference = len(next(iter(reference.values())))
    draws = draw_nights(num_reference, num_images, seed)
    layers: dict[str, LayerReference] = {}
    for name, values in reference.items():
        layer = calibrate_layer(values, draws)
        if not layer.is_constant:
            layers[name] = layer
    constant = tuple(name for name in reference if name not in layers)
    threshold = choose_threshold(layers, false_alarm_rate) if layers else np.inf
    return Calibration(
        layers, constant, num_images, num_reference, false_alarm_rate, threshold, seed
    )


def choose_threshold(layers: Mapping[str, LayerReference], false_alarm_rate: float) -> float:
    """Return the score that at most a share of unchanged nights exceed."""
    drawn = combine(np.stack([score(layer, layer.drawn) for layer in layers.values()]))
    deviations = stats.norm.isf(false_alarm_rate * DRAWN_SHARE)
    seen = np.quantile(drawn, 1 - false_alarm_rate, method="higher")
    return float(max(drawn.mean() + deviations * drawn.std(), seen))


def combine(scores: Numbers) -> Numbers:
    """Return the nights' scores from those of the layers, ``layer night``."""
    highest: Numbers = np.sort(scores, axis=0)[-NUM_HIGHEST:].mean(axis=0)
    return highest


@dataclass(frozen=True, slots=True)
class Draws:
    """Nights drawn from the reference: what each image counts in each night's difference.

    Attributes:
        weights: ``night image``, sparse where a night is a small part of the reference.
        rest: subtracted from every weight, 0 for nights drawn with replacement.
    """

    weights: Array | csr_matrix
    rest: float

    def differences(self, values: Array) -> Array:
        """Return each night's mean minus that of what it is compared with, ``night channel``."""
        whole = self.weights @ values - self.rest * values.sum(axis=0, dtype=np.float64)
        return np.asarray(whole, dtype=np.float32)


def draw_nights(num_reference: int, num_images: int, seed: int) -> Draws:
    """Draw nights from the reference.

    A night is drawn without replacement and compared with all other images, which is unbiased;
    one larger than half the reference is drawn with replacement, and a reference beside it. The
    differences are scaled to the variance of a real night's from the reference.
    """
    rng = np.random.default_rng(seed)
    if 2 * num_images > num_reference:
        even = np.full(num_reference, 1 / num_reference)
        night = rng.multinomial(num_images, even, NUM_NIGHTS) / num_images
        rest = rng.multinomial(num_reference, even, NUM_NIGHTS) / num_reference
        return Draws((night - rest).astype(np.float32), 0.0)
    others = num_reference - num_images
    wide = np.sqrt((1 / num_images + 1 / num_reference) / (1 / num_images + 1 / others))
    rows = [rng.choice(num_reference, num_images, replace=False) for _ in range(NUM_NIGHTS)]
    counts = np.full(NUM_NIGHTS * num_images, wide * (1 / num_images + 1 / others), np.float32)
    starts = np.arange(NUM_NIGHTS + 1) * num_images
    weights = csr_matrix((counts, np.concatenate(rows), starts), (NUM_NIGHTS, num_reference))
    dense = num_images * SPARSE_SHARE > num_reference
    return Draws(weights.toarray() if dense else weights, float(wide / others))


def calibrate_layer(values: Values, draws: Draws) -> LayerReference:
    """Standardize a layer and measure the drawn nights."""
    mean = values.mean(axis=0, dtype=np.float64)
    deviation = values.std(axis=0, dtype=np.float64)
    varying = deviation > 1e-6 * np.abs(mean)
    usual = np.median(deviation[varying]) if varying.any() else 0.0
    scale = np.maximum(np.where(varying, deviation, 0.0), SMALLEST_SCALE * usual)
    whole = standardize(values, mean, scale)
    edges = np.quantile(whole, QUANTILES, axis=0).astype(np.float32)
    means = draws.differences(whole)
    distances = np.zeros_like(means)
    below = np.empty_like(edges)
    for number, edge in enumerate(edges):
        inside = (whole <= edge).astype(np.float32)
        below[number] = inside.mean(axis=0)
        np.maximum(distances, np.abs(draws.differences(inside)), out=distances)
    fitted = fit_residuals(values)
    own = np.zeros_like(means) if fitted is None else draws.differences(fitted[1])
    drawn = np.stack([means, distances, own]).astype(np.float32)
    scores = summarize(drawn)
    centre, spread = scores.mean(axis=1), np.maximum(scores.std(axis=1), 1e-9)
    best = best_figure(scores, centre, spread)
    return LayerReference(
        whole,
        mean,
        scale,
        edges,
        np.asarray(whole.mean(axis=0), dtype=np.float32),
        below,
        fitted[0] if fitted else None,
        drawn,
        centre,
        spread,
        (float(best.mean()), max(float(best.std()), 1e-9)),
    )


def standardize(values: Values, mean: Numbers, scale: Numbers) -> Array:
    """Express values in bounded standard deviations of the reference; constant layers become 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = (values - mean) / scale
    return bound(np.where(scale > 0, exact, 0).astype(np.float32))


def summarize(figures: Array) -> Numbers:
    """Return the logarithm of the mean of the largest magnitudes over the last axis."""
    count = min(MOST_SCORED, figures.shape[-1])
    magnitudes = np.abs(figures)
    largest = np.partition(magnitudes, -count, axis=-1)[..., -count:]
    return np.asarray(np.log(largest.mean(axis=-1, dtype=np.float64) + 1e-9))


def best_figure(summaries: Numbers, centre: Numbers, spread: Numbers) -> Numbers:
    """Return the highest standardized figure of each night, ``figure night`` -> ``night``."""
    standardized = (summaries - centre[:, None]) / spread[:, None] - HANDICAP[:, None]
    best: Numbers = standardized.max(axis=0)
    return best


def score(layer: LayerReference, figures: Array) -> Numbers:
    """Return the layer's scores of nights of which ``figures`` holds ``figure night channel``."""
    best = best_figure(summarize(figures), layer.centre, layer.spread)
    return (best - layer.usual[0]) / layer.usual[1]


def measure(layer: LayerReference, night: Values) -> Array:
    """Return a night's figures, ``figure channel``."""
    values = standardize(night, layer.mean, layer.scale)
    below = (values <= layer.edges[:, None, :]).mean(axis=1)
    means = values.mean(axis=0) - layer.offset
    own = layer.residuals.whiten(night).mean(axis=0) if layer.residuals else np.zeros_like(means)
    return np.stack([means, np.abs(below - layer.below).max(axis=0), own])


def measure_excess(layer: LayerReference, figures: Array) -> float:
    """Return how many times further the most moved channels lie than in drawn nights.

    Of the residuals, where there are any. It compares layers of any width: a score is divided by
    the spread of the drawn nights, which is small in wide layers. With all images of a night at
    half resolution, scores name the last of four layers, and this the second, as at 20 of 100.

    Args:
        layer: of the run.
        figures: of the night, ``figure channel``.
    """
    excess = np.exp(summarize(figures) - layer.centre)
    return float(excess[OWN_SHIFT] if layer.residuals else excess[:OWN_SHIFT].max())
