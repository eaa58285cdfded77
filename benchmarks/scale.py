"""What runs of other sizes take, from measured costs; and the driver's loop at 1,000 workers.

    python benchmarks/scale.py [shared] [--small] [--images-per-second 290] [--gpu-hour 3.0] ...

Three things are measured: the driver's loop with Ray replaced by a queue of ends in virtual time
(so the milliseconds are this project's own; `scheduling.py` measures Ray's beside them), the
driver's memory for listing and plan, and the bytes and files that the real worker writes. The
rest is arithmetic on stated prices and published rates, which the options change.
"""

import argparse
import heapq
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import yaml
from PIL import Image
from timing import Figure, report

from cnnvis_ray.cluster import Placement, Slot, dispatcher
from cnnvis_ray.cluster import workers as actors
from cnnvis_ray.config import Cluster, Config
from cnnvis_ray.images import Entry, cut
from cnnvis_ray.ledger.plan import SCHEMA, Plan, fresh_units
from cnnvis_ray.stages.plan import check, measure

UNIT_IMAGES = 256
GB = 1e9
S3_GB_MONTH, S3_PUT, S3_GET = 0.023, 5e-6, 4e-7  # dollars: list prices of S3 standard
PUTS_PER_SECOND = 3500  # of one prefix of S3, as documented


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run of some size: images, GPUs, bytes of an image, images of a unit and of a source file.

    The driver lists files: one of many images (HDF5, tar) costs it as much as one of a single one.
    """

    images: int
    gpus: int
    image_bytes: int
    unit: int = UNIT_IMAGES
    per_file: int = 1


SCENARIOS = {
    "NSD on 1 GPU": Scenario(73_000, 1, 540_000),
    "ImageNet on 8 GPUs": Scenario(1_281_167, 8, 110_000),
    "a billion images on 1,000 GPUs": Scenario(10**9, 1000, 110_000),
    "the same from archives, units of 4,096": Scenario(10**9, 1000, 110_000, 4096, 4096),
}


class End:
    """A call that ends at a time."""

    __slots__ = ("result",)

    def __init__(self, result: object) -> None:
        self.result = result


class Simulated:
    """What the dispatcher needs of Ray: calls end in virtual time, in the order of their ends."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.ends: list[tuple[float, int, End]] = []
        self.numbers = count()
        self.now = 0.0

    def call(self, result: object, seconds: float) -> End:
        """Start a call."""
        end = End(result)
        heapq.heappush(self.ends, (self.now + seconds, next(self.numbers), end))
        return end

    def put(self, value: object) -> object:
        """Keep a value."""
        return value

    def get(self, end: End) -> object:
        """Return a call's result."""
        return end.result

    def kill(self, handle: object, no_restart: bool) -> None:
        """Do nothing: there is no process."""

    def wait(
        self, calls: Sequence[End], num_returns: int, timeout: float
    ) -> tuple[list[End], list[End]]:
        """Advance the time to the next end."""
        self.now, _, end = heapq.heappop(self.ends)
        return [end], []


class Method:
    """A method of a simulated actor."""

    def __init__(self, ray: Simulated, seconds: float) -> None:
        self.ray, self.seconds = ray, seconds

    def remote(self, task: object) -> End:
        """Call it; it takes between half and one and a half times its seconds."""
        return self.ray.call(task, self.seconds * float(self.ray.random.uniform(0.5, 1.5)))


class Handle:
    """A simulated actor."""

    def __init__(self, ray: Simulated, seconds: float) -> None:
        self.ready, self.do = Method(ray, 1.0), Method(ray, seconds)


def simulate(workers: int, units: int) -> tuple[float, float]:
    """Run the driver's loop: its milliseconds a unit, and MiB that it grew by."""
    fake = Simulated(0)

    def start(make: object, placement: object, numbers: range) -> list[actors.WorkerHandle]:
        return [actors.WorkerHandle(number, Handle(fake, 60.0)) for number in numbers]  # type: ignore[arg-type]

    def make(setup: Simulated, slot: Slot) -> Callable[[int], int]:
        raise AssertionError("no actor is started")

    limits = Cluster(workers=workers, cpus_per_worker=1)
    before, began, done = peak(), time.process_time(), 0
    with (
        patch.object(actors, "ray", fake),
        patch.object(dispatcher, "ray", fake),
        patch.object(dispatcher, "start_workers", start),
        patch.object(dispatcher, "num_restarts", return_value=0),
    ):
        placement = Placement(workers, 1, 1)
        for outcome in dispatcher.work(range(units), make, fake, placement, limits):
            assert not outcome.error
            done += 1
    assert done == units, done
    return 1000 * (time.process_time() - began) / units, peak() - before


def peak() -> float:
    """Return the most memory that this process had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plan_bytes(images: int) -> float:
    """Measure the driver's bytes an image for a listing and its plan: keys of 40 letters."""
    before = peak()
    listing = [
        Entry(f"n01440764/n01440764_{number:020d}.jpg", "v" * 16) for number in range(images)
    ]
    plan = Plan(SCHEMA.empty_table(), 0, None)
    units = fresh_units(plan, listing, lambda entries: cut(entries, UNIT_IMAGES))
    assert len(units) == -(-images // UNIT_IMAGES)
    return (peak() - before) * 2**20 / images


@dataclass(frozen=True, slots=True)
class Written:
    """What the real worker writes: bytes an image, files a unit."""

    image: float
    files: int


def written() -> Written:
    """Measure it: ResNet-50, four stages, mean pooling, statistics and thumbnails."""
    with tempfile.TemporaryDirectory(prefix="cnnvis-scale-") as folder:
        random = np.random.default_rng(0)
        Path(folder, "photos").mkdir()
        for number in range(16):
            small = random.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            picture = Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)
            picture.save(Path(folder, "photos", f"{number}.jpg"))
        config = Config.model_validate(
            yaml.safe_load(f"""
run_dir: {folder}/run
images: {{source: {folder}/photos}}
network: {{name: resnet50, weights: random}}
layers: [layer1, layer2, layer3, layer4]
extract: {{batch_size: 8}}
""")
        )
        found = measure(config, *check(config), 1)
    return Written(sum(found.bytes.values()), len(found.bytes) + 2)


def apart(what: str, *numbers: int) -> list[float]:
    """Call a function of this file in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--part", what, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def estimate(
    asked: argparse.Namespace, driver: float, key_bytes: float
) -> Iterator[tuple[str, float, str]]:
    """Write what each scenario takes and what breaks first."""
    own = written()
    for name, run in SCENARIOS.items():
        images, rate = run.images, run.gpus * asked.images_per_second
        hours, units = images / rate / 3600, -(-images // run.unit)
        per_second, objects = units / (hours * 3600), units * own.files
        money = {
            "GPUs": run.gpus * hours * asked.gpu_hour,
            "requests": objects * S3_PUT + images / run.per_file * S3_GET,
            "storage a month": images * own.image / GB * S3_GB_MONTH,
        }
        loads = {
            "the driver's loop": per_second * (driver + asked.ray_milliseconds) / 1000,
            "the driver's memory": images / run.per_file * key_bytes / (asked.driver_gib * 2**30),
            "writes to one prefix of the store": per_second * own.files / PUTS_PER_SECOND,
            "a node's network": asked.gpus_per_node
            * asked.images_per_second
            * run.image_bytes
            / (asked.gigabits / 8 * GB),
        }
        first = max(loads, key=lambda cause: loads[cause])
        note = (
            f"{units:,} units, {per_second:,.1f} per second; {objects:,} "
            f"objects, {images * own.image / GB:,.0f} GB written, "
            f"{images * run.image_bytes / GB:,.0f} GB read; "
            + ", ".join(f"{cause} ${dollars:,.2f}" for cause, dollars in money.items())
            + "; load: "
            + ", ".join(f"{cause} {load:.1%}" for cause, load in loads.items())
            + f"; highest: {first}"
        )
        yield name, hours, note


def main() -> None:
    """Measure, then estimate."""
    parser = argparse.ArgumentParser(description="cost model and simulation of the driver")
    parser.add_argument("shared", nargs="?", help="not read")
    parser.add_argument("--small", action="store_true", help="20,000 units and 20,000 images")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--images-per-second", type=float, default=290.0, help="of one GPU")
    parser.add_argument("--gpu-hour", type=float, default=3.0, help="dollars")
    parser.add_argument("--ray-milliseconds", type=float, default=2.0, help="Ray's, a unit")
    parser.add_argument("--driver-gib", type=float, default=64.0, help="memory of the head")
    parser.add_argument("--gigabits", type=float, default=25.0, help="of a node per second")
    parser.add_argument("--gpus-per-node", type=float, default=8.0)
    asked = parser.parse_args()
    if asked.part:
        what, *numbers = asked.part
        if what == "simulate":
            print(*simulate(*map(int, numbers)))
        else:
            print(plan_bytes(int(numbers[0])))
        return
    units = 20_000 if asked.small else 4_000_000
    spent, grown = apart("simulate", 1000, units)
    few, _ = apart("simulate", 10, units // 10)
    what = f"driver's loop, 1,000 workers, {units:,} units, Ray simulated"
    report(Figure("scale", what, "the same with 10 workers", spent, few, "CPU ms a unit"))
    report(Figure("scale", f"{what}: memory", "100 MiB", grown, 100.0, "MiB", goal="<= 1"))
    (key_bytes,) = apart("plan", 20_000 if asked.small else 1_000_000)
    what = "driver's memory an image, listing and plan while they are made"
    report(Figure("scale", what, "nothing", key_bytes, None, "bytes"))
    for name, hours, note in estimate(asked, spent, key_bytes):
        report(Figure("scale", name, "nothing", hours, None, "h", note=note))


if __name__ == "__main__":
    main()
