"""The plan: every image has one place for ever; an addition costs itself, a change its unit."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnvis_ray import ledger
from cnnvis_ray.images import Entry, cut
from cnnvis_ray.ledger import Changes, Plan
from cnnvis_ray.ledger.plan import SCHEMA
from cnnvis_ray.storage import Store

UNIT = 4
EMPTY = Plan(SCHEMA.empty_table(), 0, None)


def files(*names: str, version: str = "1") -> list[Entry]:
    return [Entry(name, version) for name in names]


def extended(plan: Plan, listing: list[Entry], chunk: int = 1) -> tuple[Plan, Changes]:
    units, changes = ledger.grow(plan, listing, lambda entries: cut(entries, UNIT, chunk))
    return (ledger.extend(plan, units, UNIT)[0] if units else plan), changes


def grown(store: Store, listing: list[Entry], chunk: int = 1) -> tuple[Plan, Changes]:
    plan = ledger.read_plan(store)
    units, changes = ledger.grow(plan, listing, lambda entries: cut(entries, UNIT, chunk))
    if units:
        there, segment = ledger.extend(plan, units, UNIT)
        ledger.append(store, plan, segment)
        assert contents(ledger.read_plan(store)) == contents(there)
    return ledger.read_plan(store), changes


def contents(plan: Plan) -> dict[int, tuple[int, list[tuple[int, str]]]]:
    return {unit.number: (unit.revision, list(unit.images())) for unit in plan.units()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_first_listing(store: Store) -> None:
    plan, changes = grown(store, files(*"abcdef"))
    assert changes == Changes(6, 0, 0)
    assert contents(plan) == {
        0: (0, [(0, "a"), (1, "b"), (2, "c"), (3, "d")]),
        1: (0, [(0, "e"), (1, "f")]),
    }
    assert plan.num_images == 6


def test_the_same_listing_appends_nothing(store: Store) -> None:
    grown(store, files(*"abc"))
    plan, changes = grown(store, files(*"abc"))
    assert changes == Changes(0, 0, 0)
    assert plan.num_segments == 1


def test_an_added_image_costs_itself(store: Store) -> None:
    grown(store, files(*"abcdef"))
    plan, changes = grown(store, files(*"aabcdefz")[1:])
    assert changes == Changes(1, 0, 0)
    assert contents(plan)[2] == (0, [(0, "z")])
    assert contents(plan)[1] == (0, [(0, "e"), (1, "f")])


def test_a_removed_image_leaves_its_slot_empty(store: Store) -> None:
    grown(store, files(*"abcdef"))
    plan, changes = grown(store, files(*"acdef"))
    assert changes == Changes(0, 1, 0)
    assert contents(plan)[0] == (1, [(0, "a"), (2, "c"), (3, "d")])
    assert contents(plan)[1][0] == 0


def test_a_changed_image_costs_its_unit(store: Store) -> None:
    grown(store, files(*"abcdef"))
    listing = files(*"abcde") + files("f", version="2")
    plan, changes = grown(store, listing)
    assert changes == Changes(0, 0, 1)
    assert [revision for revision, _ in contents(plan).values()] == [0, 1]


def test_an_emptied_unit_is_never_numbered_again(store: Store) -> None:
    grown(store, files(*"abcdef"))
    plan, _ = grown(store, files(*"abcd"))
    assert contents(plan)[1] == (1, [])
    plan, _ = grown(store, files(*"abcdx"))
    assert contents(plan)[2] == (0, [(0, "x")])
    assert plan.num_images == 5


def test_a_range_of_rows_is_one_line(store: Store) -> None:
    plan, _ = grown(store, [Entry("", "v", (0, 10))])
    assert plan.table.num_rows == 3
    assert plan.num_images == 10
    assert contents(plan)[2] == (0, [(0, "8"), (1, "9")])


def test_a_longer_range_keeps_what_it_had(store: Store) -> None:
    before, _ = grown(store, [Entry("", "v", (2, 8))])
    plan, changes = grown(store, [Entry("", "v", (0, 10))])
    assert changes == Changes(4, 0, 0)
    for number, content in contents(before).items():
        assert contents(plan)[number] == content
    assert sorted(k for _, images in contents(plan).values() for _, k in images) == sorted(
        map(str, range(10))
    )


def test_a_shorter_range_keeps_slots(store: Store) -> None:
    grown(store, [Entry("", "v", (0, 8))])
    plan, changes = grown(store, [Entry("", "v", (2, 6))])
    assert changes == Changes(0, 4, 0)
    assert contents(plan)[0] == (1, [(2, "2"), (3, "3")])
    assert contents(plan)[1] == (1, [(0, "4"), (1, "5")])


def test_a_range_that_became_a_list(store: Store) -> None:
    grown(store, [Entry("", "v", (0, 4))])
    plan, changes = grown(store, [Entry(k, "v") for k in ("3", "0", "3#1")])
    assert (changes.new, changes.gone) == (1, 2)
    assert contents(plan)[0] == (1, [(0, "0"), (3, "3")])
    assert contents(plan)[1] == (0, [(0, "3#1")])


names = st.lists(st.sampled_from("abcdefghijklmnop"), unique=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(names, min_size=1, max_size=5))
def test_any_history_holds_the_present_listing_once(history: list[list[str]]) -> None:
    plan = EMPTY
    ids: dict[str, set[int]] = {}
    for listing in history:
        plan, _ = extended(plan, files(*listing))
        held = [
            (key, ledger.image_id(unit.number, slot))
            for unit in plan.units()
            for slot, key in unit.images()
        ]
        assert sorted(key for key, _ in held) == sorted(listing)
        for key, image_id in held:
            ids.setdefault(key, set()).add(image_id)
    every = [image_id for some in ids.values() for image_id in some]
    assert len(every) == len(set(every))  # an id never names two images


def shards(**rows: int) -> list[Entry]:
    """List Parquet shards by name, all at version 1."""
    return [Entry(f"{name}.parquet/", "1", (0, count)) for name, count in rows.items()]


def test_an_added_shard_costs_itself(store: Store) -> None:
    before, _ = grown(store, shards(a=6, c=3))
    plan, changes = grown(store, shards(a=6, b=5, c=3))
    assert changes == Changes(5, 0, 0)
    after = contents(plan)
    assert {number: after[number] for number in contents(before)} == contents(before)
    assert [number for number in after if number not in contents(before)] == [3, 4]
    assert after[4] == (0, [(0, "b.parquet/4")])


def test_a_removed_shard_empties_its_units_alone(store: Store) -> None:
    grown(store, shards(a=6, b=5))
    plan, changes = grown(store, shards(b=5))
    assert changes == Changes(0, 6, 0)
    assert [revision for revision, _ in contents(plan).values()] == [1, 1, 0, 0]
    assert plan.num_images == 5


def test_a_grown_shard_redoes_its_units_and_renumbers_nothing(store: Store) -> None:
    """Its version tells that the file changed, not which rows did."""
    grown(store, shards(a=6, b=5))
    listing = [Entry("a.parquet/", "2", (0, 7)), *shards(b=5)]
    plan, changes = grown(store, listing)
    assert changes == Changes(1, 0, 6)
    assert contents(plan) == {
        0: (1, [(slot, f"a.parquet/{slot}") for slot in range(4)]),
        1: (1, [(0, "a.parquet/4"), (1, "a.parquet/5")]),
        2: (0, [(slot, f"b.parquet/{slot}") for slot in range(4)]),
        3: (0, [(0, "b.parquet/4")]),
        4: (0, [(0, "a.parquet/6")]),
    }


def test_shards_in_another_order_are_the_same(store: Store) -> None:
    before, _ = grown(store, shards(a=6, b=5))
    plan, changes = grown(store, shards(b=5, a=6))
    assert changes == Changes(0, 0, 0)
    assert contents(plan) == contents(before)


def test_members_of_a_changed_archive_are_done_again_at_their_places(store: Store) -> None:
    grown(store, [*files("a.tar/1.jpg", "a.tar/2.jpg"), *files("b.tar/1.jpg")])
    listing = [*files("a.tar/2.jpg", "a.tar/3.jpg", version="2"), *files("b.tar/1.jpg")]
    plan, changes = grown(store, listing)
    assert changes == Changes(1, 1, 1)
    assert contents(plan) == {
        0: (1, [(1, "a.tar/2.jpg"), (2, "b.tar/1.jpg")]),
        1: (0, [(0, "a.tar/3.jpg")]),
    }


spans = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(st.integers(0, 9), st.integers(1, 14)), max_size=4
)


@settings(max_examples=40, deadline=None)
@given(st.lists(spans, min_size=1, max_size=4))
def test_any_history_of_shards_holds_the_present_rows_once(
    history: list[dict[str, tuple[int, int]]],
) -> None:
    plan = EMPTY
    for present in history:
        listing = [
            Entry(f"{name}/", "1", (start, start + count))
            for name, (start, count) in present.items()
        ]
        plan, _ = extended(plan, listing)
        held = [key for unit in plan.units() for _, key in unit.images()]
        wanted = [key for entry in listing for key in entry.image_keys()]
        assert sorted(held) == sorted(wanted)
        assert plan.num_images == len(wanted)
        assert [
            entry for unit in plan.units() for entry in [p.entry for p in unit.planned]
        ] == list(plan.held())
