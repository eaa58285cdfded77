"""The smallest change that a night could have shown, by simulated faults."""

import numpy as np
import numpy.typing as npt

from cnnvis_ray.monitoring.calibration import (
    DISTANCE,
    OWN_SHIFT,
    SHIFT,
    Array,
    Calibration,
    LayerReference,
    combine,
    score,
)

EFFECT_FLOOR = 0.3
MOST_MOVED = 10
# Measured on photos at half resolution: the most moved channel of each of five layers moves by 1.7
# to 2.2 standard deviations.
INJECTED_SHIFT = 2.0
INJECTED_POWER = 0.8
NUM_INJECTED = 100


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
    scores = [score(layer, figures)]
    scores += [
        score(other, other.drawn[:, :NUM_INJECTED])
        for known, other in calibration.layers.items()
        if known != name
    ]
    alarms = (combine(np.stack(scores)) > calibration.threshold) & (largest >= EFFECT_FLOOR)
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
