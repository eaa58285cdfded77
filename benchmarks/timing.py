"""Fair times: sides in turn after a warm-up, peers in their own process; lines of one table."""

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

Work = Callable[[], object]
made: list[Work] = []


def alternate(
    works: Sequence[Work], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Time pieces of work in turn, after one round to warm up: weights touched, kernels chosen.

    Args:
        works: what is timed, each until its device is done.
        rounds: how often.
        clock: of wall seconds, or `time.process_time` for CPU seconds.

    Returns:
        The seconds of each piece in each round, ``work round``.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, own in zip(works, seconds, strict=True):
            started = clock()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                own.append(clock() - started)
    return seconds


def apart(make: Callable[..., Work], *arguments: object) -> Work:
    """Make work elsewhere, where no setting of this process reaches it; calling it waits."""
    pool = ProcessPoolExecutor(1, get_context("spawn"), prepare, (make, arguments))
    return lambda: pool.submit(do).result()


def prepare(make: Callable[..., Work], arguments: tuple[object, ...]) -> None:
    """Make the work, in its process."""
    made.append(make(*arguments))


def do() -> None:
    """Do the work, in its process."""
    made[0]()


@dataclass(frozen=True)
class Figure:
    """One line of the table: this project beside a peer or a limit, measured in the same run.

    Attributes:
        area: part of the product, e.g. ``"extraction"``.
        what: what was measured, with its size, e.g. ``"SqueezeNet 1.1, 96 photos, two cores"``.
        peer: whom it is compared with, e.g. ``"openTSNE's default"`` or ``"bare forward"``.
        ours: value of this project, in ``unit``; None if not measured.
        theirs: value of the peer, in ``unit``; None where the peer could not be had.
        unit: of both values, e.g. ``"s"``, ``"CPU s"``, ``"MiB"``, ``"share"``.
        spread: lowest and highest ``ours / theirs`` over the rounds, where there were rounds.
        goal: what is asked of the ratio, e.g. ``"<= 1.1"``.
        rounds: how often each side ran after its warm-up.
        opens: whether its result opens by double click; None where that means nothing.
        quality: whether its result states its quality; None where that means nothing.
        note: why a peer is missing, or what a reader must know.
    """

    area: str
    what: str
    peer: str
    ours: float | None
    theirs: float | None
    unit: str = "s"
    spread: tuple[float, float] | None = None
    goal: str = ""
    rounds: int = 1
    opens: bool | None = None
    quality: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over theirs, or None where one is missing or zero."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None


def report(figure: Figure) -> None:
    """Print a figure, and append it as a line of JSON to the file that CNNVIS_FIGURES names."""
    line = f"{figure.area}: {figure.what}: "
    line += "not measured" if figure.ours is None else f"{figure.ours:.4g} {figure.unit}"
    if figure.theirs is not None:
        line += f" against {figure.theirs:.4g} {figure.unit} of {figure.peer}"
    if figure.ratio is not None:
        line += f", ratio {figure.ratio:.3g}"
    print(f"{line}{f' (goal {figure.goal})' if figure.goal else ''} {figure.note}", flush=True)
    if path := os.environ.get("CNNVIS_FIGURES"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(figure)) + "\n")


def compare(
    area: str, what: str, peer: str, sides: Sequence[Sequence[float]], **more: object
) -> None:
    """Report the medians of two alternating sides, ours first, with the spread of their ratios."""
    ours, theirs = sides
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    report(
        Figure(
            area,
            what,
            peer,
            statistics.median(ours),
            statistics.median(theirs),
            spread=(min(ratios), max(ratios)),
            rounds=len(ratios),
            **more,  # type: ignore[arg-type]
        )
    )
