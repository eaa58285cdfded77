"""Pooling before rectifying gives the same bits, and leaves the network as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cnnvis_ray.maximization.cutting import cut_after
from cnnvis_ray.network import Layer, pooled_first
from tests.maximization.small_networks import find_layer

Results = tuple[torch.Tensor, torch.Tensor]


def network(
    rectify: Callable[[], nn.Module], size: int = 3, padding: int = 0, ceil: bool = False
) -> nn.Sequential:
    torch.manual_seed(0)
    pool = nn.MaxPool2d(size, 2, padding, ceil_mode=ceil)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), rectify(), pool, nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)
    )
    return module.eval().requires_grad_(False)


def climb(module: nn.Module, layer: Layer) -> Results:
    images = torch.randn(4, 3, 32, 32, generator=torch.manual_seed(1)).requires_grad_()
    with cut_after(module, layer) as cut:
        activation = cut(images)
    (gradient,) = torch.autograd.grad((activation**2).sum(), images)
    return activation.detach(), gradient


@pytest.mark.parametrize("rectify", [nn.ReLU, lambda: nn.ReLU(inplace=True), nn.ReLU6])
@pytest.mark.parametrize(
    ("size", "padding", "ceil"), [(3, 0, False), (3, 1, False), (3, 0, True), (2, 0, False)]
)
def test_the_same_bits_forward_and_back(
    rectify: Callable[[], nn.Module], size: int, padding: int, ceil: bool
) -> None:
    module = network(rectify, size, padding, ceil)
    layer = find_layer(module, "5", 32)
    plain = climb(module, layer)
    with pooled_first(module, [layer]):
        assert [type(part) for part in module][1] is nn.MaxPool2d
        swapped = climb(module, layer)
    assert torch.equal(swapped[0], plain[0])
    assert torch.equal(swapped[1], plain[1])


def test_the_order_comes_back_also_after_an_error() -> None:
    module = network(nn.ReLU)
    before = list(module.named_modules())
    with (
        pytest.raises(ValueError, match="on the way"),
        pooled_first(module, [find_layer(module, "5", 32)]),
    ):
        raise ValueError("on the way")
    assert list(module.named_modules()) == before


@pytest.mark.parametrize("shown", ["1", "2"])
def test_what_is_shown_itself_is_not_moved(shown: str) -> None:
    module = network(nn.ReLU)
    layer = find_layer(module, shown, 32)
    plain = climb(module, layer)
    with pooled_first(module, [layer]):
        assert torch.equal(climb(module, layer)[0], plain[0])


def test_a_hook_between_keeps_the_order() -> None:
    module = network(nn.ReLU)
    module[1].register_forward_hook(lambda *_: None)
    with pooled_first(module, [find_layer(module, "5", 32)]):
        assert isinstance(module[1], nn.ReLU)
