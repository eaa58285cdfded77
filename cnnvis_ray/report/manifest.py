"""What every page needs to know of a run: the piece ``run``."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import TypedDict

from cnnvis_ray.ledger import Run, open_run
from cnnvis_ray.report.catalogue import Catalogue
from cnnvis_ray.report.extras import explained_images
from cnnvis_ray.report.layers import read_pictures
from cnnvis_ray.report.maps import other_slug
from cnnvis_ray.report.nights import audit_count, nights_of, summarize_night
from cnnvis_ray.report.pieces import FOLDER, slug
from cnnvis_ray.report.planning import LARGE_UP_TO, Options, layers_of, maps_of, mosaics_of

QUALITY = {
    "knn_preservation": "neighbours kept",
    "trustworthiness": "trustworthiness",
    "label_agreement": "label agreement",
    "label_chance": "by chance",
}
"""Measures of a map that pages show, and their words."""


class Made(TypedDict):
    """What the record keeps of a part: the digest of its inputs, its files and their bytes."""

    inputs: str
    files: list[tuple[str, int]]


def crop_of(run: Run) -> tuple[int, int]:
    """Read to what side the network's preprocess resizes, and what square it cuts."""
    identity = json.loads(run.store.read("run.json"))["identity"]
    preprocess = identity.get("network.preprocess", {})
    return int(preprocess.get("resize", 1)), int(preprocess.get("crop", 1))


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
        "others": describe_others(options.compare),
        "mosaics": [{"name": name, "file": slug(name)} for name in mosaics_of(run)],
        "explained": explained,
        "classheat": bool(explained) and run.store.exists("explanation/classes.parquet"),
        "nights": [summarize_night(run, name) for name in nights_of(run)],
        "audit": audit_count(run),
    }


def describe_others(run_dir: str | None) -> list[dict[str, object]]:
    """Return the maps of the run to compare with."""
    if run_dir is None:
        return []
    named = run_dir.rstrip("/").rpartition("/")[2]
    return [
        {"name": f"{layer} in {named}", "file": other_slug(layer)}
        for layer in maps_of(open_run(run_dir))
    ]


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
