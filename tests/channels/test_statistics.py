"""Statistics merge in any order and grouping, and equal what NumPy says of all images at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnnvis_ray import channels
from cnnvis_ray.channels import ImageResponses, Statistics, StatisticsBuilder, histograms

CHANNELS, BEST = 7, 4


def images(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    means = random.normal(size=(count, CHANNELS)).astype(np.float32)
    means[:, 0] = 0  # a channel that nothing excites: every peak ties
    return means, np.where(means == 0, 0, np.abs(means) * 3).astype(np.float32)


def key(image: int) -> str:
    return f"{image * 7919 % 1000:04d}.jpg"  # keys that do not sort as ids do


def observed(means: NDArray[np.float32], peaks: NDArray[np.float32], ids: list[int]) -> Statistics:
    def find(image: NDArray[np.intp], channel: NDArray[np.intp]) -> NDArray[np.int32]:
        return np.stack([np.asarray(ids)[image], channel], axis=1).astype(np.int32)

    keys = [key(image) for image in ids]
    builder = StatisticsBuilder(CHANNELS, BEST)
    builder.add(ImageResponses(means[ids], peaks[ids], means[ids], find, ids, keys))
    return builder.build()


def same(one: Statistics, other: Statistics) -> None:
    for left, right in ((one.mean, other.mean), (one.peak, other.peak)):
        np.testing.assert_allclose(left.mean, right.mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(left.variance, right.variance, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(left.count, right.count)
        np.testing.assert_array_equal(left.maximum, right.maximum)
        np.testing.assert_array_equal(left.excited, right.excited)
        np.testing.assert_array_equal(left.histogram, right.histogram)
    np.testing.assert_array_equal(one.sampled, other.sampled)
    np.testing.assert_array_equal(one.strongest, other.strongest)
    np.testing.assert_array_equal(one.exemplars.value, other.exemplars.value)
    np.testing.assert_array_equal(one.exemplars.image_id, other.exemplars.image_id)
    np.testing.assert_array_equal(one.exemplars.place, other.exemplars.place)
    assert one.exemplars.keys == other.exemplars.keys


@pytest.mark.parametrize("num_pieces", [1, 3, 17])
def test_pieces_in_random_order_equal_one_pass(num_pieces: int) -> None:
    means, peaks = images(200)
    whole = observed(means, peaks, list(range(200)))
    random = np.random.default_rng(num_pieces)
    pieces = np.array_split(random.permutation(200), num_pieces)
    parts = [observed(means, peaks, piece.tolist()) for piece in pieces]
    random.shuffle(parts)
    same(channels.merge_all(parts), whole)


def test_numbers_are_numpys() -> None:
    means, peaks = images(200)
    whole = observed(means, peaks, list(range(200)))
    exact = means.astype(np.float64)
    np.testing.assert_allclose(whole.mean.mean, exact.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(whole.mean.variance, exact.var(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(whole.peak.maximum, peaks.max(axis=0))
    np.testing.assert_array_equal(whole.mean.excited, (means > 0).sum(axis=0))
    assert (whole.mean.histogram.sum(axis=1) == 200).all()
    expected = np.sort(peaks, axis=0)[::-1][:BEST].T
    np.testing.assert_array_equal(whole.exemplars.value, expected)


def test_a_large_offset_does_not_cancel() -> None:
    means = (1e4 + np.random.default_rng(0).normal(size=(1000, CHANNELS))).astype(np.float32)
    parts = [
        observed(means, means, list(range(start, start + 10))) for start in range(0, 1000, 10)
    ]
    merged = channels.merge_all(parts)
    np.testing.assert_allclose(
        merged.mean.variance, means.astype(np.float64).var(axis=0), rtol=1e-9
    )


def test_ties_go_to_the_first_key() -> None:
    means, peaks = images(50)
    whole = observed(means, peaks, list(range(50)))
    first = sorted(range(50), key=key)[:BEST]
    assert whole.exemplars.image_id[0].tolist() == first


def test_places_are_looked_up_only_for_the_best() -> None:
    means, peaks = images(300)
    asked = []

    def find(image: NDArray[np.intp], channel: NDArray[np.intp]) -> NDArray[np.int32]:
        asked.append(len(image))
        return np.zeros((len(image), 2), np.int32)

    builder = StatisticsBuilder(CHANNELS, BEST)
    for start in range(0, 300, 30):
        ids = list(range(start, start + 30))
        part = slice(start, start + 30)
        keys = [key(image) for image in ids]
        builder.add(ImageResponses(means[part], peaks[part], means[part], find, ids, keys))
    assert asked[0] == BEST * CHANNELS
    assert sum(asked) < 4 * BEST * CHANNELS


def test_tables_read_back_the_same() -> None:
    means, peaks = images(3)  # fewer than the best: ragged lists
    whole = observed(means, peaks, [0, 1, 2])
    same(channels.from_table(channels.unit_table(whole), BEST), whole)
    merged = channels.merged_table(whole)
    assert merged.num_rows == CHANNELS
    assert merged["excited"].to_pylist()[0] == 0.0
    assert len(merged["exemplars"].to_pylist()[0]) == 3


def test_no_image_at_all_has_the_same_schema() -> None:
    empty = channels.nothing(CHANNELS, BEST)
    full = observed(*images(5), list(range(5)))
    assert channels.unit_table(empty).schema == channels.unit_table(full).schema
    same(channels.merge(empty, full), full)
    assert channels.merged_table(empty)["count"].to_pylist() == [0] * CHANNELS


@given(st.floats(-1e6, 1e6, width=32))
def test_a_bin_holds_its_value(value: float) -> None:
    place = int(histograms.bin_of(np.array([value]))[0])
    edges = histograms.edges()
    if value == 0:
        assert place == histograms.ZERO_BIN
        return
    side = abs(place - histograms.ZERO_BIN)
    assert np.sign(place - histograms.ZERO_BIN) == np.sign(value)
    low, high = edges[histograms.SIDE_BINS + side : histograms.SIDE_BINS + side + 2]
    inside = low * (1 - 1e-6) <= abs(value) <= high * (1 + 1e-6)
    assert inside or side in (1, histograms.SIDE_BINS)


def test_share_below_is_a_percentile() -> None:
    values = np.random.default_rng(1).lognormal(size=(5000, 2)).astype(np.float32)
    counts = histograms.count(values)
    asked = np.quantile(values, 0.9, axis=0)
    np.testing.assert_allclose(histograms.share_below(counts, asked), 0.9, atol=0.02)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_bins_by_bits_are_those_of_the_edges(given_values: list[float]) -> None:
    values = np.array(given_values, np.float32)
    bins = histograms.bin_of(values)
    edges = histograms.edges().astype(np.float32)
    inside = np.clip(np.abs(values), edges[-histograms.SIDE_BINS - 1], np.float32(2.0**15.99))
    rank = np.searchsorted(edges[histograms.SIDE_BINS + 1 :], inside, side="right")
    rank = np.where(np.abs(values) >= edges[-2], histograms.SIDE_BINS, rank)
    expected = histograms.ZERO_BIN + np.where(values == 0, 0, np.sign(values) * rank)
    np.testing.assert_array_equal(bins, expected.astype(np.int64))


@pytest.mark.parametrize("share", [0.005, 0.5, 0.9, 0.995])
def test_quantiles_are_within_the_stated_error(share: float) -> None:
    random = np.random.default_rng(0)
    values = np.exp(2 * random.normal(size=(2000, 3))).astype(np.float32)
    values[:, 1] *= -1
    values[:, 2] = np.maximum(values[:, 2] - 1, 0)
    found = histograms.quantile(histograms.count(values), share)
    exact = np.quantile(values, share, axis=0, method="inverted_cdf")
    assert (np.abs(found - exact) <= 0.044 * np.abs(exact) + 1e-12).all()
    assert np.isnan(histograms.quantile(np.zeros((1, histograms.NUM_BINS), np.int64), share)).all()


def test_strongest_channels_are_counted_by_hand() -> None:
    peaks = np.tile(np.array([0, 7, 6, 5, 4, 3, 2], np.float32), (3, 1))
    peaks[2] = 0  # an image that excites nothing has no strongest channel
    whole = observed(peaks, peaks, [0, 1, 2])
    assert whole.strongest.tolist() == [0, 2, 2, 2, 2, 2, 0]


def test_summaries_say_what_arrays_say() -> None:
    means, peaks = np.zeros((4, CHANNELS), np.float32), np.zeros((4, CHANNELS), np.float32)
    means[0, 1] = peaks[0, 1] = 2.0  # one image only
    means[:, 2] = peaks[:, 2] = 3.0  # all alike
    table = channels.merged_table(observed(means, peaks, [0, 1, 2, 3]))
    assert table["sparsity"].to_pylist()[:3] == [None, pytest.approx(1), pytest.approx(0)]
    assert table["strongest"].to_pylist()[:3] == [0.0, 0.25, 1.0]
    assert table["peak_top"].to_pylist()[2] == pytest.approx(3, rel=0.044)
    assert table["median"].to_pylist()[1] == 0.0
    assert table["sampled_excited"].to_pylist()[:3] == [0.0, 0.25, 1.0]


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (1, 1), (7, 40_000), (300, 513)])
def test_a_histogram_counts_every_value_of_its_column(rows: int, columns: int) -> None:
    values = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    values[values < 0.3] = 0
    counts = histograms.count(values)
    assert counts.shape == (columns, histograms.NUM_BINS)
    for column in range(0, columns, 499):
        bins = histograms.bin_of(values[:, column])
        wanted = np.bincount(bins, minlength=histograms.NUM_BINS)
        np.testing.assert_array_equal(counts[column], wanted)
