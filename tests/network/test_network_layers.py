"""The layer table: order, names, sizes, and receptive fields that gradients confirm."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

from cnnvis_ray.config import Network
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network import (
    Layer,
    LayerTable,
    Preprocess,
    activations,
    build_module,
    check_coverage,
    covers_head,
    format_table,
    resolve_network,
    skeleton,
    trace_layers,
)


def preprocess(size: int, channels: int = 3) -> Preprocess:
    return Preprocess(size, size, channels, (0.0,) * channels, (1.0,) * channels)


def table_of(name: str) -> LayerTable:
    return trace_layers(*skeleton(name), name)


def by_name(table: LayerTable) -> dict[str, Layer]:
    return {layer.name: layer for layer in table.layers}


def test_vgg16_is_the_trace_that_the_seed_writes_by_hand() -> None:
    table = table_of("vgg16")
    convolutions = [layer for layer in table.layers if layer.kind == "Conv2d"]
    assert sum(layer.floats for layer in convolutions) == 13_547_520
    assert sum(layer.channels for layer in convolutions) == 4_224
    # published: Araujo, Norris, Sim 2019 (VGG16 conv5_3: 196, stride 16; pool5: 212, stride 32)
    assert by_name(table)["features.28"].receptive_field == (196.0, 196.0)
    pool5 = by_name(table)["features.30"]
    assert pool5.receptive_field == (212.0, 212.0)
    assert (pool5.channels, pool5.height, pool5.width, pool5.floats) == (512, 7, 7, 25_088)
    assert by_name(table)["classifier.0"].receptive_field is None
    assert table.output == (1000,)


@pytest.mark.parametrize(
    ("network", "alias", "name"),
    [
        ("vgg16", "conv1_1", "features.0"),
        ("vgg16", "conv1", "features.0"),
        ("vgg16", "relu1_1", "features.1"),
        ("vgg16", "conv5_1", "features.24"),
        ("vgg16", "conv13", "features.28"),
        ("vgg16", "conv5", "features.10"),
        ("vgg16", "block1_conv1", "features.0"),
        ("vgg16", "block5_conv3", "features.28"),
        ("vgg16", "block1_pool", "features.4"),
        ("vgg16", "block3", "features.16"),
        ("vgg16", "pool5", "features.30"),
        ("vgg16", "fc6", "classifier.0"),
        ("vgg16", "fc8", "classifier.6"),
        ("vgg16_bn", "conv1_2", "features.3"),
        ("vgg16_bn", "bn1_2", "features.4"),
        ("vgg19", "conv16", "features.34"),
        ("alexnet", "conv1", "features.0"),
        ("alexnet", "conv3", "features.6"),
        ("alexnet", "conv3_3", "features.10"),
        ("alexnet", "pool2", "features.5"),
        ("alexnet", "pool5", "features.12"),
        ("alexnet", "block3", "features.12"),
        ("alexnet", "fc6", "classifier.1"),
        ("alexnet", "fc8", "classifier.6"),
        ("cnnvis_ray.network.digits:digits_vgg", "conv3_2", "features.8"),
        ("cnnvis_ray.network.digits:digits_vgg", "fc5", "classifier.1"),
    ],
)
def test_aliases(network: str, alias: str, name: str) -> None:
    assert table_of(network).resolve([alias]) == [name]


def test_networks_of_another_shape_have_no_aliases() -> None:
    assert not any(layer.aliases for layer in table_of("squeezenet1_1").layers)


def test_patterns_give_names_in_execution_order_without_repeats() -> None:
    table = table_of("vgg16")
    assert table.resolve(["pool2", "conv1_1", "features.0"]) == ["features.0", "features.9"]
    assert table.resolve(["conv1_*"]) == ["features.0", "features.2"]
    assert table.resolve(["classifier.[06]"]) == ["classifier.0", "classifier.6"]
    leaves = table.resolve(["all"])
    assert len(leaves) == 39
    assert "features" not in leaves
    assert table.select(["pool1"])[0].name == "features.4"


def test_wrong_names_are_all_told_with_near_ones() -> None:
    with pytest.raises(RefusedError) as refused:
        table_of("squeezenet1_1").resolve(["features.99", "features.2", "featurs.3", "x*"])
    text = str(refused.value)
    assert "no layer 'features.99' in squeezenet1_1; did you mean " in text
    assert "features.12" in text
    assert "(cnnvis layers squeezenet1_1)" in text
    assert "'featurs.3'" in text
    assert "'x*'" in text
    assert "features.2'" not in text


@pytest.mark.parametrize(
    ("name", "layer", "channels", "size", "seen"),
    [
        ("resnet18", "layer4.1", 512, 7, 435),  # residual; Araujo et al. 2019: 435
        ("resnet50", "layer4", 2048, 7, 427),  # torchvision strides in the 3 x 3 convolution
        ("densenet121", "features.denseblock1", 256, 56, None),
        ("mobilenet_v2", "features", 1280, 7, 491),
        ("googlenet", "inception3a", 256, 28, None),
        ("inception_v3", "Mixed_7c", 2048, 8, None),
        ("shufflenet_v2_x0_5", "conv5.2", 1024, 7, None),
        ("convnext_tiny", "features.7", 768, 7, None),
        ("fcn_resnet50", "classifier", 21, 65, None),
    ],
)
def test_sizes_and_fields_of_residual_concatenated_and_functional_networks(
    name: str, layer: str, channels: int, size: int, seen: int | None
) -> None:
    table = table_of(name)
    row = by_name(table)[layer]
    assert (row.channels, row.height, row.width) == (channels, size, size)
    assert row.receptive_field is not None
    if seen is not None:
        assert row.receptive_field == (seen, seen)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_small", "swin_t", "vit_b_32"])
def test_squeeze_excitation_and_attention_see_the_whole_image(name: str) -> None:
    table = table_of(name)
    assert table.layers[0].receptive_field is not None or name.startswith(("swin", "vit"))
    assert table.layers[-3].receptive_field is None


def test_channels_last_outputs_and_tokens_are_told() -> None:
    swin = by_name(table_of("swin_t"))["features.1.0"]
    assert (swin.channel_axis, swin.channels, swin.height, swin.width) == (3, 96, 56, 56)
    tokens = by_name(table_of("vit_b_32"))["encoder.layers.encoder_layer_3"]
    assert (tokens.channel_axis, tokens.channels, tokens.height, tokens.width) == (2, 768, 7, 7)
    assert tokens.receptive_field is None  # attention sees the whole image; crops are the patch
    assert (tokens.first_token, tokens.crop(1, 2, 224)) == (1, (64, 32, 96, 64))
    inside = by_name(table_of("convnext_tiny"))["features.1.0.block.3"]
    assert (inside.kind, inside.channel_axis, inside.channels) == ("Linear", 3, 384)


def test_segmentation_outputs_come_out_of_their_dictionary() -> None:
    table = table_of("deeplabv3_resnet50")
    assert table.output == (21, 520, 520)
    assert by_name(table)["classifier.0"].receptive_field is None  # its image pooling branch


class Branches(nn.Module):
    def __init__(self, kernel: int, stride: int, dilation: int, padding: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.pool = nn.AvgPool2d(2, stride=1, padding=1)
        self.wide = nn.Conv2d(
            2, 2, kernel, stride=stride, padding=padding * dilation, dilation=dilation
        )
        self.narrow = nn.Conv2d(2, 2, 1, stride=stride)
        self.joined = nn.Identity()
        self.late = nn.Conv2d(4, 1, 3)

    def forward(self, batch: Tensor) -> Tensor:
        below = self.pool(self.stem(batch).sigmoid())
        wide, narrow = self.wide(below), self.narrow(below)
        height = min(wide.shape[2], narrow.shape[2])
        both = torch.cat([wide[:, :, :height, :height], narrow[:, :, :height, :height]], 1)
        result: Tensor = self.late(self.joined(both))
        return result


def seen_by_gradient(
    module: nn.Module, layer: Layer, size: int, y: int, x: int
) -> tuple[int, int, int, int] | None:
    image = torch.rand(1, 1, size, size, requires_grad=True)
    kept: list[Tensor] = []
    hook = module.get_submodule(layer.name).register_forward_hook(
        lambda _, inputs, output: kept.append(output)
    )
    module(image)
    hook.remove()
    kept[-1][0, :, y, x].sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    rows, columns = torch.nonzero(image.grad[0, 0], as_tuple=True)
    if not len(rows):
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def holds(crop: tuple[int, int, int, int], seen: tuple[int, int, int, int] | None) -> bool:
    if seen is None:
        return True
    return all(c <= s for c, s in zip(crop[:2], seen[:2], strict=True)) and all(
        c >= s for c, s in zip(crop[2:], seen[2:], strict=True)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1))
def test_gradients_confirm_what_a_place_sees(
    kernel: int, stride: int, dilation: int, padding: int
) -> None:
    size = 64
    module = Branches(kernel, stride, dilation, padding).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.1)
    table = trace_layers(module, preprocess(size, 1))
    for layer in table.layers:
        if layer.field is None:
            assert layer.name in ("joined", "late")  # a cut branch is not followed
            continue
        assert layer.height is not None
        middle = layer.height // 2
        seen = seen_by_gradient(module, layer, size, middle, middle)
        assert layer.crop(middle, middle, size) == seen
        last = layer.height - 1
        assert holds(layer.crop(0, last, size), seen_by_gradient(module, layer, size, 0, last))


class Odd(nn.Module):
    """Resizing, padding, adaptive pooling and a functional mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding="same")
        self.padded = nn.ZeroPad2d((2, 1, 2, 1))
        self.cells = nn.AdaptiveAvgPool2d(5)
        self.larger = nn.Upsample(scale_factor=2, mode="bilinear")
        self.head = nn.Linear(2, 3)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        maps = self.larger(self.cells(self.padded(self.first(batch))))
        return {"out": self.head(maps.mean(dim=(2, 3)))}


def test_fields_are_never_told_too_small() -> None:
    size = 29
    module = Odd().eval()
    table = trace_layers(module, preprocess(size, 1))
    for layer in table.layers[:-1]:
        assert layer.height is not None
        assert layer.field is not None
        for place in range(layer.height):
            seen = seen_by_gradient(module, layer, size, place, place)
            assert holds(layer.crop(place, place, size), seen)
    assert table.layers[-1].name == "head"
    assert table.layers[-1].receptive_field is None
    assert table.output == (3,)


class ByValue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3)
        self.offset = torch.ones(1)  # neither parameter nor buffer

    def forward(self, batch: Tensor) -> Tensor:
        maps: Tensor = self.first(batch) + self.offset
        return maps if float(maps.sum()) > -1e9 else -maps


def test_networks_that_need_values_are_traced_with_values() -> None:
    table = trace_layers(ByValue().eval(), preprocess(8))
    assert table.layers[0].receptive_field == (3.0, 3.0)
    assert table.output == (2, 6, 6)


def test_input_of_the_wrong_kind_is_refused() -> None:
    module, _ = skeleton("vgg11")
    with pytest.raises(RefusedError, match="does not take 1 channels of 64 x 64 pixels"):
        trace_layers(module, preprocess(64, 1))


def test_tracing_leaves_no_hook_and_no_gradient() -> None:
    module = models.squeezenet1_1().eval()
    trace_layers(module, preprocess(64))
    assert not any(below._forward_hooks for below in module.modules())


def test_partial_weights_cover_what_lies_before_them_and_no_more(shared: Path) -> None:
    weights = str(shared / "weights" / "vgg16_features_0_to_7.safetensors")
    resolved = resolve_network(Network(name="vgg16", weights=weights), 0)
    table = trace_layers(build_module(resolved), resolved.preprocess, "vgg16")
    check_coverage(resolved, table, table.select(["conv1_1", "pool2"]))
    assert not covers_head(resolved, table)
    with pytest.raises(RefusedError, match=r"missing: features.10.weight, features.10.bias;"):
        check_coverage(resolved, table, table.select(["pool2", "conv3_1"]))
    maps = activations(build_module(resolved), table.select(["pool2"]), torch.rand(1, 3, 224, 224))
    assert bool(maps["features.9"].isfinite().all())


class Reordered(nn.Module):
    """Runs its second child first, shares one, and uses a weight without its module."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(2, 2, 1)
        self.first = nn.Conv2d(3, 2, 1)
        self.act = nn.ReLU()
        self.never = nn.Conv2d(3, 3, 1)
        self.gain = nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, batch: Tensor) -> Tensor:
        maps = self.act(self.first(batch)) * self.gain
        result: Tensor = self.act(self.last(maps))
        return result


def test_what_a_layer_needs_comes_from_the_forward_pass_not_from_names() -> None:
    table = trace_layers(Reordered(), preprocess(8))
    assert [layer.name for layer in table.layers] == ["first", "act", "last"]
    needs = {layer.name: set(table.used[: layer.num_used]) for layer in table.layers}
    assert needs["first"] == {"first.weight", "first.bias"}
    assert needs["last"] == {"first.weight", "first.bias", "gain", "last.weight", "last.bias"}
    assert needs["act"] == needs["last"]  # its last call counts
    assert by_name(table)["act"].calls == 2


def test_the_listing_has_a_line_a_layer_in_columns() -> None:
    lines = format_table(table_of("vgg16")).splitlines()
    assert lines[0].split() == [
        "layer", "aliases", "kind", "channels", "height", "x", "width",
        "sees", "pixels", "floats",
    ]  # fmt: skip
    assert len(lines) == 1 + 41
    assert lines[1].split()[0] == "features.0"
    assert "224 x 224" in lines[1]
    assert "3,211,264" in lines[1]
    assert "image" in lines[-1]
    assert len({line.index("Conv2d") for line in lines if "Conv2d" in line}) == 1
    assert "calls" in format_table(table_of("resnet18")).splitlines()[0]
