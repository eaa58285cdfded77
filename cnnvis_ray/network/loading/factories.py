"""Factories: from a network's name to a module without trained weights.

A name is torchvision's (classification or segmentation), ``timm:NAME`` or
``package.module:factory``. A torchvision module's tensors are empty on the meta device, so it
costs no memory and no time. A user's own factory, and timm's, may do anything while it builds, so
it runs on the CPU as it is. Nothing here downloads.

timm states for each architecture what its published weights need of an image, so that
``preprocess: auto`` works; weights come from a file, or are random where asked.
"""

import importlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from cnnvis_ray.errors import RefusedError, near
from cnnvis_ray.network.loading.preprocess import INTERPOLATIONS, Preprocess

Arguments = Mapping[str, bool | int]
TIMM = "timm:"
USERS_FAILURES = (Exception, SystemExit)  # sys.exit(0) in a user's module would end a run as done


def is_torchvision(name: str) -> bool:
    """Whether a name is torchvision's and not ``package.module:factory`` or ``timm:NAME``."""
    return ":" not in name


def is_segmentation(name: str) -> bool:
    """Whether a torchvision name is a segmentation network."""
    return name in models.list_models(module=models.segmentation)


def check_name(name: str) -> None:
    """Refuse a name that is neither torchvision's nor a factory.

    Raises:
        RefusedError: with near names, or because only classification and segmentation work.
    """
    if not is_torchvision(name):
        import_factory(name)
        return
    known = models.list_models(module=models) + models.list_models(module=models.segmentation)
    if name in known:
        return
    if name in models.list_models():
        raise RefusedError(
            f"network.name: {name!r} neither classifies nor segments single images; "
            "allowed are torchvision's classification and segmentation networks"
        )
    hints = near(name.lower(), known) or ["alexnet", "resnet50", "vgg16"]
    raise RefusedError(
        f"network.name: no network {name!r}; did you mean {', '.join(hints)}? "
        "(a torchvision name, timm:NAME or package.module:factory)"
    )


def construct(name: str, arguments: Arguments) -> nn.Module:
    """Build a network without trained weights.

    Args:
        name: a torchvision name, ``timm:NAME`` or ``package.module:factory``.
        arguments: keywords for torchvision's builder; other factories get none.

    Returns:
        A module on the meta device (torchvision) or on the CPU (other factories).

    Raises:
        RefusedError: there is no such network, or it cannot be built.
    """
    check_name(name)
    if not is_torchvision(name):
        return call_factory(name)
    with EmptyTensorsOnMeta():
        return build_torchvision(name, arguments)


def build_torchvision(name: str, arguments: Arguments) -> nn.Module:
    """Call torchvision's builder so that it downloads nothing."""
    backbone: dict[str, None] = {"weights_backbone": None} if is_segmentation(name) else {}
    module = models.get_model(name, weights=None, **backbone, **arguments)
    assert isinstance(module, nn.Module)
    return module


INITIALIZERS = {
    function
    for name, function in vars(nn.init).items()
    if name.endswith("_") and not name.startswith("_")
} | {Tensor.normal_, Tensor.uniform_}


class EmptyTensorsOnMeta(TorchFunctionMode):
    """Puts what ``torch.empty`` makes (nearly all parameters) on the meta device.

    ``torch.device("meta")`` would catch every tensor, and RegNet computes its widths with some.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Call one torch function, ``torch.empty`` with another device.

        Nothing is drawn for a parameter without numbers: torch would import its compiler for it.
        Predicted: a second of a worker's start. Measured: 1.13 to 0.01 CPU seconds.
        """
        filled = args[0] if args else (kwargs or {}).get("tensor")
        if func in INITIALIZERS and isinstance(filled, Tensor) and filled.is_meta:
            return filled
        meta = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **meta})


def usual_arguments(name: str, state: Mapping[str, object], crop: int) -> dict[str, bool | int]:
    """Choose the builder's keywords as torchvision does when it is given trained weights.

    GoogLeNet and Inception then take ImageNet-normalized input and transform it themselves; their
    auxiliary heads serve training only. A segmentation network has its auxiliary head if the
    weights do. A vision transformer is built for one image size.
    """
    if name.startswith("vit_"):
        return {"image_size": crop}
    if name in ("googlenet", "inception_v3"):
        return {"transform_input": True, "aux_logits": False, "init_weights": False}
    if is_segmentation(name) and not name.startswith("lraspp"):
        return {"aux_loss": any(key.startswith("aux_classifier.") for key in state)}
    return {}


def call_factory(name: str) -> nn.Module:
    """Import and call a factory, leaving the random state as it was.

    Raises:
        RefusedError: it cannot be imported, fails, exits, or returns something else.
    """
    factory = import_factory(name)
    try:
        with torch.random.fork_rng(devices=[]):
            module = factory()
    except USERS_FAILURES as failure:  # a user's code may raise anything; it is input here
        raise RefusedError(f"network {name!r} cannot be built: {one_line(failure)}") from failure
    if not isinstance(module, nn.Module):
        raise RefusedError(
            f"network {name!r} returned a {type(module).__name__}, "
            "allowed is a callable that returns a torch.nn.Module"
        )
    return module


def import_factory(name: str) -> Callable[[], object]:
    """Import ``package.module:factory``, or find ``timm:NAME``.

    Raises:
        RefusedError: there is no such module, callable or architecture of timm.
    """
    module_name, _, attribute = name.partition(":")
    if name.startswith(TIMM):
        return timm_factory(attribute)
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, attribute, None)
    except USERS_FAILURES as failure:
        raise RefusedError(
            f"network {name!r} cannot be imported: {one_line(failure)} "
            "(is its folder on PYTHONPATH?)"
        ) from failure
    if not callable(factory):
        hints = near(attribute, vars(module))
        meant = f"did you mean {', '.join(hints)}?" if hints else "allowed: package.module:factory"
        raise RefusedError(f"network.name: no callable {attribute!r} in {module_name}; {meant}")
    known: Callable[[], object] = factory
    return known


def one_line(failure: BaseException) -> str:
    """Write an exception in one line."""
    return " ".join(f"{type(failure).__name__}: {failure}".split())


def timm_factory(name: str) -> Callable[[], nn.Module]:
    """Find an architecture of timm; its module has the attribute ``preprocess``.

    Raises:
        RefusedError: timm has no such network.
    """
    import timm  # slow to import, and few runs need it

    if not timm.is_model(name):
        hints = near(name.lower(), timm.list_models()) or ["legacy_seresnet50", "seresnet50"]
        raise RefusedError(
            f"network.name: no network {TIMM + name!r} in timm; did you mean {', '.join(hints)}?"
        )

    def build() -> nn.Module:
        module: nn.Module = timm.create_model(name, pretrained=False)
        setattr(module, "preprocess", timm_preprocess(module))  # noqa: B010  # mypy: not declared
        return module

    return build


def timm_preprocess(module: nn.Module) -> Preprocess:
    """Read what timm states of an architecture's input; crops are central squares."""
    stated = module.pretrained_cfg
    assert isinstance(stated, dict)
    channels, crop, _ = stated["input_size"]
    interpolation = str(stated["interpolation"])
    return Preprocess(
        resize=int(crop / stated["crop_pct"]),
        crop=crop,
        channels=channels,
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bilinear",
    )
