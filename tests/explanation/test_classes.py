"""CKA, selectivity and probes: numbers known beforehand."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from cnnvis_ray.explanation.classes import (
    PENALTIES,
    class_means,
    measure_classes,
    probe,
    score_penalties,
)
from cnnvis_ray.explanation.comparison import (
    Compared,
    compare_layers,
    debias,
    gram,
    linear_cka,
)
from cnnvis_ray.stages.compare import order_layers

RANDOM = np.random.default_rng(0)


def test_cka_is_blind_to_rotation_and_scale_only() -> None:
    features = RANDOM.normal(size=(60, 8))
    rotation = np.linalg.qr(RANDOM.normal(size=(8, 8)))[0]
    own = gram(features)
    assert linear_cka(own, gram(3 * features @ rotation + 5)) == pytest.approx(1)
    unrelated = linear_cka(own, gram(RANDOM.normal(size=(60, 8))))
    assert unrelated is not None
    assert unrelated < 0.4
    assert linear_cka(own, gram(np.ones((60, 3)))) is None


def test_cka_is_kornblith_s_formula() -> None:
    one, other = RANDOM.normal(size=(20, 5)), RANDOM.normal(size=(20, 7))
    x, y = one - one.mean(0), other - other.mean(0)
    cross = np.linalg.norm(y.T @ x) ** 2
    expected = cross / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert linear_cka(gram(one), gram(other)) == pytest.approx(expected)


def test_unbiased_cka_is_song_s_formula() -> None:
    one, other = RANDOM.normal(size=(12, 5)), RANDOM.normal(size=(12, 7))
    other[:, 0] += 3 * one[:, 0]

    def hsic(x: np.ndarray, y: np.ndarray) -> float:
        one, other, n = x @ x.T, y @ y.T, len(x)
        np.fill_diagonal(one, 0)
        np.fill_diagonal(other, 0)
        whole = np.trace(one @ other) + one.sum() * other.sum() / ((n - 1) * (n - 2))
        return float((whole - 2 / (n - 2) * (one @ other).sum()) / (n * (n - 3)))

    expected = hsic(one, other) / np.sqrt(hsic(one, one) * hsic(other, other))
    found = linear_cka(debias(gram(one)), debias(gram(other)))
    assert found == pytest.approx(expected)
    assert linear_cka(debias(gram(one)), debias(gram(one))) == pytest.approx(1)
    assert linear_cka(debias(gram(one)), debias(gram(np.ones((12, 3))))) is None


def test_wide_unrelated_features_are_alike_by_the_biased_estimate_only() -> None:
    one, other = (gram(RANDOM.normal(size=(40, 2000))) for _ in range(2))
    biased, unbiased = linear_cka(one, other), linear_cka(debias(one), debias(other))
    assert biased is not None
    assert unbiased is not None
    assert biased > 0.9
    assert abs(unbiased) < 0.1


@pytest.mark.parametrize(
    ("passes", "order"),
    [
        ([["features.2", "features.12", "classifier.1"]], "features.2 features.12 classifier.1"),
        ([["b.12", "a.3"], ["b.2"], ["a.3", "z"]], "b.2 b.12 a.3 z"),
        ([["features.12"], ["features.3"]], "features.3 features.12"),
        ([], ""),
    ],
)
def test_layers_are_in_execution_order_where_a_pass_knows_it(
    passes: list[list[str]], order: str
) -> None:
    assert order_layers(passes) == order.split()


def test_selectivity_by_hand() -> None:
    values = np.array([[4.0, 1, 0, -1], [4, 1, 0, 1], [1, 1, 0, 2], [1, 1, 0, 2], [9, 9, 9, 9]])
    labels = ["dog", "dog", "cat", "cat", None]
    means = class_means([(labels[:3], values[:3]), (labels[3:], values[3:])], 4)
    assert means is not None
    assert means.names == ("cat", "dog")
    found = means.selectivity()
    assert found[:2] == pytest.approx([0.6, 0.0])
    assert np.isnan(found[2])  # a silent channel selects nothing
    assert found[3] == pytest.approx(1.0)
    assert means.strongest(0)[0] == {"name": "dog", "mean": 4.0}
    assert class_means([(["dog", None], values[:2])], 4) is None
    assert class_means([(["dog", "cat"], values[:2])], 4) is None  # an image is not a class


def test_features_come_back_to_channels() -> None:
    maps = RANDOM.normal(size=(2, 3, 4, 4)).astype(np.float32)
    block = (["dog", "cat"], maps.reshape(2, -1))
    means = measure_classes([block, block], "flatten", (3, 4, 4))
    assert means is not None
    np.testing.assert_allclose(means.means, maps.mean((2, 3))[::-1], rtol=1e-5, atol=1e-6)
    assert measure_classes([block], "sketch:48", (3, 4, 4)) is None
    assert means.table().column_names == ["channel", "selectivity", "classes"]


def test_layers_are_compared_in_pairs() -> None:
    features = [RANDOM.normal(size=(9, 4)), np.ones((9, 3))]
    layers = [Compared("run", str(place), gram(one)) for place, one in enumerate(features)]
    table = compare_layers(layers)
    assert table["cka"].to_pylist() == [pytest.approx(1), None, None, None]
    assert table["cka_unbiased"].to_pylist() == [pytest.approx(1), None, None, None]
    assert set(table["images"].to_pylist()) == {9}


def test_the_penalty_of_a_probe_is_chosen_by_cross_validation() -> None:
    """Classes in a row on one axis: only large weights tell the middle ones apart."""
    random = np.random.default_rng(0)
    labels = [str(number) for number in range(6)] * 25
    values = np.array([[float(label)] for label in labels]) + random.normal(0, 0.1, (150, 1))
    found = probe(values, labels, 0)
    assert found is not None
    split = StratifiedKFold(5, shuffle=True, random_state=0)
    table = score_penalties(values.astype(np.float32), np.array(labels), split)
    means = table.mean(axis=1)
    assert found.penalty == PENALTIES[means.argmax()] < 100
    assert means[PENALTIES.index(100)] + 0.1 < found.accuracy <= means.max()


def test_a_probe_finds_what_is_there_and_only_that() -> None:
    labels = ["a", "b", "c"] * 20 + [None, "single"]
    noise = RANDOM.normal(size=(62, 10))
    told = noise.copy()
    told[:60, :3] += 6 * np.eye(3)[[0, 1, 2] * 20]
    found = probe(told, labels, 0)
    assert found is not None
    assert (found.classes, found.images, found.folds) == (3, 60, 5)
    assert found.accuracy > 0.95
    blind = probe(noise, labels, 0)
    assert blind is not None
    assert blind.accuracy < 0.6
    assert found.chance == pytest.approx(1 / 3)
    assert probe(noise, [None] * 62, 0) is None
