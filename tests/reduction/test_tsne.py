"""Maps: clusters stay clusters, the same seed gives the same map, small sets adapt."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from cnnvis_ray.config import Reduce
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.reduction import (
    Embedding,
    LargeRecipe,
    affinity_neighbours,
    embed,
    judge_map,
    label_agreement,
    label_chance,
    nearest,
)
from cnnvis_ray.reduction import tsne as tsne_module
from cnnvis_ray.reduction.neighbours import Metric
from cnnvis_ray.reduction.tsne import fit_perplexity, principal_plane, scale_start

Array = npt.NDArray[np.floating]


def clusters(num_points: int, num_features: int = 20) -> tuple[Array, list[int]]:
    """Ten clusters whose first two principal components do not tell them apart."""
    generator = np.random.default_rng(4)
    labels = np.arange(num_points) % 10
    centres = 3 * np.eye(10, num_features)
    return centres[labels] + generator.normal(0, 0.4, (num_points, num_features)), labels.tolist()


def accuracy(positions: Array, labels: list[int]) -> float:
    half = len(labels) // 2
    judge = KNeighborsClassifier(10).fit(positions[:half], labels[:half])
    return float(judge.score(positions[half:], labels[half:]))


def test_clusters_stay_clusters() -> None:
    points, labels = clusters(400)
    start = principal_plane(points, 0)
    found = embed(points, Reduce(iterations=300), seed=0)
    assert accuracy(start, labels) < 0.75
    assert accuracy(found.positions, labels) > 0.95
    assert found.positions.shape == (400, 2)
    assert found.positions.dtype == np.float32
    assert 0 < found.kl_divergence < 3
    assert found.notes == ()


@pytest.fixture(scope="module")
def digits_map() -> tuple[Array, list[str], Embedding]:
    digits = load_digits()
    points = digits.data[::2].astype(np.float32)
    labels = [str(label) for label in digits.target[::2]]
    return points, labels, embed(points, Reduce(iterations=400), seed=0)


def test_digits_form_ten_clusters(digits_map: tuple[Array, list[str], Embedding]) -> None:
    points, labels, found = digits_map
    quality = {
        name: value or 0 for name, value in judge_map(points, found.positions).figures.items()
    }
    agreement = label_agreement(found.positions, labels)
    assert agreement is not None and agreement > 0.95
    assert label_chance(labels) == pytest.approx(0.1, abs=0.01)
    assert quality["trustworthiness"] > 0.97
    assert quality["knn_preservation"] > 0.45


def test_an_earlier_map_is_kept_as_the_start(
    digits_map: tuple[Array, list[str], Embedding],
) -> None:
    points, _, found = digits_map
    turned = found.positions[:, ::-1] * np.array([1, -1], dtype=np.float32)
    again = embed(points, Reduce(iterations=300), seed=1, start=turned)
    fresh = embed(points, Reduce(iterations=300), seed=1)
    assert likeness(again.positions, turned) > 0.95
    assert likeness(fresh.positions, turned) < 0.5


def likeness(one: Array, other: Array) -> float:
    return float(np.mean([np.corrcoef(one[:, axis], other[:, axis])[0, 1] for axis in (0, 1)]))


@pytest.mark.parametrize("theta", [None, 0.2])
def test_the_same_seed_gives_the_same_map(theta: float | None) -> None:
    points, _ = clusters(120)
    config = Reduce(iterations=100, theta=theta, learning_rate=150 if theta else "auto")
    one, other = (embed(points, config, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.positions, other.positions)
    assert not np.array_equal(one.positions, embed(points, config, seed=4).positions)


THREADS = """
import hashlib, numpy as np
from cnnvis_ray.config import Reduce
from cnnvis_ray.reduction import PcaOptions, embed, fit_pca, project
points = np.random.default_rng(0).integers(0, 3, (1500, 40)).astype(np.float32)
pca = fit_pca([lambda: (np.arange(1500), points)], points.shape, PcaOptions(10))
for shown in (points, project(pca, points)):  # whole numbers have many equal distances
    found = embed(shown, Reduce(iterations=6), 0)
    print(hashlib.sha256(found.positions.tobytes()).hexdigest())
"""


def test_the_number_of_threads_does_not_change_the_map() -> None:
    maps = [
        subprocess.run(
            [sys.executable, "-c", THREADS],
            env={"OMP_NUM_THREADS": threads},
            check=True,
            capture_output=True,
        ).stdout
        for threads in ("1", "3")
    ]
    assert maps[0] == maps[1]


@pytest.mark.parametrize(
    ("num_images", "notes"),
    [
        (5, ("perplexity 30 needs 91 images, there are 5: using 1.3",)),
        (6, ("perplexity 30 needs 91 images, there are 6: using 1.7",)),
        (20, ("perplexity 30 needs 91 images, there are 20: using 6.3",)),
        (91, ()),
    ],
)
def test_small_sets_adapt(num_images: int, notes: tuple[str, ...]) -> None:
    points, _ = clusters(num_images)
    found = embed(points, Reduce(), seed=0)
    assert found.notes == notes
    assert found.positions.shape == (num_images, 2)
    assert np.isfinite(found.positions).all()
    assert len(np.unique(found.positions, axis=0)) == num_images


def test_perplexity_needs_three_times_as_many_neighbours() -> None:
    assert fit_perplexity(30, 91) == (30, ())
    assert fit_perplexity(30, 90)[1] == (
        "perplexity 30 needs 91 images, there are 90: using 29.7",
    )


def test_four_images_and_broken_values_are_refused() -> None:
    points, _ = clusters(20)
    with pytest.raises(RefusedError, match="a map needs at least 5 images, there are 4"):
        embed(points[:4], Reduce(), seed=0)
    with pytest.raises(ValueError, match="start of shape"):
        embed(points, Reduce(), seed=0, start=np.zeros((19, 2)))
    points[3, 3] = np.inf
    with pytest.raises(RefusedError, match="NaN or infinity"):
        embed(points, Reduce(), seed=0)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_equal_points_make_a_map(metric: Metric, value: float) -> None:
    points = np.full((40, 6), value, dtype=np.float32)
    found = embed(points, Reduce(metric=metric, iterations=100), seed=0)
    assert np.isfinite(found.positions).all()
    points[20:] += 1
    some = embed(points, Reduce(metric=metric, iterations=100, perplexity=5), seed=0)
    assert np.isfinite(some.positions).all()


def test_one_feature_and_one_iteration_are_enough() -> None:
    points = np.arange(30, dtype=np.float64)[:, None]
    assert np.isfinite(embed(points, Reduce(iterations=1), seed=0).positions).all()


def test_the_start_is_shrunk_and_parted() -> None:
    start = np.array([[1e6, 5.0], [1e6 + 2, 5.0], [1e6 + 2, 5.0]])
    scaled = scale_start(start, seed=0)
    assert scaled.std(axis=0).max() == pytest.approx(1e-4, rel=0.05)
    assert len(np.unique(scaled, axis=0)) == 3
    assert scale_start(np.zeros((4, 2)), seed=0).std() == pytest.approx(1e-4, rel=0.7)


def test_neighbours_found_before_make_the_same_map() -> None:
    points, _ = clusters(200)
    config = Reduce(iterations=60)
    found = nearest(points, affinity_neighbours(config, 200))
    once = embed(points, config, 0, neighbours=found)
    np.testing.assert_array_equal(once.positions, embed(points, config, 0).positions)


def test_progress_is_reported_every_fifty_iterations() -> None:
    points, _ = clusters(120)
    seen: list[tuple[int, float]] = []
    embed(points, Reduce(iterations=300), 0, progress=lambda *pair: seen.append(pair))
    assert [iteration for iteration, _ in seen] == [50, 100, 150, 200, 250, 300]
    assert seen[-1][1] < seen[2][1]  # after the exaggeration


SMALL = LargeRecipe(
    above=500, sample=100, sample_perplexity=20, early_iterations=100, late_iterations=400
)


def test_many_points_start_from_a_sample() -> None:
    points, labels = clusters(800)
    seen: list[int] = []
    found = embed(
        points,
        Reduce(iterations=200, perplexity=10),
        0,
        labels=[str(label) for label in labels],
        progress=lambda iteration, _: seen.append(iteration),
        large=SMALL,
    )
    assert accuracy(found.positions, labels) > 0.95
    again = embed(
        points,
        Reduce(iterations=200, perplexity=10),
        0,
        labels=[str(label) for label in labels],
        large=SMALL,
    )
    np.testing.assert_array_equal(found.positions, again.positions)
    assert seen[:2] == [50, 100]


def test_a_plateau_ends_the_last_phase() -> None:
    points, _ = clusters(600)
    for plateau, ends in ((0.5, 200), (0.0, 500)):
        seen: list[int] = []
        embed(
            points,
            Reduce(iterations=100, perplexity=10),
            0,
            progress=lambda iteration, _, seen=seen: seen.append(iteration),  # type: ignore[misc]
            large=replace(SMALL, plateau=plateau),
        )
        assert seen[-1] == ends


def test_a_long_map_ends_at_a_plateau(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = clusters(150)
    short: list[int] = []
    embed(points, Reduce(), 0, progress=lambda iteration, _: short.append(iteration))
    assert short[-1] == 750
    monkeypatch.setattr(tsne_module, "LONG_MAP", 100)
    long: list[int] = []
    embed(points, Reduce(), 0, progress=lambda iteration, _: long.append(iteration))
    assert 250 <= long[-1] < 750


def test_a_start_keeps_many_points_where_they_were() -> None:
    points, _ = clusters(600)
    config = Reduce(perplexity=10, iterations=200)
    turned = embed(points, config, 0).positions * np.array([1, -1], dtype=np.float32)
    large = replace(SMALL, early_iterations=50, late_iterations=100)
    found = embed(points, config, 0, start=turned, large=large)
    assert likeness(found.positions, turned) > 0.9
