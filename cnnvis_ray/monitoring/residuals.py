"""What each channel does that the other channels of its layer do not explain.

Photos differ in contrast and content, which moves many channels together and hides a small fault.
So values are compressed, since activations have heavy tails, and whitened: each channel keeps
what is its own (ZCA, Bell and Sejnowski 1997, doi:10.1016/S0042-6989(97)00121-1). Measured on
photos, 20 of 100 at half resolution: found at features.5 of SqueezeNet in 78 % of nights at 1 %
false alarms of the layer (`benchmarks/drift.py`), by means of raw activations in 26 to 38 %.

The whitening is cross-fitted: an image is whitened by what was learned from the other folds,
a new image by one fold's matrix in turn. Otherwise the reference would lie nearer to its own
mean than any new image does, and every night would look changed.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]
Array = npt.NDArray[np.float32]
Channels = npt.NDArray[np.int64] | slice

NUM_FOLDS = 3
# Added to the eigenvalues of the correlations. Measured with 450 photos: half resolution is found
# in 83 %; with the full inverse covariance (partial correlations) in 42 to 82 %.
RIDGE = 0.3
STEEPNESS = 10.0  # a tenth of a channel's mean is where compression sets in
# The reference shows the tails of a channel as far as its own images reach; one image of a night
# that lies further would raise an alarm by itself.
FURTHEST = 4.0
SMALLEST_SCALE = (
    0.25  # of the median deviation in a layer; rarely excited channels have hardly any
)
MOST_CHANNELS = 2_048  # an eigendecomposition costs the third power


@dataclass(frozen=True, slots=True)
class Residuals:
    """How to whiten a layer.

    Attributes:
        usual: mean activation of each channel, or nothing where values can be negative.
        centre: of the compressed values, ``channel``.
        scale: their standard deviation, ``channel``.
        matrices: ``fold channel channel``.
        deviation: of the whitened reference, ``channel``.
        offset: what bounding does to the reference's mean, ``channel``.
    """

    usual: Array | None
    centre: Array
    scale: Array
    matrices: Array
    deviation: Array
    offset: Array

    def compress(self, values: Values, channels: Channels = slice(None)) -> Array:
        """Return compressed and standardized values of some channels, ``image channel``."""
        usual = None if self.usual is None else self.usual[channels]
        squeezed = squeeze(values, usual)
        return ((squeezed - self.centre[channels]) / self.scale[channels]).astype(np.float32)

    def whiten(self, values: Values) -> Array:
        """Return whitened values in standard deviations of the reference, ``image channel``."""
        whitened = whiten_in_turn(self.compress(values), self.matrices)
        return bound(whitened / self.deviation) - self.offset


def squeeze(values: Values, usual: Array | None) -> Values:
    """Take the logarithm of activations that are never negative."""
    if usual is None:
        return values
    return np.log1p(STEEPNESS * np.maximum(values, 0) / usual)


def whiten_in_turn(standardized: Array, matrices: Array) -> Array:
    """Multiply image i by matrix i modulo the number of folds."""
    whitened = np.empty_like(standardized)
    for fold, matrix in enumerate(matrices):
        whitened[fold :: len(matrices)] = standardized[fold :: len(matrices)] @ matrix
    return whitened


def fit_residuals(values: Values) -> tuple[Residuals, Array] | None:
    """Learn the whitening of a layer.

    Args:
        values: of the reference, ``image channel``.

    Returns:
        The whitening and the reference's whitened values; `None` for a layer of more than
        `MOST_CHANNELS` channels.
    """
    if values.shape[1] > MOST_CHANNELS:
        return None
    usual = None
    if values.min() >= 0:
        means = values.mean(axis=0, dtype=np.float64)
        usual = np.maximum(means, max(1e-3 * means.mean(), 1e-12)).astype(np.float32)
    squeezed = squeeze(values, usual)
    deviation = squeezed.std(axis=0)
    usually = float(np.median(deviation[deviation > 0])) if deviation.any() else 1.0
    scale = np.maximum(deviation, SMALLEST_SCALE * usually).astype(np.float32)
    centre = squeezed.mean(axis=0, dtype=np.float64).astype(np.float32)
    standardized = ((squeezed - centre) / scale).astype(np.float32)
    matrices = np.stack([fit_matrix(standardized, fold) for fold in range(NUM_FOLDS)])
    whitened = whiten_in_turn(standardized, matrices)
    spread = whitened.std(axis=0)
    floor = SMALLEST_SCALE * float(np.median(spread[spread > 0])) if spread.any() else 1.0
    residuals = whitened / np.maximum(spread, floor)
    bounded = bound(residuals)
    # The reference's mean is that of its compressed values, which is 0 under any matrix. The mean
    # of the whitened ones differs from it by chance, as the folds' matrices do.
    offset = bounded.mean(axis=0) - residuals.mean(axis=0)
    found = Residuals(usual, centre, scale, matrices, np.maximum(spread, floor), offset)
    return found, bounded


def bound(standardized: Array) -> Array:
    """Limit what one image can do to a mean: values beyond 4 standard deviations count as 4."""
    return np.clip(standardized, -FURTHEST, FURTHEST)


def fit_matrix(standardized: Array, left_out: int) -> Array:
    """Return the whitening matrix of all folds but one."""
    others = standardized[np.arange(len(standardized)) % NUM_FOLDS != left_out]
    centred = others - others.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(np.maximum(eigenvalues, 0) + RIDGE)) @ vectors.T
    return np.asarray(whitening, dtype=np.float32)
