"""Linear probes of the layers as a table and a small plot, beside chance and the map's figure."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cnnvis_ray import ledger
from cnnvis_ray.explanation import PROBE, probe_rows
from cnnvis_ray.explanation.plots import draw_probe
from cnnvis_ray.ledger import Marker, Pass, Run
from cnnvis_ray.network import Layer
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.merging import digest_files, layer_files
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import read_table, write_bytes, write_table

log = logging.getLogger(__name__)

UNIT = "000000.r0"  # a layer's probe is one unit
LARGEST = 2**28  # numbers of a layer's features that a probe reads into memory: 1 GiB


def probe_layers(job: Job, layers: Sequence[Layer], summary: Summary) -> None:
    """Probe every layer with features and draw them beside one another."""
    rows = [row for layer in layers if (row := probe_layer(job, layer, summary)) is not None]
    if not rows:
        log.info("explain: no linear probe: it needs features and two classes of two images")
        return
    table = pa.Table.from_pylist(rows, schema=PROBE)
    write_table(job.store, "explanation/probe.parquet", table)
    write_bytes(job.store, "explanation/probe.png", draw_probe(table))


def probe_layer(job: Job, layer: Layer, summary: Summary) -> dict[str, object] | None:
    """Probe one layer, unless that is done; give its row."""
    passes = ledger.read_passes(job.store, "extract")
    files = layer_files(job.store, passes, "features", layer.name)
    if not files:
        return None
    run = Run(job.store)
    keys = run.images(["key"])["key"].to_pylist()
    labels = [job.images.labels.of(key) for key in keys]
    inputs = ledger.fingerprint(
        {"features": digest_files(files), "labels": labels, "seed": job.config.seed}
    )
    (owner,) = ledger.claim(job.store, Pass("probe", {}, (layer.name,), inputs))
    path = f"explanation/probe/{layer.name}.parquet"
    if not ledger.done(job.store, owner):
        table = probed(job, run, layer)
        ledger.commit(job.store, owner, Marker(UNIT, (write_table(job.store, path, table),)))
    found: list[dict[str, object]] = read_table(job.store, path).to_pylist()
    for row in found:
        quality = summary.fields.get("quality", {}).get(layer.name)
        agreement = quality.get("label_agreement") if isinstance(quality, dict) else None
        return {**row, "map_agreement": agreement}
    return None


def probed(job: Job, run: Run, layer: Layer) -> pa.Table:
    """Probe one layer: one row, or none where its features do not fit or classes are too few."""
    size = sum(values.size for _, values in run.feature_blocks(layer.name))
    if size > LARGEST:
        log.info(
            "explain %s: no linear probe: %d numbers do not fit in memory; extract with "
            "pooling mean or sketch:256",
            layer.name,
            size,
        )
        return PROBE.empty_table()
    keys, features = run.features(layer.name)
    labels = [job.images.labels.of(key) for key in keys]
    return probe_rows(layer.name, np.asarray(features), labels, job.config.seed)
