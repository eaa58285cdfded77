"""Progress on the driver: a live bar on a terminal, a plain line every few seconds in a log."""

import logging
import sys
import time
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

LINE_SECONDS = 5.0
BAR_SECONDS = 0.2
BAR_WIDTH = 24


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
    told: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        LATEST[:] = [self]

    def add(self, done: int, rejects: int = 0) -> None:
        """Count finished work and tell, not too often."""
        self.done += done
        self.fresh += done if self.started is not None else 0
        self.started = self.started or time.monotonic()
        self.rejects += rejects
        interval = BAR_SECONDS if sys.stderr.isatty() else LINE_SECONDS
        if time.monotonic() - self.told >= interval:
            self.tell()

    def tell(self) -> None:
        """Draw the bar, or log a line."""
        self.told = time.monotonic()
        if not sys.stderr.isatty():
            log.info("%s", self.line())
            return
        filled = BAR_WIDTH * self.done // max(self.total, 1)
        bar = "█" * filled + "·" * (BAR_WIDTH - filled)
        sys.stderr.write(f"\r\x1b[2K{bar} {self.line()}")
        sys.stderr.flush()

    def end(self) -> None:
        """Tell the last state and leave the line."""
        self.tell()
        if sys.stderr.isatty():
            sys.stderr.write("\n")

    @property
    def rate(self) -> float:
        """Finished a second, since the first was finished."""
        elapsed = time.monotonic() - (self.started or time.monotonic())
        return self.fresh / elapsed if elapsed > 0 else 0.0

    def line(self) -> str:
        """Say done of total, rejects, and, once it is known, the rate and the time left."""
        rate = self.rate
        rejects = f", {self.rejects} rejects" if self.rejects else ""
        line = f"{self.what} {self.done:,}/{self.total:,} {self.noun}{rejects}"
        if not rate:
            return line
        clock = time.strftime("%H:%M:%S", time.gmtime((self.total - self.done) / rate))
        return f"{line}, {rate:.1f}/s, {clock} left"


LATEST: list[Progress] = []  # of this process: it has one terminal and one lease


def snapshot() -> dict[str, str | int | float]:
    """Say how far this process is, for those that read its lease."""
    told: dict[str, str | int | float] = {}
    for progress in LATEST:
        told |= {"stage": progress.what, "noun": progress.noun}
        told |= {"done": progress.done, "total": progress.total, "rejects": progress.rejects}
        told |= {"rate": round(progress.rate, 3)}
    return told
