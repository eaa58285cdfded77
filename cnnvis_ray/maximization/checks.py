"""Preflight: what can be refused before anything is computed, in one line each."""

import re
from collections.abc import Callable, Iterable

import torch
from torch import nn

from cnnvis_ray.config import parse_range
from cnnvis_ray.config.maximization import Maximize, Override
from cnnvis_ray.errors import Refusals, RefusedError, did_you_mean
from cnnvis_ray.maximization.cutting import cut_after
from cnnvis_ray.maximization.objectives import parse_objective
from cnnvis_ray.maximization.parametrizations import PARAMETRIZATIONS
from cnnvis_ray.maximization.records import Setting
from cnnvis_ray.maximization.transforms import TRANSFORMS, resolve_transforms, window_size
from cnnvis_ray.network.layers.table import Layer
from cnnvis_ray.network.layers.trace import FAILURES

LARGEST_SIZE = 512  # pixels: no network of torchvision asks for more than 299 up to any layer


def check_recipe(module: nn.Module, layer: Layer, recipe: Maximize, setting: Setting) -> list[int]:
    """Refuse a recipe that cannot work on a layer; all reasons at once.

    Args:
        module: in evaluation mode, with weights, on the setting's device.
        layer: from the network's layer table.
        recipe: with the layer's overrides applied.
        setting: of the run.

    Returns:
        The channels that the recipe asks for, in order.

    Raises:
        RefusedError: a channel out of range, an unknown objective or one that does not fit the
            layer, a size that the network does not take at this layer (with the smallest that it
            does).
    """
    refusals = Refusals()
    channels: list[int] = []
    with refusals.gather():
        channels = select_channels(layer, recipe)
    refusals.attempt(lambda: check_names(recipe))
    refusals.raise_all()
    refusals.attempt(lambda: check_objective(layer, recipe))
    refusals.attempt(lambda: check_spectrum(layer, recipe, setting))
    refusals.attempt(lambda: check_size(module, layer, recipe, setting))
    refusals.raise_all()
    return channels


def check_names(section: Maximize) -> None:
    """Hold every name in a section and its overrides against the dict that it is looked up in.

    Raises:
        RefusedError: unknown names, each with its key and what is near.
    """
    refusals = Refusals()
    parts: list[tuple[str, Maximize | Override]] = [("maximize", section)]
    parts += [(f"maximize.overrides.{name}", part) for name, part in section.overrides.items()]
    for key, part in parts:
        with refusals.gather():
            check_name(f"{key}.parametrization", part.parametrization, PARAMETRIZATIONS)
        if isinstance(part.transforms, str):
            with refusals.gather():
                check_name(f"{key}.transforms", part.transforms, TRANSFORMS)
        try:
            if part.objective is not None:
                parse_objective(part.objective)
        except RefusedError as refusal:
            refusals.messages.append(f"{key}.objective: {refusal}")
    refusals.raise_all()


def check_name(key: str, given: str | None, known: Iterable[str]) -> None:
    """Refuse a name that is not a key of a dict; None, left out of an override, is allowed.

    Raises:
        RefusedError: with near names and all known ones.
    """
    names = list(known)
    if given is None or given in names:
        return
    hint = did_you_mean(given, names)
    raise RefusedError(f"{key}: {given!r} is unknown{hint} (known: {', '.join(names)})")


def resolve_precision(recipe: Maximize, device: str) -> Maximize:
    """Decide what the network computes in while climbing: half of float32 on a GPU, unless told.

    Resolved once, on the driver, so that workers on different devices make the same pictures.

    Args:
        recipe: whose ``precision`` may be ``auto``.
        device: ``cpu`` or ``cuda...``: what the workers get.
    """
    if recipe.precision != "auto":
        return recipe
    precision = "bfloat16" if device.startswith("cuda") else "float32"
    return recipe.model_copy(update={"precision": precision})


def select_channels(layer: Layer, recipe: Maximize) -> list[int]:
    """Read ``all``, a list or a range as channels of a layer (or as numbers of directions).

    Raises:
        RefusedError: a channel is out of range.
    """
    known = layer.channels if recipe.directions is None else len(recipe.directions)
    if recipe.channels == "all":
        return list(range(known))
    if isinstance(recipe.channels, str):
        try:
            wanted = list(parse_range(recipe.channels))
        except ValueError as fault:
            raise RefusedError(f"maximize.channels: {fault}") from None
    else:
        wanted = list(dict.fromkeys(recipe.channels))
    beyond = [channel for channel in wanted if channel >= known]
    if beyond or not wanted:
        given = beyond[0] if beyond else recipe.channels
        raise RefusedError(
            f"maximize.channels: given {given!r}, {layer.name} has channels 0 to {known - 1}; "
            f'use "0:{known}" or less of it, a list, or all'
        )
    return wanted


def check_objective(layer: Layer, recipe: Maximize) -> None:
    """Refuse an objective that the layer cannot give.

    Raises:
        RefusedError: it does not fit the layer's shape, or lacks what it compares.
    """
    terms = parse_objective(recipe.objective)
    places = (layer.height or 1) * (layer.width or 1)
    if {"class", "logit"} & terms.keys() and places > 1:
        raise RefusedError(
            f"maximize.objective class needs the head's output, {layer.name} gives a map of "
            f"{layer.height} x {layer.width}; take the last layer, or objective: channel"
        )
    if ("direction" in terms) != (recipe.directions is not None):
        raise RefusedError(
            f"maximize at {layer.name}: objective direction and maximize.directions go together"
        )
    for vector in recipe.directions or []:
        if len(vector) != layer.channels:
            raise RefusedError(
                f"maximize.directions: given {len(vector)} numbers, {layer.name} has "
                f"{layer.channels} channels"
            )
    if "diversity" in terms and recipe.pictures < 2:
        raise RefusedError(
            f"maximize.objective at {layer.name}: diversity compares the pictures of a channel; "
            "set maximize.pictures to 2 or more"
        )


def check_spectrum(layer: Layer, recipe: Maximize, setting: Setting) -> None:
    """Refuse ``maco`` without a spectrum of the right size.

    Raises:
        RefusedError: there is none, or it is of other pictures.
    """
    if recipe.parametrization != "maco":
        return
    height, width = recipe.height_width
    wanted = (len(setting.mean), height, width // 2 + 1)
    if setting.magnitude is None:
        raise RefusedError(
            f"maximize.parametrization maco at {layer.name} measures the spectrum of the run's "
            "images, and the run has none; name an image source, or use parametrization: fourier"
        )
    if setting.magnitude.shape != wanted:
        raise RefusedError(
            f"the magnitude spectrum has shape {setting.magnitude.shape}, pictures of "
            f"{height} x {width} need {wanted}"
        )


def check_size(module: nn.Module, layer: Layer, recipe: Maximize, setting: Setting) -> None:
    """Refuse a picture size that the network does not take up to the layer.

    Raises:
        RefusedError: with the smallest size that works, or the only one.
    """
    size = recipe.height_width
    trial = size_trial(module, layer, recipe, setting)
    failure = trial(size)
    if failure is None:
        return
    given = f"maximize.size: {layer.name} cannot take {size[0]} x {size[1]} pixels"
    smallest = smallest_size(lambda side: trial((side, side)) is None, max(size))
    if smallest is not None:
        raise RefusedError(f"{given}; the smallest size that works is {smallest}")
    if trial((setting.crop, setting.crop)) is None:
        raise RefusedError(f"{given}; this network takes {setting.crop} only")
    raise RefusedError(f"{given}: {failure}")


def size_trial(
    module: nn.Module, layer: Layer, recipe: Maximize, setting: Setting
) -> Callable[[tuple[int, int]], str | None]:
    """Return a function from a picture size to the reason why it fails, or None."""
    values = resolve_transforms(recipe)

    def trial(size: tuple[int, int]) -> str | None:
        for shape in {size, window_size(size, values)}:
            if min(shape) < 1:
                return "the transforms crop more than the picture has"
            image = torch.zeros(1, len(setting.mean), *shape, device=setting.device)
            try:
                with torch.no_grad(), cut_after(module, layer) as cut:
                    maps = cut(image)
            except FAILURES as failure:
                return re.sub(r"\s+", " ", str(failure))[:200]
            if recipe.neuron is not None and any(
                row >= side for row, side in zip(recipe.neuron, maps.shape[2:], strict=False)
            ):
                return f"neuron {list(recipe.neuron)} is not on a map of {list(maps.shape[2:])}"
        return None

    return trial


def smallest_size(works: Callable[[int], bool], failed: int) -> int | None:
    """Find the smallest side that works, above one that failed; None if none is found."""
    low, high = failed, failed * 2
    while not works(high):
        low, high = high, high * 2
        if high > LARGEST_SIZE:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high
