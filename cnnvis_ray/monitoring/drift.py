"""Whether a night's images excite the channels of each layer as the reference's images do.

A night is compared with nights of the same size drawn from the reference (see `calibration`).
Fixed thresholds mean nothing across layers: measured on photos, the same fault is found in 16 %
of nights in one layer and in 78 % in another. And a small shift that many images prove is not a
change: where no channel's mean moved by `EFFECT_FLOOR` standard deviations, no alarm is raised.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.monitoring.calibration import (
    DISTANCE,
    NUM_NIGHTS,
    OWN_SHIFT,
    SHIFT,
    Array,
    Calibration,
    LayerReference,
    Values,
    calibrate,
    combine,
    measure,
    measure_excess,
    score,
)
from cnnvis_ray.monitoring.sensitivity import (
    EFFECT_FLOOR,
    INJECTED_POWER,
    INJECTED_SHIFT,
    MOST_MOVED,
    find_smallest_change,
)

FEWEST_IMAGES = 10  # below it one odd image decides a night's mean
FEWEST_REFERENCE = 50
MOVED_CHANNELS = pa.schema(
    [
        ("layer", pa.string()),
        ("channel", pa.int64()),
        ("shift", pa.float64()),  # of the mean, in standard deviations of the run
        ("own_shift", pa.float64()),  # of what the layer's other channels do not explain
        ("z", pa.float64()),  # the larger of both, over what chance moves a mean by
        ("distance", pa.float64()),  # largest distance of the cumulative histograms, 0 to 1
        ("mean", pa.float64()),  # of the night, activation units
        ("reference_mean", pa.float64()),  # of the run, activation units
    ]
)


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
        threshold: of the mean of the two highest scores, the same for all layers.
        changed: the night has changed, and the score lies above the threshold.
        excess: how many times further its most moved channels lie than in drawn nights.
        largest_shift: of a channel's mean or residual, in standard deviations of the reference.
        channels: the most moved ones, most first.
    """

    layer: str
    score: float
    threshold: float
    changed: bool
    excess: float
    largest_shift: float
    channels: tuple[MovedChannel, ...]


@dataclass(frozen=True, slots=True)
class Drift:
    """The verdict on a night.

    Attributes:
        verdict: ``unchanged``, ``changed`` or ``not judged``. Changed is a night whose score lies
            above the threshold, with an effect above the floor in its most changed layer.
        reason: why it was not judged; empty otherwise.
        false_alarm_rate: over all channels, layers and figures together.
        num_images: of the night.
        num_reference: images that it was compared with.
        smallest_change: the smallest share of the night's images which, moved by
            `INJECTED_SHIFT` standard deviations in ten channels of one layer, raises an alarm in
            80 % of simulated nights, in the least sensitive layer; `None` where not even all
            images do or nothing was judged.
        smallest_changes: the same by layer.
        score: of the night, the mean of its two highest layers'; `None` where not judged.
        threshold: of that score, at the stated false-alarm rate over all layers.
        layers: most changed first.
    """

    verdict: str
    reason: str
    false_alarm_rate: float
    num_images: int
    num_reference: int
    smallest_change: float | None
    smallest_changes: Mapping[str, float | None]
    score: float | None
    threshold: float | None
    layers: tuple[LayerDrift, ...]


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
    points, layers = score_night(calibration, night)
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
        points,
        calibration.threshold,
        layers,
    )


def not_judged(reason: str, rate: float, num_images: int, num_reference: int) -> Drift:
    """Return the verdict on a night that cannot be judged."""
    return Drift("not judged", reason, rate, num_images, num_reference, None, {}, None, None, ())


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


def score_night(
    calibration: Calibration, night: Mapping[str, Values]
) -> tuple[float, tuple[LayerDrift, ...]]:
    """Return a night's score, and every layer's drift: those above the threshold first, by excess.

    Args:
        calibration: of nights of this size.
        night: by layer, ``image channel``.
    """
    figures = {name: measure(layer, night[name]) for name, layer in calibration.layers.items()}
    scores = {
        name: float(score(layer, figures[name][:, None, :])[0])
        for name, layer in calibration.layers.items()
    }
    largest = {name: float(np.abs(own[[SHIFT, OWN_SHIFT]]).max()) for name, own in figures.items()}
    excess = {
        name: measure_excess(layer, figures[name]) for name, layer in calibration.layers.items()
    }
    order = sorted(scores, key=lambda name: (scores[name] <= calibration.threshold, -excess[name]))
    whole = float(combine(np.array(list(scores.values()))))
    changed = whole > calibration.threshold and largest[order[0]] >= EFFECT_FLOOR
    return whole, tuple(
        LayerDrift(
            name,
            scores[name],
            calibration.threshold,
            changed and scores[name] > calibration.threshold,
            excess[name],
            largest[name],
            list_moved(calibration.layers[name], figures[name], night[name], calibration.chance),
        )
        for name in order
    )


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
        "score": drift.score,
        "threshold": drift.threshold,
        "layers": [
            {**asdict(layer), "smallest_change": drift.smallest_changes.get(layer.layer)}
            for layer in drift.layers
        ],
    }
