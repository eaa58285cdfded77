"""Fair times: sides in turn after a warm-up, and a peer in a process of its own."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

Work = Callable[[], object]
made: list[Work] = []


def alternate(works: Sequence[Work], rounds: int) -> list[list[float]]:
    """Time pieces of work in turn, after one round to warm up: weights touched, kernels chosen.

    Returns:
        The seconds of each piece in each round, ``work round``.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, own in zip(works, seconds, strict=True):
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                own.append(time.perf_counter() - started)
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
