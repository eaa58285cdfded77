"""Progress on the driver: a live bar on a terminal, a plain line every few seconds in a log."""

import logging
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Never

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_SECONDS = 5.0
BAR_SECONDS = 0.2


@dataclass(slots=True)
class Progress:
    """How far a stage is.

    Attributes:
        what: the stage and its noun, ``extract``.
        noun: what is counted, ``images``.
        total: how many there are.
        done: how many are finished, those of earlier invocations included.
    """

    what: str
    noun: str
    total: int
    done: int = 0
    rejects: int = 0
    fresh: int = 0  # finished after the first unit, whose time holds the workers' start
    started: float | None = None
    shown: float = field(default_factory=time.monotonic)
    bar: "tqdm[Never] | None" = None

    def __post_init__(self) -> None:
        LATEST[:] = [self]

    def add(self, done: int, rejects: int = 0) -> None:
        """Count finished work and show it, not too often."""
        self.done += done
        self.fresh += done if self.started is not None else 0
        self.started = self.started or time.monotonic()
        self.rejects += rejects
        interval = BAR_SECONDS if sys.stderr.isatty() else LINE_SECONDS
        if time.monotonic() - self.shown >= interval:
            self.show()

    def show(self) -> None:
        """Draw the bar on a terminal, else log a line."""
        self.shown = time.monotonic()
        if not sys.stderr.isatty():
            log.info("%s", self.line())
            return
        if self.bar is None:
            self.bar = tqdm(total=self.total, bar_format="{bar:24} {desc}", file=sys.stderr)
        self.bar.n = self.done
        self.bar.set_description_str(self.line())

    def end(self) -> None:
        """Show the last state and leave the line."""
        self.show()
        if self.bar is not None:
            self.bar.close()

    @property
    def rate(self) -> float:
        """Finished per second, since the first was finished."""
        elapsed = time.monotonic() - (self.started or time.monotonic())
        return self.fresh / elapsed if elapsed > 0 else 0.0

    def line(self) -> str:
        """Write done of total, rejects, and, once they are known, the rate and the time left."""
        rate = self.rate
        rejects = f", {self.rejects} rejects" if self.rejects else ""
        line = f"{self.what} {self.done:,}/{self.total:,} {self.noun}{rejects}"
        if not rate:
            return line
        return f"{line}, {rate:.1f}/s, {clock((self.total - self.done) / rate)} left"


def clock(seconds: float) -> str:
    """Write a duration: ``0:00:42``, ``3 days, 4:05:06``."""
    return str(timedelta(seconds=round(seconds)))


LATEST: list[Progress] = []  # of this process: it has one terminal and one lease


def snapshot() -> dict[str, str | int | float]:
    """Return how far this process is, for those that read its lease."""
    found: dict[str, str | int | float] = {}
    for progress in LATEST:
        found |= {"stage": progress.what, "noun": progress.noun}
        found |= {"done": progress.done, "total": progress.total, "rejects": progress.rejects}
        found |= {"rate": round(progress.rate, 3)}
    return found
