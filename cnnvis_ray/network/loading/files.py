"""Weights files: bytes of a path or URI to named tensors, without running code from data.

``.safetensors`` may carry metadata: ``preprocess`` (JSON with the keys of the configuration's
``network.preprocess``) and ``categories`` (a JSON list of class names). ``.pth`` and ``.pt`` are
read with ``torch.load(weights_only=True)``; a state below ``state_dict`` or ``model`` and the
prefix ``module.`` (DataParallel) are understood.
"""

import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.storage import StoreError, check_address, locate, store_errors

SUFFIXES = (".safetensors", ".pth", ".pt")
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
PREFIXES = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a file holds: tensors by name, and what it states about itself."""

    state: dict[str, Tensor]
    metadata: dict[str, str]


def is_file(weights: str) -> bool:
    """Tell a path or URI from the name of published weights."""
    return PurePosixPath(weights).suffix in SUFFIXES or "/" in weights


def read_weights(path: str) -> WeightsFile:
    """Read a path or URI.

    Raises:
        RefusedError: it cannot be read, is damaged, or would need code to be run.
    """
    check_address(path)
    suffix = PurePosixPath(path).suffix
    if suffix not in SUFFIXES:
        raise RefusedError(f"weights {path!r}: allowed are {', '.join(SUFFIXES)}")
    content = read_bytes(path)
    if suffix == ".safetensors":
        return parse_safetensors(path, content)
    return WeightsFile(parse_torch(path, content), {})


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
    """Read tensors and metadata of a safetensors file."""
    try:
        state = safetensors.torch.load(content)
    except safetensors.SafetensorError as failure:
        raise RefusedError(f"weights {path!r} are damaged: {failure}") from failure
    header_bytes = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_bytes])
    return WeightsFile(strip_prefixes(state), header.get("__metadata__") or {})


def parse_torch(path: str, content: bytes) -> dict[str, Tensor]:
    """Read the state in a ``torch.save`` file, refusing anything but plain tensors."""
    try:
        loaded: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as failure:
        reason = str(failure).strip().split("\n")[0]
        raise RefusedError(
            f"weights {path!r} hold more than tensors or are damaged ({reason[:160]}); "
            "save module.state_dict(), best as .safetensors"
        ) from failure
    return strip_prefixes(find_state(path, loaded))


def find_state(path: str, loaded: object) -> dict[str, Tensor]:
    """Find the mapping of names to tensors, below a wrapper key where there is one."""
    if not isinstance(loaded, Mapping):
        raise RefusedError(
            f"weights {path!r} hold {type(loaded).__name__}, allowed is a state dict"
        )
    for wrapper in WRAPPERS:
        if isinstance(loaded.get(wrapper), Mapping):
            return find_state(path, loaded[wrapper])
    state = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not state:
        raise RefusedError(
            f"weights {path!r} hold no tensors; keys: {', '.join(map(str, list(loaded)[:5]))}"
        )
    return state


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off prefixes that all names share because a wrapper was saved, not the network."""
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return strip_prefixes({key[len(prefix) :]: state[key] for key in state})
    return dict(state)
