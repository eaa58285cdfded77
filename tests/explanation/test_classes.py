"""CKA, selectivity and probes: numbers known beforehand."""

import numpy as np
import pytest

from cnnvis_ray.explanation.classes import class_means, measure_classes, probe
from cnnvis_ray.explanation.comparison import Compared, compare_layers, gram, linear_cka

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


def test_features_come_back_to_channels() -> None:
    maps = RANDOM.normal(size=(2, 3, 4, 4)).astype(np.float32)
    block = (["dog", "cat"], maps.reshape(2, -1))
    means = measure_classes([block], "flatten", (3, 4, 4))
    assert means is not None
    np.testing.assert_allclose(means.means, maps.mean((2, 3))[::-1], rtol=1e-5, atol=1e-6)
    assert measure_classes([block], "sketch:48", (3, 4, 4)) is None
    assert means.table().column_names == ["channel", "selectivity", "classes"]


def test_layers_are_compared_in_pairs() -> None:
    features = [RANDOM.normal(size=(9, 4)), np.ones((9, 3))]
    layers = [Compared("run", str(place), gram(one)) for place, one in enumerate(features)]
    table = compare_layers(layers)
    assert table["cka"].to_pylist() == [pytest.approx(1), None, None, None]
    assert set(table["images"].to_pylist()) == {9}


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
