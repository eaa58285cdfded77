"""What travels to an extraction worker and back, and how a task is divided: plain records."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cnnvis_ray.config import Extract, Images
from cnnvis_ray.images import Source
from cnnvis_ray.ledger import ImageUnit, Pass
from cnnvis_ray.network import Layer, ResolvedNetwork


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
