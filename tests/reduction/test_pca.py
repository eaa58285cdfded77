"""PCA: every solver equals scikit-learn, in any grouping of the blocks."""

import pickle
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.reduction import (
    Block,
    PcaOptions,
    as_scikit_learn,
    fit_pca,
    gather,
    in_turn,
    pca_from_bytes,
    pca_to_bytes,
    project,
    project_block,
)
from cnnvis_ray.reduction import blocks as blocks_module
from cnnvis_ray.reduction import exact as exact_module
from cnnvis_ray.reduction import layer as layer_module
from cnnvis_ray.reduction.blocks import Ids, Item, Result
from cnnvis_ray.reduction.exact import measure
from cnnvis_ray.reduction.layer import feature_blocks
from cnnvis_ray.reduction.resources import available_bytes, container_bytes, num_threads
from cnnvis_ray.reduction.solvers import choose_solver, raise_power
from cnnvis_ray.storage import Store, write_table

Array = npt.NDArray[np.floating]


def hold(ids: Ids, rows: Array) -> tuple[Ids, Array]:
    return ids, rows


def cut(features: Array, num_blocks: int) -> list[Block]:
    """Cut features into blocks; the image in row r has the id 1000 - r."""
    ids = np.array_split(1000 - np.arange(len(features)), num_blocks)
    parts = np.array_split(features, num_blocks)
    return [partial(hold, *pair) for pair in zip(ids, parts, strict=True)]


def features_of(num_images: int, num_features: int) -> Array:
    """Features with a falling spectrum and a large mean, as activations have."""
    generator = np.random.default_rng(1)
    rank = min(num_images, num_features, 40)
    strength = 0.8 ** np.arange(rank)
    parts = generator.normal(size=(num_images, rank)) * strength
    signal = parts @ generator.normal(size=(rank, num_features))
    noise = 0.01 * generator.normal(size=(num_images, num_features))
    return (20 + signal + noise).astype(np.float32)


SHAPES = {"covariance": (300, 60), "gram": (60, 3000), "randomized": (300, 900)}


@pytest.mark.parametrize("solver", SHAPES)
def test_every_solver_equals_scikit_learn(solver: str) -> None:
    features = features_of(*SHAPES[solver])
    expected = PCA(10, svd_solver="full").fit(features.astype(np.float64))
    found = fit_pca(cut(features, 7), features.shape, PcaOptions(10, solver=solver))
    largest = expected.explained_variance_[0]
    np.testing.assert_allclose(
        found.explained_variance, expected.explained_variance_, atol=1e-5 * largest
    )
    np.testing.assert_allclose(
        found.explained_variance_ratio, expected.explained_variance_ratio_, atol=1e-5
    )
    np.testing.assert_allclose(found.mean, expected.mean_, rtol=1e-6)
    np.testing.assert_allclose(found.components, expected.components_, atol=2e-3)
    np.testing.assert_allclose(
        project(found, features),
        expected.transform(features.astype(np.float64)),
        atol=2e-3 * np.sqrt(largest),
    )


@pytest.mark.parametrize("solver", SHAPES)
def test_grouping_and_empty_shards_do_not_matter(solver: str) -> None:
    features = features_of(200, 80)
    empty = partial(hold, np.arange(0), features[:0])
    one = fit_pca(cut(features, 1), features.shape, PcaOptions(5, solver=solver))
    many = fit_pca(
        [empty, *cut(features, 17), empty], features.shape, PcaOptions(5, solver=solver)
    )
    np.testing.assert_allclose(one.explained_variance, many.explained_variance, rtol=1e-5)
    np.testing.assert_allclose(one.components, many.components, atol=1e-4)


@pytest.mark.parametrize("solver", SHAPES)
def test_fewer_directions_than_asked_for(solver: str) -> None:
    generator = np.random.default_rng(5)
    features = generator.normal(size=(80, 3)) @ generator.normal(size=(3, 90))
    expected = PCA(3, svd_solver="full").fit(features)
    found = fit_pca(cut(features, 4), features.shape, PcaOptions(12, solver=solver))
    np.testing.assert_allclose(
        found.explained_variance[:3], expected.explained_variance_, rtol=1e-5
    )
    np.testing.assert_allclose(found.explained_variance[3:], 0, atol=1e-5)
    np.testing.assert_allclose(found.components[:3], expected.components_, atol=1e-4)
    assert not project(found, features, whiten=True)[:, 3:].any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_moments_merge_in_any_order(sizes: list[int], random: Random) -> None:
    generator = np.random.default_rng(sum(sizes))
    pieces = [generator.normal(3, 2, size=(size, 4)) for size in sizes]
    whole = np.concatenate(pieces)
    expected = measure([partial(hold, np.arange(len(whole)), whole)], 4)
    found = measure([], 4)
    for piece in random.sample(pieces, len(pieces)):
        found.add(measure([partial(hold, np.arange(len(piece)), piece)], 4))
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12)
    np.testing.assert_allclose(found.panels, expected.panels, atol=1e-11)


def test_half_precision_shards_are_read() -> None:
    features = features_of(100, 20).astype(np.float16)
    found = fit_pca(cut(features, 3), features.shape, PcaOptions(4))
    expected = PCA(4, svd_solver="full").fit(features.astype(np.float64))
    np.testing.assert_allclose(found.explained_variance, expected.explained_variance_, rtol=1e-5)


def test_map_blocks_gets_every_block_each_pass() -> None:
    features, calls = features_of(100, 30), []

    def count(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        calls.append(len(items))
        return in_turn(function, items)

    fit_pca(cut(features, 4), features.shape, PcaOptions(3, solver="covariance"), count)
    assert calls == [4]
    calls.clear()
    found = fit_pca(cut(features, 4), features.shape, PcaOptions(3, solver="randomized"), count)
    words = found.notes[-1].split()
    powers = int(words[words.index("power") - 1])
    assert 2 <= powers <= 4
    assert calls[: powers + 1] == [4] * (powers + 1)  # the range with the mean, the iterations


def test_what_travels_is_picklable_and_small() -> None:
    features = features_of(64, 600)

    def send(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        for item in items:
            task = pickle.dumps((function, item))
            work, argument = pickle.loads(task)  # noqa: S301  our own
            yield pickle.loads(pickle.dumps(work(argument)))  # noqa: S301

    for solver in SHAPES:
        found = fit_pca(cut(features, 4), features.shape, PcaOptions(5, solver=solver), send)
        here = fit_pca(cut(features, 4), features.shape, PcaOptions(5, solver=solver))
        np.testing.assert_array_equal(found.components, here.components)


def test_more_components_than_there_are_adapts() -> None:
    features = features_of(20, 8)
    found = fit_pca(cut(features, 2), features.shape, PcaOptions(50))
    assert found.components.shape == (8, 8)
    assert found.notes[0] == (
        "pca_components 50 is more than 20 images of 8 features have: using 8"
    )
    few = fit_pca(cut(features[:6], 2), (6, 8), PcaOptions(50))
    assert few.components.shape == (5, 8)


@pytest.mark.parametrize("solver", SHAPES)
def test_constant_features_have_no_variance_and_no_nan(solver: str) -> None:
    features = np.full((30, 40), 7, dtype=np.float32)
    found = fit_pca(cut(features, 3), features.shape, PcaOptions(5, solver=solver))
    np.testing.assert_allclose(found.explained_variance, 0, atol=1e-12)
    assert not found.explained_variance_ratio.any()
    for whiten in (False, True):
        np.testing.assert_allclose(project(found, features, whiten), 0, atol=1e-5)


@pytest.mark.parametrize("solver", SHAPES)
def test_images_with_values_that_are_not_finite_are_left_out_and_named(solver: str) -> None:
    features = features_of(80, 90)
    broken = features.copy()
    broken[13, 2], broken[50, 0] = np.nan, np.inf
    found = fit_pca(cut(broken, 3), broken.shape, PcaOptions(5, solver=solver))
    assert found.left_out == (1000 - 50, 1000 - 13)
    assert found.num_images == 78
    assert found.notes[-1] == "2 images hold NaN or infinity and are left out"
    expected = PCA(5, svd_solver="full").fit(np.delete(features, [13, 50], axis=0))
    np.testing.assert_allclose(
        found.explained_variance,
        expected.explained_variance_,
        atol=1e-4 * expected.explained_variance_[0],
    )
    ids, points = project_block(cut(broken, 3)[0], found)
    assert len(ids) == len(points) == 26 and 1000 - 13 not in ids
    rows = gather(cut(broken, 3), 90)
    assert rows.left_out.tolist() == [1000 - 13, 1000 - 50]
    np.testing.assert_array_equal(rows.features, np.delete(features, [13, 50], axis=0))


@pytest.mark.parametrize("solver", SHAPES)
def test_a_shard_of_another_width_is_refused(solver: str) -> None:
    features = features_of(40, 20)
    blocks = [*cut(features[:20], 1), *cut(features[20:, :19], 1)]
    with pytest.raises(RefusedError, match="of 19 values where others hold 20; extract the layer"):
        fit_pca(blocks, features.shape, PcaOptions(5, solver=solver))


def test_one_good_image_is_refused() -> None:
    features = np.full((3, 4), np.nan, np.float32)
    features[1] = 0
    for solver in SHAPES:
        with pytest.raises(RefusedError, match="there are 1 and 2 with NaN or infinity"):
            fit_pca(cut(features, 2), (3, 4), PcaOptions(2, solver=solver))


def test_an_unknown_solver_is_refused_with_near_ones() -> None:
    with pytest.raises(RefusedError, match=r"no PCA solver 'gramm'; did you mean: gram\?"):
        fit_pca(cut(features_of(10, 5), 1), (10, 5), PcaOptions(2, solver="gramm"))


def test_the_randomized_solver_states_its_residual() -> None:
    features = features_of(1200, 400)
    found = fit_pca(cut(features, 12), features.shape, PcaOptions(5, solver="randomized"))
    words = found.notes[-1].split()
    assert "residual" in words and words[-2:] == ["1200", "images"]
    assert 0.999 < float(words[words.index("residual") + 2]) < 1.01
    exact = PCA(5, svd_solver="full").fit(features)
    left = 1 - found.explained_variance_ratio.sum()
    assert left <= 1.01 * (1 - exact.explained_variance_ratio_.sum())


def test_exact_solvers_equal_scikit_learn_within_what_is_promised() -> None:
    features = features_of(800, 500).astype(np.float16)
    expected = PCA(20, svd_solver="full").fit(features.astype(np.float64))
    for solver in ("covariance", "gram"):
        found = fit_pca(cut(features, 9), features.shape, PcaOptions(20, solver=solver))
        assert subspace_angles(expected.components_.T, found.components.T).max() < 1e-3
        np.testing.assert_allclose(
            found.explained_variance, expected.explained_variance_, rtol=1e-4
        )


@pytest.mark.parametrize("solver", ["covariance", "gram"])
def test_a_flat_spectrum_and_repeated_variances_are_found(solver: str) -> None:
    generator = np.random.default_rng(3)
    flat = generator.normal(size=(400, 150))
    repeated, _ = np.linalg.qr(flat - flat.mean(axis=0))  # whitened: all variances are equal
    for features in (flat, 20 * repeated):
        expected = PCA(30, svd_solver="full").fit(features).explained_variance_
        found = fit_pca(cut(features, 5), features.shape, PcaOptions(30, solver=solver))
        np.testing.assert_allclose(found.explained_variance, expected, rtol=1e-4)
        np.testing.assert_allclose(found.components @ found.components.T, np.eye(30), atol=1e-4)


ODD: dict[str, Array] = {
    "two images of many features": features_of(2, 600),
    "two images of one feature": features_of(2, 1),
    "one feature": features_of(50, 1),
    "one image apart from hundreds that are equal": np.vstack(
        [np.full((300, 12), 3, np.float16), np.arange(12, dtype=np.float16)[None]]
    ),
    "constant but for one feature": np.where(np.arange(9) == 4, features_of(60, 9), 7),
    "half floats below the least normal one": 1e-6 * features_of(60, 30).astype(np.float16),
    "half floats near the largest": (60_000 + 500 * np.sin(features_of(60, 30))).astype(
        np.float16
    ),
    "classes in separate blocks": features_of(60, 30) + np.repeat([[0], [9], [-5]], 20, axis=0),
}


@pytest.mark.parametrize("solver", SHAPES)
@pytest.mark.parametrize("name", ODD)
def test_odd_features_equal_scikit_learn(name: str, solver: str) -> None:
    features = ODD[name]
    number = min(3, len(features) - 1, features.shape[1])
    expected = PCA(number, svd_solver="full").fit(features.astype(np.float64))
    found = fit_pca(cut(features, 3), features.shape, PcaOptions(3, solver=solver))
    assert np.isfinite(found.components).all() and np.isfinite(project(found, features)).all()
    np.testing.assert_allclose(
        found.explained_variance,
        expected.explained_variance_,
        rtol=1e-4,
        atol=1e-4 * expected.explained_variance_[0],
    )
    np.testing.assert_allclose(found.mean, expected.mean_, rtol=1e-5, atol=1e-6)


def test_ten_thousand_equal_images_have_no_variance() -> None:
    features = np.full((10_000, 16), 0.1, np.float16)
    found = fit_pca(cut(features, 40), features.shape, PcaOptions(4))
    assert not found.explained_variance.any()
    assert not project(found, features, whiten=True).any()


@pytest.mark.parametrize("solver", SHAPES)
def test_a_first_block_without_a_good_image_and_blocks_of_one_image(solver: str) -> None:
    features = features_of(30, 40)
    features[:2] = np.inf
    found = fit_pca(cut(features, 30), features.shape, PcaOptions(4, solver=solver))
    expected = PCA(4, svd_solver="full").fit(features[2:])
    assert found.num_images == 28 and len(found.left_out) == 2
    np.testing.assert_allclose(found.explained_variance, expected.explained_variance_, rtol=1e-3)


def test_it_loads_as_scikit_learn() -> None:
    features = features_of(200, 30)
    archive = pca_to_bytes(fit_pca(cut(features, 3), features.shape, PcaOptions(6)))
    for whiten in (False, True):
        ours = as_scikit_learn(pca_from_bytes(archive), whiten)
        theirs = PCA(6, whiten=whiten, svd_solver="full").fit(features)
        np.testing.assert_allclose(
            np.abs(ours.transform(features)), np.abs(theirs.transform(features)), atol=2e-2
        )
        for name in ("singular_values_", "noise_variance_", "explained_variance_"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-3)
        np.testing.assert_allclose(
            ours.inverse_transform(ours.transform(features)),
            theirs.inverse_transform(theirs.transform(features)),
            atol=1e-2,
        )


def test_one_image_is_refused_and_a_wrong_count_is_found() -> None:
    features = features_of(10, 5)
    with pytest.raises(RefusedError, match="at least 2 images, there are 1"):
        fit_pca(cut(features[:1], 1), (1, 5), PcaOptions(2))
    for solver in SHAPES:
        with pytest.raises(ValueError, match="hold 10 images, expected 11"):
            fit_pca(cut(features, 2), (11, 5), PcaOptions(2, solver=solver))


def test_whitened_coordinates_have_variance_one() -> None:
    features = features_of(500, 30)
    found = fit_pca(cut(features, 1), features.shape, PcaOptions(5))
    np.testing.assert_allclose(project(found, features, whiten=True).var(axis=0, ddof=1), 1, 1e-4)


def test_components_survive_the_archive() -> None:
    features = features_of(30, 12)
    found = fit_pca(cut(features, 2), features.shape, PcaOptions(4))
    again = pca_from_bytes(pca_to_bytes(found))
    assert again.notes == found.notes
    np.testing.assert_array_equal(again.components, found.components)
    np.testing.assert_array_equal(again.mean, found.mean)
    assert pca_to_bytes(again) == pca_to_bytes(found)


def test_the_solver_follows_from_the_shape() -> None:
    assert choose_solver((1_797, 512)) == "covariance"
    assert choose_solver((200, 802_816)) == "gram"
    assert choose_solver((2_000, 802_816)) == "gram"
    assert choose_solver((100_000, 4_096)) == "covariance"
    assert choose_solver((9_000, 8_192)) == "covariance"
    assert choose_solver((600_000, 25_088)) == "randomized"
    assert available_bytes() > 2**20


def test_small_groups_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tall, wide = features_of(300, 50), features_of(40, 900)
    whole = [fit_pca(cut(each, 10), each.shape, PcaOptions(5)) for each in (tall, wide)]
    monkeypatch.setattr(exact_module, "PANEL", 16)
    monkeypatch.setattr(blocks_module, "BATCH_ROWS", 7)
    monkeypatch.setattr(exact_module, "GRAM_COLUMNS", 100)
    monkeypatch.setattr(exact_module, "PIECE_BYTES", 4 * 5 * 350)
    monkeypatch.setattr(exact_module, "LEAST_HELD", 900 * 4 * 5)
    pieces = [fit_pca(cut(each, 10), each.shape, PcaOptions(5)) for each in (tall, wide)]
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(one.explained_variance, other.explained_variance, rtol=1e-5)
        np.testing.assert_allclose(one.components, other.components, atol=1e-4)


def test_batches_hold_the_rows_in_their_order() -> None:
    rows, origin = np.arange(60).reshape(20, 3), np.arange(3, dtype=np.float32)
    parts = [rows[:1], rows[1:1], rows[1:15], rows[15:]]
    halves = [part.astype(np.float16) for part in parts]
    batches = [batch.copy() for batch in blocks_module.in_batches(halves, origin)]
    np.testing.assert_array_equal(np.concatenate(batches), rows - origin)
    assert all(batch.dtype == np.float32 for batch in batches)


def test_threads_return_results_in_order_and_make_few_at_once() -> None:
    made: list[int] = []

    def note(number: int) -> int:
        made.append(number)
        return number

    for number in blocks_module.in_threads(note, range(100)):
        assert len(made) <= number + num_threads() + 1
    assert sorted(made) == list(range(100))


def peak_of(work: Callable[[], object]) -> int:
    """Return the most bytes that work holds at once."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_a_worker_holds_little_beside_its_images_or_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(number: int) -> tuple[Ids, Array]:
        return 40 * number + np.arange(40), np.ones((40, 20_000), np.float16)

    blocks = [partial(read, number) for number in range(12)]
    origin = np.zeros(20_000, np.float32)
    held = 8 * 40 * 20_000 * 4
    meeting = exact_module.Meeting(blocks[:8], blocks[8:])
    assert peak_of(lambda: exact_module.multiply(meeting, origin)) < 1.5 * held
    monkeypatch.setattr(blocks_module, "BATCH_BYTES", 2**20)
    basis = np.zeros((20_000, 5), np.float32)
    assert peak_of(lambda: raise_power(blocks, origin, basis)) < 8 * 2**20


def test_ranges_of_a_shard_are_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    width = 2**20
    features = np.arange(6, dtype=np.float16)[:, None] * np.ones(width, np.float16)
    kind = pa.list_(pa.float16(), width)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), type=kind)
    store = Store(str(tmp_path))
    write_table(store, "0.parquet", pa.table({"image_id": np.arange(6), "feature": lists}))
    monkeypatch.setattr(layer_module, "BLOCK_BYTES", 2**21 * 5)
    blocks = feature_blocks(store, ("0.parquet",))
    assert len(blocks) > 1
    read = [block() for block in blocks]
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in read]), np.arange(6))
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in read]), features)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    folder = tmp_path
    assert container_bytes(folder) == 2**62
    (folder / "memory.current").write_text("1000\n")
    (folder / "memory.max").write_text("max\n")
    assert container_bytes(folder) == 2**62
    (folder / "memory.max").write_text("5000\n")
    assert container_bytes(folder) == 4000


def test_first_digit_direction_is_the_one_that_scikit_learn_finds() -> None:
    pixels = load_digits().data
    found = fit_pca(cut(pixels, 8), pixels.shape, PcaOptions(20, solver="covariance"))
    expected = PCA(20, svd_solver="full").fit(pixels)
    np.testing.assert_allclose(found.components, expected.components_, atol=1e-5)
