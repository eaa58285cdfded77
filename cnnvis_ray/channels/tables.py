"""Statistics as Parquet rows, a row a channel: in a unit's shard and, merged, in channels/."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cnnvis_ray.channels import histograms
from cnnvis_ray.channels.exemplars import NOBODY, Exemplars
from cnnvis_ray.channels.histograms import NUM_BINS, ZERO_BIN
from cnnvis_ray.channels.moments import Moments
from cnnvis_ray.channels.statistics import Statistics

EXEMPLAR = pa.struct(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("value", pa.float32()),
        ("y", pa.int32()),
        ("x", pa.int32()),
    ]
)
COUNTS = pa.list_(pa.int64(), NUM_BINS)
TOP = 0.005  # NetDissect's quantile from the top (Bau et al. 2017)


SUMMARY = (
    ("strongest", pa.float64()),  # share of the images among whose five strongest it is
    ("sparsity", pa.float64()),  # of the images' means; null for a silent channel
    ("median", pa.float64()),  # of the images' means; all quantiles within 4.4 %
    ("top", pa.float64()),  # what 0.5 % of them exceed
    ("peak_median", pa.float64()),
    ("peak_top", pa.float64()),
    ("sampled_excited", pa.float64()),  # share of single places above zero
    ("sampled_median", pa.float64()),
    ("sampled_top", pa.float64()),
)


def moment_fields(prefix: str, spread: str) -> list[tuple[str, pa.DataType]]:
    """Return the columns of one number per image."""
    return [
        (f"{prefix}mean", pa.float64()),
        (f"{prefix}{spread}", pa.float64()),
        (f"{prefix}maximum", pa.float32()),
        (f"{prefix}excited", pa.int64() if spread == "squares" else pa.float64()),
        (f"{prefix}histogram", COUNTS),
    ]


def schema(spread: str) -> pa.Schema:
    """Return the schema of a unit's shard (``squares``) or of the merged table (``variance``)."""
    head = [("channel", pa.int32()), ("count", pa.int64())]
    tail = [("sampled_histogram", COUNTS), ("exemplars", pa.list_(EXEMPLAR))]
    found = (("strongest", pa.int64()),) if spread == "squares" else SUMMARY
    moments = [*moment_fields("", spread), *moment_fields("peak_", spread)]
    return pa.schema([*head, *moments, *found, *tail])


UNIT = schema("squares")
MERGED = schema("variance")


def unit_table(statistics: Statistics) -> pa.Table:
    """Write mergeable statistics; `from_table` reads them back."""
    columns = [
        *moment_columns(statistics.mean, mergeable=True),
        *moment_columns(statistics.peak, mergeable=True),
        statistics.strongest,
    ]
    return assemble(statistics, columns, UNIT)


def merged_table(statistics: Statistics) -> pa.Table:
    """Write statistics for readers: variances, shares of images above zero, quantiles."""
    columns = [
        *moment_columns(statistics.mean, mergeable=False),
        *moment_columns(statistics.peak, mergeable=False),
        *summary_columns(statistics),
    ]
    return assemble(statistics, columns, MERGED)


def summary_columns(statistics: Statistics) -> list[object]:
    """Lay out what follows from the statistics, in the order of `SUMMARY`; NaN becomes null."""
    sampled = statistics.sampled
    places = sampled.sum(axis=1)
    above = sampled[:, ZERO_BIN + 1 :].sum(axis=1)
    columns = [
        statistics.strongest / np.maximum(statistics.mean.count, 1),
        sparsity(statistics.mean),
        *quantiles(statistics.mean.histogram),
        *quantiles(statistics.peak.histogram),
        np.where(places > 0, above / np.maximum(places, 1), np.nan),
        *quantiles(sampled),
    ]
    return [pa.array(column, pa.float64(), from_pandas=True) for column in columns]


def quantiles(counts: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Read the median and what 0.5 % exceed."""
    return [histograms.quantile(counts, share) for share in (0.5, 1 - TOP)]


def sparsity(means: Moments) -> NDArray[np.float64]:
    """Measure how few images excite a channel: 0 for all alike, 1 for a single one.

    References:
        Vinje and Gallant 2000, doi:10.1126/science.287.5456.1273, equation 1; for activations
        that are not negative.
    """
    square = means.mean**2 + means.variance
    share = np.divide(means.mean**2, square, out=np.full(len(square), np.nan), where=square > 0)
    spread = 1 - 1 / np.maximum(means.count, 2)
    return np.asarray((1 - share) / spread)


def assemble(statistics: Statistics, columns: Sequence[object], fields: pa.Schema) -> pa.Table:
    """Put the columns of all channels into one table."""
    head = [np.arange(statistics.num_channels, dtype=np.int32), statistics.mean.count]
    counts = pa.FixedSizeListArray.from_arrays(pa.array(statistics.sampled.ravel()), NUM_BINS)
    tail = [counts, pa.array(exemplar_rows(statistics.exemplars), pa.list_(EXEMPLAR))]
    return pa.table([*head, *columns, *tail], schema=fields)


def moment_columns(values: Moments, mergeable: bool) -> list[object]:
    """Lay out the columns of one number an image, in the order of `moment_fields`."""
    spread = values.squares if mergeable else values.variance
    excited = values.excited if mergeable else values.excited / np.maximum(values.count, 1)
    counts = pa.FixedSizeListArray.from_arrays(pa.array(values.histogram.ravel()), NUM_BINS)
    return [values.mean, spread, values.maximum, excited, counts]


def exemplar_rows(best: Exemplars) -> list[list[dict[str, object]]]:
    """List each channel's best images, best first."""
    return [
        [
            {
                "image_id": image,
                "key": best.keys[image],
                "value": value,
                "y": place[0],
                "x": place[1],
            }
            for image, value, place in zip(ids, values, places, strict=True)
            if image != NOBODY
        ]
        for ids, values, places in zip(
            best.image_id.tolist(), best.value.tolist(), best.place.tolist(), strict=True
        )
    ]


def from_table(table: pa.Table, best: int) -> Statistics:
    """Read a unit's statistics back.

    Args:
        table: rows of schema `UNIT`, by channel.
        best: how many exemplars a channel keeps.
    """
    return Statistics(
        moments_from(table, ""),
        moments_from(table, "peak_"),
        exemplars_from(table, best),
        histogram_from(table, "sampled_histogram"),
        table["strongest"].to_numpy(),
    )


def moments_from(table: pa.Table, prefix: str) -> Moments:
    """Read one number's moments back."""
    return Moments(
        table["count"].to_numpy(),
        table[f"{prefix}mean"].to_numpy(),
        table[f"{prefix}squares"].to_numpy(),
        table[f"{prefix}maximum"].to_numpy(),
        table[f"{prefix}excited"].to_numpy(),
        histogram_from(table, f"{prefix}histogram"),
    )


def histogram_from(table: pa.Table, column: str) -> NDArray[np.int64]:
    """Read a histogram column as ``channel bin``."""
    values = table[column].combine_chunks().flatten().to_numpy()
    return np.asarray(values.reshape(table.num_rows, NUM_BINS))


def exemplars_from(table: pa.Table, best: int) -> Exemplars:
    """Read the best images back."""
    rows = table["exemplars"].to_pylist()
    value = np.full((len(rows), best), -np.inf, np.float32)
    ids = np.full((len(rows), best), NOBODY, np.int64)
    place = np.zeros((len(rows), best, 2), np.int32)
    keys: dict[int, str] = {}
    for channel, listed in enumerate(rows):
        for rank, entry in enumerate(listed):
            value[channel, rank] = entry["value"]
            ids[channel, rank] = entry["image_id"]
            place[channel, rank] = entry["y"], entry["x"]
            keys[entry["image_id"]] = entry["key"]
    return Exemplars(value, ids, place, keys)
