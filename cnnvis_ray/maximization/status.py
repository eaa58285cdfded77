"""What became of a channel: whether it needs another attempt, its status, and a remark.

``live``: the picture excites its channel more than its start did. ``dead``: no gradient reached
the image in any attempt and no image excites the channel; without images, only where no gradient
came through even with silent activations bypassed, which zero weights alone bring about.
``stuck``: anything else. A picture that is grey, or below the best of the run's images, is tried
again; its status is not affected, since that states what the gradient did.
"""

import math
from dataclasses import dataclass

import numpy as np

from cnnvis_ray.config.maximization import Maximize
from cnnvis_ray.maximization.batches import Climbed
from cnnvis_ray.maximization.objectives import is_comparable, main_term
from cnnvis_ray.maximization.records import Setting, Status

GREY_DEVIATION = 8.0  # of 255 levels: acceptance/no-blank-squares


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one picture after some attempts.

    Attributes:
        best: the attempt to keep.
        attempts: how many there were.
        felt: whether a gradient reached the image in any attempt, without redirection.
        reached: whether any gradient did.
    """

    best: Climbed
    attempts: int
    felt: bool
    reached: bool


def join(record: Record | None, climbed: Climbed, recipe: Maximize) -> Record:
    """Add an attempt; the higher one is kept."""
    if record is None:
        return Record(climbed, 1, climbed.felt, climbed.reached)
    better = worth(climbed, recipe) > worth(record.best, recipe)
    return Record(
        climbed if better else record.best,
        record.attempts + 1,
        record.felt or climbed.felt,
        record.reached or climbed.reached,
    )


def worth(climbed: Climbed, recipe: Maximize) -> float:
    """Return by what attempts are ranked: the activation, negated where it is minimized."""
    if not math.isfinite(climbed.activation):
        return -math.inf
    return math.copysign(1.0, main_term(recipe)[1]) * climbed.activation


def has_climbed(climbed: Climbed, recipe: Maximize) -> bool:
    """Check whether the picture is further up than its start."""
    rise = climbed.activation - climbed.start_activation
    return rise * main_term(recipe)[1] > 0


def best_of_images(channel: int, recipe: Maximize, setting: Setting) -> float:
    """Return the activation that a picture should exceed; minus infinity where there is none."""
    if setting.evidence is None or main_term(recipe)[1] < 0 or not is_comparable(recipe):
        return -math.inf
    return float(setting.evidence.best[channel])


def is_grey(climbed: Climbed) -> bool:
    """Check whether a picture shows next to nothing."""
    return float(climbed.pixels.std()) < GREY_DEVIATION


def is_done(record: Record, recipe: Maximize, setting: Setting) -> bool:
    """Check whether a channel needs no further attempt, or none can help."""
    best = record.best
    if not math.isfinite(best.start_activation):
        return True
    bar = best_of_images(best.climber.origin.channel, recipe, setting)
    return has_climbed(best, recipe) and best.activation > bar and not is_grey(best)


def status_of(record: Record, recipe: Maximize, setting: Setting) -> Status:
    """Decide what became of a channel."""
    best = record.best
    if has_climbed(best, recipe):
        return "live"
    name, weight = main_term(recipe)
    if setting.evidence is not None and name != "direction":
        excited = bool(setting.evidence.excited[best.climber.origin.channel])
        return "stuck" if record.felt or excited or weight < 0 else "dead"
    proved = not record.reached and recipe.redirect_steps > 0 and weight > 0
    return "dead" if proved and math.isfinite(best.activation) else "stuck"


def remark(record: Record, recipe: Maximize, setting: Setting) -> str:
    """Return what a reader of the row must know; empty where nothing is amiss."""
    best = record.best
    finite = np.isfinite(best.curve)
    bar = best_of_images(best.climber.origin.channel, recipe, setting)
    remarks = [remark_on_target(best)] if main_term(recipe)[0] == "squared_maximum" else []
    if not finite.all():
        remarks.append(f"not finite from step {int(finite.argmin())} on, stopped there")
    elif not math.isfinite(best.activation):
        remarks.append("activation is not finite: NaN in the weights")
    if best.overwritten:
        remarks.append("measured after the in-place function that follows the layer")
    if best.bound:
        remarks.append(f"climbed, and the curve taken, before the ceiling of {best.bound}")
    if best.halved_to is not None:
        remarks.append(f"made in a batch of {best.halved_to} because memory ran short")
    if best.activation < bar:
        remarks.append(f"below the best image, {bar:.4g}")
    return "; ".join(filter(None, remarks))


def remark_on_target(climbed: Climbed) -> str:
    """Return in how many steps the seed's target, the squared maximum, was not above the map."""
    silent = int((climbed.peaks == 0).sum())
    below = int(((climbed.peaks > 0) & (climbed.peaks < 1)).sum())
    steps = len(climbed.peaks)
    said = []
    if silent:
        said.append(f"silent in {silent} of {steps} steps, target 0 already met")
    if below:
        said.append(f"target below the maximum in {below} of {steps} steps")
    return "; ".join(said)
