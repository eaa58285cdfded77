"""Linear CKA: how alike two layers place the same images, whatever their widths.

References:
    Kornblith et al. 2019, Similarity of Neural Network Representations Revisited,
    arXiv:1905.00414, equations 2 and 3.
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
        ("cka", pa.float64()),  # null where the images do not differ in one of the layers
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


def linear_cka(one: Gram, other: Gram) -> float | None:
    """Compare two layers by their `gram`: 1 the same but for rotation and scale, 0 unrelated.

    Returns:
        None where the images do not differ in one of the layers.
    """
    if not one.any() or not other.any():
        return None
    return float(np.clip((one * other).sum(), 0, 1))


def compare_layers(layers: Sequence[Compared]) -> pa.Table:
    """Compare every layer with every other: rows of `CKA`, by first layer, then by second."""
    rows = [
        {
            "run": one.run,
            "layer": one.layer,
            "other_run": other.run,
            "other_layer": other.layer,
            "cka": linear_cka(one.gram, other.gram),
            "images": len(one.gram),
        }
        for one in layers
        for other in layers
    ]
    return pa.Table.from_pylist(rows, schema=CKA)
