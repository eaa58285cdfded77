"""What is new in a night: strange images, other classes, other places on the map, new tops.

These figures describe a night; only `drift` raises alarms at a stated rate, and `class_counts`
states its own chance.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import stats

from cnnvis_ray.monitoring.duplicates import Images

Distances = npt.NDArray[np.floating]
Positions = npt.NDArray[np.floating]

RANK = 5  # of the neighbour whose distance says how strange an image is
USUAL_SHARE = 0.95
NUM_STRANGEST = 24
CELLS = 20  # per side of the map
LEAST_EXPECTED = 5.0  # images of a class or cell: below it a chi-square is not one
CHANCE = 0.01
NUM_NIGHTS = 30
NOVEL_IMAGES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("distance", pa.float32()),  # to the fifth nearest image of the run, in feature units
        ("limit", pa.float32()),  # what 95 % of the run's images keep to
        ("novel", pa.bool_()),  # whether the distance lies beyond the limit
    ]
)
CLASS_CHANGES = pa.schema(
    [
        ("kind", pa.string()),  # label or prediction
        ("name", pa.string()),  # of the class
        ("images", pa.int64()),  # of the night
        ("expected", pa.float64()),  # from the run's share
        ("known", pa.bool_()),  # whether the run has the class
    ]
)
CELL_CHANGES = pa.schema(
    [
        ("layer", pa.string()),
        ("row", pa.int64()),  # from the top, 0 to 19
        ("column", pa.int64()),  # from the left, 0 to 19
        ("images", pa.int64()),
        ("expected", pa.float64()),
        ("p_value", pa.float64()),  # times the number of cells tested
    ]
)
NEW_TOPS = pa.schema(
    [
        ("layer", pa.string()),
        ("channel", pa.int64()),
        ("value", pa.float64()),  # peak activation of the night's best image
        ("before", pa.float64()),  # peak activation of the run's best image
        ("image_id", pa.int64()),
        ("key", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Novelty:
    """How strange a night's images are to the reference.

    Attributes:
        share: of the images whose fifth neighbour lies beyond the reference's 95 % quantile;
            0.05 is expected.
        limit: that quantile, feature units.
        p_value: chance of so many or more in a night like the reference.
        strangest: rows of the night, strangest first, at most 24.
        distances: to the fifth neighbour, one per image of the night.
    """

    share: float
    limit: float
    p_value: float
    strangest: tuple[int, ...]
    distances: Distances


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Classes of a night beside the reference.

    Attributes:
        counts: by class, images of the night and those expected from the reference's shares.
        unknown: classes that the reference does not hold, with their counts.
        p_value: chi-square against the reference, `None` where too few images are expected.
    """

    counts: Mapping[str, tuple[int, float]]
    unknown: Mapping[str, int]
    p_value: float | None


@dataclass(frozen=True, slots=True)
class CellChange:
    """One cell of the map whose share of images changed.

    Attributes:
        row: from the top, 0 to 19.
        column: from the left, 0 to 19.
        images: of the night.
        expected: from the reference's share.
        p_value: of a difference this large, times the number of cells tested (Bonferroni).
    """

    row: int
    column: int
    images: int
    expected: float
    p_value: float


@dataclass(frozen=True, slots=True)
class NewTop:
    """A channel that an image of the night excites more than any image before.

    Attributes:
        layer: its name.
        channel: its index.
        value: peak activation of the night's best image.
        before: peak activation of the reference's best image.
        image: the night's image, as it was handed in.
    """

    layer: str
    channel: int
    value: float
    before: float
    image: int


def find_novelty(reference: Distances, night: Distances) -> Novelty | None:
    """Return how strange a night is; `None` for a night or a reference without images.

    Args:
        reference: distance of each reference image to its fifth nearest other image.
        night: distance of each new image to its fifth nearest reference image.
    """
    if len(night) == 0 or len(reference) == 0:
        return None
    limit = float(np.quantile(reference, USUAL_SHARE))
    beyond = int((night > limit).sum())
    usual = float((reference > limit).mean())
    chance = stats.binomtest(beyond, len(night), max(usual, 1e-9), "greater").pvalue
    order = np.argsort(-night, kind="stable")[:NUM_STRANGEST]
    strangest = tuple(int(row) for row in order)
    return Novelty(beyond / len(night), limit, float(chance), strangest, night)


def compare_classes(
    reference: Sequence[str | None], night: Sequence[str | None]
) -> ClassCounts | None:
    """Compare labels, or predicted classes, with the reference; `None` where either has none.

    Rare classes, of which fewer than 5 images are expected, are joined before the chi-square.
    """
    before = Counter(label for label in reference if label is not None)
    now = Counter(label for label in night if label is not None)
    if not before or not now:
        return None
    unknown = {name: count for name, count in sorted(now.items()) if name not in before}
    known = sum(now.values()) - sum(unknown.values())
    whole = sum(before.values())
    counts = {
        name: (now.get(name, 0), known * count / whole) for name, count in sorted(before.items())
    }
    return ClassCounts(counts, unknown, chi_square(before, now))


def chi_square(before: Counter[str], now: Counter[str]) -> float | None:
    """Return the chance of such counts if both follow one distribution (homogeneity).

    Both sides count as samples: a reference of a few hundred images is itself uncertain.
    """
    names = sorted(before)
    table = np.array([[side.get(name, 0) for name in names] for side in (before, now)])
    share = table[1].sum() / max(1, table.sum())
    frequent = share * table.sum(axis=0) >= LEAST_EXPECTED
    joined = np.column_stack([table[:, frequent], table[:, ~frequent].sum(axis=1)])
    joined = joined[:, share * joined.sum(axis=0) >= LEAST_EXPECTED]
    if joined.shape[1] < 2 or not joined[1].any():
        return None
    return float(stats.chi2_contingency(joined, correction=False).pvalue)


def compare_confidence(reference: Distances, night: Distances) -> dict[str, float] | None:
    """Return the median confidence of both and the chance of such a difference (KS)."""
    if len(reference) == 0 or len(night) == 0:
        return None
    return {
        "median": float(np.median(night)),
        "reference_median": float(np.median(reference)),
        "p_value": float(stats.ks_2samp(reference, night).pvalue),
    }


def compare_cells(reference: Positions, night: Positions) -> tuple[CellChange, ...]:
    """List the cells of the map that grew or emptied, least likely first.

    A cell is tested where 5 images are expected or found; new images outside the reference's
    rectangle count in its outermost cells.

    Args:
        reference: positions, ``[N, 2]``.
        night: positions, ``[n, 2]``.
    """
    if len(reference) == 0 or len(night) == 0:
        return ()
    low, high = reference.min(axis=0), reference.max(axis=0)
    before, now = (count_cells(side, low, high) for side in (reference, night))
    expected = before * len(night) / len(reference)
    rows = np.flatnonzero(np.maximum(expected, now) >= LEAST_EXPECTED)
    found = []
    for cell in rows:
        table = [
            [now[cell], len(night) - now[cell]],
            [before[cell], len(reference) - before[cell]],
        ]
        chance = min(1.0, float(stats.fisher_exact(table).pvalue) * len(rows))
        if chance <= CHANCE:
            row, column = divmod(int(cell), CELLS)
            found.append(CellChange(row, column, int(now[cell]), float(expected[cell]), chance))
    return tuple(sorted(found, key=lambda change: change.p_value))


def count_cells(
    positions: Positions, low: npt.NDArray[np.floating], high: npt.NDArray[np.floating]
) -> npt.NDArray[np.int64]:
    """Count images per cell, row by row from the top (the largest y)."""
    span = np.where(high > low, high - low, 1)
    cells = np.clip(((positions - low) / span * CELLS).astype(np.int64), 0, CELLS - 1)
    flat = (CELLS - 1 - cells[:, 1]) * CELLS + cells[:, 0]
    return np.bincount(flat, minlength=CELLS**2)


def find_new_tops(
    layer: str, before: Distances, values: Distances, images: Sequence[int]
) -> tuple[NewTop, ...]:
    """List the channels that a new image excites more than any before, by relative excess.

    Args:
        layer: its name.
        before: largest peak of the reference, ``channel``; -inf or NaN without images.
        values: largest peak of the night, ``channel``.
        images: the image of the night with that peak, ``channel``.
    """
    higher = np.flatnonzero(np.isfinite(before) & np.isfinite(values) & (values > before))
    excess = (values[higher] - before[higher]) / np.maximum(np.abs(before[higher]), 1e-9)
    order = higher[np.argsort(-excess, kind="stable")]
    return tuple(
        NewTop(
            layer, int(channel), float(values[channel]), float(before[channel]), images[channel]
        )
        for channel in order
    )


def expected_new_tops(num_channels: int, num_reference: int, num_images: int) -> float:
    """Return how many new tops a night like the reference brings: each image is as likely."""
    return num_channels * num_images / max(1, num_images + num_reference)


def collect_trends(
    nights: Sequence[Mapping[str, object]], most: int = NUM_NIGHTS
) -> dict[str, list[float | None]]:
    """Return the figures of the last nights, one list per figure.

    Args:
        nights: the documents changes.json of all nights, oldest first.
        most: nights to keep.

    Returns:
        ``score`` of the night over its threshold, where 1 is an alarm, ``novel share``, ``smallest
        change``, ``rejected share``, ``known share``, ``confidence``, and ``score LAYER``; `None`
        where a night has no such figure.
    """
    recent = nights[-most:]
    trends: dict[str, list[float | None]] = {}
    for number, night in enumerate(recent):
        for name, value in read_figures(night).items():
            trends.setdefault(name, [None] * number).append(value)
        for series in trends.values():
            series.extend([None] * (number + 1 - len(series)))
    return trends


def read_figures(night: Mapping[str, object]) -> dict[str, float | None]:
    """Return the figures of one night whose trend is of interest."""

    def read(*keys: str) -> float | None:
        value: object = night
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) else None

    score, threshold = read("score"), read("threshold")
    images, rejects, known = (
        read("arrived", "images"),
        read("arrived", "rejects"),
        read("duplicates", "images"),
    )
    whole = (images or 0) + (rejects or 0)
    found = {
        "score": None if score is None or not threshold else score / threshold,
        "novel share": read("novelty", "share"),
        "smallest change": read("smallest_change"),
        "rejected share": None if rejects is None or not whole else rejects / whole,
        "known share": None if known is None or not images else known / images,
        "confidence": read("predictions", "confidence", "median"),
    }
    layers = night.get("layers")
    for layer in layers if isinstance(layers, list) else ():
        found[f"score {layer['layer']}"] = float(layer["score"])
    return found


def novelty_rows(novelty: Novelty, images: Images) -> list[dict[str, object]]:
    """Return a row of `NOVEL_IMAGES` per image of a night."""
    columns = (images.image_ids, images.keys, images.labels, novelty.distances)
    return [
        {
            "image_id": image,
            "key": key,
            "label": label,
            "distance": float(distance),
            "limit": novelty.limit,
            "novel": bool(distance > novelty.limit),
        }
        for image, key, label, distance in zip(*columns, strict=True)
    ]


def novelty_fields(novelty: Novelty | None, keys: Sequence[str]) -> dict[str, object] | None:
    """Return the field of changes.json on novelty, of plain types alone.

    Args:
        novelty: of the night.
        keys: of the night's images.
    """
    if novelty is None:
        return None
    return {
        "share": novelty.share,
        "expected": 1 - USUAL_SHARE,
        "p_value": novelty.p_value,
        "limit": novelty.limit,
        "strangest": [
            {"key": keys[row], "distance": float(novelty.distances[row])}
            for row in novelty.strangest
        ],
    }


def class_fields(classes: ClassCounts | None) -> dict[str, object] | None:
    """Return classes of a night beside the reference, of plain types alone."""
    if classes is None:
        return None
    return {
        "p_value": classes.p_value,
        "unknown": dict(classes.unknown),
        "counts": {
            name: {"images": images, "expected": expected}
            for name, (images, expected) in classes.counts.items()
        },
    }
