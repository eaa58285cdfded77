"""A job: the configuration with everything that is decided once, on the driver, before Ray starts.

Every check that needs no cluster happens here, and all refusals are told at once.
"""

import platform
from collections.abc import Collection
from dataclasses import asdict, dataclass
from importlib.metadata import version

from torch.nn import Module

from cnnvis_ray.config import Config, Maximize, dump_config
from cnnvis_ray.errors import Refusals, RefusedError
from cnnvis_ray.images import Labels, Listing, Source, check_labels, open_source, read_labels
from cnnvis_ray.ledger import Recipe, claim_run
from cnnvis_ray.maximization import Setting, check_recipe
from cnnvis_ray.network import (
    Layer,
    LayerTable,
    ResolvedNetwork,
    build_module,
    check_coverage,
    classifies,
    covers_head,
    make_pooling,
    resolve_network,
    trace_layers,
)
from cnnvis_ray.pictures import check_background
from cnnvis_ray.storage import Store

PACKAGES = ("cnnvis_ray", "ray", "torch", "torchvision", "numpy", "pyarrow", "openTSNE", "pillow")
LONGEST_FEATURE = 2**24  # numbers an image that one row may hold


@dataclass(frozen=True, slots=True)
class Images:
    """The image side of a job."""

    source: Source
    listing: Listing
    labels: Labels


@dataclass(frozen=True, slots=True)
class Vision:
    """The network side of a job.

    Attributes:
        predictions: whether the classes an image gets are kept.
    """

    network: ResolvedNetwork
    table: LayerTable
    layers: tuple[Layer, ...]
    predictions: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One invocation on one run directory.

    Attributes:
        root: fingerprint of the run's identity, the first link of every recipe.
        replace: stages whose earlier work may be dropped where its recipe changed.
    """

    config: Config
    store: Store
    images: Images
    vision: Vision
    root: str
    replace: frozenset[str]

    @property
    def pictured(self) -> tuple[Layer, ...]:
        """The layers whose channels are maximized."""
        return self.chosen(self.config.maximize.layers)

    def recipe_for(self, layer: Layer) -> Maximize:
        """Give the recipe of a layer's pictures, overrides applied."""
        return recipe_for(self.config, self.vision.table, layer)

    def chosen(self, names: list[str] | None) -> tuple[Layer, ...]:
        """Give the layers of a section: the run's where it names none of its own."""
        return self.vision.layers if names is None else tuple(self.vision.table.select(names))


def open_job(
    config: Config, replace: Collection[str] = (), stages: Collection[str] = ("extract",)
) -> Job:
    """Check everything that needs no cluster and open the run directory.

    Args:
        config: what is wanted.
        replace: stages whose earlier work may be dropped.
        stages: what will be done; only what they need is checked.

    Raises:
        RefusedError: every reason at once.
    """
    refusals = Refusals()
    images: Images | None = None
    vision: Vision | None = None
    with refusals.gather():
        images = open_images(config)
    with refusals.gather():
        vision = open_vision(config, stages)
    refusals.attempt(lambda: check_background(config.mosaic.background))
    refusals.raise_all()
    assert images is not None
    assert vision is not None
    store = Store(config.run_dir)
    root = claim_run(store, identity(images.source, vision.network), about(vision.network))
    keep_config(store, config)
    return Job(config, store, images, vision, root, frozenset(replace))


def open_images(config: Config) -> Images:
    """List the source and read its labels."""
    source = open_source(config.images)
    listing, labels = source.list(), read_labels(config.images, source)
    check_labels(config.images, labels, listing.keys())
    return Images(source, listing, labels)


def open_vision(config: Config, stages: Collection[str]) -> Vision:
    """Load the network, name its layers and check that the weights reach them."""
    network = resolve_network(config.network, config.seed)
    module = build_module(network)
    table = trace_layers(module, network.preprocess, network.name)
    layers = tuple(table.select(config.layers))
    refusals = Refusals()
    if "extract" in stages:
        refusals.attempt(lambda: check_coverage(network, table, layers))
        refusals.attempt(lambda: check_pooling(config, layers))
    if "maximize" in stages:
        chosen = config.maximize.layers
        pictured = layers if chosen is None else tuple(table.select(chosen))
        check_pictures(config, network, module, table, pictured)
    refusals.raise_all()
    return Vision(network, table, layers, wants_predictions(config, network, table))


def check_pictures(
    config: Config,
    network: ResolvedNetwork,
    module: Module,
    table: LayerTable,
    layers: tuple[Layer, ...],
) -> None:
    """Refuse pictures that cannot be made, by layer."""
    refusals = Refusals()
    refusals.attempt(lambda: check_coverage(network, table, layers))
    refusals.raise_all()
    needs = network.preprocess
    setting = Setting(needs.mean, needs.std, needs.crop, config.seed)
    for layer in layers:
        with refusals.gather():
            recipe = recipe_for(config, table, layer)
            if recipe.parametrization == "maco":  # its spectrum is measured later
                recipe = recipe.model_copy(update={"parametrization": "fourier"})
            check_recipe(module, layer, recipe, setting)
    refusals.raise_all()


def recipe_for(config: Config, table: LayerTable, layer: Layer) -> Maximize:
    """Lay the overrides of a layer, named in any way, over the section."""
    overrides = {
        name: override
        for pattern, override in config.maximize.overrides.items()
        for name in table.resolve([pattern])
    }
    return config.maximize.model_copy(update={"overrides": overrides}).for_layer(layer.name)


def check_pooling(config: Config, layers: tuple[Layer, ...]) -> None:
    """Refuse features too long for one row, by layer."""
    pooling = make_pooling(config.extract.pooling, config.seed)
    refusals = Refusals()
    for layer in layers:
        with refusals.gather():
            width = pooling.width(layer.channels, layer.height, layer.width)
            if width > LONGEST_FEATURE:
                raise RefusedError(
                    f"extract.pooling {config.extract.pooling!r} gives {width:,} numbers an image "
                    f"at {layer.name}; at most {LONGEST_FEATURE:,}: use mean or sketch:256"
                )
    refusals.raise_all()


def wants_predictions(config: Config, network: ResolvedNetwork, table: LayerTable) -> bool:
    """Resolve ``predictions: auto``: kept where the network classifies and its head is loaded."""
    asked = config.extract.predictions
    if asked is False:
        return False
    able = covers_head(network, table) and classifies(network, table)
    if asked is True and not able:
        raise RefusedError(
            f"extract.predictions: true, but {network.name} with weights {network.weights} has no "
            "loaded head that gives classes; use auto or false"
        )
    return able


def identity(source: Source, network: ResolvedNetwork) -> Recipe:
    """Say what makes a run this run and no other."""
    return {
        "images.source": source.identity,
        "network.name": network.name,
        "network.weights (sha256)": network.state_hash,
        "network.preprocess": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(network.preprocess).items()
        },
    }


def about(network: ResolvedNetwork) -> dict[str, str]:
    """Say which versions and weights opened a run."""
    versions = {name: version(name) for name in PACKAGES}
    return {"weights": network.weights, "python": platform.python_version(), **versions}


def keep_config(store: Store, config: Config) -> None:
    """Keep the configuration of this invocation; an earlier, different one moves to history/."""
    text = dump_config(config).encode()
    if store.exists("config.yaml"):
        earlier = store.read("config.yaml")
        if earlier == text:
            return
        store.write(f"history/config-{len(store.names('history')):04d}.yaml", earlier)
    store.write("config.yaml", text)
