"""What cannot work is refused beforehand, in one line that says what is allowed."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from cnnvis_ray.config import Maximize
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.maximization import (
    OBJECTIVES,
    PARAMETRIZATIONS,
    TRANSFORMS,
    check_names,
    check_recipe,
    maximize_channels,
    resolve_precision,
)
from tests.maximization.small_networks import find_layer, setting_of


def check(module: nn.Module, name: str, **recipe: object) -> list[int]:
    layer = find_layer(module, name, 24)
    return check_recipe(module, layer, Maximize.model_validate(recipe), setting_of(24))


@pytest.mark.parametrize(
    ("channels", "wanted"),
    [("all", list(range(16))), ("3:6", [3, 4, 5]), ([9, 2, 9], [9, 2])],
)
def test_channels_are_all_a_range_or_a_list(
    channels: str | list[int], wanted: list[int], deep: nn.Module
) -> None:
    assert check(deep, "6", channels=channels) == wanted


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"channels": [3, 16]}, "given 16, 6 has channels 0 to 15"),
        ({"channels": "10:20"}, "given 16, 6 has channels 0 to 15"),
        ({"objective": "chanel"}, "no objective 'chanel'; did you mean channel"),
        ({"objective": {}}, "nothing to climb"),
        ({"objective": "class"}, "class needs the head's output, 6 gives a map of"),
        ({"objective": "direction"}, "objective direction and maximize.directions go together"),
        ({"objective": {"channel": 1, "diversity": 1}}, "set maximize.pictures to 2"),
        ({"parametrization": "maco"}, "use parametrization: fourier"),
        (
            {"neuron": [40, 0], "objective": "neuron", "size": 24},
            "the smallest size that works is 92",
        ),
        (
            {"objective": "direction", "directions": [[1.0, 2.0]], "channels": [0]},
            "given 2 numbers, 6 has 16 channels",
        ),
    ],
)
def test_refusals_name_what_is_allowed(
    recipe: dict[str, object], message: str, deep: nn.Module
) -> None:
    with pytest.raises(RefusedError, match=message):
        check(deep, "6", **recipe)


def test_all_reasons_are_told_at_once(deep: nn.Module) -> None:
    with pytest.raises(RefusedError, match=r"(?s)given 99.*no objective 'x'"):
        check(deep, "6", channels=[99], objective="x")


@pytest.mark.parametrize("name", ["0", "3", "6"])
@pytest.mark.parametrize("transforms", ["none", "standard"])
def test_the_smallest_size_that_works_is_stated(
    name: str, transforms: str, deep: nn.Module
) -> None:
    smallest = {"0": 3, "3": 8, "6": 12}[name]  # 3; (8 - 2) / 2 = 3; (12 - 2) / 2 = 5 = 3 + 2
    assert check(deep, name, size=smallest, transforms=transforms)
    for size in (smallest - 1, 1):
        with pytest.raises(RefusedError, match=f"smallest size that works is {smallest}$"):
            check(deep, name, size=size, transforms=transforms)


def test_a_network_of_one_size_says_which() -> None:
    fixed = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 22 * 22, 5)).eval()
    assert check(fixed, "2", size=24) == [0, 1, 2, 3, 4]
    with pytest.raises(RefusedError, match="this network takes 24 only"):
        check(fixed, "2", size=32)


def test_maco_needs_a_spectrum_of_the_picture_s_size(deep: nn.Module) -> None:
    layer = find_layer(deep, "6", 24)
    recipe = Maximize(parametrization="maco", size=24)
    for size, fits in ((24, True), (20, False)):
        magnitude = np.ones((3, size, size // 2 + 1), np.float32)
        setting = setting_of(24, magnitude=magnitude)
        if fits:
            assert check_recipe(deep, layer, recipe, setting)
        else:
            with pytest.raises(RefusedError, match="pictures of 24 x 24 need"):
                check_recipe(deep, layer, recipe, setting)


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0},
        {"size": 0},
        {"channels": "7"},
        {"channels": "4:4"},
        {"channels": [-1]},
        {"transforms": {"padding": 3}},
        {"pictures": 5, "batch_size": 4},
        {"overrides": {"5": {"stepps": 3}}},
    ],
)
def test_the_configuration_refuses_impossible_values(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Maximize.model_validate(values)


def test_overrides_are_laid_over_the_section() -> None:
    section = Maximize.model_validate(
        {"steps": 50, "overrides": {"5": {"size": 100, "dist": [-0.1, 0.2], "channels": [1]}}}
    )
    there, elsewhere = section.for_layer("5"), section.for_layer("6")
    assert (there.steps, there.size, there.dist, there.channels) == (50, 100, (-0.1, 0.2), [1])
    assert (elsewhere.size, elsewhere.channels) == (128, "all")


def test_a_partial_network_is_not_touched_beyond_the_layer(deep: nn.Sequential) -> None:
    deep[5] = deep[5].to("meta")
    layer = find_layer(deep, "4", 24)
    setting = setting_of(24)
    assert check_recipe(deep, layer, Maximize(size=24), setting) == list(range(12))
    assert torch.get_default_device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parametrization": "fouriee"}, r"maximize.parametrization: 'fouriee'.*mean fourier"),
        (
            {"transforms": "lucent"},
            r"maximize.transforms: 'lucent' is unknown; did you mean lucid",
        ),
        (
            {"objective": "chanel"},
            r"maximize.objective: no objective 'chanel'; did you mean channel",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_its_key_and_the_near_ones(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(RefusedError, match=message):
        check_names(Maximize().model_copy(update=changes))


def test_a_refused_override_names_its_layer() -> None:
    section = Maximize.model_validate(
        {"overrides": {"features.12": {"objective": "chanel"}, "features.5": {"objective": "x"}}}
    )
    with pytest.raises(
        RefusedError,
        match=r"(?s)overrides.features.12.objective: no.*overrides.features.5.objective: no",
    ):
        check_names(section)


def test_an_entry_in_each_dict_is_all_that_an_extension_needs(
    deep: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OBJECTIVES, "toy", lambda activation, aim: activation.flatten(1).mean(1))
    monkeypatch.setitem(PARAMETRIZATIONS, "toy", PARAMETRIZATIONS["pixel"])
    monkeypatch.setitem(TRANSFORMS, "toy", lambda recipe: None)
    toys = {"objective": "toy", "parametrization": "toy", "transforms": "toy"}
    recipe = Maximize(channels=[3], size=24, steps=2, attempts=1).model_copy(update=toys)
    layer, setting = find_layer(deep, "6", 24), setting_of(24)
    assert check_recipe(deep, layer, recipe, setting) == [3]
    (picture,) = maximize_channels(deep, layer, [3], recipe, setting)
    assert picture.curve[1] > picture.curve[0]


@pytest.mark.parametrize(
    ("asked", "device", "precision"),
    [
        ("auto", "cpu", "float32"),
        ("auto", "cuda", "bfloat16"),
        ("float32", "cuda:0", "float32"),
        ("bfloat16", "cpu", "bfloat16"),
    ],
)
def test_precision_is_resolved_before_workers_start(
    asked: str, device: str, precision: str
) -> None:
    recipe = Maximize.model_validate({"precision": asked})
    assert resolve_precision(recipe, device).precision == precision
