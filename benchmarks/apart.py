"""A peer in a process of its own: no setting that this project gives its process reaches it."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

Work = Callable[[], None]
made: list[Work] = []


def apart(make: Callable[..., Work], *arguments: object) -> Work:
    """Make work elsewhere; calling what is returned does it there and waits."""
    pool = ProcessPoolExecutor(1, get_context("spawn"), prepare, (make, arguments))
    return lambda: pool.submit(do).result()


def prepare(make: Callable[..., Work], arguments: tuple[object, ...]) -> None:
    """Make the work, in its process."""
    made.append(make(*arguments))


def do() -> None:
    """Do the work, in its process."""
    made[0]()
