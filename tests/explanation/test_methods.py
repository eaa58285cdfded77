"""Gradient maps: Grad-CAM equals CAM where theory says so; networks are left as they were."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from cnnvis_ray.config import Explain
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.explanation.aims import Aimed, Aims, Kind, find_kind
from cnnvis_ray.explanation.methods import (
    METHODS,
    Answer,
    Method,
    Question,
    check_guided,
    check_methods,
    choose_methods,
    count_hooks,
    find_cam_layer,
)
from cnnvis_ray.network import Preprocess, trace_layers
from tests.explanation.networks import Control, Pooled, UNet, seeded

CONVOLUTIONAL = [name for name, method in METHODS.items() if not method.needs_attention]
BATCH = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def heat_of(
    method: str, aimed: Aimed, batch: Tensor, aims: Aims, layer: nn.Module, pixels: int = 3
) -> Tensor:
    side, colours = batch.shape[2], batch.shape[1]
    question = Question(
        aimed,
        np.zeros((pixels, side, side, colours), np.uint8),
        batch,
        aims,
        Preprocess(side, side, colours, (0.5,) * colours, (0.5,) * colours),
        Explain(patch=side // 2, stride=side // 2, batch_size=4),
        layer,
    )
    return torch.from_numpy(METHODS[method].explain(question).heat)


def test_grad_cam_on_pooling_and_linear_is_cam() -> None:
    network = Pooled()
    aimed = Aimed(seeded(network), "classes")
    aims = aimed.aim(BATCH, None)
    heat = heat_of("grad_cam", aimed, BATCH, aims, network.relu)
    maps = torch.relu(network.conv(BATCH))
    weights = network.head.weight[aims.index]
    cam = torch.relu((weights[:, :, None, None] * maps).sum(1))
    factor = 16 * 16
    torch.testing.assert_close(heat.float() * factor, cam, rtol=1e-4, atol=1e-5)


def test_saliency_is_the_gradient() -> None:
    network = Pooled()
    aimed = Aimed(seeded(network), "classes")
    aims = aimed.aim(BATCH, 2)
    heat = heat_of("saliency", aimed, BATCH, aims, network.relu)
    network.relu.inplace = False
    given = BATCH.clone().requires_grad_(True)
    network(given)[:, 2].sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(heat.float(), given.grad.abs().amax(1))


def test_integrated_gradients_add_up() -> None:
    network = Pooled()
    aimed = Aimed(seeded(network), "classes")
    aims = aimed.aim(BATCH, 1)
    heat = heat_of("integrated_gradients", aimed, BATCH, aims, network.relu)
    difference = network(BATCH)[:, 1] - network(torch.zeros_like(BATCH))[:, 1]
    assert (heat.sum((1, 2)) >= difference.abs() * 0.98).all()  # absolute values: at least the sum


@pytest.mark.parametrize("method", CONVOLUTIONAL)
@pytest.mark.parametrize(
    ("network", "kind", "layer"),
    [
        (Pooled(), "classes", "relu"),
        (UNet(), "mask", "bottom"),
        (Control(), "numbers", "features"),
    ],
)
def test_nothing_stays_on_a_network(
    method: str, network: nn.Module, kind: Kind, layer: str
) -> None:
    seeded(network)
    preprocess = network.preprocess
    assert isinstance(preprocess, Preprocess)
    random = np.random.default_rng(0)
    shape = (2, preprocess.crop, preprocess.crop, preprocess.channels)
    batch = preprocess.normalize(random.integers(0, 256, shape, dtype=np.uint8))
    flags = [getattr(below, "inplace", None) for below in network.modules()]
    aimed = Aimed(network, kind)
    heat = heat_of(method, aimed, batch, aimed.aim(batch, None), network.get_submodule(layer), 2)
    assert heat.shape == (2, preprocess.crop, preprocess.crop)
    assert bool(heat.isfinite().all())
    assert (heat >= 0).all()
    assert count_hooks(network) == 0
    assert [getattr(below, "inplace", None) for below in network.modules()] == flags


def test_hooks_go_even_if_the_network_fails() -> None:
    class Failing(Pooled):
        def forward(self, batch: Tensor) -> Tensor:
            super().forward(batch)
            raise RuntimeError("out of memory")

    network = Failing()
    aimed = Aimed(network, "classes")
    aims = Aimed(seeded(Pooled()), "classes").aim(BATCH, None)
    for method in CONVOLUTIONAL:
        with pytest.raises(RuntimeError, match="out of memory"):
            heat_of(method, aimed, BATCH, aims, network.relu)
    assert count_hooks(network) == 0
    assert network.relu.inplace


def test_a_masks_score_is_the_mean_over_its_pixels() -> None:
    network = UNet()
    aimed = Aimed(seeded(network), "mask")
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    aims = aimed.aim(batch, None)
    probability = network(batch).softmax(1)
    for image in range(2):
        index = int(aims.index[image])
        own = probability[image].argmax(0) == index
        assert index != 0 or not (probability[image].argmax(0) > 0).any()
        expected = float(probability[image, index][own].mean())
        assert float(aims.score[image]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("output", "categories", "kind"),
    [((10,), None, "classes"), ((1,), None, "numbers"), ((3, 8, 8), None, "mask")],
)
def test_an_output_is_recognized(output: tuple[int, ...], categories: None, kind: str) -> None:
    assert find_kind("auto", output, categories) == kind


@pytest.mark.parametrize(
    ("asked", "output"),
    [("auto", None), ("auto", (4, 4)), ("mask", (10,)), ("classes", (3, 8, 8))],
)
def test_an_output_that_is_no_aim_is_refused(asked: str, output: tuple[int, ...] | None) -> None:
    with pytest.raises(RefusedError, match=r"explain"):
        find_kind(asked, output, None)


def test_cam_layers_are_the_deepest_maps() -> None:
    def chosen(module: nn.Module, preprocess: Preprocess) -> str:
        return find_cam_layer(trace_layers(module.eval(), preprocess), None).name

    usual = Preprocess(64, 64, 3, (0.5,) * 3, (0.5,) * 3)
    assert chosen(models.resnet18(), usual) == "layer4"
    assert chosen(models.squeezenet1_1(), usual) == "classifier.2"
    assert chosen(UNet(), UNet().preprocess) == "bottom"
    table = trace_layers(Pooled(), Pooled().preprocess)
    with pytest.raises(RefusedError, match="no maps to weight"):
        find_cam_layer(table, "head")


def test_an_entry_in_the_dict_is_all_that_a_method_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def toy(question: Question) -> Answer:
        return Answer(question.pixels[..., 0].astype(np.float64))

    monkeypatch.setitem(METHODS, "toy", Method(toy))
    explain = Explain().model_copy(update={"methods": ["toy", "saliency", "toy"]})
    assert choose_methods(explain, 64) == ["toy", "saliency"]
    aimed = Aimed(seeded(Pooled()), "classes")
    assert heat_of("toy", aimed, BATCH, aimed.aim(BATCH, None), aimed).shape == (3, 16, 16)


def test_an_unknown_method_is_refused_with_the_near_ones() -> None:
    with pytest.raises(
        RefusedError,
        match=r"(?s)explain.methods: 'grad-cam' is unknown; did you mean grad_cam.*'lime'",
    ):
        check_methods(["saliency", "grad-cam", "lime"])


class Functional(Pooled):
    """Calls ReLU as a function beside its module."""

    def forward(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.relu(self.conv(batch))).mean((2, 3)))
        return logits


def test_guided_backpropagation_is_refused_where_relu_is_a_function() -> None:
    network = seeded(Functional())
    names = ["saliency", "guided_backprop", "guided_grad_cam"]
    with pytest.raises(
        RefusedError, match=r"guided_backprop and guided_grad_cam .*as a function 1 times"
    ):
        check_guided(names, network, Pooled().preprocess)
    check_guided(["saliency"], network, Pooled().preprocess)
    check_guided(names, seeded(Pooled()), Pooled().preprocess)
    assert count_hooks(network) == 0
