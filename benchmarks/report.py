"""The report from 1,000 images on: seconds and bytes to write, and what a browser then takes.

    PYTHONPATH=. python benchmarks/report.py --images 1000 100000 1000000
    PYTHONPATH=. python benchmarks/report.py --small            # what CI runs: 1,000 images

A run is made up: thumbnails are crops of the photos in CNNVIS_SHARED (noise without it), repeated;
positions are 200 clusters. The browser is Chromium without a GPU, 1200 x 800 pixels, from disk.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from peers import peer_python
from PIL import Image
from timing import Figure, report

from cnnvis_ray.ledger import Marker, Pass
from cnnvis_ray.ledger.passes import commit
from cnnvis_ray.ledger.units import SLOTS
from cnnvis_ray.report import write_report
from cnnvis_ray.storage import ShardFile, Store, write_table
from tests.report.browsers import Chromium, chromium, settle

UNIT = 1024
CLASSES = 200
DIFFERENT = 500  # thumbnails; more of them take only longer to make
TOP5 = pa.list_(
    pa.struct([("index", pa.int32()), ("name", pa.string()), ("probability", pa.float32())])
)
REPEATS = 15
WORKERS = 2  # processes that write parts, as a cluster's tasks do


def thumbnails(shared: Path) -> list[bytes]:
    """Cut crops of 128 pixels, a run's default, out of photos, or noise where there are none."""
    photos = sorted((shared / "data" / "photos").glob("*/*.jpg"))[:100]
    generator = np.random.default_rng(0)
    found = []
    for number in range(DIFFERENT):
        if photos:
            with Image.open(photos[number % len(photos)]) as opened:
                image = opened.convert("RGB")
            left = int(generator.integers(0, max(1, image.width - 192)))
            top = int(generator.integers(0, max(1, image.height - 192)))
            image = image.crop((left, top, left + 192, top + 192)).resize((128, 128))
        else:
            pixels = generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((128, 128))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        found.append(buffer.getvalue())
    return found


def open_pass(store: Store, stage: str, layers: tuple[str, ...] = ()) -> Pass:
    """Write a pass."""
    owner = Pass(stage, {}, layers)
    fields = {"stage": stage, "recipe": {}, "layers": layers, "inputs": "", "subject": ""}
    store.write(f"passes/{owner.name}/pass.json", json.dumps(fields).encode())
    return owner


def make_run(folder: Path, images: int, pictures: list[bytes]) -> None:
    """Make a run of rows and one map."""
    store = Store(str(folder))
    identity = {"network.name": "made up", "images.source": f"{images:,} made up images"}
    text = json.dumps({"format_version": 1, "identity": identity, "versions": {}})
    store.write("run.json", text.encode())
    owner, ids = open_pass(store, "images"), []
    names = [f"class {number:03d}" for number in range(CLASSES)]
    for unit in range(-(-images // UNIT)):
        numbers = range(unit * UNIT, min(images, (unit + 1) * UNIT))
        own = [unit * SLOTS + slot for slot in range(len(numbers))]
        labels = [names[number * 7 % CLASSES] for number in numbers]
        top = [[{"index": 0, "name": label, "probability": 0.5}] for label in labels]
        columns = {
            "image_id": pa.array(own, pa.int64()),
            "key": [f"{a}/image-{n:08d}.jpg" for a, n in zip(labels, numbers, strict=True)],
            "label": labels,
            "width": pa.array([128] * len(own), pa.int32()),
            "height": pa.array([128] * len(own), pa.int32()),
            "thumbnail": [pictures[number * 31 % len(pictures)] for number in numbers],
            "top5": pa.array(top, TOP5),
        }
        file = write_table(store, f"images/{unit:06d}.r0.a.parquet", pa.table(columns))
        commit(store, owner, Marker(f"{unit:06d}.r0", (file,)))
        ids += own
    commit(store, open_pass(store, "embedding", ("layer",)), Marker("a", (make_map(store, ids),)))
    empty = pa.table({"image_id": pa.array([], pa.int64()), "feature": empty_features()})
    path = "features/layer/000000.r0.a.parquet"
    metadata = {"pooling": "sketch:2", "shape": "2 1 1"}
    file = write_table(store, path, empty.replace_schema_metadata(metadata))
    commit(store, open_pass(store, "extract", ("layer",)), Marker("000000.r0", (file,)))


def empty_features() -> pa.Array:
    """Return no features: the report of rows and a map needs none."""
    return pa.FixedSizeListArray.from_arrays(pa.array([], pa.float16()), 2)


def make_map(store: Store, ids: list[int]) -> ShardFile:
    """Place the images in clusters, one a class."""
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(CLASSES, 2)) * 20
    places = centres[np.arange(len(ids)) * 7 % CLASSES] + generator.normal(size=(len(ids), 2))
    x, y = (pa.array(axis, pa.float32()) for axis in places.T)
    table = pa.table({"image_id": pa.array(ids, pa.int64()), "x": x, "y": y})
    return write_table(store, "embedding/layer.parquet", table)


def measure(browser: Chromium, site: str) -> dict[str, float]:
    """Measure first page, first map, a frame of each zoom, and a search."""
    started = time.perf_counter()
    browser.open(site)
    settle(browser, "document.querySelector('h1') && document.body.dataset.shown")
    found = {"first page s": time.perf_counter() - started}
    browser.run(
        "const start = performance.now(); location.hash = '#/map/layer'; app.view = null;"
        "const wait = () => app.view && app.view.milliseconds && document.body.dataset.shown "
        "=== location.hash ? window.took = performance.now() - start : setTimeout(wait, 1);"
        "pieces.loaded.delete('map/layer'); wait()"
    )
    found["first map s"] = float(str(settle(browser, "window.took", 60))) / 1000
    browser.run("app.view.box.style.width = '1200px'; app.view.box.style.height = '800px'")
    browser.run("app.view.resize(); app.view.moved = null; app.view.drawNow()")
    time.sleep(1)
    for zoom in (1, 2, 8):
        times = [
            float(
                str(
                    browser.run(
                        "const v = app.view; "
                        f"v.view = {{x: 32768 + {turn * 40}, y: 32768, zoom: {zoom}}};"
                        "v.drawNow(); v.points.getContext('2d').getImageData(0, 0, 1, 1);"
                        "return v.milliseconds"
                    )
                )
            )
            for turn in range(REPEATS)
        ]
        found[f"frame at zoom {zoom} ms"] = float(np.median(times))
    browser.run("window.done = 0; readKeys().then(() => { window.done = 1; })")
    started = time.perf_counter()
    settle(browser, "window.done", 120)
    found["keys loaded s"] = time.perf_counter() - started
    times = []
    for word in ("image-00000", "00000999", "class 1", "none of it"):
        browser.run("window.done = 0; search(arguments[0]).then(() => { window.done = 1; })", word)
        settle(browser, "window.done", 60)
        times.append(float(str(browser.run("return app.searchMilliseconds"))))
    found["search, slowest of 4 ms"] = max(times)
    faults = browser.complaints()
    assert not faults, faults
    return found


def measure_report(images: int, folder: Path, pictures: list[bytes]) -> Path:
    """Write one report and report its figures; return where its embedding is."""
    make_run(folder, images, pictures)
    started, spent = time.perf_counter(), cpu_seconds()
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        written = write_report(str(folder), map_parts=lambda maker, parts: pool.map(maker, parts))
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - spent
    tell(images, f"report written by {WORKERS} processes", seconds, "s")
    tell(images, "report written", cpu, "CPU s")
    tell(images, "whole report", written.bytes / 1e6, "MB")
    report_folder = folder / "report"
    sizes: dict[str, tuple[list[str], float | None]] = {
        "map and one column": (
            ["data/map/layer.js", "data/columns.js"],
            7 if images > 5000 else None,
        ),
        "sheets of 64 px": (["sheets/images/*"], 900),
        "sheets of 128 px": (["sheets/large/*"], None),
    }
    for name, (patterns, limit) in sizes.items():
        files = [file for pattern in patterns for file in report_folder.glob(pattern)]
        size = sum(file.stat().st_size for file in files) / images
        tell(images, name, size, "B per image", limit)
    with chromium() as browser:
        browser.resize(1540, 860)
        for name, value in measure(browser, (report_folder / "index.html").as_uri()).items():
            what, unit = name.rsplit(" ", 1)
            frame = 20 if images <= 100_000 else 50
            limits = {"first page": 1.0, "first map": 0.5, "search, slowest of 4": 50}
            limit = frame if what.startswith("frame") else limits.get(what)
            tell(images, what, value, unit, limit)
    return folder / "embedding" / "layer.parquet"


def tell(images: int, what: str, value: float, unit: str, limit: float | None = None) -> None:
    """Report one figure beside its limit."""
    goal = "<= 1" if limit is not None else ""
    report(Figure("report", f"{images:,} images: {what}", "limit", value, limit, unit, goal=goal))


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those that it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


PEERS = {
    "datamapplot": "DataMapPlot, one page, data inside",
    "embedding-atlas": "embedding-atlas, exported application",
}


DATAMAPPLOT = """
import pathlib, sys
import datamapplot, numpy as np, pyarrow.parquet as pq
table, out = pq.read_table(sys.argv[1]), pathlib.Path(sys.argv[2])
points = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
plot = datamapplot.create_interactive_plot(points, np.array(table["label"].to_pylist()))
out.mkdir(parents=True)
plot.save(str(out / "index.html"))
"""


def measure_peers(images: int, embedding: Path, folder: Path) -> None:
    """Let each peer write the same points with their classes, and try to open what it wrote."""
    bytes_ours = sum(
        file.stat().st_size for file in (folder / "report").rglob("*") if file.is_file()
    )
    points = pq.read_table(embedding)
    labels = [f"class {number * 7 % CLASSES:03d}" for number in range(images)]
    source = folder / "points.parquet"
    pq.write_table(points.append_column("label", pa.array(labels)), source)
    for name, peer in PEERS.items():
        python, out = peer_python(name), folder / name
        if isinstance(python, str):
            report(
                Figure("report", f"{images:,} images: bytes", peer, None, None, "MB", note=python)
            )
            continue
        commands = {
            "datamapplot": [str(python), "-c", DATAMAPPLOT, str(source), str(out)],
            "embedding-atlas": [
                str(python.with_name("embedding-atlas")),
                *(str(source), "--x", "x", "--y", "y", "--disable-projection"),
                *("--export-application", str(out)),
            ],
        }
        started = time.perf_counter()
        done = subprocess.run(commands[name], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        page = out / "index.html"
        if done.returncode or not page.exists():
            note = (done.stderr.strip().splitlines() or ["no page"])[-1][:200]
            report(
                Figure("report", f"{images:,} images: bytes", peer, None, None, "MB", note=note)
            )
            continue
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        opens = opens_from_disk(page)
        note = f"it {'opens' if opens else 'does not open'} by double click; points without images"
        what = f"{images:,} images: bytes, ours with all images"
        report(
            Figure("report", what, peer, bytes_ours / 1e6, size / 1e6, "MB", opens=True, note=note)
        )
        report(Figure("report", f"{images:,} images: write", peer, None, seconds, "s", note=note))


def opens_from_disk(page: Path) -> bool:
    """Whether a page draws something from disk without an error in the browser's log."""
    with chromium() as browser:
        browser.open(page.as_uri())
        time.sleep(8)
        drawn = browser.run("return document.querySelectorAll('canvas').length > 0")
        return bool(drawn) and not browser.complaints()


def main() -> None:
    """Measure each size, and the peers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, nargs="?", help="folder of shared data")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--small", action="store_true", help="1,000 images, without peers")
    parser.add_argument("--folder", type=Path, help="where to keep the runs")
    options = parser.parse_args()
    pictures = thumbnails(options.shared or Path(os.environ.get("CNNVIS_SHARED", "../shared")))
    for images in [1000] if options.small else options.images:
        folder = Path(tempfile.mkdtemp(prefix="cnnvis-report-", dir=options.folder))
        try:
            embedding = measure_report(images, folder, pictures)
            if not options.small:
                measure_peers(images, embedding, folder)
        finally:
            if options.folder is None:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
