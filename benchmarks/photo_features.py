"""Mean-pooled channels of SqueezeNet 1.1 for the shared photos, clean and with faults, cached."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from cnnvis_ray.config import Network
from cnnvis_ray.images import thumbnail
from cnnvis_ray.network import (
    activations,
    build_module,
    channel_means,
    resolve_network,
    trace_layers,
)

LAYERS = ("features.3", "features.5", "features.7", "features.10", "features.12")
LOGITS = "classifier.3"
BATCH = 32
FAULTED = 3  # every third photo is there with faults
Features = dict[str, npt.NDArray[np.float32]]
Edit = Callable[[Image.Image], Image.Image]


def half_resolution(image: Image.Image) -> Image.Image:
    """Lose every second pixel and come back to the size before."""
    return half_size(image).resize(image.size)


def half_size(image: Image.Image) -> Image.Image:
    """Halve both sides."""
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)))


def jpeg_40(image: Image.Image) -> Image.Image:
    """Compress as hard as JPEG quality 40."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def crop_80(image: Image.Image) -> Image.Image:
    """Keep the central 80 % of both sides."""
    across, down = image.width // 10, image.height // 10
    return image.crop((across, down, image.width - across, image.height - down))


EDITS: dict[str, Edit] = {
    "clean": lambda image: image,
    "half resolution": half_resolution,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "JPEG 40": jpeg_40,
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "half size": half_size,
    "crop": crop_80,
    "flip": ImageOps.mirror,
}
FAULTS = ("half resolution", "brighter", "JPEG 40", "blur", "grey")
DUPLICATES = ("JPEG 40", "half size", "crop", "flip", "brighter")


@dataclass(frozen=True, slots=True)
class Photos:
    """Features of one edit of all photos.

    Attributes:
        features: by layer, ``image channel``; the logits under `LOGITS`.
        labels: the folder of each photo.
        thumbnails: JPEG, 128 pixels.
    """

    features: Features
    labels: tuple[str, ...]
    thumbnails: tuple[bytes, ...]


def load_photos(shared: Path, cache: Path, edit: str, every: int = 1) -> Photos:
    """Return the features of one edit of each ``every``-th photo, from the cache where it is."""
    paths = sorted((shared / "data" / "photos").glob("*/*.*"))[::every]
    file = cache / f"{edit.replace(' ', '-')}-{every}.npz"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        features, thumbnails = forward_all(shared, paths, EDITS[edit])
        sizes = np.array([len(each) for each in thumbnails])
        packed = np.frombuffer(b"".join(thumbnails), np.uint8)
        np.savez(file, allow_pickle=False, sizes=sizes, packed=packed, **features)
    with np.load(file, allow_pickle=False) as archive:
        ends = np.cumsum(archive["sizes"])
        whole = archive["packed"].tobytes()
        pieces = tuple(
            whole[end - size : end] for end, size in zip(ends, archive["sizes"], strict=True)
        )
        kept = {name: archive[name] for name in (*LAYERS, LOGITS)}
    return Photos(kept, tuple(path.parent.name for path in paths), pieces)


def forward_all(shared: Path, paths: Sequence[Path], edit: Edit) -> tuple[Features, list[bytes]]:
    """Run the network over edited photos."""
    weights = shared / "weights" / "squeezenet1_1.safetensors"
    network = resolve_network(Network(name="squeezenet1_1", weights=str(weights)), seed=0)
    module = build_module(network)
    layers = trace_layers(module, network.preprocess).select([*LAYERS, LOGITS])
    found: dict[str, list[npt.NDArray[np.float32]]] = {layer.name: [] for layer in layers}
    thumbnails: list[bytes] = []
    for first in range(0, len(paths), BATCH):
        images = [edit(Image.open(path).convert("RGB")) for path in paths[first : first + BATCH]]
        thumbnails += [thumbnail(image, 128) for image in images]
        pixels = np.stack([network.preprocess.fit(image) for image in images])
        with torch.inference_mode():
            outputs = activations(module, layers, network.preprocess.normalize(pixels))
        for name, maps in outputs.items():
            found[name].append(channel_means(maps).numpy())
    return {name: np.concatenate(pieces) for name, pieces in found.items()}, thumbnails
