"""The verb ``layers``: what a network is made of. No weights are needed."""

from collections.abc import Sequence

from cnnvis_ray.config import PreprocessValues, load_config
from cnnvis_ray.network import format_table, from_values, skeleton, trace_layers


def describe_layers(name: str, sets: Sequence[str], size: int | None = None) -> str:
    """Trace a network by name and lay its layers out as text.

    Args:
        name: torchvision's, or ``package.module:factory``.
        sets: settings, such as ``network.preprocess={resize: 64, crop: 64}``.
        size: of a square input, pixels, instead of the preprocess's.

    Raises:
        RefusedError: there is no such network, or the input is too small for it.
    """
    asked = load_config(None, sets).network.preprocess
    given = from_values(asked) if isinstance(asked, PreprocessValues) else None
    module, preprocess = skeleton(name, given, size)
    return format_table(trace_layers(module, preprocess, name))
