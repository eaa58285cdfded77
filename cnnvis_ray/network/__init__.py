"""Networks: loading, preprocess, layers, capture, pooling, responses, predictions; plain torch."""

from cnnvis_ray.network import lean_import  # noqa: F401  before any torchvision
from cnnvis_ray.network.activations.capture import Forward, Observer, activations, capture
from cnnvis_ray.network.activations.exchange import pooled_first
from cnnvis_ray.network.activations.pooling import POOLINGS, Pooling, make_pooling
from cnnvis_ray.network.activations.responses import (
    channel_means,
    channel_peaks,
    channel_responses,
    places,
)
from cnnvis_ray.network.coverage import (
    Prediction,
    check_coverage,
    classifies,
    covers_head,
    top_predictions,
)
from cnnvis_ray.network.device import forward_precision, prepare_device
from cnnvis_ray.network.layers.table import Layer, LayerTable, format_table, trace_layers
from cnnvis_ray.network.loading.build import ResolvedNetwork, build_module
from cnnvis_ray.network.loading.preprocess import Preprocess, from_values
from cnnvis_ray.network.loading.resolve import resolve_network, skeleton
from cnnvis_ray.network.loading.weights import wordnet_ids

__all__ = [
    "POOLINGS",
    "Forward",
    "Layer",
    "LayerTable",
    "Observer",
    "Pooling",
    "Prediction",
    "Preprocess",
    "ResolvedNetwork",
    "activations",
    "build_module",
    "capture",
    "channel_means",
    "channel_peaks",
    "channel_responses",
    "check_coverage",
    "classifies",
    "covers_head",
    "format_table",
    "forward_precision",
    "from_values",
    "make_pooling",
    "places",
    "pooled_first",
    "prepare_device",
    "resolve_network",
    "skeleton",
    "top_predictions",
    "trace_layers",
    "wordnet_ids",
]
