"""Attention of the class token: read without changing the forward pass, as arithmetic has it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnnvis_ray.config import Explain
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.explanation.aims import Aimed
from cnnvis_ray.explanation.attention import (
    attention_heat,
    find_attention,
    last_block,
    read_attention,
    roll_out,
)
from cnnvis_ray.explanation.methods import METHODS, Question, count_hooks
from cnnvis_ray.network import activations, trace_layers
from tests.explanation.networks import Pooled
from tests.network.transformers import CROP, PATCHES, PREPROCESS, transformer

BATCH = torch.randn(3, 3, CROP, CROP, generator=torch.Generator().manual_seed(0))
LIBRARIES = list(PATCHES)


@pytest.mark.parametrize("library", LIBRARIES)
def test_attention_of_every_block_adds_up_to_one_and_changes_nothing(library: str) -> None:
    module = transformer(library)
    table = trace_layers(module, PREPROCESS)
    grid = find_attention(module, table, PREPROCESS)
    before = module(BATCH)
    weights = read_attention(module, BATCH, grid)
    assert len(weights) == 2
    for one in weights:
        torch.testing.assert_close(one.sum(2), torch.ones(one.shape[:2]))
    assert torch.equal(module(BATCH), before)
    assert count_hooks(module) == 0


def test_attention_is_the_softmax_of_queries_and_keys() -> None:
    module = transformer("torchvision")
    table = trace_layers(module, PREPROCESS)
    name = "encoder.layers.encoder_layer_1"
    inputs: list[Tensor] = []
    hook = module.get_submodule(f"{name}.self_attention").register_forward_pre_hook(
        lambda _, given: inputs.append(given[0])
    )
    last = read_attention(module, BATCH, find_attention(module, table, PREPROCESS))[-1]
    hook.remove()
    attention = module.get_submodule(f"{name}.self_attention")
    assert isinstance(attention, nn.MultiheadAttention)
    assert attention.in_proj_weight is not None
    both = nn.functional.linear(inputs[-1], attention.in_proj_weight, attention.in_proj_bias)
    query, key, _ = (part.reshape(3, 17, 2, 6).transpose(1, 2) for part in both.chunk(3, 2))
    weights = (query @ key.transpose(2, 3) / 6**0.5).softmax(3).mean(1)
    torch.testing.assert_close(last, weights)


def test_fused_and_plain_attention_are_read_alike() -> None:
    module = transformer("timm")
    grid = find_attention(module, trace_layers(module, PREPROCESS), PREPROCESS)
    fused = read_attention(module, BATCH, grid)
    for below in module.modules():
        if hasattr(below, "fused_attn"):
            setattr(below, "fused_attn", False)  # noqa: B010  # mypy: not declared
    plain = read_attention(module, BATCH, grid)
    assert len(plain) == len(fused)
    for one, other in zip(plain, fused, strict=True):
        torch.testing.assert_close(one, other)


def test_a_token_that_the_class_token_looks_at_is_where_the_heat_is() -> None:
    module = transformer("torchvision")
    grid = find_attention(module, trace_layers(module, PREPROCESS), PREPROCESS)
    weights = torch.full((1, 17, 17), 1e-3)
    weights[0, 0, 1 + 4 * 1 + 2] = 1.0  # row 1, column 2

    heat = attention_heat(module, BATCH[:1], grid, lambda _: weights)[0]
    row, column = divmod(int(heat.argmax()), CROP)
    assert (row // 8, column // 8) == (1, 2)


def test_rollout_passes_half_on_in_every_block() -> None:
    one = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    other = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    expected = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]])
    torch.testing.assert_close(roll_out([one, other]), expected)
    assert last_block([one, other]) is other


@pytest.mark.parametrize("method", ["attention", "attention_rollout"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_both_methods_answer_with_a_map_of_the_input(method: str, library: str) -> None:
    module = transformer(library)
    grid = find_attention(module, trace_layers(module, PREPROCESS), PREPROCESS)
    aimed = Aimed(module, "classes")
    pixels = np.zeros((2, CROP, CROP, 3), np.uint8)
    aims = aimed.aim(BATCH, None)
    asked = Question(aimed, pixels, BATCH, aims, PREPROCESS, Explain(), module, grid)
    heat = METHODS[method].explain(asked).heat
    assert heat.shape == (2, CROP, CROP)
    assert heat.min() >= 0
    assert heat.max() > heat.min()


class Mixer(nn.Module):
    """Tokens without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 8, 8)
        self.norm = nn.LayerNorm(6)

    def forward(self, batch: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.patches(batch).flatten(2).transpose(1, 2))
        return tokens.mean(1)


@pytest.mark.parametrize("network", [Mixer, Pooled])
def test_networks_without_attention_are_refused(network: type[nn.Module]) -> None:
    module = network().eval()
    with pytest.raises(RefusedError, match="attention needs tokens"):
        find_attention(module, trace_layers(module, PREPROCESS, "small"), PREPROCESS)


def test_maps_of_a_convolution_before_the_tokens_are_left_as_they_were() -> None:
    module = transformer("timm")
    layer = trace_layers(module, PREPROCESS).select(["patch_embed.proj"])[0]
    assert (layer.first_token, layer.receptive_field) == (None, (8, 8))
    assert activations(module, [layer], BATCH)["patch_embed.proj"].shape == (3, 12, 4, 4)
