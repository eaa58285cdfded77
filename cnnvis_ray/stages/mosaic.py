"""The stage ``mosaic``: maps to pictures. Reads the embeddings alone, never the source.

Mosaics take seconds, so another recipe makes them again without being asked.
"""

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from cnnvis_ray.cluster import Session
from cnnvis_ray.config import recipe_of
from cnnvis_ray.errors import RefusedError, near
from cnnvis_ray.ledger import Pass
from cnnvis_ray.pictures import check_background, draw_grid, draw_scatter
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes

log = logging.getLogger(__name__)

LAYOUTS = {"scatter": draw_scatter, "grid": draw_grid}


@dataclass(slots=True)
class Mosaics:
    """The mosaics of some layers; which of them are due is known once the maps are."""

    job: Job
    layers: tuple[str, ...]
    units: None = None

    def do(self, session: Session, summary: Summary) -> None:
        """Draw each map in each layout, where it is not drawn yet."""
        job, made = self.job, False
        maps = {file.path: file for file in job.ledger.files("embedding", "embedding")}
        values = recipe_of(job.config.mosaic, {"layers"})
        recipe = {f"mosaic.{key}": value for key, value in values.items()}
        for layer in self.layers:
            file = maps.get(f"embedding/{layer}.parquet")
            if file is None:
                log.info("mosaic: %s has no map", layer)
                continue
            wanted = Pass("mosaic", recipe, (layer,), file.sha256)
            draw = partial(draw_layouts, job, layer)
            made |= job.ledger.make(wanted, draw, "mosaic" in job.replace)[1]
        if made or summary.unfinished:
            job.ledger.sweep(("mosaic",), ["mosaic"])


def decide(job: Job) -> Mosaics:
    """Check layouts and colours.

    Raises:
        RefusedError: there is no such layout or colour.
    """
    config = job.config.mosaic
    for layout in config.layouts:
        if layout not in LAYOUTS:
            hints = near(layout, LAYOUTS) or list(LAYOUTS)
            raise RefusedError(
                f"mosaic.layouts: {layout!r} is not a layout; did you mean {', '.join(hints)}?"
            )
    check_background(config.background)
    return Mosaics(job, tuple(layer.name for layer in job.chosen(config.layers)))


def draw_layouts(job: Job, layer: str) -> Iterator[ShardFile]:
    """Draw one layer's mosaics and write them as PNG."""
    path = f"embedding/{layer}.parquet"
    table = read_table(job.store, path, ["label", "x", "y"])
    positions = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    labels = table["label"].to_pylist()
    title = f"{job.vision.network.name}  {layer}  {table.num_rows:,} images"
    for layout in job.config.mosaic.layouts:
        thumbnails = read_thumbnails(job.store, path)
        picture = LAYOUTS[layout](thumbnails, positions, labels, job.config.mosaic, title)
        yield write_bytes(job.store, f"mosaic/{layer}-{layout}.png", encode(picture))


def read_thumbnails(store: Store, path: str) -> Iterator[bytes]:
    """Read the thumbnails of a map in order, some rows at a time."""
    with store.open(path) as file:
        for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(1024, columns=["image"]):
            yield from (image["bytes"].as_py() for image in batch["image"])


def encode(picture: Image.Image) -> bytes:
    """Encode as PNG; level 3 halves the time and costs a few percent of the size."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
