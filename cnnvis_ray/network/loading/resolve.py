"""Resolving: from the ``network`` section to a `ResolvedNetwork`, once, on the driver.

Weights are found, met with the network (which takes what it knows of them), and the preprocess is
decided. `skeleton` builds a network for its layers alone.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from cnnvis_ray.config import Network, PreprocessValues
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network.loading import factories
from cnnvis_ray.network.loading import weights as sources
from cnnvis_ray.network.loading.build import ResolvedNetwork, hash_state
from cnnvis_ray.network.loading.preprocess import Preprocess, from_values

log = logging.getLogger(__name__)

DEFAULT_SIZE = 224  # pixels; what most networks are published for
NAMES_SHOWN = 6  # of a long list of tensors, in an error of one line

# family, old name, new name: what torchvision renames while it loads published files
# (in its densenet.py and vision_transformer.py)
RENAMED = (
    ("densenet", r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$", r"\1\2"),
    ("vit_", r"^(.*\.mlp)\.linear_1\.(\w+)$", r"\1.0.\2"),
    ("vit_", r"^(.*\.mlp)\.linear_2\.(\w+)$", r"\1.3.\2"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """Weights before they meet the network.

    Attributes:
        label: what was taken, for the records.
        state: tensors by the names the source has for them; empty for random ones.
        metadata: what a safetensors file states about itself.
        published: torchvision's entry whose preprocess and classes apply, if there is one.
        origin: where the weights come from: ``file``, ``published`` or ``random``.
    """

    label: str
    state: dict[str, Tensor]
    metadata: Mapping[str, str]
    published: WeightsEnum | None
    origin: str


def resolve_network(config: Network, seed: int) -> ResolvedNetwork:
    """Decide everything about a network; weights are read or downloaded here and nowhere else.

    Args:
        config: the ``network`` section.
        seed: the run's seed, used by ``weights: random``.

    Raises:
        RefusedError: name, weights or preprocess cannot work; one line that says what to do.
    """
    factories.check_name(config.name)
    found = find_weights(config)
    preprocess, origin = find_preprocess(config, found)
    log.info("preprocess of %s: %s; from %s", config.name, preprocess, origin)
    arguments = factories.usual_arguments(config.name, found.state, preprocess.crop)
    random = found.origin == "random"
    given = random_state(config.name, arguments, seed) if random else found.state
    module, arguments = construct_for(config.name, arguments, given)
    state = match_state(config, module, given)
    return ResolvedNetwork(
        name=config.name,
        weights=found.label,
        state=state,
        state_hash=hash_state(state),
        preprocess=preprocess,
        categories=None if random else find_categories(found, arguments),
        arguments=arguments,
        preprocess_origin=origin,
    )


def find_weights(config: Network) -> Found:
    """Read weights from where the configuration says."""
    torchvision = factories.is_torchvision(config.name)
    usual = sources.default_weights(config.name) if torchvision else None
    if config.weights == "random":
        return Found("random", {}, {}, usual, "random")
    if config.weights != "DEFAULT" and sources.is_file(config.weights):
        file = sources.read_weights(config.weights)
        state = current_names(config.name, file.state)
        return Found(config.weights, state, file.metadata, usual, "file")
    if not torchvision:
        raise RefusedError(
            f"network {config.name!r} has no weights {config.weights!r}; set network.weights to "
            "a path or URI of a weights file (.safetensors, .pth, ...), or to random"
        )
    named = sources.published_weights(config.name, config.weights)
    state = current_names(config.name, sources.download_state(named))
    return Found(named.name, state, {}, named, "published")


def random_state(name: str, arguments: Mapping[str, bool | int], seed: int) -> dict[str, Tensor]:
    """Initialize a network as its builder does, from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if factories.is_torchvision(name):
            initialized = {"init_weights": True} if "init_weights" in arguments else {}
            module = factories.build_torchvision(name, {**arguments, **initialized})
        else:
            module = factories.call_factory(name)
    return dict(module.state_dict())


def skeleton(
    name: str, preprocess: Preprocess | None = None, size: int | None = None
) -> tuple[nn.Module, Preprocess]:
    """Build a network for its layers alone: no weights, nothing to compute with.

    Args:
        name: torchvision's, ``timm:NAME`` or ``package.module:factory``.
        preprocess: of the input; by default what torchvision's default weights need, or what
            another module holds as its attribute ``preprocess``.
        size: side of a square input, pixels, instead of the preprocess's.

    Returns:
        The module, torchvision's on the meta device, and the preprocess of its input. Where
        nothing states one, it is ``size`` (224 by default) and the channels of the first
        convolution: enough for shapes.

    Raises:
        RefusedError: there is no such network.
    """
    if factories.is_torchvision(name):
        factories.check_name(name)
        usual = sources.default_weights(name)
        preprocess = preprocess or (sources.published_preprocess(usual) if usual else None)
    crop = size or (preprocess.crop if preprocess else DEFAULT_SIZE)
    arguments = factories.usual_arguments(name, {"aux_classifier.": None}, crop)
    module = factories.construct(name, arguments).eval()
    stated = preprocess or getattr(module, "preprocess", None)
    if not isinstance(stated, Preprocess):
        channels = first_channels(module)
        stated = Preprocess(crop, crop, channels, (0.0,) * channels, (1.0,) * channels)
    return module, replace(stated, resize=size, crop=size) if size else stated


def first_channels(module: nn.Module) -> int:
    """Read how many channels the first convolution takes; 3 where there is none."""
    widths = (part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d))
    return next(widths, 3)


def find_preprocess(config: Network, found: Found) -> tuple[Preprocess, str]:
    """Find the preprocess, and where it comes from, for the log and the records.

    The configuration decides, then what the weights or the architecture state.

    Raises:
        RefusedError: nothing states it.
    """
    if isinstance(config.preprocess, PreprocessValues):
        return from_values(config.preprocess), "network.preprocess"
    if (text := found.metadata.get("preprocess")) is not None:
        return parse_preprocess(found.label, text), "the metadata of the weights file"
    if found.published is not None:
        recipe = sources.published_preprocess(found.published)
        origin = f"torchvision's published weights {found.published.name}"
        if found.origin == "file":
            origin += (
                ", since the weights file states none (set network.preprocess if it was trained "
                "with another)"
            )
        return recipe, origin
    if not factories.is_torchvision(config.name):
        stated = getattr(factories.call_factory(config.name), "preprocess", None)
        if isinstance(stated, Preprocess):
            return stated, f"what {config.name} states of itself"
    raise RefusedError(
        f"weights {found.label!r} of {config.name} state no preprocess; set "
        "network.preprocess to {resize, crop, channels, mean, std}"
    )


def parse_preprocess(label: str, text: str) -> Preprocess:
    """Read the preprocess in a safetensors file's metadata."""
    try:
        return from_values(PreprocessValues.model_validate_json(text))
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RefusedError(
            f"weights {label!r}: their metadata 'preprocess' is wrong at {where or 'its start'}: "
            f"{first['msg']}"
        ) from None


def find_categories(found: Found, arguments: Mapping[str, bool | int]) -> tuple[str, ...] | None:
    """Find the names of the classes; published ones hold for a head of that width only."""
    if (text := found.metadata.get("categories")) is not None:
        return parse_categories(found.label, text)
    if found.published is None:
        return None
    names = sources.published_categories(found.published)
    return names if arguments.get("num_classes", len(names)) == len(names) else None


def parse_categories(label: str, text: str) -> tuple[str, ...]:
    """Read the class names in a safetensors file's metadata."""
    try:
        names = json.loads(text)
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list):
        raise RefusedError(f"weights {label!r}: their metadata 'categories' is not a JSON list")
    return tuple(str(name) for name in names)


def current_names(network: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an old published file as the network names them today."""
    current = dict(state)
    for family, old, new in RENAMED:
        if network.startswith(family):
            current = {re.sub(old, new, name): tensor for name, tensor in current.items()}
    return current


def construct_for(
    name: str, arguments: dict[str, bool | int], state: Mapping[str, Tensor]
) -> tuple[nn.Module, dict[str, bool | int]]:
    """Build the network; where only the head's width differs, as wide as the weights' head.

    So a torchvision network that was trained again on other classes loads by its name.
    """
    module = factories.construct(name, arguments)
    wrong = mismatches(module, state)
    widths = {state[key].shape[:1] for key in wrong}
    if not factories.is_torchvision(name) or len(widths) != 1 or not (width := widths.pop()):
        return module, arguments
    wider = {**arguments, "num_classes": int(width[0])}
    rebuilt = factories.construct(name, wider)
    return (module, arguments) if mismatches(rebuilt, state) else (rebuilt, wider)


def mismatches(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """List the tensors whose shapes differ between the weights and the network."""
    return [
        name
        for name, tensor in module.state_dict().items()
        if name in state and state[name].shape != tensor.shape
    ]


def match_state(
    config: Network, module: nn.Module, given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Select what the network knows, in its dtypes; tied tensors appear under all names.

    Raises:
        RefusedError: shapes differ, nothing fits, or a value is not finite.
    """
    own = module.state_dict(keep_vars=True)
    if wrong := mismatches(module, given):
        shapes = [f"{n} {tuple(given[n].shape)}, needs {tuple(own[n].shape)}" for n in wrong]
        raise RefusedError(
            f"weights {config.weights!r} do not fit {config.name}: {shorten(shapes, '; ')}"
        )
    tied = {id(tensor): given[name] for name, tensor in own.items() if name in given}
    state = {
        name: given.get(name, tied[id(tensor)]).detach().to("cpu", tensor.dtype)
        for name, tensor in own.items()
        if id(tensor) in tied
    }
    if own and not state:
        raise RefusedError(
            f"weights {config.weights!r} hold nothing of {config.name}: "
            f"they hold {shorten(list(given))}; it needs {shorten(list(own))}"
        )
    check_finite(config, state)
    return state


def check_finite(config: Network, state: Mapping[str, Tensor]) -> None:
    """Refuse weights with NaN or infinity, which would spread silently into every feature."""
    broken = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise RefusedError(
            f"weights {config.weights!r} hold NaN or infinity in {shorten(broken)}; "
            "give weights of a training that converged"
        )


def shorten(names: list[str], separator: str = ", ") -> str:
    """Join the first of many names and count the rest."""
    more = len(names) - NAMES_SHOWN
    return separator.join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
