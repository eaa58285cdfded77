"""What a store promises: creation by one of many, parallel reading, cheap listings."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from cnnvis_ray.storage import Store, read_table, write_table
from tests.storage.counting import counting


@pytest.fixture(params=["local", "counted"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path / "run"))
    return Store(f"counted://{tmp_path.name}/run")


def test_of_many_who_create_one_wins_with_its_whole_content(store: Store) -> None:
    contents = [str(number).encode() * 10_000 for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda data: store.create("done/0.json", data), contents))
    if store.is_local:  # fsspec's memory file system checks and writes in two steps
        assert sum(won) == 1
        assert store.read("done/0.json") == contents[won.index(True)]
    assert not store.create("done/0.json", b"late")
    assert store.read("done/0.json") in contents
    assert store.files("") == ["done/0.json"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_creation_where_there_are_no_hard_links(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", fail)
    store = Store(str(tmp_path))
    assert store.create("a", b"one")
    assert not store.create("a", b"two")
    assert store.read("a") == b"one"
    assert store.files("") == ["a"]


def test_many_files_are_read_in_order_and_gone_ones_left_out(store: Store) -> None:
    wanted = {f"done/{number:03d}": b"%d" % number for number in range(50)}
    for name, data in wanted.items():
        store.write(name, data)
    with counting() as requests:
        found = store.read_many([*wanted, "done/gone"])
    assert found == wanted
    assert list(found) == list(wanted)
    assert found.get("done/gone") is None
    if not store.is_local:
        assert requests == {"cat_file": 51}


def test_sizes_cost_one_listing_and_no_read(store: Store) -> None:
    for name in ("b/2", "a/deep/1", "3"):
        store.write(name, b"x" * len(name))
    with counting() as requests:
        assert store.sizes("") == {"3": 1, "a/deep/1": 8, "b/2": 3}
    assert store.files("") == ["3", "a/deep/1", "b/2"]
    assert store.files("a") == ["a/deep/1"]
    assert store.sizes("none") == {}
    if not store.is_local:
        assert requests["find"] == 1
        assert requests["cat_file"] == requests["open"] == 0


def test_a_column_of_a_table(store: Store) -> None:
    table = pa.table({"x": [1, 2], "y": ["a", "b"]})
    write_table(store, "kind=z/a.parquet", table)
    assert read_table(store, "kind=z/a.parquet").equals(table)
    assert read_table(store, "kind=z/a.parquet", ["y"]).column_names == ["y"]


READING = """
import sys
from cnnvis_ray.storage import Store, read_table
read_table(Store(sys.argv[1]), "a.parquet", ["x"])
"""


def test_the_interpreter_ends_well_after_reading_parquet(tmp_path: Path) -> None:
    """pyarrow's dataset reader kept a Python file and aborted 1 to 11 of 60 interpreters."""
    store = Store(str(tmp_path))
    write_table(store, "a.parquet", pa.table({"x": list(range(100_000))}))
    ends = [
        subprocess.run(
            [sys.executable, "-c", READING, store.root],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=False,
        ).returncode
        for _ in range(10)
    ]
    assert ends == [0] * 10


def test_parquet_is_never_read_through_the_dataset_reader(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(store, "a.parquet", pa.table({"x": [1]}))
    monkeypatch.setattr("pyarrow.parquet.read_table", lambda *_, **__: pytest.fail("called"))
    assert read_table(store, "a.parquet")["x"].to_pylist() == [1]
