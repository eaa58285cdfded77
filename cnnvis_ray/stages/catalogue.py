"""Catalogues brought up to their pictures and statistics: what is due, and what is written."""

from collections.abc import Sequence

from cnnvis_ray import ledger
from cnnvis_ray.config import Maximize
from cnnvis_ray.ledger import Marker, Pass, Run
from cnnvis_ray.maximization import draw_catalogue, join_pictures
from cnnvis_ray.maximization.objectives import main_term
from cnnvis_ray.stages.merging import digest_files, layer_files, merged_digest
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes, write_table

UNIT = "000000.r0"  # one layer's catalogue is one unit


def join_catalogues(store: Store, summary: Summary) -> None:
    """Bring every catalogue's merged tables and sheets up to its pictures and statistics."""
    for owner in ledger.read_passes(store, "maximize"):
        (layer,) = owner.layers
        files = layer_files(store, [owner], f"maximization/{owner.subject}", layer)
        if files:
            counts = join_layer(store, owner, layer, files)
            summary.note("pictures", **{f"{owner.subject}/{layer}": counts})
    for name in {owner.subject for owner in ledger.read_passes(store, "maximize")}:
        folders = [f"maximization/{name}/sheets"]
        ledger.sweep(store, ("catalogue",), folders)


def join_layer(
    store: Store, owner: Pass, layer: str, files: Sequence[ShardFile]
) -> dict[str, int]:
    """Merge one layer's pictures and draw its sheets, unless that is done; count by status."""
    path = f"maximization/{owner.subject}/{layer}.parquet"
    statistics = f"channels/{layer}.parquet"
    recipe = recipe_in(owner)
    digests = {"pictures": digest_files(files), "statistics": merged_digest(store, statistics)}
    if main_term(recipe)[0] == "class":  # the version before left its percentile out
        digests["percentile"] = "of the logit"
    inputs = ledger.fingerprint(digests)
    wanted = Pass("catalogue", {}, (layer,), inputs, owner.subject)
    (catalogue,) = ledger.claim(store, wanted)
    if not ledger.done(store, catalogue):
        found = Run(store).statistics(layer) if store.exists(statistics) else None
        table = join_pictures([read_table(store, file.path) for file in files], found, recipe)
        written = [write_table(store, path, table)]
        for number, sheet in enumerate(draw_catalogue(table, layer, owner.subject)):
            name = f"maximization/{owner.subject}/sheets/{layer}-{number:03d}.png"
            written.append(write_bytes(store, name, sheet))
        ledger.commit(store, catalogue, Marker(UNIT, tuple(written)))
    status = read_table(store, path, ["status"])["status"].to_pylist()
    return {name: status.count(name) for name in ("live", "stuck", "dead") if name in status}


def recipe_in(owner: Pass) -> Maximize:
    """Read back from a pass the part of its recipe that states what was measured."""
    values = {key: owner.recipe[f"maximize.{key}"] for key in ("objective", "captured")}
    return Maximize.model_validate(values)
