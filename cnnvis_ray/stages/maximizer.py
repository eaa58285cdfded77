"""The worker that makes pictures: a plain class; one task is some units of one layer.

Units of one layer travel together until they fill a batch, and each is committed by itself.
"""

import io
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from PIL import Image

from cnnvis_ray.config import Maximize
from cnnvis_ray.errors import ImageRejectedError
from cnnvis_ray.images import Source, decode
from cnnvis_ray.ledger import ChannelUnit, Marker, Pass, commit
from cnnvis_ray.maximization import Evidence, Picture, Setting, StartImage, maximize_channels
from cnnvis_ray.network import Layer, ResolvedNetwork, build_module, prepare_device
from cnnvis_ray.storage import ShardFile, Store, write_table

PICTURES = pa.schema(
    [
        ("channel", pa.int32()),
        ("variant", pa.int32()),
        ("picture", pa.binary()),  # PNG
        ("status", pa.string()),
        ("activation", pa.float32()),
        ("start_activation", pa.float32()),
        ("attempts", pa.int32()),
        ("curve", pa.list_(pa.float32())),
        ("start_key", pa.string()),
        ("note", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class MaximizerSetup:
    """What all workers share: the network, and where images are, for starts from one."""

    run_dir: str
    seed: int
    source: Source
    max_pixels: int
    network: ResolvedNetwork


@dataclass(frozen=True, slots=True)
class ImageEvidence:
    """What a run's images say of a layer, as it travels.

    Attributes:
        best: by channel, the largest mean activation of an image.
        excited: by channel, whether any image excites it.
        keys: by channel, the image that excites it most.
    """

    best: np.ndarray
    excited: np.ndarray
    keys: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class MaximizationTask:
    """Some units of one layer.

    Attributes:
        owner: the pass they belong to.
        recipe: with the layer's overrides applied.
        evidence: where the run has statistics of the layer.
        magnitude: the images' spectrum, for ``maco``.
    """

    units: tuple[ChannelUnit, ...]
    owner: Pass
    layer: Layer
    recipe: Maximize
    evidence: ImageEvidence | None
    magnitude: np.ndarray | None

    @property
    def channels(self) -> list[int]:
        """Every channel of the task."""
        return [channel for unit in self.units for channel in unit.channels]


@dataclass(frozen=True, slots=True)
class MaximizationReport:
    """What became of a task."""

    pictures: int
    live: int
    seconds: float


class Maximizer:
    """Makes pictures with one network on one device."""

    def __init__(self, setup: MaximizerSetup, device: str, threads: int) -> None:
        prepare_device(device, threads)
        self.setup = setup
        self.store = Store(setup.run_dir)
        self.module = build_module(setup.network, device)
        preprocess = setup.network.preprocess
        self.setting = Setting(
            preprocess.mean, preprocess.std, preprocess.crop, setup.seed, device
        )

    def __call__(self, task: MaximizationTask) -> MaximizationReport:
        """Make a task's pictures and commit unit by unit."""
        started = time.monotonic()
        setting = replace(
            self.setting, evidence=self.evidence(task.evidence), magnitude=task.magnitude
        )
        made = maximize_channels(self.module, task.layer, task.channels, task.recipe, setting)
        for unit in task.units:
            rows = [picture for picture in made if picture.channel in unit.channels]
            file = self.write(task, unit, rows)
            commit(self.store, task.owner, Marker(unit.name, (file,)))
        live = sum(picture.status == "live" for picture in made)
        return MaximizationReport(len(made), live, time.monotonic() - started)

    def evidence(self, found: ImageEvidence | None) -> Evidence | None:
        """Give the engine what the images say, with a way to the images themselves."""
        if found is None:
            return None
        return Evidence(found.best, found.excited, lambda c: self.read_image(found.keys[c]))

    def read_image(self, key: str | None) -> StartImage | None:
        """Read the image that a picture may start from; None where it cannot be had any more."""
        if key is None:
            return None
        try:
            with self.setup.source.open() as reader:
                image = decode(reader.fetch(key), self.setup.max_pixels)
        except ImageRejectedError:
            return None
        return StartImage(key, np.asarray(self.setup.network.preprocess.fit(image)))

    def write(
        self, task: MaximizationTask, unit: ChannelUnit, rows: Sequence[Picture]
    ) -> ShardFile:
        """Write one unit's rows."""
        token = secrets.token_hex(4)
        folder = f"maximization/{task.owner.subject}/{task.layer.name}"
        return write_table(self.store, f"{folder}/{unit.name}.{token}.parquet", as_table(rows))


def as_table(pictures: Sequence[Picture]) -> pa.Table:
    """Lay pictures out as rows."""
    columns = [
        [picture.channel for picture in pictures],
        [picture.variant for picture in pictures],
        [png(picture.pixels) for picture in pictures],
        [picture.status for picture in pictures],
        [picture.activation for picture in pictures],
        [picture.start_activation for picture in pictures],
        [picture.attempts for picture in pictures],
        [picture.curve for picture in pictures],
        [picture.start_key for picture in pictures],
        [picture.note for picture in pictures],
    ]
    arrays = [pa.array(column, f.type) for column, f in zip(columns, PICTURES, strict=True)]
    return pa.table(arrays, schema=PICTURES)


def png(pixels: np.ndarray) -> bytes:
    """Encode a picture without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
