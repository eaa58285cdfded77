"""Runs written shard by shard, without a network: hostile names, and whatever a run may lack."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from cnnvis_ray.channels.histograms import NUM_BINS, count
from cnnvis_ray.channels.tables import MERGED
from cnnvis_ray.ledger import Marker, Pass
from cnnvis_ray.ledger.passes import commit
from cnnvis_ray.ledger.units import SLOTS
from cnnvis_ray.storage import ShardFile, Store, write_bytes, write_table

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "\"quotes' & <b>",
    "a" * 4000,
    "\u05e9\u05dc\u05d5\u05dd \u202egnp.exe",
    "null\0byte\x01 and \u2028 line",
    "</script><script>alert(1)</script>",
    "%2e%2e/%00?#hash/..",
    "__proto__",
]
LAYERS = ("block1", "block2")
CHANNELS = 6
TOP5 = pa.list_(
    pa.struct([("index", pa.int32()), ("name", pa.string()), ("probability", pa.float32())])
)


def thumbnail(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """Draw a small picture as JPEG."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 255, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


class MadeRun:
    """A run directory that is filled by parts."""

    def __init__(self, folder: Path, classes: Sequence[str | None], per_unit: int = 8) -> None:
        self.store = Store(str(folder))
        self.classes = list(classes)
        self.per_unit = per_unit
        self.ids: list[int] = []
        identity = {
            "images.source": "folder:photos",
            "network.name": "<b>net</b>",
            "network.preprocess": {"resize": 36, "crop": 32},
        }
        text = {"format_version": 1, "identity": identity, "versions": {}}
        self.store.write("run.json", json.dumps(text).encode())

    def open_pass(self, stage: str, layers: Sequence[str] = (), subject: str = "") -> Pass:
        """Write a pass."""
        owner = Pass(stage, {}, tuple(layers), "", subject)
        fields = {"stage": stage, "recipe": {}, "layers": list(layers), "inputs": ""}
        text = json.dumps({**fields, "subject": subject})
        self.store.write(f"passes/{owner.name}/pass.json", text.encode())
        return owner

    def key(self, number: int) -> str:
        """Name an image after its class."""
        return f"{self.classes[number % len(self.classes)]}/{number}.jpg"

    def label(self, number: int) -> str | None:
        """Return an image's class."""
        return self.classes[number % len(self.classes)]

    def add_images(self, units: int, predictions: bool = True, rejects: bool = True) -> None:
        """Write the rows of some more units."""
        owner = self.open_pass("images")
        first = len({image // SLOTS for image in self.ids})
        for unit in range(first, first + units):
            rows = []
            for slot in range(self.per_unit):
                number = unit * self.per_unit + slot
                called = self.classes[(number + number % 3) % len(self.classes)] or "none"
                top = [
                    {"index": 1, "name": called, "probability": 0.7},
                    {"index": 2, "name": "other", "probability": 0.2},
                ]
                rows.append(
                    {
                        "image_id": unit * SLOTS + slot,
                        "key": self.key(number),
                        "label": self.label(number),
                        "width": 400,
                        "height": 300,
                        "thumbnail": thumbnail(number),
                        "top5": top if predictions else [],
                    }
                )
            self.ids += [unit * SLOTS + slot for slot in range(self.per_unit)]
            schema = pa.schema(
                [
                    ("image_id", pa.int64()),
                    ("key", pa.string()),
                    ("label", pa.string()),
                    ("width", pa.int32()),
                    ("height", pa.int32()),
                    ("thumbnail", pa.binary()),
                    ("top5", TOP5),
                ]
            )
            table = pa.Table.from_pylist(rows, schema=schema)
            bad = pa.Table.from_pylist(
                [
                    {
                        "image_id": unit * SLOTS + 900,
                        "key": HOSTILE[0],
                        "stage": "decode",
                        "error": HOSTILE[1],
                    }
                ]
                if rejects and unit == 0
                else [],
                schema=pa.schema(
                    [
                        ("image_id", pa.int64()),
                        ("key", pa.string()),
                        ("stage", pa.string()),
                        ("error", pa.string()),
                    ]
                ),
            )
            files = (
                write_table(self.store, f"images/{unit:06d}.r0.aa.parquet", table),
                write_table(self.store, f"rejects/{unit:06d}.r0.aa.parquet", bad),
            )
            commit(self.store, owner, Marker(f"{unit:06d}.r0", files))

    def values(self, layer: str) -> np.ndarray:
        """Make up each image's features: its class's channel answers most."""
        generator = np.random.default_rng(len(layer) + LAYERS.index(layer))
        numbers = np.arange(len(self.ids))
        values = generator.random((len(numbers), CHANNELS))
        values[numbers, numbers % len(self.classes) % (CHANNELS - 1)] += 3
        values[:, CHANNELS - 1] = 0  # a silent channel
        return values.astype(np.float16)

    def add_features(self, layer: str) -> None:
        """Write a layer's features."""
        owner = self.open_pass("extract", [layer])
        values = self.values(layer)
        metadata = {"layer": layer, "pooling": "mean", "dtype": "float16", "shape": "6 4 4"}
        for start in range(0, len(self.ids), self.per_unit):
            part = pa.array(values[start : start + self.per_unit].ravel())
            columns = [
                pa.array(self.ids[start : start + self.per_unit], pa.int64()),
                pa.FixedSizeListArray.from_arrays(part, CHANNELS),
            ]
            table = pa.table(columns, ["image_id", "feature"]).replace_schema_metadata(metadata)
            unit = f"{self.ids[start] // SLOTS:06d}.r0"
            file = write_table(self.store, f"features/{layer}/{unit}.aa.parquet", table)
            commit(self.store, owner, Marker(unit, (file,)))

    def add_channels(self, layer: str) -> None:
        """Write a layer's statistics."""
        values = self.values(layer).astype(np.float64)
        histogram = count(values.astype(np.float32))
        rows = []
        for channel in range(CHANNELS):
            own = values[:, channel]
            best = np.argsort(-own, kind="stable")[:3]
            row: dict[str, object] = {name: 0.5 for name in MERGED.names}
            row |= {name: histogram[channel] for name in MERGED.names if "histogram" in name}
            row |= {"channel": channel, "count": len(own), "mean": own.mean()}
            row |= {"variance": own.var(), "maximum": own.max(), "peak_maximum": own.max()}
            row["exemplars"] = [
                {
                    "image_id": self.ids[place],
                    "key": self.key(int(place)),
                    "value": float(own[place]),
                    "y": 1,
                    "x": 2,
                }
                for place in best
            ]
            rows.append(row)
        assert histogram.shape[1] == NUM_BINS
        table = pa.Table.from_pylist(rows, schema=MERGED)
        write_table(self.store, f"channels/{layer}.parquet", table)

    def add_pictures(self, layer: str, channels: Sequence[int]) -> None:
        """Write a layer's catalogue of pictures."""
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (200, 30, 90)).save(buffer, "PNG")
        rows = [
            {
                "channel": channel,
                "variant": 0,
                "picture": buffer.getvalue(),
                "status": "dead" if channel == CHANNELS - 1 else "live",
                "activation": 9.0,
                "start_activation": 0.1,
                "attempts": 1,
                "curve": [0.1, 4.0, 9.0],
                "start_key": None,
                "note": HOSTILE[0],
                "percentile": 99.0,
                "best_image": 4.0,
            }
            for channel in channels
        ]
        path = f"maximization/default/{layer}.parquet"
        file = write_table(self.store, path, pa.Table.from_pylist(rows))
        owner = self.open_pass("catalogue", [layer], "default")
        commit(self.store, owner, Marker("000000.r0", (file,)))

    def add_crops(self, layer: str) -> None:
        """Write the crops of each channel's best image."""
        values = self.values(layer)
        rows = []
        for channel in range(CHANNELS - 1):
            best = int(np.argmax(values[:, channel]))
            rows.append(
                {
                    "channel": channel,
                    "rank": 0,
                    "image_id": self.ids[best],
                    "key": self.key(best),
                    "value": float(values[best, channel]),
                    "source_left": 100.0,
                    "source_top": 50.0,
                    "source_right": 200.0,
                    "source_bottom": 150.0,
                    "whole_image": False,
                    "crop": thumbnail(best, (20, 20)),
                }
            )
        path = f"explanation/crops/{layer}/000000.r0.aa.parquet"
        file = write_table(self.store, path, pa.Table.from_pylist(rows))
        commit(self.store, self.open_pass("crops", [layer]), Marker("000000.r0", (file,)))

    def add_map(self, layer: str, trust: bool = False) -> None:
        """Write a layer's positions: classes apart from one another."""
        numbers = np.arange(len(self.ids))
        generator = np.random.default_rng(3 + LAYERS.index(layer))
        centre = numbers % len(self.classes)
        x = np.cos(centre) * 8 + generator.normal(size=len(numbers))
        y = np.sin(centre) * 8 + generator.normal(size=len(numbers))
        columns: dict[str, object] = {
            "image_id": self.ids,
            "key": [self.key(int(number)) for number in numbers],
            "label": [self.label(int(number)) for number in numbers],
            "x": pa.array(x, pa.float32()),
            "y": pa.array(y, pa.float32()),
        }
        if trust:
            columns["trust"] = pa.array(generator.random(len(numbers)), pa.float32())
        file = write_table(self.store, f"embedding/{layer}.parquet", pa.table(columns))
        commit(self.store, self.open_pass("embedding", [layer]), Marker("000000.r0", (file,)))

    def add_heat(self, images: int) -> None:
        """Write heat maps of the first images, and the classes' means."""
        rows = []
        for number in range(images):
            rows.append(
                {
                    "image_id": self.ids[number],
                    "key": self.key(number),
                    "method": "occlusion",
                    "target": 1,
                    "name": HOSTILE[1],
                    "score": 0.6,
                    "low": 0.0,
                    "high": 2.0,
                    "map": np.linspace(0, 1, 16, dtype=np.float16),
                }
            )
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"side": "4"})
        file = write_table(self.store, "explanation/heat/000000.r0.aa.parquet", table)
        commit(self.store, self.open_pass("explain"), Marker("000000.r0", (file,)))
        means = [
            {"label": name, "method": "occlusion", "images": 2, "map": np.linspace(0, 1, 16)}
            for name in self.classes
            if name
        ]
        classes = pa.Table.from_pylist(means)
        write_table(self.store, "explanation/classes.parquet", classes)

    def add_mosaic(self, layer: str) -> ShardFile:
        """Write a mosaic as PNG."""
        buffer = io.BytesIO()
        Image.linear_gradient("L").resize((1100, 700)).convert("RGB").save(buffer, "PNG")
        file = write_bytes(self.store, f"mosaic/{layer}-scatter.png", buffer.getvalue())
        commit(self.store, self.open_pass("mosaic", [layer]), Marker("000000.r0", (file,)))
        return file

    def add_night(self, name: str, layer: str) -> None:
        """Write a night of one unit, and what it changed."""
        night = MadeRun(Path(self.store.root) / "placed" / name, self.classes, self.per_unit)
        night.add_images(1)
        night.add_channels(layer)
        moved = [{"channel": number, "shift": 1.5 - number, "z": 9.0} for number in range(3)]
        changes = {
            "verdict": "changed",
            "reason": "",
            "num_images": len(night.ids),
            "num_reference": len(self.ids),
            "smallest_change": 0.12,
            "score": 9.0,
            "threshold": 3.0,
            "layers": [{"layer": layer, "score": 9.0, "threshold": 3.0, "channels": moved}],
            "novelty": {
                "share": 0.5,
                "expected": 0.05,
                "strangest": [{"key": night.key(0), "distance": 7.0}, {"key": "gone"}],
            },
            "arrived": {"images": len(night.ids), "rejects": 1, "reasons": {HOSTILE[0]: 1}},
        }
        self.store.write(f"placed/{name}/changes.json", json.dumps(changes).encode())

    def add_audit(self, layer: str) -> None:
        """Write what an audit found: a pair, and a doubtful label."""
        pair = {"image_id": self.ids[0], "other_image_id": self.ids[1], "cosine": 0.99}
        doubt = {"image_id": self.ids[2], "label": HOSTILE[1], "probe_label": HOSTILE[2]}
        for kind, row in (("duplicates", pair), ("labels", {**doubt, "score": 3.0})):
            write_table(self.store, f"audit/{kind}.parquet", pa.Table.from_pylist([row]))
        self.store.write("audit/audit.json", json.dumps({"layer": layer}).encode())


def whole_run(folder: Path, units: int = 5) -> MadeRun:
    """Make a run that has everything, with hostile names."""
    run = MadeRun(folder, HOSTILE)
    run.add_images(units)
    for layer in LAYERS:
        run.add_features(layer)
        run.add_channels(layer)
        run.add_map(layer, trust=True)
    run.add_pictures("block2", range(CHANNELS))
    run.add_crops("block2")
    run.add_heat(3)
    run.add_mosaic("block2")
    run.add_night("n 1", "block2")
    run.add_night("n2", "block2")
    run.add_audit("block2")
    return run
