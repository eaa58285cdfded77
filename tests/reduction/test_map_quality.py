"""Map quality: hand-computed values, scikit-learn's own, and what a sample gives."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness as expected_trustworthiness

from cnnvis_ray.config import Reduce
from cnnvis_ray.reduction import (
    align,
    as_dict,
    compare_seeds,
    displacements,
    embed,
    judge_labels,
    judge_map,
    label_agreement,
    label_chance,
    nearest,
    trust_of,
)
from cnnvis_ray.reduction import quality as quality_module
from cnnvis_ray.reduction.neighbours import MISSING, Metric
from cnnvis_ray.reduction.quality import (
    Figures,
    draw_sample,
    feature_agreement,
    judge_neighbours,
    pair_distances,
)


def figure(figures: Figures, name: str) -> float:
    """Read a figure that is there."""
    value = figures[name]
    assert value is not None
    return value


def test_a_perfect_and_a_shuffled_map() -> None:
    points = np.random.default_rng(0).normal(size=(300, 2))
    perfect = judge_map(points, points * 3 + 1)
    for name in ("knn_preservation", "knn_preservation_50", "trustworthiness", "random_triplets"):
        assert perfect.figures[name] == perfect.controls["pca_plane"][name] == 1
    shuffled = perfect.controls["shuffled"]
    assert shuffled["knn_preservation"] == pytest.approx(10 / 299, abs=0.02)
    assert shuffled["knn_preservation_50"] == pytest.approx(50 / 299, abs=0.02)
    assert shuffled["trustworthiness"] == pytest.approx(0.5, abs=0.05)
    assert shuffled["random_triplets"] == pytest.approx(0.5, abs=0.02)


def test_the_plane_is_a_control_of_its_own() -> None:
    points = load_digits().data[:400]
    quality = judge_map(points, points[:, [20, 43]], plane=np.zeros((400, 2)))
    plane = quality.controls["pca_plane"]
    assert figure(quality.figures, "random_triplets") > 0.5
    assert plane["random_triplets"] == pytest.approx(0.5, abs=0.01)  # all pairs are equally far


def test_preservation_by_hand() -> None:
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    moved = np.array([[0.0, 0], [1.0, 0], [9.0, 0], [6.0, 0]])
    # nearest on the line: 1, 0, 1, 2; on the map: 1, 0, 3, 2
    near, _ = nearest(line, 1)
    assert near[:, 0].tolist() == [1, 0, 1, 2]
    assert trust_of(near, moved).tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_trustworthiness_equals_scikit_learn(metric: Metric) -> None:
    points = load_digits().data[:200] + 1
    positions = points[:, [20, 43]] + np.random.default_rng(0).normal(size=(200, 2))
    expected = expected_trustworthiness(points, positions, n_neighbors=10, metric=metric)
    found = judge_neighbours(points, {"map": positions}, np.arange(200), metric)["map"]
    assert found["trustworthiness"] == pytest.approx(expected, abs=1e-3)


def test_trust_is_the_preservation_of_each_image() -> None:
    points = load_digits().data[:300]
    positions = points[:, [20, 43]] + np.random.default_rng(0).normal(size=(300, 2))
    near, _ = nearest(points, 12)
    trust = trust_of(near, positions)
    assert trust.shape == (300,) and trust.dtype == np.float32
    whole = judge_map(points, positions).figures["knn_preservation"]
    assert float(trust.mean()) == pytest.approx(whole, abs=1e-3)
    few = near.copy()
    few[:, 3:] = MISSING
    assert ((trust_of(few, positions) * 3) % 1 < 1e-6).all()  # of three that are known


def test_a_sample_has_nearly_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    points = load_digits().data
    positions = points[:, [20, 43]] + np.random.default_rng(0).normal(size=(len(points), 2))
    labels = [str(label) for label in load_digits().target]
    whole, named = judge_map(points, positions), label_agreement(positions, labels)
    monkeypatch.setattr(quality_module, "MOST_JUDGED", 600)
    monkeypatch.setattr(quality_module, "FEWEST_JUDGED", 100)
    monkeypatch.setattr(quality_module, "BLOCK_BYTES", 2**20)
    some = judge_map(points, positions)
    assert (whole.figures["judged_images"], some.figures["judged_images"]) == (1797, 600)
    for name in ("trustworthiness", "knn_preservation", "knn_preservation_50"):
        assert some.figures[name] == pytest.approx(whole.figures[name], abs=0.02)
    assert label_agreement(positions, labels) == pytest.approx(named, abs=0.03)


def test_labels_by_hand() -> None:
    positions = np.array([[0.0, 0], [1, 0], [2.5, 0], [4.5, 0], [0.4, 0]])
    labels = ["a", "a", "b", "b", None]
    # nearest labelled: 0 -> 1 same, 1 -> 0 same, 2 -> 1 other, 3 -> 2 same
    assert label_agreement(positions, labels, k=1) == 0.75
    assert label_chance(labels) == pytest.approx(4 / 12)
    assert label_agreement(positions, [None, "a", None, None, None]) is None
    assert label_chance(["a"]) is None


def test_labels_by_features_skip_images_without_one() -> None:
    near = np.array([[4, 1, 2], [4, 0, 2], [1, 3, MISSING], [2, 1, 0], [0, 1, 2]])
    labels = ["a", "a", "b", "b", None]
    # first labelled by features: 0 -> 1 same, 1 -> 0 same, 2 -> 1 other, 3 -> 2 same
    assert feature_agreement(near, labels, k=1) == 0.75
    assert feature_agreement(near, [None] * 5) is None


def test_label_figures_stand_beside_their_controls() -> None:
    digits = load_digits()
    points, labels = digits.data[:500], [str(label) for label in digits.target[:500]]
    near, _ = nearest(points, 12)
    positions = points[:, [20, 43]].astype(float)
    quality = judge_labels(positions, labels, near, points[:, :2])
    assert figure(quality.figures, "feature_label_agreement") > 0.9
    assert quality.figures["label_chance"] == pytest.approx(0.1, abs=0.02)
    assert quality.controls["shuffled"]["label_agreement"] == pytest.approx(0.1, abs=0.05)
    unlabelled = judge_labels(positions, [None] * 500, near)
    assert set(unlabelled.figures.values()) == {None}
    one = judge_labels(positions, ["a"] * 500, near)
    assert set(one.figures.values()) == {1}


def test_all_figures_lie_in_one_record() -> None:
    points = np.random.default_rng(0).normal(size=(60, 4))
    near, _ = nearest(points, 12)
    found = as_dict(
        [judge_map(points, points[:, 2:]), judge_labels(points[:, 2:], ["a"] * 60, near)],
        kl_divergence=1.23456,
        neighbour_recall=1.0,
    )
    assert found["kl_divergence"] == 1.2346 and found["neighbour_recall"] == 1
    for name in ("knn_preservation", "knn_preservation_50", "trustworthiness", "random_triplets"):
        assert isinstance(found[name], float)
    controls = found["controls"]
    assert isinstance(controls, dict) and set(controls) == {"pca_plane", "shuffled"}
    assert "label_agreement" in controls["shuffled"]


def test_small_maps_are_judged() -> None:
    for count in (3, 5, 8):
        points = np.random.default_rng(0).normal(size=(count, 2))
        found = judge_map(points, points).figures
        assert found["knn_preservation"] == found["trustworthiness"] == 1
        assert label_agreement(points, ["a"] * count) == 1


def test_equal_positions_are_judged() -> None:
    stacked = np.zeros((30, 2))
    assert label_agreement(stacked, ["a"] * 30) == 1
    points = np.random.default_rng(0).normal(size=(30, 4))
    assert 0 <= figure(judge_map(points, stacked).figures, "knn_preservation") < 1


def test_ten_thousand_equal_images_are_judged() -> None:
    points = np.ones((10_000, 5), np.float32)
    near, distances = nearest(points, 12)
    assert not distances.any() and not (near == np.arange(10_000)[:, None]).any()
    positions = np.random.default_rng(0).normal(size=(10_000, 2))
    trust = trust_of(near, positions)
    assert ((trust >= 0) & (trust <= 1)).all()


def test_a_second_seed_disagrees_where_images_have_no_place() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 4
    points = 8 * np.eye(4, 10)[labels] + generator.normal(size=(240, 10)) * 0.3
    found = embed(points, Reduce(iterations=250), 0)
    second = compare_seeds(points, found.positions, Reduce(iterations=250), 0)
    assert second.agreement.shape == (240,) and second.positions.shape == (240, 2)
    assert second.agreement.mean() > 0.8
    lost = found.positions.copy()
    lost[:40] = generator.permutation(lost[:40])  # placed at random among the first forty
    again = compare_seeds(points, lost, Reduce(iterations=250), 0)
    assert again.agreement[:40].mean() < 0.6 < again.agreement[80:].mean()


def test_a_second_map_of_a_sample_speaks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_module, "MOST_SECOND", 60)
    points = np.random.default_rng(0).normal(size=(150, 5))
    second = compare_seeds(points, points[:, :2], Reduce(iterations=60), 0)
    assert len(second.sample) == len(second.positions) == 60
    assert second.agreement.shape == (150,) and np.isfinite(second.agreement).all()


def test_maps_are_laid_onto_one_another() -> None:
    reference = np.random.default_rng(0).normal(size=(50, 2)) * 7 + 3
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (reference * [1, -1]) @ turn * 0.1 - 20
    np.testing.assert_allclose(align(moved, reference), reference, atol=1e-9)
    assert displacements(moved, reference).max() < 1e-6
    shuffled = displacements(np.random.default_rng(1).permutation(reference), reference)
    assert 0.7 < shuffled.mean() < 1.4
    moved[7] += 1  # ten of the reference's units: only this image moves
    steps = displacements(moved, reference)
    assert steps.argmax() == 7 and np.median(steps) < 0.1
    assert displacements(np.zeros((5, 2)), reference[:5]).max() < 3
    with pytest.raises(ValueError, match="maps of 5 and 6 images"):
        align(reference[:5], reference[:6])


def test_a_sample_is_seeded_and_sorted() -> None:
    sample = draw_sample(20_000, seed=1)
    assert len(sample) == len(set(sample.tolist())) == 5_000
    assert (np.diff(sample) > 0).all()
    np.testing.assert_array_equal(sample, draw_sample(20_000, seed=1))
    np.testing.assert_array_equal(draw_sample(7, seed=1), np.arange(7))
    assert len(draw_sample(1_000_000, seed=1)) == 2_000  # a minute, whatever the size
    assert len(draw_sample(50_000_000, seed=1)) == 1_000


@pytest.mark.parametrize("width", [5, 60])
def test_distances_of_pairs_do_not_depend_on_how_they_are_measured(width: int) -> None:
    values = np.random.default_rng(0).normal(size=(40, width)).astype(np.float32)
    values[7] = values[3]
    one, other = np.random.default_rng(1).integers(40, size=(2, 500))
    found = pair_distances(values, one, other, 2)
    wanted = np.linalg.norm(values[one].astype(np.float64) - values[other], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-5)
