"""The worker that makes pictures: a plain class; one task is some units of one layer.

Units of one layer travel together until they fill a batch, and each is committed by itself.
"""

import io
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
from PIL import Image
from torch import nn

from cnnvis_ray.config.maximization import Maximize
from cnnvis_ray.errors import ImageRejectedError
from cnnvis_ray.images import Reader, Source, decode
from cnnvis_ray.ledger import ChannelUnit, Marker, Pass, commit
from cnnvis_ray.maximization.maximizing import maximize_channels
from cnnvis_ray.maximization.records import Evidence, Picture, Setting, StartImage
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
    """What all workers share: the network, and the source of images that attempts start from."""

    run_dir: str
    seed: int
    source: Source
    max_pixels: int
    network: ResolvedNetwork


@dataclass(frozen=True, slots=True)
class ImageEvidence:
    """What a run's images say of a layer, in the form that travels to a worker.

    Attributes:
        best: by channel, the largest mean activation of an image.
        excited: by channel, whether any image excites it.
        keys: by channel, the image that excites it most.
        lowest: by channel, the smallest mean activation of an image, within 4.4 %.
    """

    best: np.ndarray
    excited: np.ndarray
    keys: tuple[str | None, ...]
    lowest: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class MaximizationTask:
    """Some units of one layer.

    Attributes:
        owner: the pass they belong to.
        recipe: with the layer's overrides applied and its precision resolved.
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

    @property
    def name(self) -> str:
        """Layer and units, for messages."""
        return f"{self.layer.name} {', '.join(unit.name for unit in self.units)}"

    @property
    def size(self) -> int:
        """How many channels it is."""
        return len(self.channels)


@dataclass(frozen=True, slots=True)
class MaximizationReport:
    """What became of a task."""

    pictures: int
    live: int
    seconds: float


class Maximizer:
    """Makes pictures with one network on one device.

    The source is opened for the first image that an attempt starts from, once, and closed with
    the worker.
    """

    def __init__(self, setup: MaximizerSetup, device: str, threads: int) -> None:
        prepare_device(device, threads)
        self.setup = setup
        self.store = Store(setup.run_dir)
        self.module: nn.Module = build_module(setup.network, device)
        self.reader: Reader | None = None
        needs = setup.network.preprocess
        self.setting = Setting(needs.mean, needs.std, needs.crop, setup.seed, device)

    def __call__(self, task: MaximizationTask) -> MaximizationReport:
        """Make a task's pictures and commit unit by unit."""
        started = time.monotonic()
        found, evidence = task.evidence, None
        if found is not None:
            keys = found.keys
            evidence = Evidence(
                found.best, found.excited, lambda c: self.read_image(keys[c]), found.lowest
            )
        setting = replace(self.setting, evidence=evidence, magnitude=task.magnitude)
        made = maximize_channels(self.module, task.layer, task.channels, task.recipe, setting)
        for unit in task.units:
            rows = [picture for picture in made if picture.channel in unit.channels]
            commit(self.store, task.owner, Marker(unit.name, (self.write(task, unit, rows),)))
        live = sum(picture.status == "live" for picture in made)
        return MaximizationReport(len(made), live, time.monotonic() - started)

    def close(self) -> None:
        """Close the source, if an attempt has opened it."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def read_image(self, key: str | None) -> StartImage | None:
        """Read the image that an attempt may start from; None where it cannot be read any more."""
        if key is None:
            return None
        try:
            if self.reader is None:
                self.reader = self.setup.source.open()
            image = decode(self.reader.fetch(key), self.setup.max_pixels)
        except ImageRejectedError:
            return None
        return StartImage(key, np.asarray(self.setup.network.preprocess.fit(image)))

    def write(
        self, task: MaximizationTask, unit: ChannelUnit, rows: Sequence[Picture]
    ) -> ShardFile:
        """Write one unit's rows."""
        folder = f"maximization/{task.owner.subject}/{task.layer.name}"
        path = f"{folder}/{unit.name}.{secrets.token_hex(4)}.parquet"
        return write_table(self.store, path, pictures_table(rows))


def pictures_table(pictures: Sequence[Picture]) -> pa.Table:
    """Lay pictures out as rows of `PICTURES`."""
    rows = [asdict(picture) | {"picture": png(picture.pixels)} for picture in pictures]
    return pa.Table.from_pylist(rows, schema=PICTURES)


def png(pixels: np.ndarray) -> bytes:
    """Encode a picture without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
