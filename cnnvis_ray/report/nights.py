"""Nights and the audit of a run, as pages: read from what `place` and `audit` wrote.

Later versions of those verbs may write more or other fields, so every field may be missing.
"""

import json
from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from cnnvis_ray.ledger import Run, open_run
from cnnvis_ray.report.catalogue import Catalogue
from cnnvis_ray.report.images import decode, square, write_sheets
from cnnvis_ray.report.pieces import short, slug, write_piece
from cnnvis_ray.storage import ShardFile, read_table

CELL, COLUMNS = 84, 16
CHANNELS, CROPS, STRANGEST = 10, 4, 24
MOST_ROWS = 120  # of each kind of finding


class Moved(TypedDict, total=False):
    """A channel that moved."""

    channel: int
    shift: float
    z: float


class LayerChanges(TypedDict, total=False):
    """What one layer says of a night."""

    layer: str
    score: float
    threshold: float
    largest_shift: float
    channels: list[Moved]


class Stranger(TypedDict, total=False):
    """An image far from all of the run."""

    key: str
    distance: float


class Novelty(TypedDict, total=False):
    """How many images are far from all of the run."""

    share: float
    expected: float
    strangest: list[Stranger]


class Arrival(TypedDict, total=False):
    """What came in, and what was refused."""

    rejects: int
    reasons: dict[str, int]


class Changes(TypedDict, total=False):
    """The document changes.json of a night, as far as pages show it."""

    verdict: str
    reason: str
    num_images: int
    num_reference: int
    score: float | None
    threshold: float | None
    smallest_change: float | None
    false_alarm_rate: float
    layers: list[LayerChanges]
    novelty: Novelty | None
    arrived: Arrival
    placement: dict[str, dict[str, float] | None]


GROUPS = {
    "duplicates": (
        "Near duplicates",
        "Pairs of nearly the same picture; across classes or splits they distort a test.",
    ),
    "labels": ("Doubtful labels", "The features of these images speak for another label."),
    "outliers": ("Outliers", "Images far from all others."),
    "classes": (
        "Classes to look at",
        "Classes that are one in the features, or two under one name.",
    ),
}
"""By table of the audit: its title, and one line on what it lists."""

TEXTS = {
    "label": "labelled",
    "probe_label": "a linear probe says",
    "neighbour_label": "its neighbours say",
    "other_label": "and",
    "kind": "",
    "chance": "chance that it is wrong",
    "cosine": "cosine",
    "score": "score",
}
"""Columns that are shown beside the images, and the words in front of them."""


def nights_of(run: Run) -> list[str]:
    """List the nights that have been compared with the run, by name."""
    names = run.store.names("placed")
    return [name for name in names if run.store.exists(f"placed/{name}/changes.json")]


def read_changes(run: Run, name: str) -> Changes:
    """Read what a night changed; nothing of a damaged document."""
    try:
        found: Changes = json.loads(run.store.read(f"placed/{name}/changes.json"))
    except ValueError:
        return {}
    return found


def summarize_night(run: Run, name: str) -> dict[str, object]:
    """Return a night's row in the list of nights."""
    changes = read_changes(run, name)
    score, threshold = changes.get("score"), changes.get("threshold")
    return {
        "name": name,
        "file": slug(name),
        "verdict": changes.get("verdict", "not judged"),
        "images": changes.get("num_images"),
        "score": short(score / threshold) if score is not None and threshold else None,
        "smallest": changes.get("smallest_change"),
    }


def make_night(run: Run, catalogue: Catalogue, name: str) -> list[ShardFile]:
    """Write one night: verdict, figures, moved channels, strangest images, and their pictures."""
    changes = read_changes(run, name)
    night = open_run(f"{run.store.root.rstrip('/')}/placed/{name}")
    pictures = Pictures(night)
    strangest = (changes.get("novelty") or {}).get("strangest", [])[:STRANGEST]
    value = {
        "reason": changes.get("reason", ""),
        "facts": night_facts(changes),
        "channels": moved_channels(run, night, catalogue, changes, pictures),
        "strangest": [
            [pictures.add_key(row["key"]), row["key"], short(row.get("distance"))]
            for row in strangest
        ],
        "layers": [layer_row(changes, layer) for layer in changes.get("layers") or ()],
        "rejected": sorted((changes.get("arrived") or {}).get("reasons", {}).items()),
    }
    file = f"night/{slug(name)}"
    tiles = [square(decode(data), CELL) for data in pictures.chosen]
    return [
        write_piece(run.store, file, value),
        *write_sheets(run.store, f"sheets/{file}", tiles, CELL, COLUMNS, 75),
    ]


class Pictures:
    """The pictures of a night that its page shows, each once, in the order of their use."""

    def __init__(self, night: Run) -> None:
        rows = night.images(["image_id", "key", "thumbnail"])
        ids = rows["image_id"].to_pylist()
        self.thumbnail = dict(zip(ids, rows["thumbnail"].to_pylist(), strict=True))
        self.id_of = dict(zip(rows["key"].to_pylist(), ids, strict=True))
        self.order: dict[int, int] = {}
        self.chosen: list[bytes] = []

    def add(self, image: int | None) -> int:
        """Return an image's place on the sheet; -1 where the night has no such image."""
        if image is None or image not in self.thumbnail:
            return -1
        if image not in self.order:
            self.order[image] = len(self.chosen)
            self.chosen.append(self.thumbnail[image])
        return self.order[image]

    def add_key(self, key: str) -> int:
        """Return the place of the image with a key."""
        return self.add(self.id_of.get(key))


def night_facts(changes: Changes) -> list[list[str]]:
    """Return a night's figures as terms and texts; what is not known is left out."""
    novelty, arrived = changes.get("novelty") or {}, changes.get("arrived") or {}
    shown = [
        ("images", changes.get("num_images"), "{:,}"),
        ("compared with", changes.get("num_reference"), "{:,} of the run"),
        ("rejected", arrived.get("rejects"), "{:,}"),
        (
            "smallest change that would show",
            changes.get("smallest_change"),
            "{:.0%} of the images",
        ),
        ("false alarms", changes.get("false_alarm_rate"), "{:.0%} of the nights"),
        ("novel images", novelty.get("share"), "{:.0%}"),
        ("novel images expected", novelty.get("expected"), "{:.0%}"),
    ]
    return [[term, text.format(value)] for term, value, text in shown if value is not None]


def layer_row(changes: Changes, layer: LayerChanges) -> list[object]:
    """Return a layer's score, threshold, largest shift, neighbours kept here and in the run."""
    placed = (changes.get("placement") or {}).get(layer["layer"]) or {}
    numbers = [layer.get("score"), layer.get("threshold"), layer.get("largest_shift")]
    numbers += [placed.get("kept"), placed.get("reference_kept")]
    return [layer["layer"], *map(short, numbers)]


def moved_channels(
    run: Run, night: Run, catalogue: Catalogue, changes: Changes, pictures: Pictures
) -> list[dict[str, object]]:
    """Return the ten most moved channels, with their strongest images before and in the night."""
    rows = [
        (layer["layer"], channel)
        for layer in changes.get("layers") or ()
        for channel in layer.get("channels") or ()
    ]
    rows.sort(key=lambda row: -abs(row[1].get("z") or row[1].get("shift") or 0))
    best = {layer: (best_ids(run, layer), best_ids(night, layer)) for layer, _ in rows[:CHANNELS]}
    found: list[dict[str, object]] = []
    for layer, moved in rows[:CHANNELS]:
        channel = moved["channel"]
        before, after = (side.get(channel, [])[:CROPS] for side in best[layer])
        known = catalogue.index_of(np.array(before, np.int64)).tolist()
        found.append(
            {
                "layer": layer,
                "channel": channel,
                "shift": short(moved.get("shift")),
                "before": [image for image in known if image >= 0],
                "after": [order for order in map(pictures.add, after) if order >= 0],
            }
        )
    return found


def best_ids(run: Run, layer: str) -> dict[int, list[int]]:
    """Read the ids of each channel's strongest images, best first; none without statistics."""
    if not run.store.exists(f"channels/{layer}.parquet"):
        return {}
    table = run.statistics(layer)
    rows = zip(table["channel"].to_pylist(), table["exemplars"].to_pylist(), strict=True)
    return {channel: [each["image_id"] for each in best] for channel, best in rows}


def audit_count(run: Run) -> int:
    """Return how many findings the audit of a run lists; 0 where there was none."""
    paths = [f"audit/{name}.parquet" for name in GROUPS]
    return sum(run.table(path).num_rows for path in paths if run.store.exists(path))


def make_audit(run: Run, catalogue: Catalogue) -> list[ShardFile]:
    """Write what the audit found, the first of each kind."""
    groups = []
    for name, (title, about) in GROUPS.items():
        path = f"audit/{name}.parquet"
        rows = read_table(run.store, path).to_pylist() if run.store.exists(path) else []
        shown = [describe_finding(row, catalogue) for row in rows[: 2 * MOST_ROWS]]
        shown = [row for row in shown if row["images"]][:MOST_ROWS]
        if shown:
            groups.append({"title": title, "about": about, "count": len(rows), "rows": shown})
    layer = json.loads(run.store.read("audit/audit.json")).get("layer", "")
    return [write_piece(run.store, "audit", {"layer": layer, "groups": groups})]


def describe_finding(row: Mapping[str, object], catalogue: Catalogue) -> dict[str, object]:
    """Return the shown images of a finding, and what is said of it."""
    ids = [row[name] for name in ("image_id", "other_image_id") if row.get(name) is not None]
    for name in ("images", "other_images"):
        several = row.get(name)
        ids += several[:CROPS] if isinstance(several, list) else []
    images = catalogue.index_of(np.array(ids, np.int64)).tolist()
    said = []
    for name, words in TEXTS.items():
        value = row.get(name)
        if isinstance(value, float) and not (name == "score" and row.get("chance")):
            said.append([words, f"{value:.2f}"])
        elif isinstance(value, str):
            said.append([words, value])
    return {"images": [image for image in images if image >= 0], "text": said}
