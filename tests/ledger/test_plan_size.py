"""A listing of a hundred million rows: what planning it costs."""

import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from cnnvis_ray import ledger
from cnnvis_ray.images import Entry, cut
from cnnvis_ray.ledger import Changes, Plan
from cnnvis_ray.storage import Store

SHARDS = 1000


def listing(rows: int, version: str = "1") -> list[Entry]:
    return [Entry(f"train/{n:05d}.parquet/", version, (0, rows)) for n in range(SHARDS)]


def planned(store: Store, entries: list[Entry], unit_size: int) -> tuple[Plan, Changes]:
    plan = ledger.read_plan(store)
    groups = {entry.key: 100 for entry in entries}
    units, changes = ledger.grow(plan, entries, lambda some: cut(some, unit_size, groups))
    if units:
        grown, segment = ledger.extend(plan, units, unit_size)
        ledger.append(store, plan, segment)
        plan = grown
    return plan, changes


def test_memory_does_not_grow_with_images(tmp_path: Path) -> None:
    peaks = []
    for rows, unit_size in ((1_000, 500), (100_000, 50_000)):
        entries = listing(rows)
        store = Store(str(tmp_path / str(rows)))
        tracemalloc.start()
        plan, changes = planned(store, entries, unit_size)
        again = planned(store, entries, unit_size)[1]
        first = next(plan.units())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert changes == Changes(rows * SHARDS, 0, 0)
        assert again == Changes(0, 0, 0)
        assert plan.num_images == rows * SHARDS
        assert plan.table.num_rows == 2 * SHARDS
        assert first.planned[0].entry == Entry("train/00000.parquet/", "1", (0, unit_size))
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 8 << 20


def test_a_longer_listing_costs_no_more_than_its_length(tmp_path: Path) -> None:
    """Time is linear in shards: each is looked up by its key, not searched for."""
    entries = listing(1_000)
    plan, _ = planned(Store(str(tmp_path)), entries, 100)
    assert plan.table.num_rows == 10 * SHARDS
    looked_at = 0

    class Counted(list[tuple[int, int, Entry]]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            nonlocal looked_at
            looked_at += len(self)
            return super().__iter__()

    present = ledger.plan.Presence(entries)
    present.ranges = {key: Counted(ranges) for key, ranges in present.ranges.items()}
    for unit in plan.units():
        for row in unit.planned:
            assert present.survivors(row) == [row]
    assert looked_at == plan.table.num_rows


WHOLE = """
import sys
from pathlib import Path
from tests.ledger.test_plan_size import whole
print(whole(Path(sys.argv[1])))
"""


def whole(folder: Path) -> int:
    """Plan a hundred million rows in units of 256; give the megabytes that it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = Store(str(folder))
    plan, changes = planned(store, listing(100_000), 256)
    assert changes.new == plan.num_images == 100_000 * SHARDS
    grown = listing(100_000)
    grown[500] = Entry(grown[500].key, "2", (0, 100_050))
    plan, changes = planned(store, grown, 256)
    assert changes == Changes(50, 0, 100_000)
    assert sum(len(unit) for unit in plan.units()) == plan.num_images
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10


@pytest.mark.slow  # half a minute of half a million units
def test_a_hundred_million_images_in_units_of_256(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHOLE, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 600  # 500,000 units; measured: 376
