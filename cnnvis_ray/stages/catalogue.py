"""A catalogue: all pictures of a layer as one table with percentiles, and as labelled sheets.

Percentiles are joined after maximization, and again when the images' statistics grow: what share
of the images has a smaller mean activation than the picture.
"""

import io
import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from PIL import Image

from cnnvis_ray import ledger
from cnnvis_ray.channels.histograms import share_below
from cnnvis_ray.channels.tables import histogram_from
from cnnvis_ray.ledger import Marker, Pass, Run
from cnnvis_ray.pictures import Tile, draw_sheet, text_tile
from cnnvis_ray.stages.merging import digest_files, layer_files, merged_digest
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile, Store, read_table, write_bytes, write_table

log = logging.getLogger(__name__)

UNIT = "000000.r0"  # one layer's catalogue is one unit
TILES_PER_SHEET = 256
COLUMNS = 16
SHEET_WIDTH = COLUMNS * 256  # pixels: few pictures of a closer look are shown as large as they are
NAMED = 8  # channels of a sheet that its title lists; of more it says from where to where
NOT_COMPARED = ("neuron", "direction", "class")  # numbers that the images' statistics do not hold


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
    inputs = ledger.fingerprint(
        {"pictures": digest_files(files), "statistics": merged_digest(store, statistics)}
    )
    wanted = Pass("catalogue", {}, (layer,), inputs, owner.subject)
    (catalogue,) = ledger.claim(store, wanted)
    if not ledger.done(store, catalogue):
        table = merged(store, files, layer, owner)
        written = [write_table(store, path, table), *draw_sheets(store, owner, layer, table)]
        ledger.commit(store, catalogue, Marker(UNIT, tuple(written)))
    status = read_table(store, path, ["status"])["status"].to_pylist()
    return {name: status.count(name) for name in ("live", "stuck", "dead") if name in status}


def merged(store: Store, files: Sequence[ShardFile], layer: str, owner: Pass) -> pa.Table:
    """Join all rows of a layer, by channel, with percentiles among the images."""
    tables = [read_table(store, file.path) for file in files]
    rows = pa.concat_tables(tables).sort_by([("channel", "ascending"), ("variant", "ascending")])
    percentile = np.full(rows.num_rows, np.nan)
    best = np.full(rows.num_rows, np.nan)
    if store.exists(f"channels/{layer}.parquet") and comparable(owner):
        statistics = Run(store).statistics(layer)
        channel = rows["channel"].to_numpy()
        counts = histogram_from(statistics, "histogram")[channel]
        percentile = 100 * share_below(counts, rows["activation"].to_numpy())
        best = statistics["maximum"].to_numpy()[channel].astype(np.float64)
    return rows.append_column("percentile", as_floats(percentile)).append_column(
        "best_image", as_floats(best)
    )


def as_floats(values: np.ndarray) -> pa.Array:
    """Turn NaN, not known, into null."""
    return pa.array(values.astype(np.float32), pa.float32(), from_pandas=True)


def comparable(owner: Pass) -> bool:
    """Tell whether a picture's activation is a channel's mean, as the statistics' are."""
    objective = owner.recipe.get("maximize.objective")
    names = objective if isinstance(objective, dict) else {str(objective): 1.0}
    return not any(name in key for name in NOT_COMPARED for key in names)


def draw_sheets(store: Store, owner: Pass, layer: str, table: pa.Table) -> Iterator[ShardFile]:
    """Draw the labelled contact sheets of one layer."""
    rows = table.drop_columns(["curve"]).to_pylist()
    for number, first in enumerate(range(0, len(rows), TILES_PER_SHEET)):
        part = rows[first : first + TILES_PER_SHEET]
        columns = min(COLUMNS, math.ceil(math.sqrt(len(part) * 1.6)))
        sheet = draw_sheet(
            [tile_of(row) for row in part],
            columns,
            max(64, min(widest(rows), SHEET_WIDTH // columns)),
            title=f"{layer}   {owner.subject}   {name_channels(part)}",
            notes=sheet_notes(part),
        )
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG", compress_level=3)
        path = f"maximization/{owner.subject}/sheets/{layer}-{number:03d}.png"
        yield write_bytes(store, path, buffer.getvalue())


def name_channels(rows: Sequence[dict[str, object]]) -> str:
    """Name a sheet's channels, which need not follow one another."""
    numbers = list(dict.fromkeys(str(row["channel"]) for row in rows))
    if len(numbers) <= NAMED:
        return f"channel{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
    return f"{len(numbers)} channels, {numbers[0]} to {numbers[-1]}"


def widest(rows: Sequence[dict[str, object]]) -> int:
    """Measure the longer side of the first picture; all of a layer are alike."""
    picture = rows[0]["picture"]
    assert isinstance(picture, bytes)
    with Image.open(io.BytesIO(picture)) as image:
        return max(image.size)


def tile_of(row: dict[str, object]) -> Tile:
    """Make a picture's tile; a dead channel is words, never grey noise."""
    variant = f".{row['variant']}" if row["variant"] else ""
    percentile = row["percentile"]
    rank = "" if percentile is None else f"  p{percentile:.0f}"
    if row["status"] == "dead":
        return text_tile("dead", (f"{row['channel']}{variant}",))
    captions = [f"{row['channel']}{variant}{rank}", f"{row['activation']:.4g}"]
    if row["status"] != "live":
        captions.append(str(row["status"]))
    picture = row["picture"]
    assert isinstance(picture, bytes)
    return Tile(Image.open(io.BytesIO(picture)), tuple(captions))


def sheet_notes(rows: Sequence[dict[str, object]]) -> list[str]:
    """Say what is amiss, each remark once with the channels that it holds for."""
    by_note: dict[str, list[str]] = {}
    for row in rows:
        for note in filter(None, str(row["note"]).split("; ")):
            by_note.setdefault(note, []).append(str(row["channel"]))
    return [f"{note}: channels {', '.join(channels)}" for note, channels in by_note.items()]
