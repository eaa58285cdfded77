"""The worker that extracts: a plain class that does one unit after another.

Decoding runs ahead in threads, the forward runs here, writing runs behind in a thread. A unit's
shards appear whole; its markers are written last, that of the images pass first.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pyarrow as pa
import torch

from cnnvis_ray import channels
from cnnvis_ray.channels import StatisticsBuilder
from cnnvis_ray.errors import CnnvisError
from cnnvis_ray.extraction import schemas
from cnnvis_ray.extraction.batches import Batch, Reject, batches
from cnnvis_ray.extraction.observation import Observer
from cnnvis_ray.extraction.tasks import (
    ExtractionReport,
    ExtractionSetup,
    ExtractionTask,
    batch_size,
)
from cnnvis_ray.ledger import Marker, Pass, commit, image_id
from cnnvis_ray.network import (
    Layer,
    Prediction,
    build_module,
    capture,
    forward_precision,
    make_pooling,
    pooled_first,
    prepare_device,
    top_predictions,
)
from cnnvis_ray.storage import ShardFile, ShardWriter, Store, shard_writer, write_table

log = logging.getLogger(__name__)

Write = Callable[[pa.Table | None, dict[str, pa.Table]], None]
WRITES_BEHIND = 2  # batches that wait for the writer at most


class Extractor:
    """Extracts units with one network on one device."""

    def __init__(self, setup: ExtractionSetup, device: str, threads: int) -> None:
        prepare_device(device, threads)
        self.setup = setup
        self.device = device
        self.threads = threads
        self.batch_size = batch_size(setup.extract, device)
        self.store = Store(setup.run_dir)
        self.module = build_module(setup.network, device)
        self.pooling = make_pooling(setup.extract.pooling, setup.seed)
        self.reader = setup.source.open()

    def __call__(self, task: ExtractionTask) -> ExtractionReport:
        """Extract one unit, halving the batch for as long as the GPU's memory is too small.

        Raises:
            torch.OutOfMemoryError: one image alone does not fit.
            CnnvisError: an activation is NaN or infinite, or an image that was usable when the
                unit was first done is not now.
        """
        while True:
            try:
                return self.attempt(task)
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.halve_batch()

    def halve_batch(self) -> None:
        """Use half the batch from now on; values then differ by at most 1e-3 of the largest."""
        self.batch_size //= 2
        log.warning("out of GPU memory: extract.batch_size is %d now", self.batch_size)
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def attempt(self, task: ExtractionTask) -> ExtractionReport:
        """Write a unit's shards, then its markers; a probe writes nothing."""
        started = time.monotonic()
        schemas_due = {name: self.feature_schema(self.setup.layers[name]) for name in task.layers}
        observer = Observer(self.pooling, schemas_due, self.setup.extract.exemplars)
        if task.only is not None:
            with ThreadPoolExecutor(1) as behind:
                self.run_batches(task, observer, lambda rows, features: None, behind)
            return ExtractionReport(0, 0, 0, time.monotonic() - started)
        unit = UnitFiles(self.store, task, secrets.token_hex(4), schemas_due)
        with unit, ThreadPoolExecutor(1, thread_name_prefix="write") as behind:
            rejects = self.run_batches(task, observer, unit.write, behind)
        rejects = sorted([*rejects, *crashed(task)], key=lambda reject: reject.slot)
        check_rejects(task, rejects)
        written = unit.commit(observer, rejects)
        rows = len(task.unit) - len(rejects) - len(task.rejects)
        return ExtractionReport(rows, len(rejects), written, time.monotonic() - started)

    def feature_schema(self, layer: Layer) -> pa.Schema:
        """Return the schema of one layer's shard."""
        width = self.pooling.width(layer.channels, layer.height, layer.width)
        return schemas.features(layer, self.setup.extract, width)

    def run_batches(
        self,
        task: ExtractionTask,
        observer: Observer,
        write: Write,
        behind: ThreadPoolExecutor,
    ) -> list[Reject]:
        """Run the forward over a unit's batches and return the rejects met."""
        rejects: list[Reject] = []
        waiting: deque[Future[None]] = deque()
        to_head = self.setup.predictions and task.images is not None
        layers = [self.setup.layers[name] for name in task.layers]
        precise = forward_precision(self.device, self.setup.extract.precision)
        with (
            pooled_first(self.module, layers),
            capture(self.module, layers, observer, to_head=to_head) as forward,
            precise,
        ):
            for batch in batches(self.setup, task, self.reader, self.threads, self.batch_size):
                rejects.extend(batch.rejects)
                if not batch.images:
                    continue
                observer.begin(batch)
                output = forward(self.network_input(batch)) if task.layers or to_head else None
                rows = self.image_rows(batch, output) if task.images is not None else None
                waiting.append(behind.submit(write, rows, observer.features))
                if len(waiting) > WRITES_BEHIND:
                    waiting.popleft().result()
            for written in waiting:
                written.result()
        return rejects

    def network_input(self, batch: Batch) -> torch.Tensor:
        """Normalize a batch on the device, padded to the batch size."""
        preprocess = self.setup.network.preprocess
        pixels = batch.pixels(self.batch_size, preprocess)
        return preprocess.normalize(pixels, self.device)

    def image_rows(self, batch: Batch, output: torch.Tensor | None) -> pa.Table:
        """Return the rows of the images pass."""
        top5: list[object] = [None] * len(batch.images)
        if output is not None:
            categories = self.setup.network.categories
            assert categories is not None
            predicted = top_predictions(output[batch.positions].float().cpu(), categories)
            top5 = [[named(guess) for guess in guesses] for guesses in predicted]
        columns = [
            [image.image_id for image in batch.images],
            [image.key for image in batch.images],
            [image.label for image in batch.images],
            [image.image.width for image in batch.images],
            [image.image.height for image in batch.images],
            [image.image.thumbnail for image in batch.images],
            top5,
        ]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, schemas.IMAGES, strict=True)]
        return pa.table(arrays, schema=schemas.IMAGES)


class UnitFiles:
    """The files of one attempt at a unit: open shards while it runs, markers at its end."""

    def __init__(
        self, store: Store, task: ExtractionTask, token: str, features: dict[str, pa.Schema]
    ) -> None:
        self.store = store
        self.task = task
        self.name = f"{task.unit.name}.{token}.parquet"
        self.features = features
        self.open_files = ExitStack()
        self.shards: dict[str, ShardWriter] = {}
        self.images: ShardWriter | None = None

    def __enter__(self) -> "UnitFiles":
        """Open every shard that is due."""
        for layer, schema in self.features.items():
            path = f"features/{layer}/{self.name}"
            opened = shard_writer(self.store, path, schema)
            self.shards[layer] = self.open_files.enter_context(opened)
        if self.task.images is not None:
            opened = shard_writer(self.store, f"images/{self.name}", schemas.IMAGES)
            self.images = self.open_files.enter_context(opened)
        return self

    def __exit__(self, *failure: object) -> None:
        """Publish the shards, or drop them if the unit failed."""
        self.open_files.__exit__(*failure)  # type: ignore[arg-type]

    def write(self, rows: pa.Table | None, features: dict[str, pa.Table]) -> None:
        """Write one batch."""
        if self.images is not None and rows is not None:
            self.images.write(rows)
        for layer, table in features.items():
            self.shards[layer].write(table)

    def commit(self, observer: Observer, rejects: list[Reject]) -> int:
        """Write statistics, rejects and, last, the markers; return the bytes written."""
        slots = tuple(reject.slot for reject in rejects)
        total = 0
        if self.task.images is not None:
            assert self.images is not None
            files = (self.images.shard, self.write_rejects(rejects))
            total += self.mark(self.task.images, files, slots)
        for owner in self.task.passes:
            by_layer = [self.layer_files(layer, observer) for layer in owner.layers]
            total += self.mark(owner, tuple(file for pair in by_layer for file in pair), slots)
        return total

    def mark(self, owner: Pass, files: tuple[ShardFile, ...], rejects: tuple[int, ...]) -> int:
        """Write one pass's marker."""
        commit(self.store, owner, Marker(self.task.unit.name, files, rejects))
        return sum(file.bytes for file in files)

    def layer_files(self, layer: str, observer: Observer) -> tuple[ShardFile, ShardFile]:
        """Return the shard of a layer's features, and write its statistics."""
        num_channels = int(self.features[layer].metadata[b"shape"].split()[0])
        nobody = StatisticsBuilder(num_channels, observer.best)  # where all are rejects
        table = channels.unit_table(observer.statistics.get(layer, nobody).build())
        statistics = write_table(self.store, f"channels/{layer}/{self.name}", table)
        return self.shards[layer].shard, statistics

    def write_rejects(self, rejects: list[Reject]) -> ShardFile:
        """Write what could not be used, and why."""
        columns = [
            [reject.image_id for reject in rejects],
            [reject.key for reject in rejects],
            [reject.stage for reject in rejects],
            [reject.reason for reject in rejects],
        ]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, schemas.REJECTS, strict=True)]
        table = pa.table(arrays, schema=schemas.REJECTS)
        return write_table(self.store, f"rejects/{self.name}", table)


def named(guess: Prediction) -> dict[str, int | str | float]:
    """Return a prediction as its column holds it."""
    index, name, probability = guess
    return {"index": index, "name": name, "probability": probability}


def crashed(task: ExtractionTask) -> list[Reject]:
    """Return the rejects of the images that ended their worker's process each time."""
    reason = "the worker's process died or hung each time it worked on this image alone"
    return [
        Reject(slot, image_id(task.unit.number, slot), key, "worker", reason)
        for slot, key in task.unit.images()
        if slot in task.crashed
    ]


def check_rejects(task: ExtractionTask, rejects: list[Reject]) -> None:
    """Refuse a later pass that finds other rejects than the images pass did.

    Raises:
        CnnvisError: an image changed under the run.
    """
    if task.images is None and rejects:
        first = rejects[0]
        raise CnnvisError(
            f"image {first.key!r} was usable when unit {task.unit.name} was first done and is "
            f"not now ({first.stage}: {first.reason}); restore it, or run with --replace images"
        )
