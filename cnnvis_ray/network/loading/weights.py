"""Weights: from a path, a URI or a published name to named tensors; no code of a file is run.

A file is judged by its content, not by its suffix: ``.pth``, ``.pt``, ``.th``, ``.bin`` and
``.ckpt`` are all written by ``torch.save`` and read with ``torch.load(weights_only=True)``; a
state below ``state_dict`` or ``model`` and the prefix ``module.`` (DataParallel) are understood.
Safetensors may carry metadata: ``preprocess`` (JSON with the keys of the configuration's
``network.preprocess``) and ``categories`` (a JSON list of class names).

Published weights are those that torchvision names, with the preprocess and classes they state.
"""

import io
import json
import socket
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError

import safetensors.torch
import torch
from torch import Tensor
from torchvision import models
from torchvision.models import WeightsEnum

from cnnvis_ray.errors import RefusedError, near
from cnnvis_ray.network.loading.preprocess import Preprocess
from cnnvis_ray.storage import StoreError, check_address, locate, store_errors

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
PREFIXES = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's
DEEPEST_WRAPPER = 8  # a damaged pickle may hold a mapping that holds itself
TORCH_STARTS = (b"PK\x03\x04", b"\x80\x02")  # torch.save's archive, and its format before 1.6
LFS_POINTER = b"version https://git-lfs"
DOWNLOAD_TIMEOUT_SECONDS = 10.0  # then a job without internet learns it


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a file holds: tensors by name, and what it states about itself."""

    state: dict[str, Tensor]
    metadata: dict[str, str]


def is_file(weights: str) -> bool:
    """Whether this is a path or URI and not the name of published weights."""
    suffix = PurePosixPath(weights).suffix
    return "/" in weights or suffix in SUFFIXES or Path(weights).is_file()


def read_weights(path: str) -> WeightsFile:
    """Read a path or URI.

    Raises:
        RefusedError: it cannot be read, is damaged, or would need code to be run.
    """
    check_address(path)
    content = read_bytes(path)
    if content.startswith(TORCH_STARTS):
        return WeightsFile(parse_torch(path, content), {})
    if content[8:9] == b"{":  # safetensors: eight bytes of length, then a JSON header
        return parse_safetensors(path, content)
    advice = "save module.state_dict() again, best as .safetensors"
    if content.startswith(LFS_POINTER):
        advice = "it is a pointer of Git LFS; fetch the file itself (git lfs pull)"
    raise RefusedError(
        f"weights {path!r} are neither safetensors nor a file of torch.save, or are damaged; "
        f"{advice}"
    )


def read_bytes(path: str) -> bytes:
    """Read all of a path or URI; errors of any file system in one line, without credentials."""
    try:
        file_system, place = locate(path)
        with store_errors(path), file_system.open(place, "rb") as stream:
            content = stream.read()
    except (OSError, RefusedError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, StoreError) else failure
        text = " ".join(str(reason).split())
        raise RefusedError(f"weights {path!r} cannot be read: {text}") from failure
    assert isinstance(content, bytes)
    return content


def parse_safetensors(path: str, content: bytes) -> WeightsFile:
    """Read tensors and metadata of a safetensors file.

    Raises:
        RefusedError: it is damaged, or torch has no such dtype.
    """
    try:
        state = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except Exception as failure:  # a damaged file, or a dtype that torch does not have
        raise RefusedError(
            f"weights {path!r} are damaged or hold a dtype that torch cannot read "
            f"({shorten_reason(failure)}); save them again as float32 or float16"
        ) from failure
    return WeightsFile(strip_prefixes(find_state(path, state)), header.get("__metadata__") or {})


def parse_torch(path: str, content: bytes) -> dict[str, Tensor]:
    """Read the state in a ``torch.save`` file, refusing anything but plain tensors.

    Raises:
        RefusedError: it is damaged, or holds objects whose loading would run code.
    """
    try:
        loaded: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as failure:  # damage shows as any exception of the unpickler's
        raise RefusedError(
            f"weights {path!r} hold more than tensors or are damaged "
            f"({shorten_reason(failure)}); save module.state_dict(), best as .safetensors"
        ) from failure
    return strip_prefixes(find_state(path, loaded))


def shorten_reason(failure: Exception) -> str:
    """Write the first line of a failure, or its kind where it has no text."""
    return (str(failure).strip().split("\n")[0] or type(failure).__name__)[:160]


def find_state(path: str, loaded: object, depth: int = 0) -> dict[str, Tensor]:
    """Find the mapping of names to tensors, below a wrapper key where there is one."""
    if not isinstance(loaded, Mapping) or depth > DEEPEST_WRAPPER:
        raise RefusedError(
            f"weights {path!r} hold a {type(loaded).__name__}, allowed is a state dict; "
            "save module.state_dict()"
        )
    for wrapper in WRAPPERS:
        if isinstance(loaded.get(wrapper), Mapping):
            return find_state(path, loaded[wrapper], depth + 1)
    state = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if odd := [key for key, tensor in state.items() if not is_plain(tensor)]:
        raise RefusedError(
            f"weights {path!r}: {odd[0]} is sparse, quantized, complex or without values; "
            "save dense tensors of real numbers"
        )
    if not state:
        raise RefusedError(
            f"weights {path!r} hold no tensors; keys: {', '.join(map(repr, list(loaded)[:5]))}; "
            "save module.state_dict()"
        )
    return state


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is a dense array of real numbers."""
    dense = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    return dense and not tensor.is_complex()


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that all names share because a wrapper was saved, not the network."""
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return strip_prefixes({key[len(prefix) :]: state[key] for key in state})
    return dict(state)


def published_weights(network: str, name: str) -> WeightsEnum:
    """Find torchvision's weights of a network, ``DEFAULT`` or by name.

    Raises:
        RefusedError: the network has no such weights; lists those it has.
    """
    known: type[WeightsEnum] = models.get_model_weights(network)
    short = name.removeprefix(f"{known.__name__}.")
    if short in known.__members__:
        return known[short]
    names = [*(["DEFAULT"] if "DEFAULT" in known.__members__ else []), *(w.name for w in known)]
    listed = near(short, names) or names
    raise RefusedError(
        f"network.weights: no weights {name!r} for {network}; allowed: {', '.join(listed)}, "
        "a path or URI of a weights file, or random"
    )


def default_weights(network: str) -> WeightsEnum | None:
    """Find the weights torchvision takes by default; None where none are published."""
    known: type[WeightsEnum] = models.get_model_weights(network)
    return known.__members__.get("DEFAULT")


def download_state(weights: WeightsEnum) -> dict[str, Tensor]:
    """Read published weights from torch hub's folder, or download them into it.

    Raises:
        RefusedError: they are not there and cannot be downloaded; says where to put the file.
    """
    file_name = PurePosixPath(weights.url).name
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        with socket_timeout(DOWNLOAD_TIMEOUT_SECONDS):
            state: dict[str, Tensor] = weights.get_state_dict(
                progress=False, check_hash=True, weights_only=True, map_location="cpu"
            )
    except (urllib.error.URLError, OSError, RuntimeError, UnpicklingError) as failure:
        reason = " ".join(str(failure).split())
        raise RefusedError(
            f"weights {weights} cannot be downloaded: {reason[:200]}; set network.weights to a "
            f"path, or place {file_name} (from {weights.url}) into {folder}"
        ) from failure
    return state


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Bound every wait of the block for the network."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def published_preprocess(weights: WeightsEnum) -> Preprocess:
    """Read what published weights need; segmentation presets crop a square of their size."""
    preset = weights.transforms()
    crop = getattr(preset, "crop_size", preset.resize_size)
    return Preprocess(
        resize=int(preset.resize_size[0]),
        crop=int(crop[0]),
        channels=3,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=str(preset.interpolation.value),
    )


@lru_cache
def wordnet_ids(categories: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the WordNet ids of ImageNet's classes (n01440764), None for any other classes."""
    if categories != published_categories(models.ResNet50_Weights.DEFAULT):
        return None
    from timm.data.imagenet_info import ImageNetInfo  # slow to import; only image sheets need it

    known = ImageNetInfo()
    return tuple(known.index_to_label_name(index) for index in range(len(categories)))


def published_categories(weights: WeightsEnum) -> tuple[str, ...]:
    """Read the names of the classes, in the order of the head."""
    return tuple(str(name) for name in weights.meta["categories"])
