"""Aliases: the names by which the field knows layers of VGG-like networks.

They follow from the structure, so torchvision's VGG (with and without batch normalization),
AlexNet and any network whose ``features`` are one plain sequence of convolutions and poolings have
them. A block is what lies between two poolings.

    conv2_1, bn2_1, relu2_1   first convolution of block 2, its normalization, its rectification
    conv3, relu3              the third convolution of all (the running names of the HDF5 seed)
    pool2, block2             the pooling that ends block 2 (the block's output)
    block2_conv1, block2_pool Keras' names (Keras has the ReLU inside; here the convolution's own
                              output is meant, negative values included)
    fc6, fc7, fc8             the fully connected layers, numbered on from the last block

AlexNet has Caffe's names too: its last pooling is ``pool5`` as well as ``pool3``.
"""

from collections.abc import Iterator

from torch import nn

PARTS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Dropout)
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
ALEXNET_FIRST_FC = 6  # Krizhevsky et al. 2012 count five convolutions, then fc6, fc7, fc8


def find_aliases(module: nn.Module) -> dict[str, str]:
    """Find the aliases of a network.

    Returns:
        Dotted names by alias; none where the network is not VGG-like.
    """
    features = getattr(module, "features", None)
    if not isinstance(features, nn.Sequential) or not is_plain(features):
        return {}
    aliases = dict(feature_aliases(features))
    num_blocks = sum(isinstance(part, POOLS) for part in features)
    first = num_blocks + 1
    if single_convolutions(features):
        aliases[f"pool{ALEXNET_FIRST_FC - 1}"] = aliases[f"pool{num_blocks}"]
        first = ALEXNET_FIRST_FC
    return {**aliases, **dict(classifier_aliases(module, first))}


def is_plain(features: nn.Sequential) -> bool:
    """Whether this is a plain sequence of convolutions and poolings."""
    parts = list(features)
    pooled = any(isinstance(part, POOLS) for part in parts)
    return pooled and all(isinstance(part, PARTS) for part in parts)


def single_convolutions(features: nn.Sequential) -> bool:
    """Whether this is AlexNet: five convolutions in three blocks of 1, 1 and 3."""
    kinds = "".join(
        "p" if isinstance(part, POOLS) else "c"
        for part in features
        if isinstance(part, (nn.Conv2d, *POOLS))
    )
    return kinds == "cpcpcccp"


def feature_aliases(features: nn.Sequential) -> Iterator[tuple[str, str]]:
    """Walk the sequence and name each part."""
    block, inside, running = 1, 0, 0
    for position, part in features.named_children():
        name = f"features.{position}"
        if isinstance(part, nn.Conv2d):
            inside, running = inside + 1, running + 1
            yield f"block{block}_conv{inside}", name
        if isinstance(part, POOLS):
            yield from ((alias, name) for alias in pool_names(block))
            block, inside = block + 1, 0
        elif inside and (kind := kind_of(part)):
            yield f"{kind}{block}_{inside}", name
            yield f"{kind}{running}", name


def pool_names(block: int) -> tuple[str, str, str]:
    """Return the names of the pooling that ends a block."""
    return f"pool{block}", f"block{block}", f"block{block}_pool"


def kind_of(part: nn.Module) -> str | None:
    """Return the alias of a part between poolings; dropout has none."""
    kinds = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu"}
    return next((kind for known, kind in kinds.items() if isinstance(part, known)), None)


def classifier_aliases(module: nn.Module, first: int) -> Iterator[tuple[str, str]]:
    """Yield the fully connected layers of ``classifier``."""
    classifier = getattr(module, "classifier", None)
    if isinstance(classifier, nn.Sequential):
        layers = [p for p, part in classifier.named_children() if isinstance(part, nn.Linear)]
        for number, position in enumerate(layers, start=first):
            yield f"fc{number}", f"classifier.{position}"
