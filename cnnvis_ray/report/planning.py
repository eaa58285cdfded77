"""Which parts a report has, each with the digest of what it is made from."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cnnvis_ray.ledger import Run, by_number, open_run
from cnnvis_ray.report.catalogue import Catalogue
from cnnvis_ray.report.extras import has_neighbours
from cnnvis_ray.report.layers import Inputs
from cnnvis_ray.report.nights import GROUPS, audit_count, nights_of
from cnnvis_ray.report.pieces import Part, digest

PRODUCTS = {"maximization": "catalogue", "explanation": "cards"}
"""The stage whose markers name a folder's merged files, where it has another name."""

LARGE_UP_TO = 200_000  # images that get sheets of 128 pixels: 0.6 GB at most


@dataclass(frozen=True, slots=True)
class Options:
    """What a report shows.

    Attributes:
        max_images: show at most so many images, evenly by label; None is all.
        order: the layers in the network's order; those of the run by name without it.
        inputs: by layer, the layer that feeds it and its kernels' norms, ``channel input``.
        compare: another run, whose maps are shown beside this run's.
    """

    max_images: int | None = None
    order: tuple[str, ...] = ()
    inputs: Mapping[str, Inputs] = field(default_factory=dict)
    compare: str | None = None


def plan_report(run: Run, catalogue: Catalogue, options: Options) -> list[Part]:
    """List the parts of a report, those of work units first."""
    return [
        *plan_units(run, catalogue),
        *plan_layers(run, catalogue, options),
        *plan_rest(run, catalogue),
        *plan_others(run, catalogue, options),
    ]


def plan_units(run: Run, catalogue: Catalogue) -> Iterator[Part]:
    """List the parts of each work unit."""
    large = len(catalogue.image_id) <= LARGE_UP_TO
    for unit in catalogue.units:
        inputs = digest(unit.sha256, unit.labels, unit.ids, large)
        files = (unit.path, "large") if large else (unit.path,)
        yield Part("images", unit.name, inputs, files, unit.ids)
    shown = {unit.name: unit.ids for unit in catalogue.units}
    for layer in run.layers():
        for file in run.files("extract", f"features/{layer}"):
            unit_name = file.path.rsplit("/", 1)[-1][:6]
            if unit_name in shown:
                ids = shown[unit_name]
                inputs = digest(file.sha256, ids)
                yield Part("strongest", f"{layer}/{unit_name}", inputs, (file.path,), ids)


def plan_layers(run: Run, catalogue: Catalogue, options: Options) -> Iterator[Part]:
    """List the parts of each layer."""
    shown = shown_digest(catalogue)
    for layer in layers_of(run, options):
        features = [file.sha256 for file in run.files("extract", f"features/{layer}")]
        if run.store.exists(f"embedding/{layer}.parquet"):
            version_ = content(run, f"embedding/{layer}.parquet")
            yield Part("map", layer, digest(shown, version_))
        if run.store.exists(f"channels/{layer}.parquet"):
            read = [f"channels/{layer}.parquet", f"explanation/selectivity/{layer}.parquet"]
            names = run.store.names("maximization")
            read += [f"maximization/{name}/{layer}.parquet" for name in names]
            crops = [file.sha256 for file in run.files("crops", f"explanation/crops/{layer}")]
            kernels = options.inputs.get(layer)
            norms = None if kernels is None else [kernels[0], kernels[1].tolist()]
            versions = [content(run, path) for path in read]
            yield Part("layer", layer, digest(shown, features, versions, crops, norms))
        if has_neighbours(run, catalogue, layer):
            stored = [
                content(run, f"neighbours/{layer}/{name}")
                for name in run.store.names(f"neighbours/{layer}")
            ]
            yield Part("neighbours", layer, digest(shown, stored, features))


def plan_rest(run: Run, catalogue: Catalogue) -> Iterator[Part]:
    """List the parts of the whole run."""
    heat = [file.sha256 for file in run.files("explain", "explanation/heat")]
    if heat:
        classes = content(run, "explanation/classes.parquet")
        yield Part("heat", "all", digest(shown_digest(catalogue), heat, classes))
    for name in mosaics_of(run):
        files = run.files("mosaic", "mosaic")
        own = [
            file.sha256
            for file in files
            if file.path.startswith((f"mosaic/{name}.", f"mosaic/{name}_files/"))
        ]
        yield Part("mosaic", name, digest(own))
    rejects = [file.sha256 for file in run.files("images", "rejects") if file.rows]
    if rejects:
        yield Part("rejects", "all", digest(rejects))


def plan_others(run: Run, catalogue: Catalogue, options: Options) -> Iterator[Part]:
    """List the parts of nights, of the audit, and of the run to compare with."""
    shown = shown_digest(catalogue)
    for name in nights_of(run):
        yield Part("night", name, digest(shown, content(run, f"placed/{name}/changes.json")))
    if audit_count(run):
        versions = [content(run, f"audit/{name}.parquet") for name in GROUPS]
        yield Part("audit", "all", digest(shown, versions))
    if options.compare is not None:
        other = open_run(options.compare)
        for layer in maps_of(other):
            version_ = content(other, f"embedding/{layer}.parquet")
            yield Part("other", layer, digest(shown, options.compare, version_))


def maps_of(run: Run) -> list[str]:
    """List the layers that have a map."""
    layers = sorted(run.layers(), key=by_number)
    return [layer for layer in layers if run.store.exists(f"embedding/{layer}.parquet")]


def shown_digest(catalogue: Catalogue) -> str:
    """Digest which images are shown and what they are called."""
    units = [[unit.name, unit.rows, unit.sha256, unit.labels] for unit in catalogue.units]
    return digest(units, len(catalogue.classes))


def content(run: Run, path: str) -> str | None:
    """Return a file's digest from its marker, or from its content; None where there is none."""
    if not run.store.exists(path):
        return None
    folder = path.split("/")[0]
    for file in run.files(PRODUCTS.get(folder, folder), folder):
        if file.path == path:
            return file.sha256
    return hashlib.sha256(run.store.read(path)).hexdigest()


def layers_of(run: Run, options: Options) -> list[str]:
    """List the layers that have features or a map, in the network's order."""
    rank = {layer: place for place, layer in enumerate(options.order)}
    return sorted(run.layers(), key=lambda layer: (rank.get(layer, len(rank)), by_number(layer)))


def mosaics_of(run: Run) -> list[str]:
    """List the run's mosaics, each one PNG or a Deep Zoom pyramid, grids of deep layers first."""
    names = {name[:-4] for name in run.store.names("mosaic") if name.endswith((".png", ".dzi"))}
    by_layer = sorted(names, key=lambda name: by_number(name.rpartition("-")[0]), reverse=True)
    return sorted(by_layer, key=lambda name: not name.endswith("-grid"))
