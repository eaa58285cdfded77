"""What became of a channel: whether it needs another attempt, its status, and a remark.

``live``: the picture's activation, transforms off, is above its start's, above zero (for a
channel's mean or a neuron), above all of the `noise.NUM_NOISE` images without content, and above
the best of the run's images, where both are the same number (`objectives.is_comparable`). Where
the objective is minimized it is below all of these, but for zero.
``dead``: not live, no gradient reached the image in any attempt and no image excites the channel;
without images, only where no gradient came through even with silent activations bypassed, which
zero weights alone bring about.
``stuck``: anything else, with the reason in the remark.
A picture that is not live, or grey, is tried again.
"""

import math
from dataclasses import dataclass

import numpy as np

from cnnvis_ray.config.maximization import Maximize
from cnnvis_ray.maximization.batches import Climbed
from cnnvis_ray.maximization.objectives import is_comparable, main_term
from cnnvis_ray.maximization.records import Setting, Status

GREY_DEVIATION = 8.0  # of 255 levels: acceptance/no-blank-squares
WITHOUT_ZERO = {"direction", "class", "logit"}  # numbers to which any constant may be added


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


@dataclass(frozen=True, slots=True)
class Bars:
    """What a picture of one channel must exceed, or with a negative weight stay below.

    Attributes:
        noise: what noise reaches, from `noise.noise_levels`.
        images: what the best of the run's images reaches, or None.
    """

    noise: float
    images: float | None


def find_bars(channel: int, noise: float, recipe: Maximize, setting: Setting) -> Bars:
    """Return what a picture of one channel must exceed."""
    evidence = setting.evidence
    if evidence is None or not is_comparable(recipe):
        return Bars(noise, None)
    reached = evidence.best if main_term(recipe)[1] > 0 else evidence.lowest
    return Bars(noise, None if reached is None else float(reached[channel]))


def shortfalls(climbed: Climbed, bars: Bars, recipe: Maximize) -> list[str]:
    """List what a picture does not exceed; empty for a live one."""
    name, weight = main_term(recipe)
    sign = math.copysign(1.0, weight)
    reached = sign * climbed.activation
    if not math.isfinite(reached):
        return ["activation is not finite"]
    above, beyond, best = (
        ("above", "below", "best") if weight > 0 else ("below", "above", "lowest")
    )
    found = []
    if reached <= sign * climbed.start_activation:
        found.append(f"not {above} its start")
    if weight > 0 and name not in WITHOUT_ZERO and reached <= 0:
        found.append("not above zero")
    if reached <= sign * bars.noise:
        found.append(f"not {above} noise, {bars.noise:.4g}")
    if bars.images is not None and reached <= sign * bars.images:
        found.append(f"{beyond} the {best} image, {bars.images:.4g}")
    return found


def is_grey(climbed: Climbed) -> bool:
    """Check whether a picture shows next to nothing."""
    return float(climbed.pixels.std()) < GREY_DEVIATION


def is_done(record: Record, bars: Bars, recipe: Maximize) -> bool:
    """Check whether a channel needs no further attempt, or none can help."""
    best = record.best
    if not math.isfinite(best.start_activation):
        return True
    return not shortfalls(best, bars, recipe) and not is_grey(best)


def status_of(record: Record, bars: Bars, recipe: Maximize, setting: Setting) -> Status:
    """Decide what became of a channel."""
    best = record.best
    if not shortfalls(best, bars, recipe):
        return "live"
    name, weight = main_term(recipe)
    if setting.evidence is not None and name != "direction":
        excited = bool(setting.evidence.excited[best.climber.origin.channel])
        return "stuck" if record.felt or excited or weight < 0 else "dead"
    proved = not record.reached and recipe.redirect_steps > 0 and weight > 0
    return "dead" if proved and math.isfinite(best.activation) else "stuck"


def remark(record: Record, bars: Bars, recipe: Maximize) -> str:
    """Return what a reader of the row must know; empty where nothing is amiss."""
    best = record.best
    finite = np.isfinite(best.curve)
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
    if math.isfinite(best.activation):
        remarks += shortfalls(best, bars, recipe)
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
