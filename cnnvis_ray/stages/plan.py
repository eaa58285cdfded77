"""The verb ``plan``: what an extraction will cost, from one probe batch, before it is queued.

The batch goes through the real worker into a temporary folder, so bytes, times and memory are
measured and then multiplied; nothing of the run is written.
"""

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cnnvis_ray.cluster import Offer, Placement, in_submitted_job, place_workers, session
from cnnvis_ray.cluster.placement import capacity
from cnnvis_ray.config import Config
from cnnvis_ray.errors import IncompleteError, Refusals, RefusedError
from cnnvis_ray.extraction import ExtractionTask, Extractor, batch_size
from cnnvis_ray.images import cut
from cnnvis_ray.ledger import ImageUnit, Ledger, Pass
from cnnvis_ray.ledger.plan import placed
from cnnvis_ray.network import Layer, check_coverage, make_pooling
from cnnvis_ray.reduction import available_bytes
from cnnvis_ray.stages.extract import check_pooling, extraction_setup, single_thread
from cnnvis_ray.stages.job import Images, Vision, open_images, open_vision
from cnnvis_ray.storage import Store

MARKER_BYTES = 4096  # a marker in the driver's memory while statistics are merged (measured)
SMALLER = ("mean", "sketch:256")
RSS_UNIT = 1024  # Linux counts resident memory in KiB


@dataclass(frozen=True, slots=True)
class Measured:
    """What one batch cost.

    Attributes:
        bytes: written an image, by folder.
        images_per_second: on one worker, once it is warm.
        worker_bytes: the most memory that the process with the worker had.
    """

    bytes: dict[str, float]
    images_per_second: float
    worker_bytes: int

    @property
    def without_features(self) -> float:
        """Bytes an image of everything but features."""
        return sum(size for at, size in self.bytes.items() if not at.startswith("features/"))


def plan(config: Config) -> list[str]:
    """Return what an extraction will cost.

    Raises:
        RefusedError: the configuration cannot work, or its output does not fit; says what would.
    """
    images, vision = check(config)
    driver_bytes = peak_bytes()
    num_images = images.listing.num_images
    pieces = cut(images.listing.entries, config.images.unit_size, images.listing.chunk_rows)
    offered = offers(config)
    single = single_thread(config, vision, len(pieces))
    placement = place_workers(config.cluster, offered, len(pieces), single)
    measured = measure(config, images, vision, placement.cpus)
    driver_bytes += 2 * len(pieces) * MARKER_BYTES
    refusals = Refusals()
    with refusals.gather():
        check_disk(config, vision.layers, measured.without_features, num_images)
    with refusals.gather():
        check_memory(config, offered, placement, measured.worker_bytes, driver_bytes)
    refusals.raise_all()
    per_unit = len(measured.bytes) + 2  # and two markers
    return [
        f"images    {num_images:,} in {len(pieces):,} units; done: {num_done(config.run_dir):,}",
        f"rows      {num_images:,} of images, and {num_images:,} a layer",
        f"objects   {len(pieces) * per_unit:,} files",
        *(f"bytes     {shown(size * num_images):>9}  {at}" for at, size in measured.bytes.items()),
        f"bytes     {shown(total_bytes(measured, num_images)):>9}  together",
        f"memory    {shown(measured.worker_bytes)} a worker, {shown(driver_bytes)} the driver",
        time_line(placement, measured, num_images),
    ]


def check(config: Config) -> tuple[Images, Vision]:
    """Check what extraction needs, all refusals at once."""
    refusals = Refusals()
    found: list[tuple[Images, Vision]] = []
    images: list[Images] = []
    with refusals.gather():
        images.append(open_images(config))
    with refusals.gather():
        vision = open_vision(config)
        check_coverage(vision.network, vision.table, vision.layers)
        check_pooling(config, vision.layers)
        found.extend((listed, vision) for listed in images)
    refusals.raise_all()
    return found[0]


def offers(config: Config) -> Sequence[Offer]:
    """List what the cluster has; a local one is this machine, and is not started for it."""
    if config.cluster.address is None and not in_submitted_job():
        return [Offer(os.cpu_count() or 1, torch.cuda.device_count(), available_bytes())]
    with session(config.cluster) as opened:
        return opened.offers()


def measure(config: Config, images: Images, vision: Vision, threads: int) -> Measured:
    """Run one batch twice, the first time to get warm.

    Raises:
        IncompleteError: none of the batch's images can be used.
    """
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    size = batch_size(config.extract, device)
    first = cut(images.listing.entries, size, 1)[0]
    unit = ImageUnit(0, 0, tuple(placed(first)))
    owners = (Pass("images", {}), Pass("extract", {}, tuple(la.name for la in vision.layers)))
    labels = tuple(images.labels.of(key) for _, key in unit.images())
    task = ExtractionTask(unit, labels, owners[0], owners[1:])
    with tempfile.TemporaryDirectory(prefix="cnnvis-plan-") as folder:
        worker = Extractor(extraction_setup(folder, config, images, vision), device, threads)
        worker(task)
        began = time.monotonic()
        report = worker(task)
        seconds = time.monotonic() - began
        if not report.rows:
            raise IncompleteError("none of the first batch's images can be used: nothing to plan")
        written: dict[str, float] = {}
        for owner in owners:
            (marker,) = Ledger(Store(folder)).markers(owner).values()
            for file in marker.files:
                written[file.path.rsplit("/", 1)[0]] = file.bytes / report.rows
    return Measured(
        amortized(written, size / config.images.unit_size), len(unit) / seconds, peak_bytes()
    )


def amortized(written: dict[str, float], share: float) -> dict[str, float]:
    """Spread what is written once a unit (statistics, rejects) over a unit's images."""
    share = min(1.0, share)
    return {
        folder: size if folder.startswith(("features/", "images")) else size * share
        for folder, size in written.items()
    }


def total_bytes(measured: Measured, num_images: int) -> float:
    """Add up what will be written."""
    return sum(measured.bytes.values()) * num_images


def time_line(placement: Placement, measured: Measured, num_images: int) -> str:
    """Write how long it takes on what the cluster has."""
    hours = num_images / (measured.images_per_second * placement.workers) / 3600
    where = f"{placement.workers} workers of {placement.gpus:g} GPUs and {placement.cpus} CPUs"
    if placement.gpus and not torch.cuda.is_available():
        where += ", measured on this machine's CPUs: a GPU is faster"
    return f"time      {hours:.2f} hours at {measured.images_per_second:.1f} images/s x {where}"


def num_done(run_dir: str) -> int:
    """Count the units that a run has done already."""
    records = Ledger(Store(run_dir))
    return sum(len(records.done(owner)) for owner in records.passes("images"))


def peak_bytes() -> int:
    """Measure the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def check_disk(config: Config, layers: Sequence[Layer], rest: float, num_images: int) -> None:
    """Refuse what the disk of a local run directory may have no room for.

    Features count as they are before compression: how well those of a few images compress says
    little of the others (black ones vanish).

    Args:
        config: names the run directory and the pooling.
        layers: whose features are written.
        rest: bytes an image of what is not features.
        num_images: of the source.

    Raises:
        RefusedError: says what would fit.
    """
    if "://" in config.run_dir:
        return
    folder = Path(config.run_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    features = feature_bytes(config, layers, config.extract.pooling)
    room, needed = shutil.disk_usage(folder).free, (features + rest) * num_images
    if needed <= room:
        return
    widest = max(layers, key=lambda la: feature_bytes(config, [la], config.extract.pooling))
    smaller = ", ".join(
        f"{name} takes {shown(feature_bytes(config, layers, name) * num_images)}"
        for name in SMALLER
    )
    raise RefusedError(
        f"{num_images:,} images with extract.pooling {config.extract.pooling} write up to "
        f"{shown(needed)}, most of it features/{widest.name}; {str(folder)!r} has {shown(room)} "
        f"free; as extract.pooling {smaller}; or take fewer layers, or s3://bucket/prefix"
    )


def check_memory(
    config: Config,
    offered: Sequence[Offer],
    placement: Placement,
    worker_bytes: int,
    driver_bytes: int,
) -> None:
    """Refuse workers that a node has no memory for, and a driver that this machine has none for.

    Raises:
        RefusedError: says what would fit.
    """
    for offer in offered:
        workers = min(placement.workers, capacity([offer], placement.gpus, placement.cpus))
        if workers * worker_bytes > offer.memory:
            raise RefusedError(
                f"{workers} workers of {shown(worker_bytes)} each do not fit into the "
                f"{shown(offer.memory)} of a node of {offer.cpus} CPUs, which has memory for "
                f"{int(offer.memory // worker_bytes)}; lower cluster.workers or "
                f"extract.batch_size ({batch_size(config.extract, 'cpu')}), or raise "
                f"cluster.cpus_per_worker ({placement.cpus})"
            )
    if driver_bytes > available_bytes():
        raise RefusedError(
            f"the driver needs {shown(driver_bytes)} for the plan and its markers, "
            f"{shown(available_bytes())} are free; raise images.unit_size "
            f"({config.images.unit_size})"
        )


def feature_bytes(config: Config, layers: Sequence[Layer], pooling: str) -> float:
    """Count the bytes of an image's features in all layers by another pooling, uncompressed."""
    made = make_pooling(pooling, config.seed)
    width = 2 if config.extract.dtype == "float16" else 4
    return sum(width * made.width(la.channels, la.height, la.width) for la in layers)


def shown(size: float) -> str:
    """Write bytes for a person."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
