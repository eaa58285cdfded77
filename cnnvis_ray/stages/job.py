"""A job: one invocation on one run directory, with everything that is decided once.

Opening a job reads and refuses; it writes nothing. `Job.write` stores identity and configuration
after every stage has decided.
"""

import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice

import pyarrow as pa

from cnnvis_ray import ledger
from cnnvis_ray.config import Config, Maximize, dump_config, parse_config
from cnnvis_ray.errors import Refusals, RefusedError
from cnnvis_ray.images import (
    Labels,
    Listing,
    Source,
    absolute_source,
    is_same_source,
    open_source,
)
from cnnvis_ray.ledger import Ledger, Recipe
from cnnvis_ray.network import (
    Layer,
    LayerTable,
    Preprocess,
    ResolvedNetwork,
    build_module,
    classifies,
    covers_head,
    resolve_network,
    skeleton,
    trace_layers,
)
from cnnvis_ray.storage import Store

PACKAGES = ("cnnvis_ray", "ray", "torch", "torchvision", "numpy", "pyarrow", "openTSNE", "pillow")
CONFIG = "config.yaml"
KEYS = pa.schema([("image_id", pa.int64()), ("key", pa.string())])
BLOCK_UNITS = 256  # whose keys are Python objects at a time
WITH_WEIGHTS = {"extract", "maximize", "explain", "report"}
"""The stages that compute with the network; the others only name its layers."""


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
        layers: the run's layers.
        predictions: whether the classes that an image gets are kept.
    """

    network: ResolvedNetwork
    table: LayerTable
    layers: tuple[Layer, ...]
    predictions: bool


@dataclass(slots=True)
class Job:
    """One invocation on one run directory.

    Attributes:
        stages: what the verb goes through.
        replace: stages whose work is done again.
        keep: whether the configuration becomes the run's.
        source: the identity of the source, as the run stores it.
        keys: image_id and key of every usable image, once they are known.
        labels: their present labels, once they are known.
    """

    config: Config
    store: Store
    ledger: Ledger
    images: Images
    vision: Vision
    stages: tuple[str, ...]
    replace: frozenset[str]
    keep: bool
    source: str
    keys: pa.Table | None = field(default=None)
    labels: list[str | None] | None = field(default=None)

    @property
    def identity(self) -> Recipe:
        """What makes a run this run and no other."""
        network = self.vision.network
        return {
            "images.source": self.source,
            "network.name": network.name,
            "network.weights (sha256)": network.state_hash,
            "network.preprocess": preprocess_recipe(network),
        }

    @property
    def root(self) -> str:
        """The fingerprint of the identity, the first link of every recipe's chain."""
        return ledger.fingerprint(self.identity)

    def recipe_for(self, layer: Layer) -> Maximize:
        """Return the maximize section with the overrides of one layer applied."""
        overrides = {
            name: override
            for pattern, override in self.config.maximize.overrides.items()
            for name in self.vision.table.resolve([pattern])
        }
        section = self.config.maximize.model_copy(update={"overrides": overrides})
        return section.for_layer(layer.name)

    def chosen(self, names: list[str] | None) -> tuple[Layer, ...]:
        """Return the layers of a section: the run's where it names none."""
        return self.vision.layers if names is None else tuple(self.vision.table.select(names))

    def title_of(self, layer: str) -> str:
        """Return network and layer, with the name that people use for the layer."""
        found = next((each for each in self.vision.table.layers if each.name == layer), None)
        alias = f" ({found.aliases[0]})" if found is not None and found.aliases else ""
        return f"{self.vision.network.name}, {layer}{alias}"

    def class_names(self, layer: str) -> tuple[str, ...]:
        """Return the classes that a layer's channels stand for: the head's, else none."""
        found = next((each for each in self.vision.table.layers if each.name == layer), None)
        categories = self.vision.network.categories or ()
        if found is None or self.vision.table.output is None:
            return ()
        is_head = found.channels == len(categories) == self.vision.table.output[0]
        return tuple(categories) if is_head else ()

    def image_keys(self) -> pa.Table:
        """Return image_id and key of every usable image, from the plan and the markers alone."""
        if self.keys is None:
            rejects = {
                unit: set(marker.rejects)
                for owner in self.ledger.passes("images")
                for unit, marker in self.ledger.markers(owner).items()
            }
            blocks: list[pa.Table] = []
            live = ledger.read_plan(self.store).units()
            while units := list(islice(live, BLOCK_UNITS)):
                rows = [
                    (ledger.image_id(unit.number, slot), key)
                    for unit in units
                    if (without := rejects.get(unit.name)) is not None
                    for slot, key in unit.images()
                    if slot not in without
                ]
                columns = zip(*rows, strict=True) if rows else ((), ())
                arrays = [pa.array(c, f.type) for c, f in zip(columns, KEYS, strict=True)]
                blocks.append(pa.table(arrays, schema=KEYS))
            self.keys = pa.concat_tables(blocks) if blocks else KEYS.empty_table()
        return self.keys

    def image_labels(self) -> list[str | None]:
        """Return the present labels of the usable images, in the order of `image_keys`."""
        if self.labels is None:
            names: dict[str | None, str | None] = {}  # each name once: 8 bytes per image
            found = (
                self.images.labels.of(key)
                for chunk in self.image_keys()["key"].chunks
                for key in chunk.to_pylist()
            )
            self.labels = [names.setdefault(label, label) for label in found]
        return self.labels

    def write(self) -> None:
        """Store what an accepted invocation is: run.json, and its configuration.

        A configuration that holds for this invocation alone goes to history/, and so does the
        run's earlier one when another takes its place.
        """
        versions = {name: version(name) for name in PACKAGES}
        network = {"weights": self.vision.network.weights, "python": platform.python_version()}
        ledger.write_identity(self.store, self.identity, {**network, **versions})
        text = dump_config(self.config).encode()
        earlier = self.store.read(CONFIG) if self.store.exists(CONFIG) else None
        if earlier == text:
            return
        number = len(self.store.names("history"))
        if earlier is not None:
            aside = earlier if self.keep else text
            self.store.write(f"history/config-{number:04d}.yaml", aside)
        if self.keep or earlier is None:
            self.store.write(CONFIG, text)


def open_job(
    config: Config, stages: tuple[str, ...], replace: Collection[str] = (), keep: bool = True
) -> Job:
    """Check what every stage relies on and read the ledger. Writes nothing.

    Raises:
        RefusedError: every reason at once.
    """
    refusals = Refusals()
    config = config.model_copy(update={"images": absolute_source(config.images)})
    store = Store(config.run_dir)
    found: list[Images] = []
    with refusals.gather():
        found.append(open_images(config))
    with refusals.gather():
        light = None if WITH_WEIGHTS & set(stages) else name_layers(config, store)
        vision = light or open_vision(config)
    refusals.raise_all()
    source = find_source(store, found[0].source)
    job = Job(
        config=config,
        store=store,
        ledger=Ledger(store),
        images=found[0],
        vision=vision,
        stages=stages,
        replace=frozenset(replace),
        keep=keep,
        source=source,
    )
    roots = {
        str(owner.recipe["root"])
        for owner in job.ledger.passes("images")
        if "root" in owner.recipe
    }
    ledger.check_identity(store, job.identity, roots)
    return job


def find_source(store: Store, source: Source) -> str:
    """Return a source's identity as the run stores it: earlier versions stored relative places."""
    try:
        known = ledger.read_identity(store)
    except RefusedError:  # run.json is damaged; `check_identity` decides
        known = None
    stored = str(known["images.source"]) if known else ""
    return stored if is_same_source(stored, source.identity) else source.identity


def open_images(config: Config) -> Images:
    """List the source and read its labels."""
    source = open_source(config.images, config.run_dir)
    listing = source.list()
    return Images(source, listing, source.read_labels(config.images, listing))


def open_vision(config: Config) -> Vision:
    """Resolve the network and name its layers."""
    network = resolve_network(config.network, config.seed)
    table = trace_layers(build_module(network), network.preprocess, network.name)
    layers = tuple(table.select(config.layers))
    return Vision(network, table, layers, keeps_predictions(config, network, table))


def name_layers(config: Config, store: Store) -> Vision | None:
    """Name the layers of a run's own network without its weights, from run.json.

    Returns:
        None where the network is not the one that the run's configuration names.
    """
    identity = ledger.read_identity(store)
    if identity is None or not store.exists(CONFIG):
        return None
    if parse_config(store.read(CONFIG), CONFIG).network != config.network:
        return None
    known = identity["network.preprocess"]
    assert isinstance(known, Mapping)
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in known.items()}
    preprocess = Preprocess(**values)  # type: ignore[arg-type]
    name, state_hash = config.network.name, str(identity["network.weights (sha256)"])
    network = ResolvedNetwork(name, config.network.weights, {}, state_hash, preprocess, None, {})
    module, _ = skeleton(name, preprocess)
    table = trace_layers(module, preprocess, name)
    return Vision(network, table, tuple(table.select(config.layers)), False)


def keeps_predictions(config: Config, network: ResolvedNetwork, table: LayerTable) -> bool:
    """Resolve ``predictions: auto``: kept where the network classifies and its head is loaded."""
    asked = config.extract.predictions
    if asked is False:
        return False
    able = covers_head(network, table) and classifies(network, table)
    if asked is True and not able:
        raise RefusedError(
            f"extract.predictions: true, but {network.name} with weights {network.weights} has "
            "no loaded head that returns classes; use auto or false"
        )
    return able


def tokens_recipe(job: Job) -> Recipe:
    """State how a transformer's tokens are laid out; nothing of any other network.

    A run made when they were one column, the class token its first place, is of another recipe.
    """
    return {"network.tokens": "grid"} if job.vision.table.has_tokens else {}


def preprocess_recipe(network: ResolvedNetwork) -> Recipe:
    """Write a network's preprocess as a recipe does."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(network.preprocess).items()
    }
