"""What travels to an explaining worker and back: plain records."""

from dataclasses import dataclass

from cnnvis_ray.config import Images
from cnnvis_ray.config.explanation import Explain
from cnnvis_ray.explanation.aims import Kind
from cnnvis_ray.explanation.crops import Exemplar
from cnnvis_ray.images import Source
from cnnvis_ray.ledger import Pass
from cnnvis_ray.network import Layer, ResolvedNetwork


@dataclass(frozen=True, slots=True)
class ExplanationSetup:
    """What all workers of an explanation share.

    Attributes:
        kind: what the network's output is; None where its head has no weights.
        methods: those that this network can have.
        cam_layer: Grad-CAM's layer by name, empty where no method needs one.
        shown: the layers whose channels stand on image sheets.
        layers: every layer that crops may be asked of, by name.
    """

    run_dir: str
    seed: int
    source: Source
    images: Images
    explain: Explain
    network: ResolvedNetwork
    kind: Kind | None
    methods: tuple[str, ...]
    cam_layer: str
    shown: tuple[Layer, ...]
    layers: dict[str, Layer]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image of a heat task.

    Attributes:
        sheet: whether it gets a sheet.
        curves: whether it gets deletion and insertion curves.
    """

    image_id: int
    key: str
    sheet: bool
    curves: bool


@dataclass(frozen=True, slots=True)
class HeatTask:
    """Heat maps of some images of one unit."""

    unit: str
    owner: Pass
    images: tuple[Wanted, ...]
    size: int = 1

    @property
    def name(self) -> str:
        """The unit's name, for messages."""
        return self.unit


@dataclass(frozen=True, slots=True)
class CropTask:
    """Crops of one layer from the images of one unit."""

    unit: str
    owner: Pass
    layer: str
    exemplars: tuple[Exemplar, ...]
    size: int = 1

    @property
    def name(self) -> str:
        """Layer and unit, for messages."""
        return f"{self.layer} {self.unit}"

    @property
    def images(self) -> tuple[str, ...]:
        """The keys of the images, each once."""
        return tuple(dict.fromkeys(exemplar.key for exemplar in self.exemplars))


@dataclass(frozen=True, slots=True)
class ExplanationReport:
    """How many images a task had, and the keys of those that could not be read."""

    images: int
    unreadable: tuple[str, ...]

    @property
    def rejects(self) -> int:
        """How many images could not be read."""
        return len(self.unreadable)

    @property
    def warnings(self) -> list[str]:
        """One for each image that could not be read."""
        return [f"image {key!r} cannot be read any more" for key in self.unreadable]
