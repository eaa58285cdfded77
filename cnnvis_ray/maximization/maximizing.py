"""Pictures for many channels of one layer, in as many attempts as each channel needs.

A channel gets another attempt only where the last one did not do: first noise; then the image that
excites it most, where the run has one; then noise again from other numbers. What does, and what
became of a channel, is decided in `status`.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from cnnvis_ray.config.maximization import Maximize
from cnnvis_ray.maximization.ascent import Slope
from cnnvis_ray.maximization.batches import Climber, Origin, climb_all
from cnnvis_ray.maximization.checks import resolve_precision
from cnnvis_ray.maximization.cutting import cut_after
from cnnvis_ray.maximization.noise import noise_levels
from cnnvis_ray.maximization.objectives import build_objective
from cnnvis_ray.maximization.parametrizations import PARAMETRIZATIONS, Canvas
from cnnvis_ray.maximization.records import Picture, Setting
from cnnvis_ray.maximization.status import (
    Bars,
    Record,
    find_bars,
    is_done,
    join,
    remark,
    status_of,
)
from cnnvis_ray.maximization.transforms import resolve_transforms, window_size
from cnnvis_ray.network import pooled_first
from cnnvis_ray.network.layers.table import Layer

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
IMAGE_ATTEMPT = 1  # noise first: it owes nothing to one image, and nearly always does


def maximize_channels(
    module: nn.Module,
    layer: Layer,
    channels: Sequence[int],
    recipe: Maximize,
    setting: Setting,
) -> list[Picture]:
    """Make pictures of channels of one layer.

    Args:
        module: the network, in evaluation mode, on the setting's device.
        layer: from the network's layer table.
        channels: which; for the objective ``direction``, the numbers of directions.
        recipe: with the layer's overrides applied (`Maximize.for_layer`).
        setting: of the run and the layer.

    Returns:
        ``recipe.pictures`` for each channel, in the order of the channels.

    Raises:
        torch.OutOfMemoryError: not even the pictures of one channel fit into memory.
    """
    records: dict[tuple[int, int], Record] = {}
    pending = list(dict.fromkeys(channels))
    variants = range(recipe.pictures)
    with climbing(module, layer, recipe, setting) as slope:
        levels = noise_levels(slope, setting, layer.name, pending)
        bars = {
            channel: find_bars(channel, level, recipe, setting)
            for channel, level in levels.items()
        }
        for attempt in range(recipe.attempts):
            climbers = enlist(layer, pending, attempt, recipe, setting)
            for climbed in climb_all(slope, setting, climbers):
                key = climbed.climber.origin.channel, climbed.climber.origin.variant
                records[key] = join(records.get(key), climbed, recipe)
            pending = [
                channel
                for channel in pending
                if not all(
                    is_done(records[channel, variant], bars[channel], recipe)
                    for variant in variants
                )
            ]
    return [
        finish(records[channel, variant], bars[channel], recipe, setting)
        for channel in channels
        for variant in variants
    ]


@contextmanager
def climbing(
    module: nn.Module, layer: Layer, recipe: Maximize, setting: Setting
) -> Iterator[Slope]:
    """Cut the network and set up what all batches share."""
    canvas = setting.canvas(recipe.height_width)
    with torch.device(setting.device):
        parametrization = PARAMETRIZATIONS[recipe.parametrization](
            recipe, canvas, setting.magnitude
        )
    in_place = recipe.captured == "in_place"
    usable = without_nan(module)
    overwritten = in_place and is_overwritten(module, layer, setting, canvas)
    with ExitStack() as cuts:
        cuts.enter_context(torch.backends.cudnn.flags(True, deterministic=True, allow_tf32=False))
        judge = cuts.enter_context(cut_after(module, layer, in_place))
        if not in_place:
            cuts.enter_context(pooled_first(usable, [layer]))
        own = usable is not module
        cut = cuts.enter_context(cut_after(usable, layer, in_place)) if own else judge
        yield Slope(
            cut=cut,
            judge=judge,
            parametrization=parametrization,
            objective=build_objective(recipe.objective),
            canvas=canvas,
            mean=torch.tensor(canvas.mean, device=setting.device)[:, None, None],
            std=torch.tensor(canvas.std, device=setting.device)[:, None, None],
            recipe=recipe,
            window=window_size(canvas.size, resolve_transforms(recipe)),
            precision=PRECISIONS[resolve_precision(recipe, setting.device).precision],
            overwritten=overwritten,
        )


def is_overwritten(module: nn.Module, layer: Layer, setting: Setting, canvas: Canvas) -> bool:
    """Check whether the function after the layer changes its activation in place."""
    noise = torch.from_numpy(
        np.random.default_rng(0).standard_normal((1, canvas.colours, *canvas.size), np.float32)
    ).to(setting.device)
    with torch.no_grad(), cut_after(module, layer) as cut:
        own = cut(noise)
    with torch.no_grad(), cut_after(module, layer, in_place=True) as cut:
        return not torch.equal(own, cut(noise))


def without_nan(module: nn.Module) -> nn.Module:
    """Return the module itself, or, where a weight is not finite, a copy with zeros there.

    In a backward pass 0 x NaN is NaN, so one bad filter would reach every image of a batch. The
    climb runs on the copy, the measuring on the network as it is.
    """

    def is_finite(tensor: torch.Tensor) -> bool:
        held = tensor.is_floating_point() and not tensor.is_meta
        return not held or bool(tensor.isfinite().all())

    if all(is_finite(tensor) for tensor in module.state_dict().values()):
        return module
    clean = copy.deepcopy(module)
    for tensor in clean.state_dict().values():
        if not is_finite(tensor):
            tensor.nan_to_num_(0.0, 0.0, 0.0)
    return clean


def enlist(
    layer: Layer, channels: Sequence[int], attempt: int, recipe: Maximize, setting: Setting
) -> list[Climber]:
    """List the pictures to be made in one attempt, those of one channel together."""
    climbers = []
    for channel in channels:
        image = None
        if attempt == IMAGE_ATTEMPT and setting.evidence is not None:
            image = setting.evidence.start_image(channel)
        climbers += [
            Climber(Origin(setting.seed, layer.name, channel, variant, attempt), image)
            for variant in range(recipe.pictures)
        ]
    return climbers


def finish(record: Record, bars: Bars, recipe: Maximize, setting: Setting) -> Picture:
    """Return the row of one picture."""
    best = record.best
    start = best.climber.start_image
    return Picture(
        channel=best.climber.origin.channel,
        variant=best.climber.origin.variant,
        pixels=best.pixels,
        activation=best.activation,
        start_activation=best.start_activation,
        curve=best.curve,
        attempts=record.attempts,
        status=status_of(record, bars, recipe, setting),
        note=remark(record, bars, recipe),
        start_key=start.key if start else None,
    )
