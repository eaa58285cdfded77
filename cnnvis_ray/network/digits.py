"""The project's own small network: VGG in miniature for handwritten digits.

It lets the quickstart run every stage without a download: it is trained in seconds on part of the
1,797 digits that scikit-learn ships, and saved with all that ``preprocess: auto`` needs.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from cnnvis_ray.errors import IncompleteError
from cnnvis_ray.network.loading.preprocess import Preprocess

# mean and std: of the digits' pixels, resized to 32 x 32
PREPROCESS = Preprocess(resize=32, crop=32, channels=1, mean=(0.31,), std=(0.33,))
CATEGORIES = tuple("0123456789")
BLOCKS = ((16,), (32,), (64, 64), (128,))  # channels of the convolutions between poolings
HELD_OUT = 0.3
LOWEST_ACCURACY = 0.97
BATCH = 64
LEARNING_RATE = 3e-3


class DigitsVgg(nn.Module):
    """Convolutions and ReLUs in blocks that end with a pooling, then one linear layer.

    The head reads the mean over each map, so mean-pooled features of ``pool4`` form one cluster a
    digit (t-SNE: silhouette 0.65, with two linear layers on the flattened maps 0.28).
    """

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = PREPROCESS
        self.features = nn.Sequential(*feature_layers())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(BLOCKS[-1][-1], 10))

    def forward(self, batch: Tensor) -> Tensor:
        """Return class logits ``[batch, 10]`` for grey images ``[batch, 1, 32, 32]``."""
        maps = self.avgpool(self.features(batch))
        logits: Tensor = self.classifier(torch.flatten(maps, 1))
        return logits


def feature_layers() -> list[nn.Module]:
    """List the layers of ``features``."""
    layers: list[nn.Module] = []
    channels = PREPROCESS.channels
    for block in BLOCKS:
        for wider in block:
            layers += [nn.Conv2d(channels, wider, 3, padding=1), nn.ReLU(inplace=True)]
            channels = wider
        layers.append(nn.MaxPool2d(2))
    return layers


def digits_vgg() -> nn.Module:
    """Build the network; the configuration calls it ``cnnvis_ray.network.digits:digits_vgg``."""
    return DigitsVgg()


def train_digits(path: str, seed: int = 0, epochs: int = 15) -> float:
    """Train the network on 70 % of scikit-learn's digits and save it as safetensors.

    Args:
        path: of the file to write; its metadata hold ``preprocess`` and ``categories``.
        seed: of the split, the initialization and the order of the batches.
        epochs: passes over the training part.

    Returns:
        Share of the other 30 % that is recognized.

    Raises:
        IncompleteError: that share is below 0.97; nothing is written.
    """
    images, labels = fitted_digits()
    train, held_out = split(labels, seed)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        module = digits_vgg()
        fit(module, images[train], labels[train], epochs)
    recognized = recognize(module, images[held_out]) == labels[held_out]
    accuracy = float(recognized.float().mean())
    if accuracy < LOWEST_ACCURACY:
        raise IncompleteError(
            f"digits: {accuracy:.1%} of the held-out digits recognized, allowed is at least "
            f"{LOWEST_ACCURACY:.0%}; try another seed or more epochs"
        )
    metadata = {"preprocess": json.dumps(asdict(PREPROCESS)), "categories": json.dumps(CATEGORIES)}
    safetensors.torch.save_file(module.state_dict(), path, metadata)
    return accuracy


def fitted_digits() -> tuple[Tensor, Tensor]:
    """Return the digits as any image source's images reach the network.

    Returns:
        Network inputs, float32 ``[1797, 1, 32, 32]``, and labels, int64 ``[1797]``.
    """
    from sklearn.datasets import load_digits  # slow to import, and only training needs it

    digits = load_digits()
    grey = np.rint(digits.images * 255 / 16).astype(np.uint8)
    fitted = [PREPROCESS.fit(Image.fromarray(image).convert("RGB")) for image in grey]
    return PREPROCESS.normalize(np.stack(fitted)), torch.from_numpy(digits.target.astype(np.int64))


def split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Split positions into a training and a held-out part with equal shares of every digit."""
    generator = torch.Generator().manual_seed(seed)
    train, held_out = [], []
    for digit in range(len(CATEGORIES)):
        own = torch.nonzero(labels == digit)[:, 0]
        own = own[torch.randperm(len(own), generator=generator)]
        cut = round(HELD_OUT * len(own))
        held_out.append(own[:cut])
        train.append(own[cut:])
    return torch.cat(train), torch.cat(held_out)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: so small are the batches that on busy cores several only wait.

    Measured: 8 s on one thread; on two, with both cores busy otherwise, over a minute.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(module: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train with Adam, the learning rate falling to zero in a half cosine."""
    optimizer = torch.optim.Adam(module.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    module.train()
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(images[chosen]), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    module.eval()


@torch.inference_mode()
def recognize(module: nn.Module, images: Tensor) -> Tensor:
    """Return the most probable digit of each image."""
    answer: Tensor = module(images).argmax(1)
    return answer
