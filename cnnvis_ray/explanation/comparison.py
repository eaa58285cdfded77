"""Linear CKA: how alike two layers place the same images, whatever their widths.

The plain estimate is biased upwards: between unrelated features it rises towards 1 where they are
more than the images. The unbiased one is 0 there on average, so it may be slightly negative.

References:
    Kornblith et al. 2019, Similarity of Neural Network Representations Revisited,
    arXiv:1905.00414, equations 2 and 3: the biased estimate.
    Song et al. 2012, Feature Selection via Dependence Maximization, JMLR 13, 1393-1434, equation
    5; Nguyen, Raghu, Kornblith 2021, arXiv:2010.15327, equation 3: the unbiased one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Gram = NDArray[np.float64]
CKA = pa.schema(
    [
        ("run", pa.string()),
        ("layer", pa.string()),
        ("other_run", pa.string()),
        ("other_layer", pa.string()),
        ("cka", pa.float64()),  # biased; null where the images do not differ in one of the layers
        ("cka_unbiased", pa.float64()),  # may be below 0; null as above
        ("images", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Compared:
    """One layer of one run, and how it places the images."""

    run: str
    layer: str
    gram: Gram


def gram(features: NDArray[np.floating]) -> Gram:
    """Multiply centred features ``image feature`` with themselves: ``image image``, of norm 1.

    All zero where the images do not differ.
    """
    exact = features.astype(np.float64)
    exact -= exact.mean(axis=0)
    products = exact @ exact.T
    norm = float(np.linalg.norm(products))
    return np.asarray(products / norm if norm > 0 else products)


def debias(gram: Gram) -> Gram:
    """Return a Gram matrix without its diagonal, centred over what is left (U-centred), of norm 1.

    The product of two such matrices is Song's unbiased estimate of HSIC but for a factor. An
    earlier centring of `gram` does not change it.
    """
    count = len(gram)
    off = gram - np.diag(np.diag(gram))
    sums = off.sum(axis=0)
    off -= (sums[:, None] + sums[None, :]) / (count - 2)
    off += sums.sum() / ((count - 1) * (count - 2))
    np.fill_diagonal(off, 0)
    norm = float(np.linalg.norm(off))
    return np.asarray(off / norm if norm > 1e-12 else np.zeros_like(off))


def linear_cka(one: Gram, other: Gram) -> float | None:
    """Compare two layers by their `gram`: 1 the same but for rotation and scale, 0 unrelated.

    With both matrices from `debias`, the unbiased estimate.

    Returns:
        None where the images do not differ in one of the layers.
    """
    if not one.any() or not other.any():
        return None
    return float(np.clip((one * other).sum(), -1, 1))


def compare_layers(layers: Sequence[Compared]) -> pa.Table:
    """Compare every layer with every other: rows of `CKA`, by first layer, then by second."""
    unbiased = [debias(layer.gram) for layer in layers]
    rows = [
        {
            "run": one.run,
            "layer": one.layer,
            "other_run": other.run,
            "other_layer": other.layer,
            "cka": linear_cka(one.gram, other.gram),
            "cka_unbiased": linear_cka(unbiased[row], unbiased[column]),
            "images": len(one.gram),
        }
        for row, one in enumerate(layers)
        for column, other in enumerate(layers)
    ]
    return pa.Table.from_pylist(rows, schema=CKA)
