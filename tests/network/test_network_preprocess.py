"""The preprocess equals torchvision's own PIL path, for every odd size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import models
from torchvision.transforms import functional as reference

from cnnvis_ray.config import PreprocessValues
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network import Preprocess
from cnnvis_ray.network.loading.preprocess import from_values
from cnnvis_ray.network.loading.weights import published_preprocess

SMALL = Preprocess(20, 17, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def through(preprocess: Preprocess, image: Image.Image) -> torch.Tensor:
    return preprocess.normalize(preprocess.fit(image)[None])[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(5, 30), st.integers(5, 40))
def test_any_size_is_fitted_as_torchvision_does(
    width: int, height: int, resize: int, crop: int
) -> None:
    longest = 16 * max(resize, crop) * min(width, height) // resize
    assume(max(width, height) <= longest)  # longer ones: see below
    image = noise(width, height)
    wanted = reference.center_crop(reference.resize(image, [resize]), [crop])
    fitted = Preprocess(resize, crop, 3, (0.0,) * 3, (1.0,) * 3).fit(image)
    assert fitted.dtype == np.uint8
    np.testing.assert_array_equal(fitted, np.asarray(wanted))


@pytest.mark.parametrize("size", [(301, 223), (97, 400), (256, 256), (40, 31)])
@pytest.mark.parametrize(
    "weights",
    [
        models.SqueezeNet1_1_Weights.DEFAULT,
        models.EfficientNet_B0_Weights.DEFAULT,  # bicubic
        models.Inception_V3_Weights.DEFAULT,
    ],
)
def test_published_weights_see_what_their_own_transform_shows(
    weights: models.WeightsEnum, size: tuple[int, int]
) -> None:
    image = noise(*size)
    wanted = weights.transforms()(image)
    got = through(published_preprocess(weights), image)
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= 1e-6


def test_segmentation_presets_crop_a_square() -> None:
    weights = models.segmentation.FCN_ResNet50_Weights.DEFAULT
    image = noise(300, 300)
    got = through(published_preprocess(weights), image)
    assert float((got - weights.transforms()(image)).abs().max()) <= 1e-6


@pytest.mark.parametrize("size", [(2, 65_000), (65_000, 2), (1, 1_000_000), (300, 70_000)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (20, 40)])
def test_a_thin_image_needs_memory_for_its_crop_only(
    size: tuple[int, int], resize: int, crop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    resize_image = Image.Image.resize

    def noted(image: Image.Image, new: tuple[int, int], *more: object) -> Image.Image:
        sizes.append(new)
        return resize_image(image, new, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", noted)
    image = Image.new("RGB", size, (10, 20, 30))
    middle = (size[0] // 2, size[1] // 2)
    image.paste((200, 0, 0), (middle[0] - 1, middle[1] - 1, middle[0] + 1, middle[1] + 1))
    fitted = Preprocess(resize, crop, 3, (0.0,) * 3, (1.0,) * 3).fit(image)
    assert fitted.shape == (crop, crop, 3)
    assert all(max(new) <= 17 * max(resize, crop) for new in sizes)
    if max(size) != 70_000:  # there the marked middle is smaller than a pixel
        assert fitted[crop // 2, crop // 2, 0] > 100


@pytest.mark.parametrize("size", [(2, 33), (33, 2), (4, 60), (10, 170), (7, 107)])
def test_a_long_image_shows_the_middle_that_torchvision_shows(size: tuple[int, int]) -> None:
    image = noise(*size)
    wanted = reference.center_crop(reference.resize(image, [30]), [20])
    got = Preprocess(30, 20, 3, (0.0,) * 3, (1.0,) * 3).fit(image).astype(int)
    difference = np.abs(got - np.asarray(wanted).astype(int))
    if max(size) <= 16 * min(size):
        assert difference.max() == 0
    assert (
        difference.max() <= 2 * 255 * min(size) / 30
    )  # a pixel beside, between two of the source


def test_photos_come_out_as_torchvision_makes_them(shared: Path) -> None:
    weights = models.SqueezeNet1_1_Weights.DEFAULT
    preprocess = published_preprocess(weights)
    for path in sorted((shared / "data" / "photos").rglob("*.*"))[:40:8]:
        image = Image.open(path).convert("RGB")
        wanted = weights.transforms()(image)
        assert float((through(preprocess, image) - wanted).abs().max()) <= 1e-6


def test_batches_are_channels_last_and_read_only_arrays_stay_unchanged() -> None:
    batch = np.stack([SMALL.fit(noise(30, 25)), SMALL.fit(noise(25, 30))])
    batch.flags.writeable = False
    before = batch.copy()
    got = SMALL.normalize(batch)
    assert got.shape == (2, 3, 17, 17)
    assert got.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch, before)


def test_grey_networks_get_one_channel() -> None:
    preprocess = Preprocess(8, 8, 1, (0.5,), (0.5,))
    grey = Image.fromarray(np.full((4, 4), 255, np.uint8)).convert("RGB")
    fitted = preprocess.fit(grey)
    assert fitted.shape == (8, 8, 1)
    torch.testing.assert_close(preprocess.normalize(fitted[None]), torch.ones(1, 1, 8, 8))


def test_one_value_serves_all_channels() -> None:
    values = PreprocessValues(resize=8, crop=8, channels=3, mean=[0.5], std=[0.25])
    assert from_values(values) == Preprocess(8, 8, 3, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mean": [0.1, 0.2]}, r"mean: given 2 values"),
        ({"std": [0.1, 0.2]}, r"std: given 2 values"),
    ],
)
def test_values_that_fit_no_channels_are_refused(change: dict[str, object], text: str) -> None:
    make: Callable[..., PreprocessValues] = PreprocessValues
    with pytest.raises(RefusedError, match=text):
        from_values(make(resize=8, crop=8, **change))
