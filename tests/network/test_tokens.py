"""Tokens are places: the grid of their patches, found by following the data, not by counting."""

import pytest
import torch
from torch import Tensor, nn

from cnnvis_ray.network import activations, make_pooling, places, trace_layers
from tests.network.transformers import (
    CROP,
    PATCH,
    PATCHES,
    PREPROCESS,
    TOKENS,
    WIDTH,
    transformer,
)


@pytest.mark.parametrize("library", list(TOKENS))
def test_a_token_lies_where_its_patch_lies(library: str) -> None:
    module = transformer(library)
    for name, parameter in module.named_parameters():
        if "pos_embed" in name:
            parameter.zero_()
    table = trace_layers(module, PREPROCESS)
    layers = table.select([PATCHES[library], TOKENS[library]])
    kept = activations(module, layers, torch.rand(2, 3, CROP, CROP))
    torch.testing.assert_close(kept[TOKENS[library]], kept[PATCHES[library]])


@pytest.mark.parametrize("library", list(TOKENS))
def test_every_block_has_the_grid_and_the_embedding_as_channels(library: str) -> None:
    table = trace_layers(transformer(library), PREPROCESS)
    blocks = [layer for layer in table.layers if layer.name[-2:] in (".0", ".1", "_0", "_1")]
    blocks = [layer for layer in blocks if layer.kind in ("EncoderBlock", "Block")]
    assert len(blocks) == 2
    first = 4 if library == "registers" else 1
    for block in blocks:
        assert (block.channels, block.height, block.width) == (WIDTH, 4, 4)
        assert block.first_token == first
    attention = [
        layer for layer in table.layers if layer.kind in ("MultiheadAttention", "Attention")
    ]
    assert {layer.first_token for layer in attention} == {first}


def test_a_token_is_cropped_to_its_patch_and_sees_the_whole_image() -> None:
    layer = trace_layers(transformer("timm"), PREPROCESS).select(["blocks.1"])[0]
    assert layer.receptive_field is None
    assert layer.crop(3, 1, CROP) == (PATCH, 3 * PATCH, 2 * PATCH, CROP)


def test_the_place_of_a_maximum_and_the_mean_leave_the_class_token_out() -> None:
    module = transformer("torchvision")
    layer = trace_layers(module, PREPROCESS).select(["encoder.ln"])[0]
    output = torch.zeros(1, 17, WIDTH)
    output[0, 0, 5] = 100.0  # class token
    output[0, 1 + 4 * 2 + 3, 5] = 16.0  # row 2, column 3
    maps = layer.maps(output)
    assert places(maps, torch.tensor([0]).numpy(), torch.tensor([5]).numpy()).tolist() == [[2, 3]]
    assert make_pooling("mean", 0)(maps)[0, 5] == 1.0


def test_a_grid_of_another_input_size_keeps_its_proportions() -> None:
    layer = trace_layers(transformer("timm"), PREPROCESS).select(["norm"])[0]
    assert layer.maps(torch.zeros(1, 1 + 6 * 6, WIDTH)).shape == (1, WIDTH, 6, 6)


class Shuffled(nn.Module):
    """Tokens of one image in an order that no grid has; then a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 8, 8)
        self.mixed = nn.LayerNorm(6)
        self.lost = nn.LayerNorm(6)
        self.head = nn.Linear(6, 2)

    def forward(self, batch: Tensor) -> Tensor:
        tokens = self.mixed(self.patches(batch).flatten(2).transpose(1, 2))
        windows = tokens.reshape(-1, 2, 2, 2, 2, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 6)
        logits: Tensor = self.head(self.lost(windows).mean(1))
        return logits


def test_tokens_in_another_order_are_not_taken_for_the_grid() -> None:
    table = {layer.name: layer for layer in trace_layers(Shuffled().eval(), PREPROCESS).layers}
    assert (table["mixed"].first_token, table["mixed"].height) == (0, 4)
    assert (table["lost"].first_token, table["lost"].height, table["lost"].width) == (None, 16, 1)
