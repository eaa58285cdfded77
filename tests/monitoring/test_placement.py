import numpy as np
import pytest
from sklearn.datasets import make_blobs

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.monitoring import find_neighbours, judge_placement, place_images

CENTRES = np.array([[-20.0, 0.0], [20.0, 0.0], [0.0, 20.0]])


def make_map() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of three groups, and a map that shows them apart."""
    features, groups = make_blobs([60, 60, 60], 8, random_state=0)
    positions = CENTRES[groups] + np.random.default_rng(0).normal(size=(180, 2))
    return features, positions, groups


def test_new_images_land_in_their_group_and_nothing_moves() -> None:
    features, positions, groups = make_map()
    before = positions.copy()
    new = features[:30] + 0.1
    placed = place_images(positions, find_neighbours(features, new))
    assert (positions == before).all()
    gaps = np.linalg.norm(placed[:, None] - CENTRES[None], axis=2)
    assert (gaps.argmin(axis=1) == groups[:30]).all()
    labels = [str(group) for group in groups]
    quality = judge_placement(features, positions, new, placed, labels, labels[:30])
    assert quality is not None
    assert quality.purity == 1 and quality.features_purity == 1
    assert quality.num_judged == 30 and 0 <= quality.kept <= 1


def test_a_position_depends_on_the_image_alone() -> None:
    features, positions, _ = make_map()
    new = features[:12] + 0.05
    together = place_images(positions, find_neighbours(features, new))
    alone = place_images(positions, find_neighbours(features, new[5:6]))
    assert np.allclose(together[5], alone[0], atol=1e-3)
    assert (together == place_images(positions, find_neighbours(features, new))).all()


def test_a_map_that_is_not_centred_keeps_its_place() -> None:
    features, positions, _ = make_map()
    near = find_neighbours(features, features[:10] + 0.05)
    moved = place_images(positions + 100, near)
    assert np.allclose(moved, place_images(positions, near) + 100, atol=1e-2)


def test_a_night_of_nothing_and_of_one() -> None:
    features, positions, _ = make_map()
    nothing = find_neighbours(features, features[:1])
    assert place_images(positions, nothing).shape == (1, 2)
    empty = type(nothing)(nothing.indices[:0], nothing.distances[:0])
    assert place_images(positions, empty).shape == (0, 2)
    assert judge_placement(features, positions, features[:0], positions[:0], [], []) is None


def test_a_map_of_one_image_takes_all() -> None:
    near = find_neighbours(np.zeros((1, 3)), np.ones((4, 3)))
    assert (place_images(np.array([[3.0, 4.0]]), near) == [3, 4]).all()


def test_labels_never_seen_have_no_purity() -> None:
    features, positions, _ = make_map()
    quality = judge_placement(
        features, positions, features[:5], positions[:5], ["cat"] * 180, ["emu"] * 5
    )
    assert quality is not None and quality.purity is None


def test_an_empty_map_and_values_that_are_not_finite_are_refused() -> None:
    features, positions, _ = make_map()
    near = find_neighbours(features, features[:3])
    with pytest.raises(RefusedError, match="the map holds no image; run reduce first"):
        place_images(positions[:0], near)
    positions[0] = np.nan
    with pytest.raises(RefusedError, match="not finite"):
        place_images(positions, near)
