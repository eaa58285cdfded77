"""Capture: equal to plain torch, one pass, no trace left behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from cnnvis_ray.config import Network
from cnnvis_ray.network import (
    Layer,
    Preprocess,
    activations,
    build_module,
    capture,
    make_pooling,
    resolve_network,
    trace_layers,
)

SIZE = 64
PREPROCESS = Preprocess(SIZE, SIZE, 3, (0.0,) * 3, (1.0,) * 3)


def small(builder: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return builder().eval()


def rows(module: nn.Module, *patterns: str) -> list[Layer]:
    return trace_layers(module, PREPROCESS).select(patterns)


def num_hooks(module: nn.Module) -> int:
    return sum(len(below._forward_hooks) for below in module.modules())


def ignore(name: str, maps: Tensor) -> None:
    pass


def test_convolutions_keep_their_negative_values() -> None:
    module = small(lambda: models.vgg11().features)
    layers = rows(module, "0", "3", "6")
    batch = torch.randn(2, 3, SIZE, SIZE)
    kept = activations(module, layers, batch)
    with torch.inference_mode():
        assert isinstance(module, nn.Sequential)
        for layer in layers:
            plain = module[: int(layer.name) + 1](batch)
            torch.testing.assert_close(kept[layer.name], plain)
            assert float(kept[layer.name].min()) < 0


def test_pooled_features_are_safe_against_in_place_operations() -> None:
    module = small(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(inplace=True)))
    preprocess = Preprocess(2, 2, 3, (0.0,) * 3, (1.0,) * 3)
    layers = trace_layers(module, preprocess).select(["1", "2"])
    batch = torch.randn(4, 3, 2, 2)
    linear = module.get_submodule("1")
    poolings = [make_pooling(name, 0) for name in ("flatten", "mean", "max", "grid:1")]
    kept: list[Tensor] = []

    def keep(name: str, maps: Tensor) -> None:
        if name == "1":
            kept.extend(pooling(maps) for pooling in poolings)

    with capture(module, layers, keep) as forward:
        forward(batch)
    assert len(kept) == 4
    for pooled in kept:
        torch.testing.assert_close(pooled, linear(batch.flatten(1)).detach())
        assert float(pooled.min()) < 0


def test_alexnet_keeps_its_functional_flatten() -> None:
    module = small(models.alexnet)
    batch = torch.rand(1, 3, SIZE, SIZE)
    kept = activations(module, rows(module, "pool5", "fc6", "fc8"), batch)
    assert isinstance(module, models.AlexNet)
    with torch.inference_mode():
        maps = module.features(batch)
        torch.testing.assert_close(kept["features.12"], maps)
        flat = torch.flatten(module.avgpool(maps), 1)
        torch.testing.assert_close(kept["classifier.1"], module.classifier[1](flat))
        torch.testing.assert_close(kept["classifier.6"], module(batch))


def test_one_pass_stops_after_the_deepest_layer() -> None:
    module = small(models.squeezenet1_1)
    layers = rows(module, "features.3", "features.0")
    ran: list[str] = []
    for name in ("features.0", "features.3", "features.4", "classifier.1"):
        module.get_submodule(name).register_forward_hook(
            lambda below, inputs, output, name=name: ran.append(name)
        )
    with capture(module, layers, ignore) as forward:
        assert forward(torch.rand(1, 3, SIZE, SIZE)) is None
    assert ran == ["features.0", "features.3"]


def test_to_the_head_gives_the_networks_own_output() -> None:
    module = small(models.squeezenet1_1)
    batch = torch.rand(2, 3, SIZE, SIZE)
    seen: list[str] = []
    with capture(
        module, rows(module, "features.3"), lambda name, maps: seen.append(name), to_head=True
    ) as forward:
        logits = forward(batch)
    assert seen == ["features.3"]
    assert logits is not None
    with torch.inference_mode():
        torch.testing.assert_close(logits, module(batch))


def test_the_last_call_of_a_shared_layer_counts() -> None:
    module = small(models.resnet18)
    batch = torch.rand(1, 3, SIZE, SIZE)
    layers = rows(module, "layer1.0.relu", "layer1.0")
    assert layers[0].calls == 2
    kept = activations(module, layers, batch)
    torch.testing.assert_close(kept["layer1.0.relu"], kept["layer1.0"])


def test_hooks_go_even_after_an_error() -> None:
    module = small(models.squeezenet1_1)
    module.get_submodule("features.0").register_forward_hook(lambda *_: None)
    before = num_hooks(module)
    layers = rows(module, "all")

    def fail(name: str, maps: Tensor) -> None:
        raise KeyError(name)

    with pytest.raises(KeyError), capture(module, layers, fail) as forward:
        assert num_hooks(module) == before + len(layers)
        forward(torch.rand(1, 3, SIZE, SIZE))
    assert num_hooks(module) == before


class Moody(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.always = nn.Identity()
        self.sometimes = nn.Identity()

    def forward(self, batch: Tensor) -> Tensor:
        result: Tensor = self.always(batch)
        return self.sometimes(result) if float(batch.sum()) == 0 else result


def test_a_layer_that_does_not_run_is_an_error() -> None:
    module = Moody()
    layers = rows(module, "always", "sometimes")
    with capture(module, layers, ignore) as forward:
        forward(torch.zeros(1, 3, SIZE, SIZE))
        with pytest.raises(RuntimeError, match="layers sometimes did not run"):
            forward(torch.ones(1, 3, SIZE, SIZE))
        forward(torch.zeros(1, 3, SIZE, SIZE))


def test_channels_last_outputs_and_tokens_arrive_as_maps() -> None:
    vit = small(
        lambda: models.VisionTransformer(
            image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16
        )
    )
    preprocess = Preprocess(32, 32, 3, (0.0,) * 3, (1.0,) * 3)
    layers = trace_layers(vit, preprocess).select(["encoder.layers.*_0", "encoder.ln", "heads"])
    kept = activations(vit, layers, torch.rand(2, 3, 32, 32))
    assert kept["encoder.ln"].shape == (2, 8, 2, 2)
    assert kept["heads"].shape == (2, 1000)
    for layer in layers:
        assert kept[layer.name][0].numel() == layer.floats


def test_nothing_to_observe_costs_no_forward_pass() -> None:
    def never(batch: Tensor) -> Tensor:
        raise AssertionError

    module = nn.Identity()
    module.forward = never  # type: ignore[assignment]
    with capture(module, [], ignore) as forward:
        assert forward(torch.rand(1, 3, 4, 4)) is None


def test_features_of_photos_equal_a_plain_torchvision_program(shared: Path) -> None:
    weights = str(shared / "weights" / "squeezenet1_1.safetensors")
    resolved = resolve_network(Network(name="squeezenet1_1", weights=weights), 0)
    module = build_module(resolved)
    layers = trace_layers(module, resolved.preprocess).select(["features.2", "features.12"])
    paths = sorted((shared / "data" / "photos").rglob("*.*"))[::200]
    images = [Image.open(path).convert("RGB") for path in paths]

    from safetensors.torch import load_file

    plain = models.squeezenet1_1()
    plain.load_state_dict(load_file(weights))
    plain.eval()
    shown = models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    batch = torch.stack([shown(image) for image in images])
    fitted = np.stack([resolved.preprocess.fit(image) for image in images])
    kept = activations(module, layers, resolved.preprocess.normalize(fitted))
    with torch.inference_mode():
        for layer in layers:
            wanted = plain.features[: int(layer.name.split(".")[1]) + 1](batch)
            scale = float(wanted.abs().max())
            assert float((kept[layer.name] - wanted).abs().max()) <= 1e-4 * scale
