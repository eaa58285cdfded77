"""What is decided before workers start, and what travels to them and back: plain records."""

import logging
from dataclasses import dataclass

from cnnvis_ray.config import Config, Images
from cnnvis_ray.config.explanation import Explain, Pictures
from cnnvis_ray.explanation.aims import Kind, check_target, find_kind
from cnnvis_ray.explanation.attention import find_attention
from cnnvis_ray.explanation.crops import Exemplar
from cnnvis_ray.explanation.methods import (
    METHODS,
    check_guided,
    check_methods,
    choose_methods,
    find_cam_layer,
)
from cnnvis_ray.images import Source
from cnnvis_ray.ledger import Pass
from cnnvis_ray.network import (
    Layer,
    LayerTable,
    ResolvedNetwork,
    build_module,
    check_coverage,
    covers_head,
)
from cnnvis_ray.pictures import check_look

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExplanationSetup:
    """What all workers of an explanation share.

    Attributes:
        kind: what the network's output is; None where its head has no weights.
        methods: those that this network can have.
        cam_layer: Grad-CAM's layer by name, empty where no method needs one.
        shown: the layers whose channels stand on image sheets.
        layers: every layer that crops may be asked of, by name.
        grid: the tokens whose attention is shown; None where no method needs it.
    """

    run_dir: str
    seed: int
    source: Source
    images: Images
    explain: Explain
    look: Pictures
    network: ResolvedNetwork
    kind: Kind | None
    methods: tuple[str, ...]
    cam_layer: str
    shown: tuple[Layer, ...]
    layers: dict[str, Layer]
    grid: Layer | None = None


def decide_setup(
    config: Config,
    source: Source,
    network: ResolvedNetwork,
    table: LayerTable,
    shown: tuple[Layer, ...],
) -> ExplanationSetup:
    """Decide what can be explained of a network, and log what cannot.

    Args:
        config: of the run.
        source: where the images are.
        network: with weights.
        table: its layers.
        shown: the layers of the section.

    Raises:
        RefusedError: the configuration asks for what the network does not have.
    """
    check_methods(config.explain.methods)
    check_look(config.pictures)
    check_coverage(network, table, shown)
    kind: Kind | None = None
    methods: list[str] = []
    cam_layer = ""
    grid: Layer | None = None
    if covers_head(network, table):
        kind = find_kind(config.explain.output, table.output, network.categories)
        assert table.output is not None
        check_target(config.explain.target, table.output)
        methods = choose_methods(config.explain, network.preprocess.crop)
        if any(METHODS[name].needs_relu_modules for name in methods):
            check_guided(methods, build_module(network), network.preprocess)
        if any(METHODS[name].needs_layer for name in methods):
            cam_layer = find_cam_layer(table, config.explain.cam_layer).name
        if any(METHODS[name].needs_attention for name in methods):
            grid = find_attention(build_module(network), table, network.preprocess)
    else:
        log.info("explain: the weights hold no head, so there are sheets without heat maps")
    return ExplanationSetup(
        config.run_dir,
        config.seed,
        source,
        config.images,
        config.explain,
        config.pictures,
        network,
        kind,
        tuple(methods),
        cam_layer,
        shown,
        {layer.name: layer for layer in table.layers},
        grid,
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image of a heat task.

    Attributes:
        sheet: whether it gets a sheet.
        curves: whether it gets deletion and insertion curves.
        label: of the image, for the sheet.
    """

    image_id: int
    key: str
    sheet: bool
    curves: bool
    label: str | None = None


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
