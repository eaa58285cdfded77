"""Vision transformers of both libraries, so small that they cost nothing; random weights."""

import timm
import torch
from torch import nn
from torchvision import models

from cnnvis_ray.network import Preprocess

CROP, PATCH, WIDTH = 32, 8, 12
PREPROCESS = Preprocess(CROP, CROP, 3, (0.5,) * 3, (0.25,) * 3)
PATCHES = {"torchvision": "conv_proj", "timm": "patch_embed.proj", "registers": "patch_embed.proj"}
TOKENS = {"torchvision": "encoder.dropout", "timm": "patch_drop", "registers": "patch_drop"}
BLOCKS = {"torchvision": "encoder.layers.encoder_layer_1", "timm": "blocks.1"}


def transformer(library: str) -> nn.Module:
    """Build two blocks of two heads over 4 x 4 patches, frozen; 5 classes."""
    torch.manual_seed(0)
    built: nn.Module
    if library == "torchvision":
        built = models.VisionTransformer(
            image_size=CROP, patch_size=PATCH, num_layers=2, num_heads=2, hidden_dim=WIDTH,
            mlp_dim=24, num_classes=5,
        )  # fmt: skip
        nn.init.normal_(built.get_parameter("heads.head.weight"))  # zeros, as torchvision makes it
    else:
        registers = 3 if library == "registers" else 0
        built = timm.models.VisionTransformer(
            img_size=CROP, patch_size=PATCH, depth=2, num_heads=2, embed_dim=WIDTH,
            num_classes=5, reg_tokens=registers,
        )  # fmt: skip
    return built.eval().requires_grad_(False)


def tiny() -> nn.Module:
    """Build timm's as a run names it, with its preprocess."""
    module = transformer("timm")
    setattr(module, "preprocess", PREPROCESS)  # noqa: B010  # mypy: not declared
    return module
