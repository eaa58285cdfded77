"""Weight sheets of the asked layers that are convolutions, and of the network's first one."""

import logging
from collections.abc import Sequence

from cnnvis_ray import ledger
from cnnvis_ray.explanation import plots
from cnnvis_ray.ledger import Marker, Pass
from cnnvis_ray.network import Layer, build_module
from cnnvis_ray.stages.job import Job
from cnnvis_ray.storage import write_bytes

log = logging.getLogger(__name__)

UNIT = "000000.r0"  # a layer's sheet is one unit


def draw_kernels(job: Job, layers: Sequence[Layer]) -> None:
    """Draw the weight sheets that are not drawn yet."""
    module = build_module(job.vision.network)
    table = job.vision.table
    convolutions = [layer for layer in table.layers if layer.kind == "Conv2d"]
    asked = {layer.name for layer in (*convolutions[:1], *layers)}
    for layer in convolutions:
        if layer.name not in asked:
            continue
        recipe = {"weights": job.vision.network.state_hash, "scale": job.config.explain.scale}
        inputs = ledger.fingerprint(recipe)
        (owner,) = ledger.claim(job.store, Pass("weights", {}, (layer.name,), inputs))
        kernels = plots.kernels_of(module.get_submodule(layer.name))
        if kernels is None or ledger.done(job.store, owner):
            continue
        sheet = plots.draw_kernels(layer.name, kernels, job.config.explain.scale == "shared")
        path = f"explanation/weights/{layer.name}.png"
        ledger.commit(job.store, owner, Marker(UNIT, (write_bytes(job.store, path, sheet),)))
