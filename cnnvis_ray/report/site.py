"""The whole report: which parts it has, which of them are due, and the pages around them.

`plan_report` reads what a run has, `Maker` writes one part wherever it is called, and
`write_report` brings both together. What is written is recorded with the digests of its inputs
in ``report/made.json``: a part whose inputs are as before is left as it is, and files of parts
that are gone are deleted.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files as package_files
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import Run, by_number, open_run
from cnnvis_ray.ledger.reading import LABELS
from cnnvis_ray.report.catalogue import Catalogue, read_catalogue
from cnnvis_ray.report.extras import (
    explained_images,
    has_neighbours,
    make_heat,
    make_mosaic,
    make_neighbours,
    make_rejects,
)
from cnnvis_ray.report.images import make_images, unit_rows
from cnnvis_ray.report.layers import Inputs, make_layer, make_strongest, read_pictures
from cnnvis_ray.report.maps import make_map, make_other_map, other_slug
from cnnvis_ray.report.nights import (
    GROUPS as AUDITED,
    audit_count,
    make_audit,
    make_night,
    nights_of,
    summarize_night,
)
from cnnvis_ray.report.pieces import FOLDER, Part, digest, pack, slug, write_piece
from cnnvis_ray.storage import ShardFile, write_bytes

MADE = f"{FOLDER}/made.json"
PRODUCTS = {"maximization": "catalogue", "explanation": "cards"}
"""The stage whose markers name a folder's merged files, where it has another name."""

QUALITY = {
    "knn_preservation": "neighbours kept",
    "trustworthiness": "trustworthiness",
    "label_agreement": "label agreement",
    "label_chance": "by chance",
}
"""Measures of a map that pages show, and their words."""

RECORD_SECONDS = 5.0  # at most so much work is done twice after a kill
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


class Made(TypedDict):
    """What the record keeps of a part: the digest of its inputs, its files and their bytes."""

    inputs: str
    files: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Written:
    """What one call of `write_report` did.

    Attributes:
        path: of ``index.html``.
        parts: of the report.
        made: parts that were written; the others were as before.
        bytes: of all files of the report.
    """

    path: str
    parts: int
    made: int
    bytes: int


class Maker:
    """Writes parts of one run's report; small and picklable, reads a run where it is called."""

    def __init__(self, run_dir: str, options: Options) -> None:
        self.run_dir = run_dir
        self.options = options

    def __getstate__(self) -> dict[str, object]:
        """Travel without what was read."""
        return {"run_dir": self.run_dir, "options": self.options}

    @cached_property
    def run(self) -> Run:
        """The run."""
        return open_run(self.run_dir)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The shown images."""
        return read_catalogue(self.run, self.options.max_images)

    @cached_property
    def other(self) -> Run:
        """The run to compare with."""
        assert self.options.compare is not None
        return open_run(self.options.compare)

    @cached_property
    def labels(self) -> pa.Table | None:
        """The present labels by image id, where they differ from those of the image shards."""
        return self.run.table(LABELS) if self.run.store.exists(LABELS) else None

    def __call__(self, part: Part) -> tuple[Part, list[ShardFile]]:
        """Write one part and return it with its files."""
        return part, MAKERS[part.kind](self, part)


def make_unit(maker: Maker, part: Part) -> list[ShardFile]:
    """Write a work unit's rows and sheets."""
    store = maker.run.store
    ids = unit_rows(store, part, ["image_id"])["image_id"]
    labels = maker.labels
    if labels is not None:
        place = pc.index_in(ids, value_set=labels["image_id"].combine_chunks())
        found = labels["label"].combine_chunks().take(place.combine_chunks()).to_pylist()
    else:
        found = unit_rows(store, part, ["image_id", "label"])["label"].to_pylist()
    return make_images(store, part, found, large=len(part.files) > 1)


def make_unit_channels(maker: Maker, part: Part) -> list[ShardFile]:
    """Write the strongest channels of a work unit's images in one layer."""
    layer, _, unit = part.subject.rpartition("/")
    return make_strongest(maker.run.store, layer, unit, part.files[0], part.ids)


def crop_of(run: Run) -> tuple[int, int]:
    """Read to what side the network's preprocess resizes, and what square it cuts."""
    identity = json.loads(run.store.read("run.json"))["identity"]
    preprocess = identity.get("network.preprocess", {})
    return int(preprocess.get("resize", 1)), int(preprocess.get("crop", 1))


MAKERS: dict[str, Callable[[Maker, Part], list[ShardFile]]] = {
    "images": make_unit,
    "strongest": make_unit_channels,
    "map": lambda maker, part: make_map(maker.run, maker.catalogue, part.subject),
    "layer": lambda maker, part: make_layer(
        maker.run, maker.catalogue, part.subject, maker.options.inputs
    ),
    "neighbours": lambda maker, part: make_neighbours(maker.run, maker.catalogue, part.subject),
    "other": lambda maker, part: make_other_map(
        maker.run, maker.catalogue, maker.other, part.subject
    ),
    "heat": lambda maker, part: make_heat(maker.run, maker.catalogue),
    "night": lambda maker, part: make_night(maker.run, maker.catalogue, part.subject),
    "audit": lambda maker, part: make_audit(maker.run, maker.catalogue),
    "mosaic": lambda maker, part: make_mosaic(maker.run, part.subject),
    "rejects": lambda maker, part: make_rejects(maker.run),
}


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
        versions = content(run, f"placed/{name}/changes.json")
        yield Part("night", name, digest(shown, versions))
    if audit_count(run):
        versions = [content(run, f"audit/{name}.parquet") for name in AUDITED]
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
    by_layer = sorted(names, key=by_number, reverse=True)
    return sorted(by_layer, key=lambda name: not name.endswith("-grid"))


def write_report(
    run_dir: str,
    options: Options | None = None,
    map_parts: Callable[
        [Maker, list[Part]], Iterable[tuple[Part, list[ShardFile]]]
    ] = lambda maker, parts: map(maker, parts),
) -> Written:
    """Write a run's report, what is due of it, and return what was done.

    Args:
        run_dir: the run, by path or URI.
        options: what is shown.
        map_parts: calls the maker with each part, here or on a cluster, in any order.

    Raises:
        RefusedError: there is no run, or no image is finished.
    """
    options = options or Options()
    maker = Maker(run_dir, options)
    run = maker.run
    catalogue = maker.catalogue
    if not len(catalogue.image_id):
        raise RefusedError(f"{run_dir!r} has no usable image to show; run cnnvis status on it")
    parts = plan_report(run, catalogue, options)
    made = read_made(run)
    due = [part for part in parts if not is_made(made, part)]
    last = time.monotonic()
    for part, files in map_parts(maker, due):
        written = [(file.path, file.bytes) for file in files]
        made[part.name] = {"inputs": part.inputs, "files": written}
        if time.monotonic() - last > RECORD_SECONDS:
            record(run, made)
            last = time.monotonic()
    wanted = {part.name for part in parts}
    made = {name: entry for name, entry in made.items() if name in wanted}
    record(run, made)
    rest = [write_piece(run.store, "run", manifest(run, catalogue, options, made))]
    rest += [write_columns(run, catalogue), *write_app(run)]
    listed = {path: size for entry in made.values() for path, size in entry["files"]}
    listed |= {file.path: file.bytes for file in rest}
    run.store.delete(set(run.store.files(FOLDER)) - set(listed) - {MADE})
    return Written(f"{run_dir}/{FOLDER}/index.html", len(parts), len(due), sum(listed.values()))


def is_made(made: Mapping[str, Made], part: Part) -> bool:
    """Return whether a part is written from the same inputs."""
    return part.name in made and made[part.name]["inputs"] == part.inputs


def read_made(run: Run) -> dict[str, Made]:
    """Read the record of what is written; none of a damaged one."""
    try:
        return dict(json.loads(run.store.read(MADE)))
    except (FileNotFoundError, ValueError):
        return {}


def record(run: Run, made: dict[str, Made]) -> None:
    """Write the record."""
    text = json.dumps(dict(sorted(made.items())), separators=(",", ":"))
    run.store.write(MADE, text.encode())


def write_columns(run: Run, catalogue: Catalogue) -> ShardFile:
    """Write label and prediction of every image: a byte each up to 255 classes, else two."""
    wide = len(catalogue.classes) > 255
    kind, nothing = ("u2", 65_535) if wide else ("u1", 255)
    value: dict[str, object] = {"bytes": 2 if wide else 1}
    for name in ("label", "prediction"):
        numbers = getattr(catalogue, name)
        if (numbers >= 0).any():
            value[name] = pack([nothing if n < 0 else n for n in numbers.tolist()], kind)
    return write_piece(run.store, "columns", value)


def write_app(run: Run) -> list[ShardFile]:
    """Write the page, its scripts and styles."""
    folder = package_files("cnnvis_ray.report") / "app"
    written = []
    for source in sorted(folder.iterdir(), key=lambda path: path.name):
        place = "" if source.name == "index.html" else "app/"
        if source.is_file():
            path = f"{FOLDER}/{place}{source.name}"
            written.append(write_bytes(run.store, path, source.read_bytes()))
    return written


def manifest(
    run: Run, catalogue: Catalogue, options: Options, made: Mapping[str, Made]
) -> dict[str, object]:
    """Return what every page needs to know of the run."""
    about = json.loads(run.store.read("run.json"))
    summary = {}
    if run.store.exists("summary.json"):
        summary = json.loads(run.store.read("summary.json"))
    identity = about["identity"]
    quality = summary.get("quality", {})
    layers = [describe_layer(run, layer, made, quality) for layer in layers_of(run, options)]
    seconds = {stage: duration(value) for stage, value in summary.get("seconds", {}).items()}
    versions = {"cnnvis_ray": version("cnnvis_ray"), **about.get("versions", {})}
    known = {"source": identity.get("images.source", ""), **seconds, **versions}
    rejects = sum(file.rows for file in run.files("images", "rejects"))
    labels = len(set(catalogue.label[catalogue.label >= 0].tolist()))
    explained = explained_images(run, catalogue)
    others: list[dict[str, object]] = []
    if options.compare is not None:
        named = options.compare.rstrip("/").rpartition("/")[2]
        others = [
            {"name": f"{layer} in {named}", "file": other_slug(layer)}
            for layer in maps_of(open_run(options.compare))
        ]
    facts = {
        "images": catalogue.total,
        "rejected": rejects,
        "classes": labels,
        "layers": len(layers),
        "channel pictures": sum(int(str(layer["pictures"])) for layer in layers),
        "explained images": len(explained),
    }
    return {
        "network": identity.get("network.name", ""),
        "facts": [[term, f"{value:,}"] for term, value in facts.items() if value],
        "about": [[term, str(text)] for term, text in known.items()],
        "crop": crop_of(run),
        "images": len(catalogue.image_id),
        "total": catalogue.total,
        "rejects": rejects,
        "classes": catalogue.classes,
        "labelled": int((catalogue.label >= 0).sum()),
        "predicted": int((catalogue.prediction >= 0).sum()),
        "units": [[unit.number, unit.rows] for unit in catalogue.units],
        "large": len(catalogue.image_id) <= LARGE_UP_TO,
        "layers": layers,
        "others": others,
        "mosaics": [{"name": name, "file": slug(name)} for name in mosaics_of(run)],
        "explained": explained,
        "classheat": bool(explained) and run.store.exists("explanation/classes.parquet"),
        "nights": [summarize_night(run, name) for name in nights_of(run)],
        "audit": audit_count(run),
    }


def describe_layer(
    run: Run, layer: str, made: Mapping[str, Made], quality: Mapping[str, Mapping[str, float]]
) -> dict[str, object]:
    """Return what the report has of a layer, and how good its map is."""
    has = {kind: f"{kind}/{layer}" in made for kind in ("map", "layer", "neighbours")}
    own = [
        entry["files"] for name, entry in made.items() if name.startswith(f"strongest/{layer}/")
    ]
    written = made[f"layer/{layer}"]["files"] if has["layer"] else []
    judged = quality.get(layer, {})
    return {
        "name": layer,
        "file": slug(layer),
        **has,
        "strongest": has["layer"] and bool(own) and all(own),
        "classes": any(path.startswith(f"{FOLDER}/data/classes/") for path, _ in written),
        "pictures": len(read_pictures(run, layer)) if has["layer"] else 0,
        "facts": [
            [term, f"{100 * judged[name]:.3g} %"]
            for name, term in QUALITY.items()
            if isinstance(judged.get(name), int | float)
        ],
    }


def duration(seconds: float) -> str:
    """Return a time as a person reads it."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"
