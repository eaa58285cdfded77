"""Poolings by hand, the sketch's bound, responses and predictions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network import (
    POOLINGS,
    Layer,
    LayerTable,
    Preprocess,
    ResolvedNetwork,
    channel_means,
    channel_peaks,
    channel_responses,
    classifies,
    make_pooling,
    places,
    top_predictions,
)
from cnnvis_ray.network.activations.pooling import Kind

MAPS = torch.arange(24.0).reshape(1, 2, 3, 4)
ALL = ["flatten", "mean", "max", "grid:2", "sketch:7"]


def channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)


def test_poolings_by_hand() -> None:
    assert make_pooling("mean", 0)(MAPS).tolist() == [[5.5, 17.5]]
    assert make_pooling("max", 0)(MAPS).tolist() == [[11.0, 23.0]]
    assert make_pooling("flatten", 0)(MAPS).tolist() == [list(range(24))]
    # torch's adaptive cells overlap: rows 0-1 and 1-2, columns 0-1 and 2-3
    assert make_pooling("grid:2", 0)(MAPS).tolist() == [
        [2.5, 4.5, 6.5, 8.5, 14.5, 16.5, 18.5, 20.5]
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ALL), st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.booleans()
)
def test_poolings_depend_on_one_image_and_no_memory_layout(
    name: str, batch: int, channels: int, size: int, half: bool
) -> None:
    maps = torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(size))
    maps = maps.half() if half else maps
    pooling = make_pooling(name, 3)
    pooled = pooling(channels_last(maps))
    assert pooled.dtype == torch.float32
    assert pooled.shape == (batch, pooling.width(channels, size, size))
    torch.testing.assert_close(pooled, pooling(maps))
    alone = torch.cat([pooling(channels_last(image[None])) for image in maps])
    torch.testing.assert_close(pooled, alone)
    torch.testing.assert_close(pooling(maps[:, :, 0, 0]).shape[0], batch)


@pytest.mark.parametrize("name", ALL)
def test_a_position_in_the_batch_does_not_see_the_others(name: str) -> None:
    maps = channels_last(torch.randn(8, 6, 9, 9))
    others = channels_last(torch.randn(8, 6, 9, 9))
    others[3] = maps[3]
    pooling = make_pooling(name, 0)
    assert torch.equal(pooling(maps)[3], pooling(others)[3])


def test_flatten_of_channels_last_maps_is_row_major() -> None:
    maps = torch.randn(2, 5, 40, 30)
    assert torch.equal(make_pooling("flatten", 0)(channels_last(maps)), maps.flatten(1))


def relative_errors(vectors: Tensor, size: int, num_seeds: int) -> np.ndarray:
    """Relative errors of squared lengths, one a seed and vector."""
    maps = vectors[:, :, None, None]
    truth = vectors.double().square().sum(1)
    sketches = [make_pooling(f"sketch:{size}", seed)(maps) for seed in range(num_seeds)]
    lengths = torch.stack([sketched.double().square().sum(1) for sketched in sketches])
    return (lengths / truth - 1).numpy()


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("kind", ["dense", "sparse", "constant", "period", "photo-like"])
def test_squared_distances_stay_within_the_stated_bound(kind: str, size: int) -> None:
    length = 64 * 40 + 13  # a last run that is cut short
    vectors = torch.zeros(1, length)
    if kind == "dense":
        vectors = torch.randn(1, length, generator=torch.Generator().manual_seed(0))
    elif kind == "sparse":
        vectors[0, [0, length - 1]] = 1
    elif kind == "constant":
        vectors += 1
    elif kind == "period":
        vectors[0, ::size] = 1  # every number in the same place of its run
    else:
        vectors[0] = torch.linspace(0, 60, length).sin().relu() ** 4
    errors = relative_errors(vectors, size, 400)
    bound = np.sqrt(2 / size)
    assert np.sqrt(np.mean(errors**2)) <= bound * 1.15  # 400 draws: the estimate's own error
    assert abs(errors.mean()) <= 4 * bound / np.sqrt(400)


def test_a_sketch_is_fixed_by_seed_size_and_length_alone() -> None:
    vector = torch.arange(1.0, 11.0)[None]
    assert torch.equal(make_pooling("sketch:4", 5)(vector), make_pooling("sketch:4", 5)(vector))
    assert not torch.equal(
        make_pooling("sketch:4", 5)(vector), make_pooling("sketch:4", 6)(vector)
    )
    # golden: the same on every machine and NumPy (raw Philox numbers)
    assert make_pooling("sketch:4", 5)(vector).tolist() == [[-2.0, -4.0, -4.0, 13.0]]


def test_a_sketch_wider_than_its_input_loses_nothing() -> None:
    vectors = torch.randn(3, 10)
    lengths = make_pooling("sketch:32", 0)(vectors).square().sum(1)
    torch.testing.assert_close(lengths, vectors.square().sum(1))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("maen", "no pooling 'maen'; did you mean mean"),
        ("median", "no pooling 'median'"),
        ("", "no pooling ''"),
        ("grid", "K of grid:K must be a whole number from 1"),
        ("grid:0", "K of grid:K must be a whole number from 1"),
        ("sketch:x", "D of sketch:D must be a whole number from 1"),
        ("mean:2", "mean takes no number"),
        ("flatten:", "flatten takes no number"),
    ],
)
def test_wrong_poolings_are_refused(name: str, text: str) -> None:
    with pytest.raises(RefusedError, match=text) as refused:
        make_pooling(name, 0)
    assert "allowed: flatten, mean, max, grid:K, sketch:D" in str(refused.value)


@pytest.mark.parametrize("name", ["flatten", "mean", "max", "grid:2"])
def test_stored_features_become_one_number_per_channel(name: str) -> None:
    maps = torch.randn(3, 5, 4, 4)
    pooling = make_pooling(name, 0)
    wanted = maps.amax((2, 3)) if name == "max" else maps.mean((2, 3))
    found = pooling.channel_values(pooling(maps).numpy(), (5, 4, 4))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    nothing = pooling.channel_values(np.zeros((0, pooling.width(5, 4, 4))), (5, 4, 4))
    assert nothing.shape == (0, 5)


def test_a_sketch_has_no_channels() -> None:
    pooling = make_pooling("sketch:10", 0)
    assert not pooling.per_channel
    with pytest.raises(RefusedError, match="keeps no channels apart"):
        pooling.channel_values(np.zeros((3, 10)), (5, 4, 4))
    assert pooling.seeded
    assert not make_pooling("grid:2", 0).seeded


def test_a_new_pooling_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    spread = Kind(
        lambda maps, argument, seed: maps.var((2, 3)) * argument,
        lambda shape, argument: shape[0],
        argument="N",
    )
    monkeypatch.setitem(POOLINGS, "spread", spread)
    pooling = make_pooling("spread:2", 0)
    pooled = pooling(MAPS)
    torch.testing.assert_close(pooled, 2 * MAPS.var((2, 3)))
    assert pooling.width(2, 3, 4) == 2
    values = pooling.channel_values(pooled.numpy(), (2, 3, 4))
    np.testing.assert_array_equal(values, pooled)
    with pytest.raises(RefusedError, match=r"did you mean spread.*allowed: .*spread:N"):
        make_pooling("spred", 0)


def test_responses_by_hand() -> None:
    assert channel_means(MAPS).tolist() == [[5.5, 17.5]]
    assert channel_peaks(-MAPS).tolist() == [[0.0, -12.0]]
    vectors = torch.tensor([[1.0, -2.0]])
    assert channel_means(vectors).tolist() == channel_peaks(vectors).tolist() == [[1.0, -2.0]]
    assert places(vectors, np.array([0]), np.array([1])).tolist() == [[0, 0]]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 7), st.integers(1, 7), st.integers(0, 9)
)
def test_places_are_the_first_maxima_in_row_major_order(
    batch: int, channels: int, height: int, width: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    maps = generator.integers(0, 3, (batch, channels, height, width)).astype(np.float32)
    images = generator.integers(0, batch, 9)
    chosen = generator.integers(0, channels, 9)
    found = places(channels_last(torch.from_numpy(maps)), images, chosen)
    for image, channel, (y, x) in zip(images, chosen, found, strict=True):
        first = int(maps[image, channel].argmax())
        assert (y, x) == divmod(first, width)
        assert maps[image, channel, y, x] == channel_peaks(torch.from_numpy(maps))[image, channel]


@pytest.mark.parametrize("size", [1, 9, 70])
def test_responses_taken_together_are_the_same(size: int) -> None:
    maps = torch.randn(3, 5, size, size + 1)
    for layout in (maps, channels_last(maps), maps.half(), maps[:, :, 0, 0]):
        means, peaks = channel_responses(layout)
        torch.testing.assert_close(means, channel_means(layout))
        assert torch.equal(peaks, channel_peaks(layout))
        assert means.dtype == peaks.dtype == torch.float32


def test_predictions_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, -1.0], [5.0, 0.0, 0.0, 0.0]])
    first, second = top_predictions(logits, ["a", "b", "c", "d"], k=2)
    probability = float(np.exp(2) / (1 + 2 * np.exp(2) + np.exp(-1)))
    assert [(i, name) for i, name, _ in first] == [(1, "b"), (2, "c")]  # equal ones by id
    assert first[0][2] == pytest.approx(probability, abs=1e-6)
    assert second[0][:2] == (0, "a")
    assert len(top_predictions(logits, ["a", "b", "c", "d"], k=9)[0]) == 4
    with pytest.raises(ValueError, match="3 names for logits"):
        top_predictions(logits, ["a", "b", "c"])


def test_only_a_known_covered_head_classifies() -> None:
    layer = Layer("fc", (), "Linear", 2, None, None, None, 1, 1, 1)
    preprocess = Preprocess(8, 8, 3, (0.0,) * 3, (1.0,) * 3)

    def answer(
        categories: tuple[str, ...] | None, output: tuple[int, ...], held: str = "fc.weight"
    ) -> bool:
        state = {held: torch.zeros(1)}
        resolved = ResolvedNetwork("net", "w", state, "0", preprocess, categories, {})
        return classifies(resolved, LayerTable("net", (layer,), ("fc.weight",), output))

    assert answer(("a", "b"), (2,))
    assert not answer(("a", "b"), (3,))
    assert not answer(("a", "b"), (2, 8, 8))
    assert not answer(None, (2,))
    assert not answer(("a", "b"), (2,), held="other")
