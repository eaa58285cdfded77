"""Placement: how many workers, and what each takes of its node. Plain arithmetic, no Ray.

``auto`` takes a GPU a worker where any node has GPUs, and CPUs only where none exists at all.
What nothing can offer is refused at once, never waited for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cnnvis_ray.config import Cluster
from cnnvis_ray.errors import RefusedError

CPUS_PER_WORKER = 4  # convolutions on one batch of 32 gain little from more threads


@dataclass(frozen=True, slots=True)
class Offer:
    """What one node has.

    Attributes:
        memory: bytes for the processes of workers; infinite where nobody says.
    """

    cpus: int
    gpus: float
    memory: float = field(default=math.inf, compare=False)


@dataclass(frozen=True, slots=True)
class SingleThread:
    """A stage whose workers of one thread do more than fewer ones of several threads.

    Measured, SqueezeNet 1.1 on two cores, 600 photos: 191 to 198 images per second with two
    workers of one thread, 128 to 132 with one of two. Statistics, writing and Python leave the
    second thread idle.

    Attributes:
        worker_bytes: memory of such a worker.
        num_units: of the whole run, so that a resumed run has the same threads.
    """

    worker_bytes: float
    num_units: int


@dataclass(frozen=True, slots=True)
class Placement:
    """The resolved numbers: workers, and GPUs, CPUs and bytes of each (0: not stated)."""

    workers: int
    gpus: float
    cpus: int
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a worker finds itself: its device, passed explicitly, and its threads.

    With 0 GPUs Ray leaves every GPU of the node visible, so the device is never guessed.
    """

    device: str
    threads: int


def place_workers(
    config: Cluster,
    offers: Sequence[Offer],
    num_units: int,
    single: SingleThread | None = None,
    memory: int = 0,
) -> Placement:
    """Resolve workers, GPUs and CPUs against what the nodes have.

    Args:
        config: what was asked.
        offers: the nodes.
        num_units: how many units there are to do; ``auto`` starts no worker without one.
        memory: bytes that a worker needs; fewer workers run where more do not fit. What exceeds
            every node is lowered to the largest: an estimate must not stop a run.
        single: where ``auto`` takes workers of one thread, if they and the memory suffice.

    Raises:
        RefusedError: nothing can offer what was asked.
    """
    gpus = gpus_per_worker(config, offers)
    cpus = cpus_per_worker(config, offers, gpus, single)
    fitting = capacity(offers, gpus, cpus)
    if fitting == 0 or (config.workers != "auto" and config.workers > fitting):
        raise RefusedError(
            f"cluster: {config.workers} workers of {gpus:g} GPUs and {cpus} CPUs do not fit; the "
            f"nodes offer {describe(offers)}: lower cluster.workers, gpus_per_worker or "
            "cpus_per_worker"
        )
    workers = min(fitting, max(num_units, 1)) if config.workers == "auto" else config.workers
    if memory:
        memory = int(min(memory, max(offer.memory for offer in offers)))
        workers = min(workers, max(1, capacity(offers, gpus, cpus, memory)))
    return Placement(workers, gpus, cpus, memory)


def gpus_per_worker(config: Cluster, offers: Sequence[Offer]) -> float:
    """Resolve the GPUs of a worker; never CPUs where a GPU was asked for."""
    if config.gpus_per_worker == "auto":
        return 1.0 if any(offer.gpus > 0 for offer in offers) else 0.0
    asked = float(config.gpus_per_worker)
    if asked > max(offer.gpus for offer in offers):
        raise RefusedError(
            f"cluster.gpus_per_worker: {asked:g} GPUs asked, no node has them; the nodes offer "
            f"{describe(offers)}: use auto, or 0 for CPUs"
        )
    return asked


def cpus_per_worker(
    config: Cluster, offers: Sequence[Offer], gpus: float, single: SingleThread | None
) -> int:
    """Resolve the CPUs of a worker: a GPU's share of its node, or what lets all workers fit."""
    if config.cpus_per_worker != "auto":
        return config.cpus_per_worker
    usable = [offer for offer in offers if offer.gpus >= gpus] if gpus else list(offers)
    widest = max(offer.cpus for offer in usable)
    if gpus:
        share = min(offer.cpus * gpus // offer.gpus for offer in usable if offer.gpus)
        return max(1, int(share))
    choices = range(1, min(widest, CPUS_PER_WORKER) + 1)
    counts = {cpus: capacity(offers, gpus, cpus) for cpus in choices}
    wanted = 1 if config.workers == "auto" else config.workers
    if config.workers == "auto" and single is not None:
        room = sum(int(min(o.cpus, o.memory / single.worker_bytes)) for o in offers)
        fitting = [count for count in counts.values() if count <= room] or [1]
        wanted = min(single.num_units, fitting[0])
    return max((cpus for cpus, count in counts.items() if count >= wanted), default=1)


def capacity(offers: Sequence[Offer], gpus: float, cpus: int, memory: int = 0) -> int:
    """Count the workers that fit on the nodes at once."""
    return sum(
        min(
            offer.cpus // cpus,
            slots_by_gpu(offer.gpus, gpus) if gpus else offer.cpus,
            int(offer.memory // memory) if memory and offer.memory < math.inf else offer.cpus,
        )
        for offer in offers
    )


def slots_by_gpu(available: float, gpus: float) -> int:
    """Count workers by GPU: a share stays on one GPU, several stay whole."""
    return int(available) * int(1 / gpus) if gpus < 1 else int(available // gpus)


def describe(offers: Sequence[Offer]) -> str:
    """Write what the nodes have."""
    nodes = [f"{offer.cpus} CPUs and {offer.gpus:g} GPUs" for offer in offers[:8]]
    more = f" and {len(offers) - 8} nodes more" if len(offers) > 8 else ""
    return "; ".join(nodes) + more
