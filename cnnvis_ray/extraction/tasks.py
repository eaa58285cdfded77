"""What travels to an extraction worker and back, and how a task is divided: plain records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cnnvis_ray.config import Extract, Images
from cnnvis_ray.images import Source
from cnnvis_ray.ledger import ImageUnit, Pass
from cnnvis_ray.network import Layer, ResolvedNetwork

CPU_BATCH, GPU_BATCH = 8, 32
"""Of 1 to 64 images, 4 and 8 are fastest on one CPU thread (SqueezeNet 1.1, ms an image: 6.6 at
1, 6.0 at 4, 6.2 at 8, 6.7 at 32), and 8 needs a quarter of the memory of 32."""


def batch_size(extract: Extract, device: str) -> int:
    """Resolve how many images a forward pass takes on a device."""
    if extract.batch_size == "auto":
        return CPU_BATCH if device == "cpu" else GPU_BATCH
    return extract.batch_size


def worker_bytes(network: ResolvedNetwork, layers: Iterable[Layer], images: int) -> float:
    """Estimate the memory of a worker on a CPU from above, for placement: bytes.

    Measured with one thread, batches of 8: SqueezeNet 1.1 0.87 GB where this returns 1.06, VGG16
    2.42 where it returns 2.47.

    Args:
        network: its weights count twice: as they came, and in the module.
        layers: all of the network; the largest map counts four times.
        images: per batch.
    """
    weights = sum(tensor.nbytes for tensor in network.state.values())
    sizes = (la.channels * (la.height or 1) * (la.width or 1) for la in layers)
    return PROCESS_BYTES + 2 * weights + 4 * 4 * images * max(sizes, default=0)


PROCESS_BYTES = 950e6  # torch, Ray and pyarrow in a process, with a histogram for each channel


@dataclass(frozen=True, slots=True)
class ExtractionSetup:
    """What all workers of an extraction share.

    Attributes:
        layers: every layer that may be asked, by name.
        predictions: whether the forward runs to the head and the classes are kept.
    """

    run_dir: str
    seed: int
    source: Source
    images: Images
    extract: Extract
    network: ResolvedNetwork
    layers: dict[str, Layer]
    predictions: bool


@dataclass(frozen=True, slots=True)
class ExtractionTask:
    """One unit, and what of it is due.

    Attributes:
        labels: one per image, in the unit's order.
        images: the pass of rows and rejects, if it is due.
        passes: the passes of features that are due.
        rejects: slots that the images pass, done earlier, found unusable.
        crashed: slots whose images end their worker's process; they become rejects unread.
        only: a probe's slots; a probe does these and commits nothing.
    """

    unit: ImageUnit
    labels: tuple[str | None, ...]
    images: Pass | None
    passes: tuple[Pass, ...]
    rejects: frozenset[int] = frozenset()
    crashed: frozenset[int] = frozenset()
    only: frozenset[int] | None = None

    @property
    def name(self) -> str:
        """The unit's name, for messages."""
        return self.unit.name

    @property
    def size(self) -> int:
        """How many images it is."""
        return len(self.unit)

    @property
    def wanted(self) -> list[tuple[int, str]]:
        """Slot and key of every image that is to be read, by slot."""
        without = self.rejects | self.crashed
        return [
            (slot, key)
            for slot, key in self.unit.images()
            if slot not in without and (self.only is None or slot in self.only)
        ]

    @property
    def layers(self) -> list[str]:
        """Every layer that is due; one forward serves all of them."""
        return [layer for owner in self.passes for layer in owner.layers]


@dataclass(frozen=True, slots=True)
class ExtractionReport:
    """What one unit's extraction made."""

    rows: int
    rejects: int
    bytes: int
    seconds: float

    @property
    def stage(self) -> str:
        """The verb, for the counters."""
        return "extract"

    def counts(self) -> dict[str, float]:
        """Return what the counters add up."""
        return {
            "images": self.rows,
            "rejects": self.rejects,
            "bytes": self.bytes,
            "seconds": self.seconds,
        }


class ImageDivider:
    """Halves a unit into probes, to find the images that end their worker's process."""

    def probes(self, task: ExtractionTask) -> list[ExtractionTask]:
        """Return the halves of a task as probes; a whole unit of one image is probed once."""
        slots = [slot for slot, _ in task.wanted]
        if len(slots) == 1:
            return [] if task.only is not None else [replace(task, only=frozenset(slots))]
        middle = len(slots) // 2
        halves = (slots[:middle], slots[middle:])
        return [replace(task, only=frozenset(half)) for half in halves if half]

    def without(self, task: ExtractionTask, culprits: Sequence[ExtractionTask]) -> ExtractionTask:
        """Return the task in which the probes' images become rejects."""
        found = frozenset(slot for probe in culprits for slot, _ in probe.wanted)
        return replace(task, crashed=task.crashed | found)
