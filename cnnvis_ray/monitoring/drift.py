"""Whether a night's images excite the channels of each layer as the reference's images do.

A night is compared with nights of the same size drawn from the reference. Three figures of each
channel: how far its mean lies from the reference's (`SHIFT`), how far its histogram does
(`DISTANCE`: the largest distance of the cumulative histograms at the reference's quintiles), and
how far the mean of its residual does (`OWN_SHIFT`: what the layer's other channels do not explain,
see `residuals`). A layer's figure is the logarithm of the mean over the five channels that moved
most, centred and scaled by its distribution over the drawn nights; the largest of the three is the
layer's score.
The threshold is one for all channels, layers and figures: what the highest score of all layers
exceeds in a share of half the `false_alarm_rate` of the drawn nights (see `DRAWN_SHARE`).

Fixed thresholds mean nothing across layers: measured on photos, the same fault is found in 16 %
of nights in one layer and in 78 % in another. And a small shift that many images prove is not a
change: where no channel's mean moved by `EFFECT_FLOOR` standard deviations, no alarm is raised.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.monitoring.residuals import SMALLEST_SCALE, Residuals, bound, fit_residuals

Values = npt.NDArray[np.floating]  # image channel: activations averaged over the map
Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]

EFFECT_FLOOR = 0.3
MOST_MOVED = 10
MOST_SCORED = 5  # measured on photos at half resolution: 3 and 5 find it in 94 %, 10 in 83 %
SHIFT, DISTANCE, OWN_SHIFT = range(3)
FEWEST_IMAGES = 10  # below it one odd image decides a night's mean
FEWEST_REFERENCE = 50
# Five layers of 500 channels of so many images take 100 MB in float32, and 17 s in one thread.
MOST_REFERENCE = 10_000
NUM_NIGHTS = 1_000
# Drawn nights hold the reference's own images, a new night others, whose tails reach further.
# Measured on photos, of 320 unchanged nights 10 lay above what 1 % of the drawn ones exceed.
DRAWN_SHARE = 0.5
SPARSE_SHARE = 16  # nights of less than a sixteenth of the reference are summed sparsely
QUANTILES = (0.2, 0.4, 0.6, 0.8)
# Simulated faults: measured on photos at half resolution, the most moved channel of each of five
# layers moves by 1.7 to 2.2 standard deviations.
INJECTED_SHIFT = 2.0
INJECTED_POWER = 0.8
NUM_INJECTED = 100


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
        centre: mean of each figure's score over the drawn nights, ``figure``.
        spread: its standard deviation, ``figure``.
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
        threshold: of the score, the same for all layers.
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


@dataclass(frozen=True, slots=True)
class MovedChannel:
    """One channel of a night beside the reference.

    Attributes:
        channel: its index.
        shift: of the mean, in standard deviations of the reference.
        own_shift: of the mean of its residual, in standard deviations of the reference.
        z: the larger of both, divided by what chance moves a mean by.
        distance: largest distance of the cumulative histograms, 0 to 1.
        mean: of the night, activation units.
        reference_mean: of the reference, activation units.
    """

    channel: int
    shift: float
    own_shift: float
    z: float
    distance: float
    mean: float
    reference_mean: float


@dataclass(frozen=True, slots=True)
class LayerDrift:
    """How far one layer moved.

    Attributes:
        layer: its name.
        score: standard deviations above what drawn nights show on average.
        threshold: of the score, at the stated false-alarm rate over all layers.
        changed: the score lies above the threshold, an effect above the floor.
        largest_shift: of a channel's mean or residual, in standard deviations of the reference.
        channels: the most moved ones, most first.
    """

    layer: str
    score: float
    threshold: float
    changed: bool
    largest_shift: float
    channels: tuple[MovedChannel, ...]


@dataclass(frozen=True, slots=True)
class Drift:
    """The verdict on a night.

    Attributes:
        verdict: ``unchanged``, ``changed`` or ``not judged``.
        reason: why it was not judged; empty otherwise.
        false_alarm_rate: over all channels, layers and figures together.
        num_images: of the night.
        num_reference: images that it was compared with.
        smallest_change: the smallest share of the night's images which, moved by
            `INJECTED_SHIFT` standard deviations in ten channels of one layer, raises an alarm in
            80 % of simulated nights, in the least sensitive layer; `None` where not even all
            images do or nothing was judged.
        smallest_changes: the same by layer.
        layers: most changed first.
    """

    verdict: str
    reason: str
    false_alarm_rate: float
    num_images: int
    num_reference: int
    smallest_change: float | None
    smallest_changes: Mapping[str, float | None]
    layers: tuple[LayerDrift, ...]


def draw_reference(num_images: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the rows that stand for a reference: all, or `MOST_REFERENCE` drawn by the seed."""
    if num_images <= MOST_REFERENCE:
        return np.arange(num_images)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(num_images, MOST_REFERENCE, replace=False))


def compare_night(
    reference: Mapping[str, Values],
    night: Mapping[str, Values],
    false_alarm_rate: float = 0.01,
    seed: int = 0,
) -> Drift:
    """Compare a night with the reference in every layer.

    Args:
        reference: by layer, ``image channel``, the same images in all layers.
        night: by layer, ``image channel``; the same layers.
        false_alarm_rate: share of unchanged nights that may raise an alarm, over all layers.
        seed: of the drawn nights and the simulated faults.

    Raises:
        RefusedError: layers or channels differ, values are not finite, or the rate cannot be
            told from `NUM_NIGHTS` drawn nights.
    """
    num_reference, num_images = check_values(reference, night, false_alarm_rate)
    if reason := find_obstacle(num_reference, num_images):
        return not_judged(reason, false_alarm_rate, num_images, num_reference)
    calibration = calibrate(reference, num_images, false_alarm_rate, seed)
    if not calibration.layers:
        reason = "no channel varies over the reference"
        return not_judged(reason, false_alarm_rate, num_images, num_reference)
    layers = score_night(calibration, night)
    shares = {layer: find_smallest_change(calibration, layer) for layer in calibration.layers}
    known = [share for share in shares.values() if share is not None]
    return Drift(
        "changed" if any(layer.changed for layer in layers) else "unchanged",
        "",
        false_alarm_rate,
        num_images,
        num_reference,
        max(known) if len(known) == len(shares) else None,
        shares,
        layers,
    )


def not_judged(reason: str, rate: float, num_images: int, num_reference: int) -> Drift:
    """Return the verdict on a night that cannot be judged."""
    return Drift("not judged", reason, rate, num_images, num_reference, None, {}, ())


def find_obstacle(num_reference: int, num_images: int) -> str:
    """Return why nothing can be judged, empty where it can."""
    if num_images < FEWEST_IMAGES:
        return f"{num_images} images in the night, at least {FEWEST_IMAGES} are needed"
    if num_reference < FEWEST_REFERENCE:
        return f"{num_reference} images in the reference, at least {FEWEST_REFERENCE} are needed"
    return ""


def check_values(
    reference: Mapping[str, Values], night: Mapping[str, Values], rate: float
) -> tuple[int, int]:
    """Return how many images the reference and the night hold, after checks."""
    if not 5 / NUM_NIGHTS <= rate <= 0.5:
        raise RefusedError(f"a false-alarm rate of {rate:g}; allowed are 0.005 to 0.5")
    if not reference or list(reference) != list(night):
        raise RefusedError(
            f"layers of the night ({', '.join(night) or 'none'}) and of the reference "
            f"({', '.join(reference) or 'none'}) differ; extract the run's layers"
        )
    for layer, values in reference.items():
        if values.shape[1:] != night[layer].shape[1:]:
            raise RefusedError(
                f"{layer}: {night[layer].shape[1]} channels in the night, {values.shape[1]} in "
                "the reference; both need features pooled by mean"
            )
        for name, each in (("reference", values), ("night", night[layer])):
            if not np.isfinite(each).all():
                raise RefusedError(f"{layer}: the {name} holds values that are not finite")
    counts = [{len(each) for each in side.values()} for side in (reference, night)]
    if any(len(count) != 1 for count in counts):
        raise RefusedError("the layers hold different numbers of images; join them by image_id")
    return counts[0].pop(), counts[1].pop()


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
    highest = np.full(NUM_NIGHTS, -np.inf)
    for name, values in reference.items():
        layer = calibrate_layer(values, draws)
        if not layer.is_constant:
            layers[name] = layer
            highest = np.maximum(highest, score(layer, layer.drawn))
    constant = tuple(name for name in reference if name not in layers)
    rate = false_alarm_rate * DRAWN_SHARE
    threshold = float(np.quantile(highest, 1 - rate, method="higher"))
    return Calibration(
        layers, constant, num_images, num_reference, false_alarm_rate, threshold, seed
    )


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
    return LayerReference(
        whole,
        mean,
        scale,
        edges,
        np.asarray(whole.mean(axis=0), dtype=np.float32),
        below,
        fitted[0] if fitted else None,
        drawn,
        scores.mean(axis=1),
        np.maximum(scores.std(axis=1), 1e-9),
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


def score(layer: LayerReference, figures: Array) -> Numbers:
    """Return the scores of nights of which ``figures`` holds ``figure night channel``."""
    centred = summarize(figures) - layer.centre[:, None]
    best: Numbers = (centred / layer.spread[:, None]).max(axis=0)
    return best


def measure(layer: LayerReference, night: Values) -> Array:
    """Return a night's figures, ``figure channel``."""
    values = standardize(night, layer.mean, layer.scale)
    below = (values <= layer.edges[:, None, :]).mean(axis=1)
    means = values.mean(axis=0) - layer.offset
    own = layer.residuals.whiten(night).mean(axis=0) if layer.residuals else np.zeros_like(means)
    return np.stack([means, np.abs(below - layer.below).max(axis=0), own])


def score_night(calibration: Calibration, night: Mapping[str, Values]) -> tuple[LayerDrift, ...]:
    """Return every layer's drift, most changed first.

    Args:
        calibration: of nights of this size.
        night: by layer, ``image channel``.
    """
    found = []
    for name, layer in calibration.layers.items():
        figures = measure(layer, night[name])
        points = float(score(layer, figures[:, None, :])[0])
        largest = float(np.abs(figures[[SHIFT, OWN_SHIFT]]).max())
        changed = points > calibration.threshold and largest >= EFFECT_FLOOR
        channels = list_moved(layer, figures, night[name], calibration.chance)
        found.append(LayerDrift(name, points, calibration.threshold, changed, largest, channels))
    return tuple(sorted(found, key=lambda drift: -drift.score))


def list_moved(
    layer: LayerReference, figures: Array, night: Values, chance: float
) -> tuple[MovedChannel, ...]:
    """Return the channels whose means or residuals moved most."""
    moved = np.abs(figures[[SHIFT, OWN_SHIFT]]).max(axis=0)
    order = np.argsort(-moved, kind="stable")[:MOST_MOVED]
    means = night.mean(axis=0, dtype=np.float64)
    return tuple(
        MovedChannel(
            int(channel),
            float(figures[SHIFT, channel]),
            float(figures[OWN_SHIFT, channel]),
            float(moved[channel] / chance),
            float(figures[DISTANCE, channel]),
            float(means[channel]),
            float(layer.mean[channel]),
        )
        for channel in order
    )


def find_smallest_change(calibration: Calibration, name: str) -> float | None:
    """Find the share of moved images that raises an alarm in 80 % of simulated nights.

    Bisection: power grows with the share.

    Args:
        calibration: of nights of this size.
        name: of the layer whose channels the fault moves.

    Returns:
        A share above 0, `None` where even a night of moved images alone is not enough.
    """
    if simulate_power(calibration, name, calibration.num_images) < INJECTED_POWER:
        return None
    low, high = 0, calibration.num_images
    while high - low > max(1, calibration.num_images // 200):
        middle = (low + high) // 2
        if simulate_power(calibration, name, middle) < INJECTED_POWER:
            low = middle
        else:
            high = middle
    return high / calibration.num_images


def simulate_power(calibration: Calibration, name: str, num_moved: int) -> float:
    """Return the share of simulated nights in which a fault raises an alarm in its layer.

    The fault moves ten channels, drawn among those that vary, upwards. The drawn nights' figures
    are kept for all other channels, of which only the residuals follow.
    """
    layer = calibration.layers[name]
    rng = np.random.default_rng((calibration.seed, num_moved))
    figures = layer.drawn[:, :NUM_INJECTED].copy()
    choice = np.flatnonzero(layer.values.any(axis=0))
    for number in range(NUM_INJECTED):
        channels = rng.choice(choice, min(MOST_MOVED, len(choice)), replace=False)
        rows = rng.choice(len(layer.values), calibration.num_images)
        before = layer.values[np.ix_(rows, channels)]
        after = before.copy()
        after[:num_moved] += INJECTED_SHIFT
        below = (after <= layer.edges[:, None, channels]).mean(axis=1)
        figures[SHIFT, number, channels] += (after - before).mean(axis=0)
        distances = np.abs(below - layer.below[:, channels]).max(axis=0)
        figures[DISTANCE, number, channels] = distances
        figures[OWN_SHIFT, number] += move_residuals(layer, channels, before, after)
    largest = np.abs(figures[[SHIFT, OWN_SHIFT]]).max(axis=(0, 2))
    alarms = (score(layer, figures) > calibration.threshold) & (largest >= EFFECT_FLOOR)
    return float(alarms.mean())


def move_residuals(
    layer: LayerReference, channels: npt.NDArray[np.int64], before: Array, after: Array
) -> Array | float:
    """Return by how much the mean residuals move where some channels do, ``channel``."""
    if layer.residuals is None:
        return 0.0
    means = []
    for values in (before, after):
        activations = values * layer.scale[channels] + layer.mean[channels]
        means.append(layer.residuals.compress(activations, channels).mean(axis=0))
    moved = (means[1] - means[0]) @ layer.residuals.matrices[:, channels].mean(axis=0)
    return np.asarray(moved / layer.residuals.deviation, dtype=np.float32)


def drift_fields(drift: Drift) -> dict[str, object]:
    """Return the fields of changes.json that a drift fills, of plain types alone."""
    return {
        "verdict": drift.verdict,
        "reason": drift.reason,
        "false_alarm_rate": drift.false_alarm_rate,
        "num_images": drift.num_images,
        "num_reference": drift.num_reference,
        "smallest_change": drift.smallest_change,
        "smallest_change_means": (
            f"share of images moved by {INJECTED_SHIFT:g} standard deviations in {MOST_MOVED} "
            f"channels of one layer, found in {INJECTED_POWER:.0%} of simulated nights"
        ),
        "effect_floor": EFFECT_FLOOR,
        "layers": [
            {**asdict(layer), "smallest_change": drift.smallest_changes.get(layer.layer)}
            for layer in drift.layers
        ],
    }
