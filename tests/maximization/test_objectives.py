"""Each objective's number, computed by hand, and that five steps raise it."""

import numpy as np
import pytest
import torch
from torch import nn

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.maximization.objectives import OBJECTIVES, Aim, build_objective, parse_objective
from tests.maximization.small_networks import Draw

ACTIVATION = torch.arange(2 * 3 * 2 * 2, dtype=torch.float32).reshape(2, 3, 2, 2)
AIM = Aim(torch.tensor([1, 2]))


def number(name: str, aim: Aim = AIM, activation: torch.Tensor = ACTIVATION) -> list[float]:
    return [float(value) for value in OBJECTIVES[name](activation, aim)]


def test_channel_is_the_mean_of_its_map() -> None:
    assert number("channel") == [5.5, 21.5]


def test_neuron_is_the_middle_unless_told() -> None:
    assert number("neuron") == [7.0, 23.0]
    assert number("neuron", Aim(torch.tensor([1, 2]), neuron=(0, 1))) == [5.0, 21.0]


def test_direction_is_the_product_with_the_mean() -> None:
    directions = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, -1.0]])
    aim = Aim(torch.tensor([1, 2]), directions=directions)
    assert number("direction", aim) == pytest.approx([0.6 * 1.5 + 0.8 * 5.5, -21.5])


def test_logit_is_the_output() -> None:
    assert number("logit", activation=ACTIVATION[:, :, :1, :1]) == [4.0, 20.0]
    assert number("logit", activation=ACTIVATION[:, :, 0, 0]) == [4.0, 20.0]


def test_class_is_the_logit_less_what_the_others_get() -> None:
    others = [np.logaddexp(0.0, 8.0), np.logaddexp(12.0, 16.0)]
    by_hand = [4.0 - others[0], 20.0 - others[1]]
    assert number("class", activation=ACTIVATION[:, :, 0, 0]) == pytest.approx(by_hand, rel=1e-5)


def test_diversity_of_equal_pictures_is_nothing() -> None:
    same = ACTIVATION[:1].expand(2, -1, -1, -1)
    aim = Aim(torch.tensor([1, 1]), pictures=2)
    assert number("diversity", aim, same) == pytest.approx([0.0, 0.0], abs=1e-5)
    other = torch.zeros(2, 3, 2, 2)
    other[0, 0], other[1, 1] = 1.0, 2.0  # Gram matrices without a common entry: cosine 0
    assert number("diversity", aim, other) == pytest.approx([0.0, 2.0])


def test_diversity_looks_at_the_pictures_of_one_channel_only() -> None:
    torch.manual_seed(0)
    activation = torch.rand(4, 3, 2, 2)
    aim = Aim(torch.tensor([0, 0, 1, 1]), pictures=2)
    whole = number("diversity", aim, activation)
    activation[2:] = 0.3
    assert number("diversity", aim, activation)[:2] == whole[:2]


def test_the_seed_s_target_is_the_squared_maximum() -> None:
    activation = torch.tensor([[[[0.0, 0.5]]], [[[0.0, 2.0]]]])
    aim = Aim(torch.tensor([0, 0]))
    by_hand = [-(0.25**2 + 0.25**2) / 2, -(4.0**2 + 2.0**2) / 2]
    assert number("squared_maximum", aim, activation) == pytest.approx(by_hand)


def test_weights_add_up() -> None:
    values = build_objective({"channel": 2.0, "neuron": -1.0})(ACTIVATION, AIM)
    assert values.tolist() == [2 * 5.5 - 7.0, 2 * 21.5 - 23.0]


def test_a_leading_minus_turns_an_objective_round() -> None:
    assert parse_objective("-channel") == {"channel": -1.0}


@pytest.mark.parametrize("choice", ["chanel", {"neurons": 1.0}])
def test_an_unknown_objective_is_refused_with_near_names(choice: str | dict[str, float]) -> None:
    with pytest.raises(RefusedError, match=r"no objective .*did you mean (channel|neuron)"):
        parse_objective(choice)


RAISED = [
    ("5", "channel", {}),
    ("6", "channel", {}),
    ("6", "neuron", {}),
    ("5", "direction", {"directions": np.eye(16).tolist()}),
    ("5", {"channel": 1.0, "diversity": 0.5}, {"pictures": 2}),
    ("5", "-channel", {}),
]


@pytest.mark.parametrize(("layer", "objective", "more"), RAISED)
def test_five_steps_raise_the_objective(
    layer: str,
    objective: str | dict[str, float],
    more: dict[str, object],
    deep: nn.Module,
    draw: Draw,
) -> None:
    values = {"steps": 5, "transforms": "none", "objective": objective, "attempts": 1, **more}
    pictures = draw(deep, layer, [0, 3], **values)
    for picture in pictures:
        assert picture.curve[-1] > picture.curve[0]
        sign = -1 if objective == "-channel" else 1
        assert sign * picture.activation > sign * picture.start_activation


def test_pictures_of_one_channel_differ_more_with_diversity(deep: nn.Module, draw: Draw) -> None:
    values = {"steps": 40, "transforms": "none", "pictures": 2, "batch_size": 2}
    alike = draw(deep, "5", [3], objective="channel", **values)
    apart = draw(deep, "5", [3], objective={"channel": 1.0, "diversity": 5.0}, **values)
    assert [(picture.channel, picture.variant) for picture in apart] == [(3, 0), (3, 1)]
    likeness = [
        np.corrcoef(one.pixels.ravel(), other.pixels.ravel())[0, 1]
        for one, other in (alike, apart)
    ]
    assert likeness[1] < likeness[0]
