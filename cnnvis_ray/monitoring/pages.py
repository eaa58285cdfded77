"""Sheets that a person looks at in the morning; each returns a picture, the caller writes it.

Plots are in `plots`. Thumbnails come as JPEG bytes, `None` where an image has none. A sheet of
nothing is `None`: there is nothing to show.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from cnnvis_ray.monitoring.drift import MovedChannel
from cnnvis_ray.monitoring.novelty import Novelty
from cnnvis_ray.pictures import Rgb, Tile, draw_sheet, text_tile

SIDE = 160  # pixels of a thumbnail; a key of 20 letters fits below it
MOST_PAIRS = 48
MOST_SINGLE = 60
RED: Rgb = (225, 30, 60)
AMBER: Rgb = (240, 165, 0)
GREEN: Rgb = (0, 165, 150)
Thumbnails = Mapping[int, bytes]  # by image id
Picture = Image.Image | None


@dataclass(frozen=True, slots=True)
class ChannelCrops:
    """Best crops of one moved channel.

    Attributes:
        channel: what is known of its move.
        night: the night's, best first, encoded pictures.
        reference: the reference's, best first.
    """

    channel: MovedChannel
    night: Sequence[bytes]
    reference: Sequence[bytes]


def draw_duplicates(duplicates: pa.Table, thumbnails: Thumbnails) -> Picture:
    """Draw pairs of near duplicates side by side, leaks first, then pairs across classes.

    Args:
        duplicates: schema `monitoring.DUPLICATES`.
        thumbnails: of the images.
    """
    rows = duplicates.to_pylist()
    rows.sort(key=lambda row: (not row["leak"], not row["across_classes"], -row["score"]))
    tiles: list[Tile] = []
    for row in rows[:MOST_PAIRS]:
        frame = RED if row["leak"] else AMBER if row["across_classes"] else None
        note = "leak" if row["leak"] else "across classes" if row["across_classes"] else ""
        first = (short_key(row["key"]), row["label"] or "", f"{row['score']:.3f} {note}".strip())
        second = (short_key(row["other_key"]), row["other_label"] or "", "")
        tiles.append(show(thumbnails.get(row["image_id"]), first, frame))
        tiles.append(show(thumbnails.get(row["other_image_id"]), second, frame))
    leaks = sum(row["leak"] for row in rows)
    across = sum(row["across_classes"] for row in rows)
    return draw(
        tiles,
        "Near duplicates, two side by side",
        f"{len(rows)} pairs: {leaks} between train, val and test (red), {across} across classes "
        f"(orange). Shown: {min(len(rows), MOST_PAIRS)}.",
        columns=6,
    )


def draw_known(duplicates: pa.Table, thumbnails: Thumbnails, known: Thumbnails) -> Picture:
    """Draw images of a night beside the images of the run that show the same.

    Args:
        duplicates: schema `monitoring.KNOWN_DUPLICATES`.
        thumbnails: of the night.
        known: of the run.
    """
    tiles: list[Tile] = []
    for row in duplicates.to_pylist()[:MOST_PAIRS]:
        captions = (short_key(row["key"]), row["label"] or "", f"new, {row['score']:.3f}")
        other = (short_key(row["known_key"]), row["known_label"] or "", "in the run")
        frame = AMBER if row["across_classes"] else None
        tiles.append(show(thumbnails.get(row["image_id"]), captions, frame))
        tiles.append(show(known.get(row["known_image_id"]), other, frame))
    note = (
        f"{duplicates.num_rows} pairs, the night's image first; orange: of another label. "
        f"Shown: {min(duplicates.num_rows, MOST_PAIRS)}."
    )
    return draw(tiles, "Images that the run has already", note, columns=6)


def draw_tops(tops: pa.Table, thumbnails: Thumbnails, usual: float) -> Picture:
    """Draw the images that excite a channel more than any image of the run.

    Args:
        tops: of changes/tops.parquet.
        thumbnails: of the night.
        usual: new tops that a night like the run brings.
    """
    tiles = [
        show(
            thumbnails.get(top["image_id"]),
            (
                f"{top['layer']} / {top['channel']}",
                f"{top['before']:.3g} -> {top['value']:.3g}",
                short_key(top["key"]),
            ),
        )
        for top in tops[:MOST_SINGLE].to_pylist()
    ]
    note = (
        "Each image excites the channel below it more than any image of the run: largest peak "
        f"before -> now. {tops.num_rows} channels; a night like the run brings about {usual:.0f}. "
        f"Shown: {len(tiles)}."
    )
    return draw(tiles, "New tops of channels", note)


def draw_suspects(suspects: pa.Table, thumbnails: Thumbnails) -> Picture:
    """Draw images whose label is probably wrong, with the labels that they would get.

    Args:
        suspects: schema `monitoring.SUSPECTS`.
        thumbnails: of the images.
    """
    rows = suspects.to_pylist()
    tiles = [
        show(
            thumbnails.get(row["image_id"]),
            (
                f"is: {row['label']}",
                f"probe: {row['probe_label']}",
                f"near: {row['neighbour_label']}",
                "not judged" if row["chance"] is None else f"wrong: at most {row['chance']:.0%}",
            ),
        )
        for row in rows[:MOST_SINGLE]
    ]
    unjudged = sum(row["chance"] is None for row in rows)
    note = (
        f"{len(rows) - unjudged} images, by the chance that the label is wrong: an upper bound, "
        "since an image that is hard for its class looks like one with a wrong label. "
        f"Then {unjudged} of classes too small for a chance, most suspect first. "
        f"Shown: {min(len(rows), MOST_SINGLE)}."
    )
    return draw(tiles, "Labels that look wrong", note)


def draw_outliers(outliers: pa.Table, thumbnails: Thumbnails) -> Picture:
    """Draw images that are near to no other.

    Args:
        outliers: schema `monitoring.OUTLIERS`.
        thumbnails: of the images.
    """
    rows = outliers.to_pylist()
    tiles = [
        show(
            thumbnails.get(row["image_id"]),
            (short_key(row["key"]), row["label"] or "", f"{row['score']:.1f} spreads"),
        )
        for row in rows[:MOST_SINGLE]
    ]
    return draw(tiles, "Outliers", f"Images far from all others, farthest first: {len(rows)}.")


def draw_broken_classes(broken: pa.Table, thumbnails: Thumbnails) -> Picture:
    """Draw a few images of both groups of each broken class, a row each.

    Args:
        broken: schema `monitoring.BROKEN_CLASSES`.
        thumbnails: of the images.
    """
    tiles: list[Tile] = []
    for row in broken.to_pylist()[:12]:
        names = row["label"], row["other_label"] or row["label"]
        for group, name, frame in zip(
            (row["images"], row["other_images"]), names, (GREEN, AMBER), strict=True
        ):
            caption = f"{row['kind']} {row['score']:.2f}", f"{name}: {len(group)}"
            shown = [show(thumbnails.get(image), caption, frame) for image in group[:4]]
            tiles += shown + [text_tile("no more", caption)] * (4 - len(shown))
    note = (
        f"{broken.num_rows} classes. split: one class in two places; mixed: two classes in one. "
        "Green: the first group, orange: the second."
    )
    return draw(tiles, "Broken classes", note)


def draw_strangest(
    novelty: Novelty, keys: Sequence[str], thumbnails: Sequence[bytes | None]
) -> Picture:
    """Draw the strangest images of a night.

    Args:
        novelty: of the night.
        keys: of the night's images, row by row.
        thumbnails: of the night's images, row by row.
    """
    tiles = [
        show(
            thumbnails[row],
            (short_key(keys[row]), f"{novelty.distances[row] / max(novelty.limit, 1e-12):.2f} x"),
            RED if novelty.distances[row] > novelty.limit else None,
        )
        for row in novelty.strangest
    ]
    note = (
        f"{novelty.share:.0%} of the night lie beyond what 95 % of the reference keep to (red); "
        "5 % is expected. Below each image: its distance to its fifth neighbour over that limit."
    )
    return draw(tiles, "Strangest images of the night", note)


def draw_channels(layer: str, cards: Sequence[ChannelCrops]) -> Picture:
    """Draw the most moved channels of a layer: the night's best crops beside the reference's.

    Args:
        layer: its name.
        cards: most moved first; at most four crops of each side are drawn.
    """
    tiles: list[Tile] = []
    for card in cards:
        moved = card.channel
        words = (
            f"channel {moved.channel}: mean {moved.reference_mean:.3g} -> {moved.mean:.3g}, "
            f"{moved.shift:+.2f} sd, own {moved.own_shift:+.2f} sd"
        )
        tiles.append(text_tile(words, (f"z {moved.z:.1f}",)))
        for side, crops, frame in (
            ("night", card.night, AMBER),
            ("reference", card.reference, GREEN),
        ):
            shown = [show(crop, (side,), frame) for crop in crops[:4]]
            tiles += shown + [text_tile("none", (side,))] * (4 - len(shown))
    note = (
        "Each row a channel, most moved first: its best crops of the night (orange), then of the "
        "reference (green). sd: standard deviations of the reference; own: what the layer's other "
        "channels do not explain."
    )
    return draw(tiles, f"Channels of {layer} that moved most", note, columns=9, side=112)


def show(picture: bytes | None, captions: tuple[str, ...], frame: Rgb | None = None) -> Tile:
    """Return a tile of one encoded picture."""
    if picture is None:
        return text_tile("no picture", captions)
    return Tile(Image.open(io.BytesIO(picture)).convert("RGB"), captions, frame=frame)


def draw(
    tiles: Sequence[Tile], title: str, note: str, columns: int = 8, side: int = SIDE
) -> Picture:
    """Return a sheet, `None` without tiles."""
    if not tiles:
        return None
    return draw_sheet(tiles, columns, side, background="white", title=title, notes=(note,))


def short_key(key: str) -> str:
    """Return the end of a key: the file's name."""
    return key.rsplit("/", 1)[-1]
