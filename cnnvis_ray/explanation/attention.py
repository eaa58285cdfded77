"""Attention of a transformer: which tokens the class token looks at.

Torch's attention functions keep no weights. While a forward pass runs, a function mode computes
them once more from what these functions get, or takes them from a softmax over as many tokens. So
they are those of any network that calls one of them, whatever it does to queries and keys before
(norms, rotary positions, biases). The forward pass itself stays as it is.

References:
    Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers, arXiv:2005.00928.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network import Layer, LayerTable, Preprocess

FUSED: Callable[..., object] = functional.scaled_dot_product_attention
MODULES: Callable[..., object] = functional.multi_head_attention_forward
SOFTMAXES = (torch.softmax, Tensor.softmax, functional.softmax)

Combine = Callable[[Sequence[Tensor]], Tensor]
"""Weights of each block, ``[batch, token, token]``, heads averaged -> of all: the same shape."""


def last_block(weights: Sequence[Tensor]) -> Tensor:
    """Take the last block alone."""
    return weights[-1]


def roll_out(weights: Sequence[Tensor]) -> Tensor:
    """Multiply all blocks, half of each the token itself, which the residual path passes on."""
    first, *rest = weights
    own = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device)
    flow = (first + own) / 2
    for one in rest:
        flow = (one + own) / 2 @ flow
    return flow


class _Weights(TorchFunctionMode):
    """While it is active, keeps the weights of self-attention over a number of tokens."""

    def __init__(self, batch: int, tokens: int) -> None:
        super().__init__()
        self.shape = (batch, tokens, tokens)
        self.kept: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run every function as it is."""
        named = dict(kwargs or {})
        output = func(*args, **named)
        if func is FUSED:
            self.keep(weights_of(*args, **named))  # type: ignore[arg-type]
        elif func is MODULES:  # the mode is off inside of it
            named.update(need_weights=True, average_attn_weights=False)
            both = func(*args, **named)
            assert isinstance(both, tuple)
            self.keep(both[1])
        elif func in SOFTMAXES:
            self.keep(output)
        return output

    def keep(self, weights: object) -> None:
        """Average over the heads what has the shape of self-attention."""
        assert isinstance(weights, Tensor)
        if weights.dim() == 4 and (weights.shape[0], *weights.shape[2:]) == self.shape:
            self.kept.append(weights.detach().float().mean(1))


def weights_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return the weights of `torch.nn.functional.scaled_dot_product_attention`, without dropout.

    Returns:
        ``[batch, head, query, key]``; of no shape to keep where heads share keys.
    """
    if query.shape[:-2] != key.shape[:-2]:
        return query.new_empty(0)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1)


@torch.no_grad()
def read_attention(network: nn.Module, batch: Tensor, grid: Layer) -> list[Tensor]:
    """Run a network once and return its attention, block by block.

    Args:
        network: in evaluation mode.
        batch: its input.
        grid: a layer of tokens, whose number the kept attention has.

    Returns:
        ``[batch, token, token]`` of each block: rows attend to columns, heads averaged; empty
        where the network's attention goes through none of the known functions.
    """
    seen = _Weights(len(batch), num_tokens(grid))
    with seen:
        network(batch)
    return seen.kept


def attention_heat(network: nn.Module, batch: Tensor, grid: Layer, combine: Combine) -> Tensor:
    """Return how much of the class token's attention each place gets.

    Where a network has no class token, it is the mean over all tokens, which it pools.

    Returns:
        ``[batch, height, width]`` of the network's input.
    """
    weights = combine(read_attention(network, batch, grid))
    assert grid.first_token is not None
    row = weights[:, 0] if grid.first_token else weights.mean(1)
    maps = row[:, grid.first_token :].reshape(-1, 1, grid.height or 1, grid.width or 1)
    heat: Tensor = functional.interpolate(
        maps, batch.shape[2:], mode="bilinear", align_corners=False
    )[:, 0]
    return heat


def num_tokens(grid: Layer) -> int:
    """Count a layer's tokens, the class token included."""
    return (grid.first_token or 0) + (grid.height or 1) * (grid.width or 1)


def find_attention(module: nn.Module, table: LayerTable, preprocess: Preprocess) -> Layer:
    """Find the deepest layer of tokens, and check that their attention can be read.

    Raises:
        RefusedError: the network has no tokens, or its attention cannot be read.
    """
    grids = [layer for layer in table.layers if layer.first_token is not None]
    device = next((str(parameter.device) for parameter in module.parameters()), "cpu")
    blank = torch.zeros(1, preprocess.channels, preprocess.crop, preprocess.crop, device=device)
    if grids and read_attention(module, blank, grids[-1]):
        return grids[-1]
    what = "whose attention can be read" if grids else "of a vision transformer"
    raise RefusedError(
        f"explain.methods: attention needs tokens {what}, and {table.network} has none; "
        "use occlusion or saliency"
    )
