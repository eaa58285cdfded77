"""Mean heat maps per class, and whether maps carry meaning, brought up to the shards."""

import pyarrow as pa
import pyarrow.compute as pc

from cnnvis_ray.explanation import ExplanationSetup, draw_class_heat, summarize_heat
from cnnvis_ray.ledger import Run
from cnnvis_ray.ledger.units import SLOTS
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import read_table, write_bytes, write_table


def join_heat(job: Job, setup: ExplanationSetup, summary: Summary) -> None:
    """Average maps by class, draw them, and note the areas under deletion and insertion.

    Classes are the labels; images without one count for what the network calls them.
    """
    files = Run(job.store).files("explain", "explanation/heat")
    shards = (read_table(job.store, file.path) for file in files)
    heat = summarize_heat(shards, job.images.labels.of)
    summary.note("explain", target=str(setup.kind), **heat.fidelity())
    if not heat.means:
        return
    write_table(job.store, "explanation/classes.parquet", heat.table())
    for method in heat.methods:
        needs = job.vision.network.preprocess
        sheet = draw_class_heat(heat, method, lambda ids: read_thumbnails(job, ids), needs)
        write_bytes(job.store, f"explanation/classes-{method}.png", sheet)


def read_thumbnails(job: Job, image_ids: set[int]) -> dict[int, bytes]:
    """Read the thumbnails of some images, each shard once."""
    units = {image // SLOTS for image in image_ids}
    found: dict[int, bytes] = {}
    for file in Run(job.store).files("images", "images"):
        if int(file.path.split("/")[1][:6]) in units:
            table = read_table(job.store, file.path, ["image_id", "thumbnail"])
            kept = table.filter(pc.is_in(table["image_id"], pa.array(sorted(image_ids))))
            ids, data = kept["image_id"].to_pylist(), kept["thumbnail"].to_pylist()
            found.update(zip(ids, data, strict=True))
    return found
