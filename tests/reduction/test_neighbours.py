"""Neighbours: the true ones, without the point itself, the same in tasks as at once."""

import pickle

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from cnnvis_ray.reduction import (
    NEIGHBOURS,
    build_index,
    indices_of,
    nearest,
    neighbours_table,
    search_index,
)
from cnnvis_ray.reduction import neighbours as module
from cnnvis_ray.reduction.neighbours import MISSING, Indices, Metric

Array = npt.NDArray[np.floating]


def clusters(num_points: int, num_features: int = 20) -> Array:
    generator = np.random.default_rng(4)
    centres = generator.normal(size=(30, num_features)) * 2
    noise = generator.normal(size=(num_points, num_features))
    return (centres[np.arange(num_points) % 30] + noise).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_neighbours_equal_scikit_learn(metric: Metric) -> None:
    points = clusters(400)
    indices, distances = nearest(points, 12, metric)
    search = NearestNeighbors(n_neighbors=13, metric=metric, algorithm="brute").fit(points)
    far, near = search.kneighbors(points)
    assert (indices == near[:, 1:]).mean() > 0.999
    np.testing.assert_allclose(distances, far[:, 1:], atol=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_neighbours_exclude_the_point_itself(metric: Metric) -> None:
    points = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    points[:10] = points[0]  # ten equal ones hide one another
    indices, distances = nearest(points, 12, metric)
    assert indices.shape == distances.shape == (60, 12)
    for row, near in enumerate(indices):
        assert row not in near and len(set(near.tolist())) == 12
    assert (distances[:10, :9] == 0).all()
    assert (np.diff(distances, axis=1) >= 0).all()


def test_cells_find_most_of_the_true_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    points = clusters(3000)
    points[:200] = points[0]
    true, _ = nearest(points, 10)
    monkeypatch.setattr(module, "MOST_EXACT", 100)
    index = build_index(points)
    assert index.num_probes > 0
    assert 0.99 <= index.recall <= 1
    found, distances = search_index(index, points, 10)
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(true[200:], found[200:], strict=True)]
    assert np.mean(shared) > 0.97
    assert (distances[:200] == 0).all()
    np.testing.assert_array_equal(found, nearest(points, 10)[0])


def test_the_recall_asked_raises_the_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).normal(size=(4000, 30)).astype(np.float32)
    monkeypatch.setattr(module, "MOST_EXACT", 100)
    fine = build_index(points)
    monkeypatch.setattr(module, "MOST_FINE", 100)
    monkeypatch.setattr(module, "RECALL", 0.3)
    rough = build_index(points)
    assert rough.num_probes < fine.num_probes
    assert 0.3 <= rough.recall < 0.99 <= fine.recall


@pytest.mark.parametrize("most_exact", [10, 10_000])
def test_tasks_find_what_one_search_finds(
    monkeypatch: pytest.MonkeyPatch, most_exact: int
) -> None:
    monkeypatch.setattr(module, "MOST_EXACT", most_exact)
    monkeypatch.setattr(module, "QUERY_ROWS", 130)
    points, ids = clusters(500), np.random.default_rng(0).permutation(500) * 7
    index = pickle.loads(pickle.dumps(build_index(points)))  # noqa: S301  our own
    tables = []
    for rows in module.query_rows(500):
        near, far = search_index(index, points, 15, rows)
        tables.append(neighbours_table(ids, near, far, rows))
    assert [table.num_rows for table in tables] == [130, 130, 130, 110]
    whole = search_index(index, points, 15)[0][:, :12]
    np.testing.assert_array_equal(indices_of(ids, tables[::-1]), whole)
    with pytest.raises(ValueError, match="neighbours of 130 images for 500"):
        indices_of(ids, tables[:1])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 16))
def test_few_images_leave_places_empty(count: int) -> None:
    points, ids = clusters(count), np.arange(count) * 3 + 5
    table = neighbours_table(ids, *nearest(points, 12))
    assert table.schema == NEIGHBOURS
    for own, near, far in zip(*(column.to_pylist() for column in table.columns), strict=True):
        known = min(12, count - 1)
        assert own not in near
        assert near[known:] == [MISSING] * (12 - known)
        assert far[known:] == [np.inf] * (12 - known)
        assert set(near[:known]) <= set(ids.tolist()) and np.isfinite(far[:known]).all()
    np.testing.assert_array_equal(indices_of(ids, [table]), nearest(points, 12)[0])


def test_wide_features_are_ranked_in_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 images of 802,816 numbers would need 57 GiB at once."""
    points = np.random.default_rng(0).standard_normal((60, 500)).astype(np.float32)
    whole = module.nearest(points, 20)
    sizes = []
    rank = module.rank

    def watched(points: Array, own: Indices, found: Indices, metric: Metric) -> object:
        sizes.append(len(own) * found.shape[1] * points.shape[1])
        return rank(points, own, found, metric)

    monkeypatch.setattr(module, "rank", watched)
    monkeypatch.setattr(module, "MOST_NUMBERS", 50_000)
    for one, other in zip(module.nearest(points, 20), whole, strict=True):
        np.testing.assert_array_equal(one, other)
    assert max(sizes) <= 50_000
