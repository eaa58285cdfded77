"""The plan: which image lies in which unit and slot, as append-only listing segments.

A later segment speaks for a unit when its revision is higher. One row stands for one image, or
for a range of rows of an archive, so that a plan grows with shards and not with their images.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np
import pyarrow as pa

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.images import Entry
from cnnvis_ray.ledger.units import ImageUnit, PlannedEntry
from cnnvis_ray.storage import Store, read_table, write_table

SCHEMA = pa.schema(
    [
        ("unit", pa.int32()),
        ("revision", pa.int32()),
        ("slot", pa.int32()),  # -1: the unit lost its last image
        ("key", pa.string()),
        ("version", pa.string()),
        ("start", pa.int64()),  # a range of rows; null for a single image
        ("stop", pa.int64()),
    ]
)
BLOCK_UNITS, BLOCK_ROWS = 1024, 65536
"""Looked at at a time, so that a long plan is not turned into Python objects as a whole."""

Cut = Callable[[Sequence[Entry]], list[list[Entry]]]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a listing brought against the plan, in images."""

    new: int
    gone: int
    changed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The live rows of all segments, by unit and slot.

    Attributes:
        unit_size: at most so many images were put into the units of the last segment.
    """

    table: pa.Table
    num_segments: int
    unit_size: int | None

    def units(self) -> Iterator[ImageUnit]:
        """Return the units in order, each built when it is asked for."""
        numbers = self.table["unit"].to_numpy()
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        bounds = [*starts[::BLOCK_UNITS].tolist(), len(numbers)]
        for start, stop in pairwise(bounds):
            yield from units_of(self.table.slice(start, stop - start))

    def held(self) -> Iterator[Entry]:
        """Return the entries that have a slot."""
        columns = [self.table[name] for name in ("slot", "key", "version", "start", "stop")]
        for start in range(0, self.table.num_rows, BLOCK_ROWS):
            block = [column.slice(start, BLOCK_ROWS).to_pylist() for column in columns]
            for slot, key, version, first, stop in zip(*block, strict=True):
                if slot >= 0:
                    yield Entry(key, version, None if first is None else (first, stop))

    @property
    def num_images(self) -> int:
        """How many images the live units hold."""
        lengths = pa.compute.subtract(self.table["stop"], self.table["start"])
        ranged = pa.compute.sum(lengths).as_py() or 0
        single = pa.compute.and_(
            pa.compute.is_null(lengths), pa.compute.greater_equal(self.table["slot"], 0)
        )
        return int(ranged) + int(pa.compute.sum(single).as_py() or 0)

    @property
    def next_unit(self) -> int:
        """The first number that no unit ever had."""
        numbers = self.table["unit"]
        return int(pa.compute.max(numbers).as_py()) + 1 if len(numbers) else 0


def units_of(rows: pa.Table) -> Iterator[ImageUnit]:
    """Build some units from their rows, sorted."""
    columns = [rows[field.name].to_pylist() for field in SCHEMA]
    for (number, revision), lines in groupby(zip(*columns, strict=True), lambda row: row[:2]):
        yield ImageUnit(
            number,
            revision,
            tuple(
                PlannedEntry(slot, Entry(key, version, None if start is None else (start, stop)))
                for _, _, slot, key, version, start, stop in lines
                if slot >= 0
            ),
        )


def read_plan(store: Store) -> Plan:
    """Read all segments and keep each unit's highest revision.

    Raises:
        RefusedError: a segment is damaged; names it.
    """
    names = [name for name in store.names("plan") if name.endswith(".parquet")]
    tables = []
    for name in names:
        try:
            tables.append(read_table(store, f"plan/{name}"))
        except pa.ArrowException as failure:
            words = " ".join(str(failure).split())[:120]
            raise RefusedError(
                f"{store.root}/plan/{name} is damaged ({words}): image ids cannot be made again; "
                "restore the file, or use another run_dir"
            ) from None
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    sizes = [int(table.schema.metadata[b"unit_size"]) for table in tables]
    return Plan(live_rows(table), len(names), sizes[-1] if sizes else None)


def live_rows(table: pa.Table) -> pa.Table:
    """Keep the rows of each unit's highest revision, by unit and slot."""
    units, revisions = table["unit"].to_numpy(), table["revision"].to_numpy()
    if len(units):
        latest = np.zeros(int(units.max()) + 1, dtype=np.int32)
        np.maximum.at(latest, units, revisions)
        table = table.filter(pa.array(revisions == latest[units]))
    return table.sort_by([("unit", "ascending"), ("slot", "ascending")]).combine_chunks()


def recut(plan: Plan, listing: Sequence[Entry], cut: Cut) -> list[ImageUnit]:
    """Empty every unit and cut the whole listing again into units with new numbers."""
    emptied = [ImageUnit(unit.number, unit.revision + 1, ()) for unit in plan.units()]
    return [*emptied, *fresh_units(plan, listing, cut)]


def fresh_units(plan: Plan, entries: Sequence[Entry], cut: Cut) -> list[ImageUnit]:
    """Cut entries into units that no listing had before."""
    pieces = enumerate(cut(entries), plan.next_unit)
    return [ImageUnit(number, 0, tuple(placed(piece))) for number, piece in pieces]


def grow(plan: Plan, listing: Sequence[Entry], cut: Cut) -> tuple[list[ImageUnit], Changes]:
    """Hold a source's present listing against the plan.

    Args:
        plan: the live rows so far.
        listing: every entry of the source, in order.
        cut: cuts entries without a place into units.

    Returns:
        The units to append: revised ones (an image changed or went) and new ones, and the counts.
    """
    mixed = kinds(listing) | kinds(plan.held()) == {0, 1}
    if mixed:
        listing = expanded(listing)
    present = Presence(listing)
    units = []
    gone = changed = 0
    for unit in plan.units():
        live = replace(unit, planned=tuple(singles(unit.planned))) if mixed else unit
        kept = tuple(part for row in live.planned for part in present.survivors(row))
        if kept != live.planned:
            units.append(ImageUnit(unit.number, unit.revision + 1, kept))
            gone += len(unit) - len(units[-1])
            changed += altered(live, units[-1])
    held = (part for entry in plan.held() for part in (expanded([entry]) if mixed else [entry]))
    added = present.without(held)
    units.extend(fresh_units(plan, added, cut))
    return units, Changes(sum(entry.num_images for entry in added), gone, changed)


def extend(plan: Plan, units: Sequence[ImageUnit], unit_size: int) -> tuple[Plan, pa.Table]:
    """Add units, cut by a size, to a plan, in memory.

    Returns:
        The plan as it reads once the segment is written, and the segment.
    """
    schema = SCHEMA.with_metadata({"unit_size": str(unit_size)})
    blocks = []
    for first in range(0, len(units), BLOCK_UNITS):
        rows = [row for unit in units[first : first + BLOCK_UNITS] for row in rows_of(unit)]
        columns = zip(zip(*rows, strict=True), schema, strict=True)
        blocks.append(pa.table([pa.array(v, field.type) for v, field in columns], schema=schema))
    segment = pa.concat_tables(blocks) if blocks else schema.empty_table()
    both = pa.concat_tables(
        [plan.table.replace_schema_metadata(), segment.replace_schema_metadata()]
    )
    return Plan(live_rows(both), plan.num_segments + 1, unit_size), segment


def append(store: Store, plan: Plan, segment: pa.Table) -> None:
    """Write the segment that follows a plan's."""
    write_table(store, f"plan/{plan.num_segments:06d}.parquet", segment)


Row = tuple[int, int, int, str, str, int | None, int | None]


def rows_of(unit: ImageUnit) -> Iterator[Row]:
    """Write a unit as rows of a segment."""
    for row in unit.planned:
        start, stop = row.entry.rows or (None, None)
        place = (unit.number, unit.revision, row.slot)
        yield (*place, row.entry.key, row.entry.version, start, stop)
    if not unit.planned:
        yield (unit.number, unit.revision, -1, "", "", None, None)


class Presence:
    """A listing that answers which planned images are still there, and what has no place yet."""

    def __init__(self, listing: Sequence[Entry]) -> None:
        self.listing = listing
        self.versions = {entry.key: entry.version for entry in listing if entry.rows is None}
        self.ranges: dict[str, list[tuple[int, int, Entry]]] = {}
        for entry in listing:
            if entry.rows is not None:
                self.ranges.setdefault(entry.key, []).append((*entry.rows, entry))

    def survivors(self, row: PlannedEntry) -> list[PlannedEntry]:
        """Return what is left of a planned entry, each part at its old slot."""
        if row.entry.rows is None:
            version = self.versions.get(row.entry.key)
            return (
                [] if version is None else [PlannedEntry(row.slot, Entry(row.entry.key, version))]
            )
        start, stop = row.entry.rows
        return [
            PlannedEntry(row.slot + low - start, Entry(entry.key, entry.version, (low, high)))
            for first, last, entry in self.ranges.get(row.entry.key, ())
            if (low := max(first, start)) < (high := min(last, stop))
        ]

    def without(self, held: Iterable[Entry]) -> list[Entry]:
        """List the entries, or parts of ranges, that are not among those held."""
        keys: set[str] = set()
        taken: dict[str, list[tuple[int, int]]] = {}
        for entry in held:
            if entry.rows is None:
                keys.add(entry.key)
            else:
                note_taken(taken.setdefault(entry.key, []), entry.rows)
        fresh: list[Entry] = []
        for entry in self.listing:
            if entry.rows is None:
                fresh.extend([] if entry.key in keys else [entry])
            else:
                fresh.extend(gaps(entry, sorted(taken.get(entry.key, ()))))
        return fresh


def note_taken(taken: list[tuple[int, int]], rows: tuple[int, int]) -> None:
    """Note a range, joined to the one before where it continues it: a shard's units are one."""
    if taken and taken[-1][1] == rows[0]:
        taken[-1] = (taken[-1][0], rows[1])
    else:
        taken.append(rows)


def gaps(entry: Entry, taken: Sequence[tuple[int, int]]) -> Iterator[Entry]:
    """Cut a range around the sorted ranges of its key that are taken."""
    assert entry.rows is not None
    position, end = entry.rows
    for start, stop in taken:
        if stop <= position or start >= end:
            continue
        if start > position:
            yield Entry(entry.key, entry.version, (position, start))
        position = max(position, stop)
    if position < end:
        yield Entry(entry.key, entry.version, (position, end))


def placed(entries: Sequence[Entry]) -> Iterator[PlannedEntry]:
    """Return a new unit's entries with their slots."""
    slot = 0
    for entry in entries:
        yield PlannedEntry(slot, entry)
        slot += entry.num_images


def kinds(entries: Iterable[Entry]) -> set[int]:
    """Return whether single images (0), ranges (1) or both occur."""
    return {int(entry.rows is not None) for entry in entries}


def expanded(listing: Sequence[Entry]) -> list[Entry]:
    """Turn ranges into single images: an HDF5 subset changed from a range to a list."""
    return [part.entry for row in placed(listing) for part in singles([row])]


def singles(planned: Sequence[PlannedEntry]) -> Iterator[PlannedEntry]:
    """Turn planned ranges into planned images at the same slots."""
    for row in planned:
        for slot, key in row.images():
            yield PlannedEntry(slot, Entry(key, row.entry.version))


def altered(before: ImageUnit, after: ImageUnit) -> int:
    """Count the images whose version changed between two revisions."""
    old = {row.slot: row.entry for row in before.planned}
    return sum(
        row.entry.num_images
        for row in after.planned
        if row.slot in old and old[row.slot].version != row.entry.version
    )
