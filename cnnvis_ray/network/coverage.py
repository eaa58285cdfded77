"""What the weights allow: which layers, whether the head, and the predictions it makes.

Weights need not cover the whole network, only what the asked layers use.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network.layers.table import Layer, LayerTable
from cnnvis_ray.network.loading.build import ResolvedNetwork

Prediction = tuple[int, str, float]

NAMES_SHOWN = 8  # of the missing tensors, in an error of one line


def check_coverage(resolved: ResolvedNetwork, table: LayerTable, layers: Sequence[Layer]) -> None:
    """Refuse layers that need tensors which the weights do not hold.

    Args:
        resolved: holds the weights.
        table: of the same network; its trace knows what a forward pass uses, and when.
        layers: the asked ones.

    Raises:
        RefusedError: names the shallowest such layer and the tensors that are missing for it.
    """
    for layer in layers:
        missing = [name for name in table.used[: layer.num_used] if name not in resolved.state]
        if missing:
            more = len(missing) - NAMES_SHOWN
            names = ", ".join(missing[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
            called = f" ({layer.aliases[0]})" if layer.aliases else ""
            raise RefusedError(
                f"weights {resolved.weights!r} do not cover what {layer.name}{called} of "
                f"{resolved.name} needs; missing: {names}; ask for shallower layers or give "
                "weights that hold them"
            )


def covers_head(resolved: ResolvedNetwork, table: LayerTable) -> bool:
    """Whether the weights hold everything that a whole forward pass uses."""
    return all(name in resolved.state for name in table.used)


def classifies(resolved: ResolvedNetwork, table: LayerTable) -> bool:
    """Whether there are predictions: class logits whose classes have names, and a head.

    The output must be one number per class, the classes known by as many names, and the weights
    must hold all that a whole forward pass uses (random weights know no classes).
    """
    if resolved.categories is None or table.output != (len(resolved.categories),):
        return False
    return covers_head(resolved, table)


@torch.inference_mode()
def top_predictions(
    logits: Tensor, categories: Sequence[str], k: int = 5
) -> list[list[Prediction]]:
    """List the most probable classes of each image.

    Args:
        logits: before softmax, shape ``[batch, classes]``.
        categories: names of the classes.
        k: how many; fewer where there are fewer classes.

    Returns:
        For each image (class id, name, probability), most probable first, equal ones by id.

    Raises:
        ValueError: there are not as many names as classes.
    """
    if logits.dim() != 2 or logits.shape[1] != len(categories):
        raise ValueError(f"{len(categories)} names for logits of shape {tuple(logits.shape)}")
    probabilities = logits.float().softmax(1).cpu()
    ranked, ids = probabilities.sort(dim=1, descending=True, stable=True)
    return [
        [(i, categories[i], p) for i, p in zip(row_ids[:k], row[:k], strict=True)]
        for row_ids, row in zip(ids.tolist(), ranked.tolist(), strict=True)
    ]
