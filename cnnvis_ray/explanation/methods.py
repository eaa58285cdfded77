"""Explanation methods: network, images, aims -> heat.

A method is a function from a `Question` to an `Answer` and a line in `METHODS`, which states what
it needs of the network. Those from gradients go through captum, on any network and without a
trace of it afterwards: in-place ReLUs are switched off for the call, since captum's hooks see
tensors that such a ReLU would change, and no hook stays registered.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import (
    GuidedBackprop,
    GuidedGradCam,
    IntegratedGradients,
    LayerGradCam,
    Saliency,
)
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cnnvis_ray.config.explanation import Explain
from cnnvis_ray.errors import Refusals, RefusedError, did_you_mean
from cnnvis_ray.explanation.aims import Aimed, Aims
from cnnvis_ray.explanation.attention import Combine, attention_heat, last_block, roll_out
from cnnvis_ray.explanation.evidence import Evidence
from cnnvis_ray.explanation.heat import Heat
from cnnvis_ray.explanation.occlusion import fill_colour, occlusion, step_of
from cnnvis_ray.network import Layer, LayerTable, Preprocess

log = logging.getLogger(__name__)

PERCENT = 98  # of the pixels of a gradient that its colours tell apart
STEPS = 32  # of integrated gradients: a test holds them to 2 % of completeness
INPLACE = "inplace"  # what torch's modules call their flag
RELUS = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, nn.functional.relu}


@dataclass(frozen=True, slots=True)
class Question:
    """What a method is asked about some images.

    Attributes:
        aimed: the network.
        pixels: fitted images, ``image height width colour``.
        batch: the same as the network's input, padded: ``batch colour height width``.
        aims: what is explained of each of the batch.
        preprocess: of the network.
        explain: patch, stride, fill and batch size.
        layer: Grad-CAM's.
        grid: the tokens whose attention is shown, where a method needs one.
    """

    aimed: Aimed
    pixels: NDArray[np.uint8]
    batch: Tensor
    aims: Aims
    preprocess: Preprocess
    explain: Explain
    layer: nn.Module
    grid: Layer | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method returns.

    Attributes:
        heat: ``image height width``, not below zero.
        signed: the same with its sign, for sheets; None where it has none.
        scores: ``image square``, where the method is occlusion, for the sheet of squares.
    """

    heat: NDArray[np.floating]
    scores: NDArray[np.float64] | None = None
    signed: NDArray[np.floating] | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """A method and what it needs of a network.

    Attributes:
        explain: makes the heat maps.
        unit: what the values on its colour bar are.
        needs_layer: whether it weights the maps of Grad-CAM's layer.
        needs_relu_modules: whether it sees ReLUs only where they are modules.
        needs_patch: whether ``explain.patch`` must fit into the network's input.
        needs_attention: whether it shows a transformer's attention.
    """

    explain: Callable[[Question], Answer]
    unit: str = ""
    needs_layer: bool = False
    needs_relu_modules: bool = False
    needs_patch: bool = False
    needs_attention: bool = False

    def evidence(self, heat: Heat, answer: Answer, position: int) -> Evidence:
        """Return what is drawn of one image: its signed values, else its stored map."""
        if answer.signed is None:
            return Evidence(heat.low + heat.map * (heat.high - heat.low), self.unit)
        signed = np.asarray(answer.signed[position], np.float64)
        if self.needs_patch:  # squares are few, and none is an outlier
            return Evidence(signed, self.unit)
        return Evidence(signed, f"{self.unit}, {PERCENT} % of pixels", PERCENT)


Gradient = Callable[[Aimed, Tensor, Aims, nn.Module], Tensor]
"""Network, batch, aims, Grad-CAM's layer -> evidence ``[batch, height, width]``, signed."""


def by_occlusion(question: Question) -> Answer:
    """Cover square after square (Zeiler and Fergus 2014)."""
    explain, preprocess = question.explain, question.preprocess
    heat, scores = occlusion(
        question.aimed,
        question.pixels,
        question.aims,
        preprocess,
        explain.patch,
        step_of(explain),
        fill_colour(explain.fill, preprocess.channels),
        explain.batch_size,
    )
    if question.aimed.kind == "numbers":
        return Answer(heat, scores)
    whole = question.aims.score[: len(heat)].double().cpu().numpy()
    return Answer(heat, scores, heat - (1 - whole)[:, None, None])


def strongest_colour(gradient: Tensor) -> Tensor:
    """Take of each pixel the colour with the largest absolute gradient, with its sign."""
    chosen = gradient.abs().argmax(1, keepdim=True)
    return gradient.gather(1, chosen)[:, 0]


def saliency(aimed: Aimed, batch: Tensor, aims: Aims, layer: nn.Module) -> Tensor:
    """Take the largest absolute gradient over the colours (Simonyan et al. 2014)."""
    given: Tensor = Saliency(aimed).attribute(
        batch, abs=False, additional_forward_args=aims.arguments
    )
    return strongest_colour(given)


def integrated_gradients(aimed: Aimed, batch: Tensor, aims: Aims, layer: nn.Module) -> Tensor:
    """Integrate gradients from the mean colour to the image (Sundararajan et al. 2017).

    captum keeps all steps in memory at once unless given a batch size (its issue 632).
    """
    given: Tensor = IntegratedGradients(aimed).attribute(
        batch,
        additional_forward_args=aims.arguments,
        n_steps=STEPS,
        internal_batch_size=len(batch),
    )
    return given.sum(1)


def grad_cam(aimed: Aimed, batch: Tensor, aims: Aims, layer: nn.Module) -> Tensor:
    """Weight a layer's channels by their mean gradient (Selvaraju et al. 2017)."""
    given = LayerGradCam(aimed, layer).attribute(
        batch, additional_forward_args=aims.arguments, relu_attributions=True
    )
    heat: Tensor = nn.functional.interpolate(
        given, batch.shape[2:], mode="bilinear", align_corners=False
    )[:, 0]
    return heat


def guided_backprop(aimed: Aimed, batch: Tensor, aims: Aims, layer: nn.Module) -> Tensor:
    """Let only positive gradients through ReLU modules (Springenberg et al. 2015)."""
    guided = GuidedBackprop(aimed)
    given: Tensor = guided.attribute(batch, additional_forward_args=aims.arguments)
    return strongest_colour(given)


def guided_grad_cam(aimed: Aimed, batch: Tensor, aims: Aims, layer: nn.Module) -> Tensor:
    """Multiply guided backpropagation with Grad-CAM."""
    given: Tensor = GuidedGradCam(aimed, layer).attribute(
        batch, additional_forward_args=aims.arguments, interpolate_mode="bilinear"
    )
    return strongest_colour(given)


def by_gradient(gradient: Gradient) -> Callable[[Question], Answer]:
    """Make a method of a function on tensors; hooks and flags are as before afterwards."""

    def explain(question: Question) -> Answer:
        aimed, layer = question.aimed, question.layer
        batch = question.batch.detach().clone().requires_grad_(True)
        with differentiable(aimed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum announces the hooks that it takes off again
            evidence = gradient(aimed, batch, question.aims, layer).detach()
        signed = evidence[: len(question.pixels)].cpu().double().numpy()
        has_sign = bool((signed < 0).any())  # Grad-CAM's has none
        return Answer(np.abs(signed), signed=signed if has_sign else None)

    return explain


def by_attention(combine: Combine) -> Callable[[Question], Answer]:
    """Make a method of a way to join the blocks' attention; it is the same for every class."""

    def explain(question: Question) -> Answer:
        assert question.grid is not None
        heat = attention_heat(question.aimed.module, question.batch, question.grid, combine)
        return Answer(heat[: len(question.pixels)].double().cpu().numpy())

    return explain


GRADIENT = "gradient of the logit"
ATTENTION = "attention of the class token"
METHODS: dict[str, Method] = {
    "occlusion": Method(by_occlusion, "fall of the score", needs_patch=True),
    "saliency": Method(by_gradient(saliency), GRADIENT),
    "integrated_gradients": Method(by_gradient(integrated_gradients), "share of the logit"),
    "grad_cam": Method(by_gradient(grad_cam), "weighted activation", needs_layer=True),
    "guided_backprop": Method(by_gradient(guided_backprop), GRADIENT, needs_relu_modules=True),
    "guided_grad_cam": Method(
        by_gradient(guided_grad_cam),
        "gradient x activation",
        needs_layer=True,
        needs_relu_modules=True,
    ),
    "attention": Method(by_attention(last_block), ATTENTION, needs_attention=True),
    "attention_rollout": Method(by_attention(roll_out), ATTENTION, needs_attention=True),
}


def check_methods(names: Sequence[str]) -> None:
    """Hold the configured methods against `METHODS`.

    Raises:
        RefusedError: unknown names, with what is near.
    """
    refusals = Refusals()
    for name in names:
        with refusals.gather():
            if name not in METHODS:
                hint = did_you_mean(name, METHODS)
                raise RefusedError(
                    f"explain.methods: {name!r} is unknown{hint} (known: {', '.join(METHODS)})"
                )
    refusals.raise_all()


def choose_methods(explain: Explain, crop: int) -> list[str]:
    """Return the configured methods, each once, without those that this input cannot have.

    Args:
        explain: names, and the patch of occlusion.
        crop: side of the network's input, pixels.

    Raises:
        RefusedError: an unknown name.
    """
    check_methods(explain.methods)
    chosen: list[str] = list(dict.fromkeys(explain.methods))
    for name in [name for name in chosen if METHODS[name].needs_patch and explain.patch > crop]:
        log.warning(
            "explain: %s skipped: a patch of %d pixels does not fit the network's %d; "
            "set explain.patch and explain.stride to %d",
            name,
            explain.patch,
            crop,
            max(1, crop // 4),
        )
        chosen.remove(name)
    return chosen


def check_guided(names: Sequence[str], module: nn.Module, preprocess: Preprocess) -> None:
    """Refuse guided backpropagation where the network calls ReLU as a function.

    captum hooks ReLU modules; at any other ReLU it would show the plain gradient under the name
    of guided backpropagation.

    Args:
        names: of methods.
        module: the network, with weights.
        preprocess: its own.

    Raises:
        RefusedError: it does, and a method needs modules.
    """
    guided = [name for name in names if METHODS[name].needs_relu_modules]
    if not guided:
        return
    functions = count_relu_functions(module, preprocess)
    if functions:
        raise RefusedError(
            f"explain.methods: {' and '.join(guided)} cannot guide gradients through this "
            f"network: it calls ReLU as a function {functions} times in a forward pass, and only "
            "nn.ReLU modules can be guided; use saliency or integrated_gradients"
        )


def count_relu_functions(module: nn.Module, preprocess: Preprocess) -> int:
    """Count the ReLUs in a forward pass that are not called by an `nn.ReLU` module."""
    counter = _CallCounter()
    relus = [below for below in module.modules() if isinstance(below, nn.ReLU)]
    hooks = [relu.register_forward_hook(lambda *_: counter.leave()) for relu in relus]
    hooks += [relu.register_forward_pre_hook(lambda *_: counter.enter()) for relu in relus]
    device = next((str(parameter.device) for parameter in module.parameters()), "cpu")
    blank = np.zeros((1, preprocess.crop, preprocess.crop, preprocess.channels), np.uint8)
    try:
        with torch.inference_mode(), counter:
            module(preprocess.normalize(blank, device))
    finally:
        for hook in hooks:
            hook.remove()
    return counter.functions


class _CallCounter(TorchFunctionMode):
    """While it is active, counts calls of ReLU outside of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.functions = 0
        self.depth = 0

    def enter(self) -> None:
        """Hook before a ReLU module."""
        self.depth += 1

    def leave(self) -> None:
        """Hook after a ReLU module."""
        self.depth -= 1

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Count a ReLU, run everything as it is."""
        if func in RELUS and self.depth == 0:
            self.functions += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def differentiable(module: nn.Module) -> Iterator[None]:
    """Keep modules from working in place."""
    changed = [below for below in module.modules() if getattr(below, INPLACE, False) is True]
    hooks = count_hooks(module)
    for below in changed:
        setattr(below, INPLACE, False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for below in changed:
            setattr(below, INPLACE, True)
        assert count_hooks(module) == hooks, "a hook stayed on the network"


def count_hooks(module: nn.Module) -> int:
    """Count the hooks on a module and all below it."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(below, kind)) for below in module.modules() for kind in kinds)


def find_cam_layer(table: LayerTable, asked: str | None) -> Layer:
    """Choose Grad-CAM's layer: the asked one, else the last with the smallest maps.

    Smallest maps are the deepest: of a U-Net they are its bottom, not its output.

    Raises:
        RefusedError: it has no maps, or runs several times in one forward pass.
    """
    able = [layer for layer in table.layers if has_maps(layer)]
    if asked is not None:
        chosen = table.select([asked])[0]
        if chosen not in able:
            raise RefusedError(
                f"explain.cam_layer: {asked} has no maps to weight (it needs height and width "
                "above 1, and one call per forward pass); use a convolution"
            )
        return chosen
    if not able:
        raise RefusedError(f"explain: {table.network} has no layer with maps for grad_cam")
    fewest = min((layer.height or 1) * (layer.width or 1) for layer in able)
    return [layer for layer in able if (layer.height or 1) * (layer.width or 1) == fewest][-1]


def has_maps(layer: Layer) -> bool:
    """Check whether a layer's activation is a map that Grad-CAM can weight."""
    sides = (layer.height or 1, layer.width or 1)
    return min(sides) > 1 and layer.calls == 1 and layer.channel_axis == 1
