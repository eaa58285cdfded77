"""Passes: an added layer costs itself, a changed recipe is refused by name, markers decide."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnvis_ray import ledger
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import ChannelUnit, Claim, Ledger, Marker, Pass
from cnnvis_ray.ledger.passes import parse_pass
from cnnvis_ray.storage import ShardFile, Store

RECIPE = {"root": "r", "extract.pooling": "mean"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def wanted(*layers: str, pooling: str = "mean", inputs: str = "") -> Pass:
    return Pass("extract", {**RECIPE, "extract.pooling": pooling}, layers, inputs)


def marker(unit: str, path: str = "features/a/x.parquet") -> Marker:
    return Marker(unit, (ShardFile(path, 3, 10, "00"),), (1,), "images")


def opened(store: Store, owner: Pass, replace: bool = False) -> tuple[Pass, ...]:
    """Claim and open in a view of its own, as one invocation does."""
    records = Ledger(store)
    return records.open(records.claim(owner, replace))


def claimed(store: Store, owner: Pass) -> Claim:
    return Ledger(store).claim(owner)


def done(store: Store, owner: Pass) -> set[str]:
    return Ledger(store).done(owner)


def test_a_pass_is_found_again(store: Store) -> None:
    (first,) = opened(store, wanted("a", "b"))
    assert opened(store, wanted("b", "a")) == (first,)
    assert opened(store, wanted("a")) == (first,)
    assert parse_pass(store.read(f"passes/{first.name}/pass.json")) == first


def test_a_claim_writes_nothing(store: Store) -> None:
    (first,) = opened(store, wanted("a"))
    ledger.commit(store, first, marker("000000.r0"))
    before = store.files("")
    records = Ledger(store)
    again = records.claim(wanted("a", "b", pooling="max"), replace=True)
    assert (again.kept, again.dropped) == ((), (first,))
    assert records.finished(again) == {again.passes[0].name: set()}
    assert store.files("") == before
    records.open(again)
    assert store.files("") == [f"passes/{again.passes[0].name}/pass.json"]


def test_an_added_layer_opens_a_pass_of_its_own(store: Store) -> None:
    (first,) = opened(store, wanted("a"))
    both = opened(store, wanted("a", "b"))
    assert both[0] == first
    assert both[1].layers == ("b",)
    assert {owner.name for owner in opened(store, wanted("b", "a"))} == {o.name for o in both}
    assert claimed(store, wanted("b", "a")).fresh is None


def test_a_changed_recipe_is_refused_by_name(store: Store) -> None:
    (first,) = opened(store, wanted("a"))
    ledger.commit(store, first, marker("000000.r0"))
    with pytest.raises(RefusedError) as refused:
        claimed(store, wanted("a", pooling="max"))
    told = str(refused.value)
    assert "extract.pooling was mean, is max" in told
    assert "1 finished units of a" in told
    assert "--replace extract" in told
    assert done(store, first) == {"000000.r0"}


def test_replace_forgets_the_old_recipe(store: Store) -> None:
    (first,) = opened(store, wanted("a"))
    ledger.commit(store, first, marker("000000.r0"))
    (second,) = opened(store, wanted("a", pooling="max"), replace=True)
    assert second.name != first.name
    assert Ledger(store).passes("extract") == [second]
    assert done(store, second) == set()


def test_replace_does_an_unchanged_recipe_again(store: Store) -> None:
    (first,) = opened(store, wanted("a"))
    ledger.commit(store, first, marker("000000.r0"))
    assert opened(store, wanted("a"), replace=True) == (first,)
    assert done(store, first) == set()


def test_replace_keeps_layers_that_were_not_asked(store: Store) -> None:
    (first,) = opened(store, wanted("a", "b"))
    files = [ShardFile(f"features/{layer}/000000.r0.x.parquet", 3, 10, layer) for layer in "ab"]
    ledger.commit(store, first, Marker("000000.r0", tuple(files)))
    (second,) = opened(store, wanted("a", pooling="max"), replace=True)
    records = Ledger(store)
    assert records.done(second) == set()
    assert sorted(owner.layers for owner in records.passes("extract")) == [("a",), ("b",)]
    assert records.files("extract", "features/b") == [files[1]]
    assert records.files("extract", "features/a") == []


def test_another_recipe_may_do_another_layer(store: Store) -> None:
    opened(store, wanted("a"))
    opened(store, wanted("b", pooling="max"))
    assert len(Ledger(store).passes("extract")) == 2


def test_other_inputs_are_done_again_without_asking(store: Store) -> None:
    (first,) = opened(store, wanted("a", inputs="one"))
    ledger.commit(store, first, marker("000000.r0"))
    (second,) = opened(store, wanted("a", inputs="two"))
    assert done(store, second) == set()
    assert Ledger(store).passes("extract") == [second]


def test_a_pass_over_no_layer_is_one_pass(store: Store) -> None:
    images = Pass("images", RECIPE)
    (first,) = opened(store, images)
    assert opened(store, images) == (first,)


def test_markers_read_back(store: Store) -> None:
    (owner,) = opened(store, wanted("a"))
    ledger.commit(store, owner, marker("000001.r0"))
    ledger.commit(store, owner, marker("000000.r2"))
    found = Ledger(store).markers(owner)
    assert list(found) == ["000000.r2", "000001.r0"]
    assert found["000001.r0"] == marker("000001.r0")


def test_a_late_commit_never_replaces_the_first_marker(store: Store) -> None:
    (owner,) = opened(store, wanted("a"))
    assert ledger.commit(store, owner, marker("000000.r0", "features/a/first.parquet"))
    assert not ledger.commit(store, owner, marker("000000.r0", "features/a/late.parquet"))
    (file,) = Ledger(store).files("extract", "features/a")
    assert file.path == "features/a/first.parquet"


def test_workers_markers_are_seen_once_refreshed(store: Store) -> None:
    records = Ledger(store)
    (owner,) = records.open(records.claim(wanted("a")))
    assert records.done(owner) == set()
    ledger.commit(store, owner, marker("000000.r0"))
    records.refresh([owner])
    assert records.done(owner) == {"000000.r0"}


def test_retired_markers_go(store: Store) -> None:
    (owner,) = opened(store, wanted("a"))
    for unit in ("000000.r0", "000001.r0"):
        ledger.commit(store, owner, marker(unit))
    records = Ledger(store)
    assert records.retire(owner, {"000000.r1", "000001.r0"}) == {"000001.r0"}
    assert records.done(owner) == done(store, owner) == {"000001.r0"}


def test_sweep_leaves_what_markers_name_and_units_that_are_due(store: Store) -> None:
    (owner,) = opened(store, wanted("a"))
    for name in ("x", "y", "000007.r0.0123abcd"):
        store.write(f"features/a/{name}.parquet", b"")
    store.write("features/a/.part-12-x.parquet", b"")
    ledger.commit(store, owner, marker("000000.r0", "features/a/x.parquet"))
    swept = Ledger(store).sweep(["extract"], ["features/a"], due=["000007.r0"])
    assert sorted(swept) == ["features/a/.part-12-x.parquet", "features/a/y.parquet"]
    due = "features/a/000007.r0.0123abcd.parquet"
    assert store.files("features") == [due, "features/a/x.parquet"]
    assert Ledger(store).sweep(["extract"], ["features/a"]) == [due]


def test_a_product_is_made_when_its_inputs_or_its_recipe_change(store: Store) -> None:
    made: list[int] = []

    def build() -> Iterator[ShardFile]:
        made.append(len(made))
        yield ShardFile(f"mosaic/a-{len(made)}.png", 0, 1, "00")

    def make(inputs: str, colour: str, again: bool = False) -> bool:
        records = Ledger(store)
        return records.make(Pass("mosaic", {"colour": colour}, ("a",), inputs), build, again)[1]

    assert make("one", "red")
    assert not make("one", "red")
    assert make("two", "red")
    assert make("two", "blue")
    assert not make("two", "blue")
    assert make("two", "blue", again=True)
    assert made == [0, 1, 2, 3]
    (owner,) = Ledger(store).passes("mosaic")
    assert Ledger(store).done(owner) == {"000000.r0"}


def test_a_product_with_a_damaged_marker_gets_another_one(store: Store) -> None:
    wanted = Pass("labels", {})
    file = ShardFile("labels.parquet", 0, 1, "00")
    Ledger(store).make(wanted, lambda: [file])
    store.write(f"passes/{wanted.name}/done/000000.r0.json", b"{")
    assert Ledger(store).make(wanted, lambda: [file])[1]
    assert not Ledger(store).make(wanted, lambda: [file])[1]


def test_a_damaged_marker_is_due_again_and_healed(store: Store) -> None:
    (owner,) = opened(store, wanted("a"))
    ledger.commit(store, owner, marker("000000.r0"))
    ledger.commit(store, owner, marker("000001.r0"))
    path = f"passes/{owner.name}/done/000000.r0.json"
    store.write(path, b"{")
    records = Ledger(store)
    assert records.done(owner) == {"000001.r0"}
    assert records.heal() == [path]
    assert not store.exists(path)


def test_a_marker_says_of_what_kind_it_is(store: Store) -> None:
    (owner,) = opened(store, Pass("crops", {}, ("a",)))
    ledger.commit(store, owner, Marker("000000.c0ff", (ShardFile("x", 1, 1, "0"),)))
    path = f"passes/{owner.name}/done/000000.c0ff.json"
    assert json.loads(store.read(path))["kind"] == "selection"
    assert Ledger(store).markers(owner)["000000.c0ff"].kind == "selection"


def test_channel_units_lie_on_a_fixed_grid() -> None:
    seven = ledger.channel_units({7}, set())
    assert seven == [ChannelUnit(0, (7,))]
    assert ledger.channels_named(seven[0].name) == {7}
    rest = ledger.channel_units(set(range(40)), {seven[0].name})
    assert [unit.number for unit in rest] == [0, 1, 2]
    assert 7 not in rest[0].channels
    assert len(rest[0].channels) == 15
    assert {c for unit in [*rest, *seven] for c in ledger.channels_named(unit.name)} == set(
        range(40)
    )


def test_a_run_of_another_identity_is_refused(store: Store) -> None:
    identity = {"images.source": "a", "network.name": "vgg16"}
    other = {**identity, "images.source": "b"}
    ledger.check_identity(store, identity, ())
    ledger.write_identity(store, identity, {})
    assert ledger.read_identity(store) == identity
    ledger.check_identity(store, identity, ())
    with pytest.raises(RefusedError, match=r"images\.source was a, is b"):
        ledger.check_identity(store, other, ())


def test_where_run_json_is_damaged_the_passes_decide(store: Store) -> None:
    identity = {"images.source": "a", "network.name": "vgg16"}
    root = ledger.fingerprint(identity)
    store.write("run.json", b"{")
    ledger.check_identity(store, identity, [root])
    with pytest.raises(RefusedError, match=r"run\.json is missing or damaged"):
        ledger.check_identity(store, {**identity, "images.source": "b"}, [root])
    ledger.write_identity(store, identity, {})
    assert ledger.read_identity(store) == identity
