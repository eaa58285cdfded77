"""The verb ``audit``: near duplicates, wrong labels, outliers and broken classes of a run.

It reads features, labels and thumbnails, and writes ``audit/``: rows with scores, sheets with the
images side by side, and audit.json with what the same searches find of injected faults.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass

import numpy as np
from PIL import Image

from cnnvis_ray import ledger, monitoring
from cnnvis_ray.errors import RefusedError, near
from cnnvis_ray.ledger import Ledger, Pass, Run, by_number, digest_files, open_run
from cnnvis_ray.pictures import encode_png
from cnnvis_ray.storage import ShardFile, read_table, write_bytes, write_table

log = logging.getLogger(__name__)

FOLDER = "audit"


def audit(run_dir: str, layer: str | None = None) -> list[str]:
    """Audit the images of a run.

    Args:
        run_dir: folder or URI.
        layer: whose features are compared; the last one with features by default, since deep
            layers tell kinds of things apart.

    Returns:
        The last screen.

    Raises:
        RefusedError: there is no run, or no such layer with features.
        HeldError: a driver works on the run.
    """
    run = open_run(run_dir)
    chosen = choose_layer(run, layer)
    with ledger.hold(run.store):
        records = Ledger(run.store)
        files = records.files("extract", f"features/{chosen}")
        labels = records.files("labels", "labels.parquet") or records.files("images", "images")
        inputs = ledger.fingerprint(
            {"features": digest_files(files), "labels": [file.sha256 for file in labels]}
        )
        wanted = Pass("audit", {"layer": chosen}, (), inputs)
        _, made = records.make(wanted, lambda: write_audit(Run(run.store, records), chosen))
        if made:
            records.sweep(("audit",), [FOLDER])
    return describe(run, chosen)


def choose_layer(run: Run, asked: str | None) -> str:
    """Return the asked layer, or the last with features.

    Raises:
        RefusedError: it has no features; names near ones.
    """
    known = sorted(run.layers(), key=by_number)
    if not known:
        raise RefusedError(
            f"audit: {run.store.root!r} has no features; first: cnnvis extract {run.store.root}"
        )
    if asked is None:
        return known[-1]
    if asked not in known:
        raise RefusedError(
            f"audit: {asked!r} has no features; layers: {', '.join(near(asked, known) or known)}"
        )
    return asked


def write_audit(run: Run, layer: str) -> Iterator[ShardFile]:
    """Search for every kind of fault and write rows, sheets and, last, audit.json."""
    store = run.store
    keys, features = run.features(layer)
    rows = run.images(["image_id", "key", "label", "thumbnail"])
    by_key = {key: row for row, key in enumerate(rows["key"].to_pylist())}
    table = rows.take([by_key[key] for key in keys])
    finite = np.isfinite(features).all(axis=1)
    table, features = table.filter(finite), features[finite].astype(np.float32)
    ids = table["image_id"].to_pylist()
    thumbnails = table["thumbnail"].to_pylist()
    labels = table["label"].to_pylist()
    images = monitoring.Images(ids, table["key"].to_pylist(), labels, thumbnails)
    directions = monitoring.standardize(features)
    neighbours = monitoring.nearest_rows(directions)
    duplicates = monitoring.find_duplicates(images, directions, neighbours)
    suspects, calibration = monitoring.find_suspects(images, features, neighbours)
    outliers = monitoring.find_outliers(images, monitoring.fifth_distances(features))
    broken = monitoring.find_broken_classes(images, features, neighbours)
    pictures = dict(zip(ids, thumbnails, strict=True))
    found = {
        "duplicates": (duplicates, monitoring.draw_duplicates(duplicates, pictures)),
        "labels": (suspects, monitoring.draw_suspects(suspects, pictures)),
        "outliers": (outliers, monitoring.draw_outliers(outliers, pictures)),
        "classes": (broken, monitoring.draw_broken_classes(broken, pictures)),
    }
    counts = {}
    for name, (rows_found, picture) in found.items():
        counts[name] = rows_found.num_rows
        yield write_table(store, f"{FOLDER}/{name}.parquet", rows_found)
        if isinstance(picture, Image.Image):
            yield write_bytes(store, f"{FOLDER}/{name}.png", encode_png(picture))
    document = {
        "layer": layer,
        "images": len(ids),
        "left_out": int((~finite).sum()),
        "found": counts,
        "label_calibration": asdict(calibration) if is_dataclass(calibration) else None,
    }
    yield write_bytes(store, f"{FOLDER}/audit.json", ledger.dump(document))


def describe(run: Run, layer: str) -> list[str]:
    """Write what was found and where to look."""
    lines = [f"audit of {layer}"]
    for name in ("duplicates", "labels", "outliers", "classes"):
        path = f"{FOLDER}/{name}.parquet"
        count = read_table(run.store, path).num_rows
        lines.append(f"{name:11}{count:,} rows  {run.store.root}/{path}")
    lines.append(f"{'sheets':11}{run.store.root}/{FOLDER}/*.png")
    return lines
