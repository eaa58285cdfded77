"""Does it fit: features on the disk, workers into a node's memory, the plan into the driver's."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from cnnvis_ray.cluster import Offer, Placement
from cnnvis_ray.cluster.placement import capacity
from cnnvis_ray.config import Config
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.network import Layer, make_pooling
from cnnvis_ray.reduction.resources import available_bytes

SMALLER = ("mean", "sketch:256")


def check_room(config: Config, layers: Sequence[Layer], rest: float, num_images: int) -> None:
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
    would = ", ".join(
        f"{name} takes {shown(feature_bytes(config, layers, name) * num_images)}"
        for name in SMALLER
    )
    raise RefusedError(
        f"{num_images:,} images with extract.pooling {config.extract.pooling} write up to "
        f"{shown(needed)}, most of it features/{widest.name}; {str(folder)!r} has {shown(room)} "
        f"free; as extract.pooling {would}; or take fewer layers, or s3://bucket/prefix"
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
                f"extract.batch_size ({config.extract.batch_size}), or raise "
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
