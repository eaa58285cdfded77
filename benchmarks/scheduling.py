"""How busy 1 to 64 workers are kept, and what a unit costs the driver; sleeping instead of torch.

    python benchmarks/scheduling.py [shared] [--small] [--seconds 2] [--units 8] [--workers 1 8 64]

Busy is the share of the window in which every worker is there and none has run out of work.
Driver is the CPU time of the whole driver process in that window, Ray's own threads included, a
unit; with few workers most of it is Ray's idling.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import ray
from timing import Figure, report

from cnnvis_ray.cluster import Placement, Slot, work
from cnnvis_ray.config import Cluster

CURVE = [1, 2, 4, 8, 16, 32, 64]
BUSY_GOAL, DRIVER_GOAL = 0.95, 2.5  # share; milliseconds a unit


@dataclass(frozen=True, slots=True)
class Slept:
    """One unit: by whom, from when to when."""

    process: int
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Result:
    """What one number of workers gave."""

    workers: int
    busy: float
    driver_milliseconds: float
    start_seconds: float


def make_sleeper(seconds: float, slot: Slot) -> Callable[[int], Slept]:
    """Build a stand-in for a worker."""

    def sleep(unit: int) -> Slept:
        began = time.time()
        time.sleep(seconds)
        return Slept(os.getpid(), began, time.time())

    return sleep


def measure(workers: int, units_each: int, seconds: float) -> Result:
    """Keep some workers busy for a while."""
    placement, limits = Placement(workers, 0, 1), Cluster(workers=workers, cpus_per_worker=1)
    asked = time.time()
    slept: list[Slept] = []
    spent: list[tuple[float, float]] = []
    units = range(workers * units_each)
    for outcome in work(units, make_sleeper, seconds, placement, limits):
        assert outcome.result is not None, outcome.error
        slept.append(outcome.result)
        spent.append((time.time(), time.process_time()))
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for unit in sorted(slept, key=lambda unit: unit.began):
        first.setdefault(unit.process, unit.began)
        last[unit.process] = unit.ended
    since, until = max(first.values()), min(last.values())
    busy = sum(max(0.0, min(u.ended, until) - max(u.began, since)) for u in slept)
    share = busy / (len(first) * max(until - since, 1e-9))
    return Result(workers, share, per_unit(spent, since, until), since - asked)


def per_unit(spent: list[tuple[float, float]], since: float, until: float) -> float:
    """Return the driver's milliseconds per unit, of the outcomes in a window."""
    inside = [process for at, process in spent if since <= at <= until]
    return 1000 * (inside[-1] - inside[0]) / (len(inside) - 1)


def main() -> None:
    """Report the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", nargs="?", help="not read")
    parser.add_argument("--small", action="store_true", help="1 and 4 workers, units of 0.2 s")
    parser.add_argument("--seconds", type=float, default=2.0, help="a unit takes so long")
    parser.add_argument("--units", type=int, default=8, help="units a worker")
    parser.add_argument("--workers", type=int, nargs="+", default=CURVE)
    asked = parser.parse_args()
    if asked.small:
        asked.seconds, asked.units, asked.workers = 0.2, 4, [1, 4]
    with tempfile.TemporaryDirectory(prefix="cnnvis-bench-") as short:
        ray.init(
            address="local",
            num_cpus=max(asked.workers),
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=short,
        )
        for workers in asked.workers:
            got = measure(workers, asked.units, asked.seconds)
            what = f"{workers} workers, units of {asked.seconds:g} s"
            note = f"started within {got.start_seconds:.1f} s"
            report(
                Figure(
                    "scheduling",
                    f"{what}: busy",
                    "all the time",
                    got.busy,
                    1.0,
                    "share",
                    goal=f">= {BUSY_GOAL}",
                    note=note,
                )
            )
            report(
                Figure(
                    "scheduling",
                    f"{what}: driver with Ray's threads",
                    "goal",
                    got.driver_milliseconds,
                    DRIVER_GOAL,
                    "CPU ms a unit",
                    goal="<= 1",
                )
            )
        ray.shutdown()


if __name__ == "__main__":
    main()
