"""A million images end to end, from features on disk to neighbours, map, quality and pyramid.

The run is a real one: source, plan, passes and markers are as extraction leaves them. Features
and thumbnails are drawn from synthetic clusters. ``reduce`` and ``mosaic`` then do what they do
for everybody. Each line that they log is printed with the seconds since the start, and with the
peak memory of the driver and of the workers since the line before. A run that was killed goes on.

    python benchmarks/reduction.py --only million --images 20000 --folder /tmp/million
"""

import io
import logging
import os
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from timing import Figure, report

from cnnvis_ray.config import Config, load_config
from cnnvis_ray.extraction import schemas
from cnnvis_ray.ledger import ImageUnit, Marker, image_id
from cnnvis_ray.stages.extract import decide
from cnnvis_ray.stages.job import open_job
from cnnvis_ray.stages.run import run_verb
from cnnvis_ray.storage import write_table

LAYER, WIDTH, CLUSTERS, THUMBNAILS = "features.0", 64, 300, 1_000
UNIT_SIZE = 4096
SAMPLE_SECONDS = 0.5


def resident(pid: int) -> int:
    """Return the resident memory of a process, bytes (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def worker_sizes() -> list[int]:
    """Return the resident memory of each Ray worker below this process."""
    parents, workers = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if (folder / "cmdline").read_bytes().startswith(b"ray::"):
                workers.append(int(folder.name))
        except OSError:
            continue
    sizes = []
    for worker in workers:
        pid = worker
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        with suppress(OSError):
            sizes += [resident(worker)] if pid == os.getpid() else []
    return sizes


class Watch(logging.Handler):
    """Prints what is logged with time and memory, and keeps the peaks of the whole."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.started = time.monotonic()
        self.peaks: Counter[str] = Counter()
        self.whole: Counter[str] = Counter()
        threading.Thread(target=self.sample, daemon=True).start()

    def sample(self) -> None:
        """Take the resident memory of this process and of Ray's workers again and again."""
        while True:
            sizes = worker_sizes()
            now = {"driver": resident(os.getpid()), "worker": max(sizes, default=0)}
            self.peaks |= Counter({**now, "workers": sum(sizes)})
            self.whole |= self.peaks
            time.sleep(SAMPLE_SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line and start the peaks again."""
        seconds = time.monotonic() - self.started
        driver, worker, every = (self.peaks[n] >> 20 for n in ("driver", "worker", "workers"))
        memory = f"driver {driver:,} MiB, worker {worker:,}, all {every:,}"
        print(f"{seconds:9.1f} s  {memory}  {record.getMessage()}", flush=True)
        self.peaks.clear()


def configure(folder: Path, num_images: int) -> Config:
    """Write the source, whose pixels nobody reads, and return the run's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source.h5"
    if not source.exists():
        labels = np.arange(num_images) % CLUSTERS
        with h5py.File(source, "w") as file:
            file.create_dataset("imgBrick", (num_images, 8, 8, 3), "u1", fillvalue=0)
            file.create_dataset("labels", data=np.char.add("c", labels.astype(str)).astype("S5"))
    return load_config(
        None,
        [
            f"run_dir={folder / 'run'}",
            f"images={{source: {source}, labels: labels, unit_size: {UNIT_SIZE}}}",
            "network={name: squeezenet1_1, weights: random, preprocess: {resize: 32, crop: 32}}",
            f"layers=[{LAYER}]",
            "extract.predictions=false",
            "cluster.startup_timeout_seconds=7200",  # where other work comes first
        ],
    )


def clusters(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
    """Draw the features of some images: 300 clusters in 64 dimensions with a falling spectrum."""
    fall = np.sqrt(1 + np.arange(WIDTH))
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, WIDTH)) / fall * 6
    noise = np.random.default_rng(int(ids[0]) + 1).normal(size=(len(ids), WIDTH)) / np.sqrt(fall)
    return (centres[ids % CLUSTERS] + noise).astype(np.float16)


def draw_thumbnails() -> list[bytes]:
    """Draw thumbnails of noise in the colour of a cluster, 128 pixels."""
    drawn = []
    for number in range(THUMBNAILS):
        generator = np.random.default_rng(number)
        base = np.random.default_rng(number % CLUSTERS).integers(0, 180, 3)
        coarse = (base + generator.integers(0, 70, (12, 16, 3))).astype(np.uint8)
        memory = io.BytesIO()
        whole = Image.fromarray(coarse).resize((128, 96), Image.Resampling.BICUBIC)
        whole.save(memory, "JPEG", quality=85)
        drawn.append(memory.getvalue())
    return drawn


def write_extracted(config: Config) -> None:
    """Write what extraction leaves: plan, passes, features, thumbnails, markers."""
    job = open_job(config, ("extract",))
    job.write()
    work = decide(job)
    work.open()
    drawn = draw_thumbnails()
    layer = job.vision.layers[0]
    schema = schemas.features(layer, config.extract, WIDTH)
    for unit in list(work.due()):
        images, features = work.passes_due(unit)
        numbers = unit.number * UNIT_SIZE + np.arange(len(unit))
        if images is not None:
            rows = image_rows(unit, numbers, drawn)
            written = write_table(job.store, f"images/{unit.name}.x.parquet", rows)
            none = schemas.REJECTS.empty_table()
            rejects = write_table(job.store, f"rejects/{unit.name}.x.parquet", none)
            job.ledger.commit(images, Marker(unit.name, (written, rejects)))
        for owner in features:
            ids = pa.array([image_id(unit.number, slot) for slot, _ in unit.images()], pa.int64())
            values = pa.array(clusters(numbers).ravel())
            lists = pa.FixedSizeListArray.from_arrays(values, type=schema.field("feature").type)
            table = pa.table([ids, lists], schema=schema)
            path = f"features/{LAYER}/{unit.name}.x.parquet"
            job.ledger.commit(owner, Marker(unit.name, (write_table(job.store, path, table),)))


def image_rows(unit: ImageUnit, numbers: npt.NDArray[np.int64], drawn: list[bytes]) -> pa.Table:
    """Return the image rows of a unit."""
    slots, keys = zip(*unit.images(), strict=True)
    own = [image_id(unit.number, slot) for slot in slots]
    labels = [f"c{number % CLUSTERS}" for number in numbers]
    pictures = [drawn[number * 7 % THUMBNAILS] for number in numbers]
    sides, none = [8] * len(keys), [None] * len(keys)
    columns = [own, keys, labels, sides, sides, pictures, none]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schemas.IMAGES, strict=True)]
    return pa.table(arrays, schema=schemas.IMAGES)


def run_million(folder: Path, num_images: int) -> None:
    """Write the run, reduce it, draw it; report seconds and memory of each stage."""
    config = configure(folder, num_images)
    watch = Watch()
    logger = logging.getLogger("cnnvis_ray")
    logger.setLevel(logging.INFO)
    logger.addHandler(watch)
    shape = f"{num_images:,} x {WIDTH}, {CLUSTERS} clusters"
    write_extracted(config)
    logger.info("features and thumbnails are written")
    for verb in ("reduce", "mosaic"):
        watch.whole.clear()
        before, began = resident(os.getpid()), time.monotonic()
        for line in run_verb(verb, config):
            logger.info("%s", line)
        seconds = time.monotonic() - began
        grown = (watch.whole["driver"] - before) / num_images
        report(Figure("maps", f"{verb} of {shape}", "", seconds / 3600, None, "h"))
        report(Figure("maps", f"{verb} of {shape}, driver", "", grown, None, "bytes per image"))
        for name, what in (("worker", "largest worker"), ("workers", "all workers")):
            size = watch.whole[name] >> 20
            report(Figure("maps", f"{verb} of {shape}, {what}", "", size, None, "MiB"))
