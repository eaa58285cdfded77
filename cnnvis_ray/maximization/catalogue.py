"""A catalogue: all pictures of a layer as one table with percentiles, and as labelled sheets.

A percentile is the share of the run's images whose mean activation is below the picture's. It is
joined after maximization, and again when the images' statistics grow. What `is_comparable` rules
out has none.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from PIL import Image

from cnnvis_ray.channels.histograms import quantile, share_below
from cnnvis_ray.channels.tables import histogram_from
from cnnvis_ray.config.explanation import Pictures
from cnnvis_ray.config.maximization import Maximize
from cnnvis_ray.maximization.objectives import is_comparable, main_term
from cnnvis_ray.pictures import Sheet, Tile, columns_of, lay_sheet, text_tile

TILES_PER_SHEET = 256
COLUMNS = 16
SHEET_WIDTH = COLUMNS * 256  # pixels: few pictures of a closer look are shown as large as they are
LOOK = Pictures()
VALUE = re.compile(r", [-+.\de]+$")  # of a remark: "not above noise, 0.126"
NAMED = 8  # channels of a sheet that its title lists; of more it names the first and the last


def join_pictures(
    shards: Sequence[pa.Table], statistics: pa.Table | None, recipe: Maximize
) -> pa.Table:
    """Join all rows of a layer, by channel and variant, with their place among the images.

    Args:
        shards: of `worker.PICTURES`, at least one.
        statistics: the layer's, from `channels.merged_table`, a row a channel; None without
            images.
        recipe: that the pictures were made with.

    Returns:
        The rows with ``percentile`` and ``best_image``: the largest mean activation of an image,
        or, where the objective is minimized, the smallest, within 4.4 %. Both are null without
        images, and where `is_comparable` says no.
    """
    rows = pa.concat_tables(shards).sort_by([("channel", "ascending"), ("variant", "ascending")])
    percentile = np.full(rows.num_rows, np.nan)
    best = np.full(rows.num_rows, np.nan)
    if statistics is not None and is_comparable(recipe):
        channel = rows["channel"].to_numpy()
        counts = histogram_from(statistics, "histogram")[channel]
        percentile = 100 * share_below(counts, rows["activation"].to_numpy())
        rises = main_term(recipe)[1] > 0
        best = statistics["maximum"].to_numpy()[channel] if rises else quantile(counts, 0)
    for name, values in (("percentile", percentile), ("best_image", best)):
        column = pa.array(values.astype(np.float32), pa.float32(), from_pandas=True)
        rows = rows.append_column(name, column)
    return rows


def draw_catalogue(
    table: pa.Table,
    title: str,
    notes: Sequence[str] = (),
    class_names: Sequence[str] = (),
    look: Pictures = LOOK,
) -> Iterator[Sheet]:
    """Draw the contact sheets of one layer; pictures of one channel share a row.

    Args:
        table: from `join_pictures`.
        title: network, layer and recipe; the channels of a sheet are added.
        notes: below the title, such as `describe_recipe`.
        class_names: by channel, of a layer whose channels are classes.
        look: background, columns and where captions are.

    Yields:
        Sheets of at most `TILES_PER_SHEET` pictures.
    """
    rows = table.drop_columns(["curve"]).to_pylist()
    together = 1 + max((row["variant"] for row in rows), default=0)  # pictures of a channel
    most = max(TILES_PER_SHEET // together, 1) * together
    for first in range(0, len(rows), most):
        part = rows[first : first + most]
        fitting = min(COLUMNS, math.ceil(math.sqrt(len(part) * 1.6)))
        columns = columns_of(look, "pictures") or max(fitting // together, 1) * together
        with Image.open(io.BytesIO(part[0]["picture"])) as image:
            side = max(image.size)  # all of a layer are alike
        yield lay_sheet(
            [tile_of(row, class_names, look.captions == "corner") for row in part],
            columns,
            max(64, min(side, SHEET_WIDTH // columns)),
            look.background,
            title=f"{title}: {name_channels(part)}",
            notes=[*notes, *sheet_notes(part)],
        )


def describe_recipe(recipe: Mapping[str, object]) -> str:
    """Return in words by what pictures were made, from a pass's recipe."""
    found = {key.removeprefix("maximize."): value for key, value in recipe.items()}
    size, objective = found["size"], found["objective"]
    if isinstance(objective, dict):
        objective = " + ".join(f"{weight:g} {name}" for name, weight in objective.items())
    pixels = " x ".join(map(str, size)) if isinstance(size, (list, tuple)) else f"{size} x {size}"
    transforms = found["transforms"]
    named = transforms if isinstance(transforms, str) else "given"
    return (
        f"objective {objective}, {pixels} pixels, {found['steps']} steps, "
        f"{found['parametrization']}, transforms {named}"
    )


def name_channels(rows: Sequence[dict[str, object]]) -> str:
    """Name a sheet's channels, which need not follow one another."""
    numbers = list(dict.fromkeys(str(row["channel"]) for row in rows))
    if len(numbers) <= NAMED:
        return f"channel{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
    return f"{len(numbers)} channels, {numbers[0]} to {numbers[-1]}"


def tile_of(
    row: dict[str, object], class_names: Sequence[str] = (), is_labelled: bool = False
) -> Tile:
    """Make a picture's tile; a dead channel is words, never grey noise.

    Args:
        row: of `join_pictures`.
        class_names: by channel, of a layer whose channels are classes.
        is_labelled: write class and channel onto the picture, and nothing else.
    """
    channel = row["channel"]
    assert isinstance(channel, int)
    named = [class_names[channel]] if channel < len(class_names) else []
    variant = f".{row['variant']}" if row["variant"] else ""
    percentile = row["percentile"]
    rank = "" if percentile is None else f"  p{percentile:.0f}"
    label = " ".join((*named, f"{channel}{variant}")) if is_labelled else ""
    if row["status"] == "dead":
        captions = () if is_labelled else (*named, f"{channel}{variant}")
        return replace(text_tile("dead", captions), label=label)
    written = [*named, f"{channel}{variant}{rank}", f"{row['activation']:.4g}"]
    if row["status"] != "live":
        written.append(str(row["status"]))
    picture = row["picture"]
    assert isinstance(picture, bytes)
    image = Image.open(io.BytesIO(picture))
    return Tile(image, () if is_labelled else tuple(written), label=label)


def sheet_notes(rows: Sequence[dict[str, object]]) -> list[str]:
    """List the rows' remarks, each once with the channels that it holds for, without values."""
    by_note: dict[str, list[str]] = {}
    for row in rows:
        for note in filter(None, str(row["note"]).split("; ")):
            by_note.setdefault(VALUE.sub("", note), []).append(str(row["channel"]))
    return [
        f"{note}: {'all' if len(found) == len(rows) else 'channels ' + ', '.join(found)}"
        for note, found in by_note.items()
    ]
