"""The worker that explains: a plain class that does one task after another.

Heat maps: the images of a unit in groups of a batch, each method over the group. Crops: each image
of a unit decoded once. Both read the source by key.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from PIL import Image

from cnnvis_ray.errors import ImageRejectedError
from cnnvis_ray.explanation.aims import Aimed
from cnnvis_ray.explanation.crops import CROPS, Exemplar, Fitted, crop_row, darken
from cnnvis_ray.explanation.groups import Group, Row, Shown
from cnnvis_ray.explanation.heat import heat_schema
from cnnvis_ray.explanation.tasks import (
    CropTask,
    ExplanationReport,
    ExplanationSetup,
    HeatTask,
    Wanted,
)
from cnnvis_ray.images import prepared
from cnnvis_ray.ledger import Marker, commit
from cnnvis_ray.ledger.units import SLOTS
from cnnvis_ray.network import Layer, activations, build_module, prepare_device
from cnnvis_ray.pictures import write_sheet
from cnnvis_ray.storage import ShardFile, Store, write_table

Task = HeatTask | CropTask


class Explainer:
    """Explains images with one network on one device."""

    def __init__(self, setup: ExplanationSetup, device: str, threads: int) -> None:
        prepare_device(device, threads)
        self.setup = setup
        self.device = device
        self.threads = threads
        self.store = Store(setup.run_dir)
        self.module = build_module(setup.network, device)
        self.reader = setup.source.open()

    def __call__(self, task: Task) -> ExplanationReport:
        """Do one task: write its files, then its marker."""
        if isinstance(task, CropTask):
            return self.crop(task)
        return self.explain(task)

    def close(self) -> None:
        """Close the source."""
        self.reader.close()

    def crop(self, task: CropTask) -> ExplanationReport:
        """Cut the crops of one layer from the images of one unit."""
        layer, preprocess = self.setup.layers[task.layer], self.setup.network.preprocess
        rows: list[Row] = []
        unreadable: list[Exemplar] = []
        is_masked = self.setup.look.crops == "mask"
        for key, fitted in self.fitted(task.images):
            own = [exemplar for exemplar in task.exemplars if exemplar.key == key]
            if fitted is None:
                unreadable.append(own[0])
                continue
            for exemplar in own:
                masked = self.mask(layer, exemplar, fitted) if is_masked else fitted
                rows.append(crop_row(exemplar, layer, masked, preprocess))
        table = pa.Table.from_pylist(rows, schema=CROPS)
        path = f"explanation/crops/{task.layer}/{task.unit}.{secrets.token_hex(4)}.parquet"
        gone = tuple(exemplar.image_id % SLOTS for exemplar in unreadable)
        marker = Marker(task.unit, (write_table(self.store, path, table),), gone)
        commit(self.store, task.owner, marker)
        return ExplanationReport(len(task.images), tuple(image.key for image in unreadable))

    def mask(self, layer: Layer, exemplar: Exemplar, fitted: Fitted) -> Fitted:
        """Darken an image where the exemplar's channel is silent."""
        batch = self.setup.network.preprocess.normalize(fitted.pixels[None], self.device)
        maps = activations(self.module, [layer], batch)[layer.name][0, exemplar.channel]
        values = maps.float().cpu().numpy()
        return replace(fitted, pixels=darken(fitted.pixels, values, float(values.max())))

    def explain(self, task: HeatTask) -> ExplanationReport:
        """Make the heat maps, sheets and curves of some images of one unit."""
        rows: list[Row] = []
        sheets: list[ShardFile] = []
        unreadable: list[Wanted] = []
        size = self.setup.explain.batch_size
        for start in range(0, len(task.images), size):
            wanted = task.images[start : start + size]
            read = dict(self.fitted([image.key for image in wanted]))
            usable = [image for image in wanted if read[image.key] is not None]
            unreadable.extend(image for image in wanted if read[image.key] is None)
            if usable:
                pixels = [fitted.pixels for image in usable if (fitted := read[image.key])]
                shown = Shown(self.setup, self.module, usable, np.stack(pixels), self.device)
                rows.extend(self.explain_group(shown, sheets))
        side = min(self.setup.explain.map_size, self.setup.network.preprocess.crop)
        table = pa.Table.from_pylist(rows, schema=heat_schema(side))
        path = f"explanation/heat/{task.unit}.{secrets.token_hex(4)}.parquet"
        written = write_table(self.store, path, table)
        gone = tuple(image.image_id % SLOTS for image in unreadable)
        commit(self.store, task.owner, Marker(task.unit, (written, *sheets), gone))
        return ExplanationReport(len(task.images), tuple(image.key for image in unreadable))

    def explain_group(self, shown: Shown, sheets: list[ShardFile]) -> list[Row]:
        """Explain images that share a batch: write their sheets, return their rows."""
        if self.setup.kind is None:
            drawn, rows = shown.sheets(), []
        else:
            group = Group(shown, Aimed(self.module, self.setup.kind))
            drawn, rows = group.sheets(), list(group.rows())
        for stem, sheet in drawn:
            sheets.extend(write_sheet(self.store, stem, sheet, self.setup.look))
        return rows

    def fitted(self, keys: Sequence[str]) -> Iterator[tuple[str, Fitted | None]]:
        """Read images by key as the network takes them; None for one that cannot be read."""
        preprocess = self.setup.network.preprocess

        def prepare(image: Image.Image) -> Fitted:
            return Fitted(preprocess.fit(image), image.width, image.height)

        ahead = 2 * self.setup.explain.batch_size
        limit = self.setup.images.max_pixels
        stream = prepared(self.reader, enumerate(keys), prepare, limit, self.threads, ahead)
        for _, key, outcome in stream:
            yield key, None if isinstance(outcome, ImageRejectedError) else outcome
