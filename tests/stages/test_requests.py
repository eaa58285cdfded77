"""What a finished run asks of its store: each marker once, each folder once, no image shard."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq
import pytest

from cnnvis_ray.stages.run import run_verb
from cnnvis_ray.storage import Store
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import go, tiny, written


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Count reads, listings and writes of every store by name."""
    counted: Counter[tuple[str, str]] = Counter()
    plain = {name: getattr(Store, name) for name in ("read", "files", "names", "write", "create")}

    def counting(kind: str, method: str) -> None:
        def call(store: Store, name: str, *rest: bytes) -> object:
            counted[kind, name] += 1
            return plain[method](store, name, *rest)

        monkeypatch.setattr(Store, method, call)

    counting("read", "read")
    counting("list", "files")
    counting("list", "names")
    counting("write", "write")
    counting("write", "create")
    opened = Store.open

    @contextmanager
    def opening(store: Store, name: str) -> Iterator[BinaryIO]:
        counted["read", name] += 1
        with opened(store, name) as file:
            yield file

    class CountedFile(pq.ParquetFile):  # type: ignore[misc]  # local tables are read by path
        def __init__(self, source: object, **options: object) -> None:
            if isinstance(source, str):
                counted["read", source] += 1
            super().__init__(source, **options)

    monkeypatch.setattr(Store, "open", opening)
    monkeypatch.setattr(pq, "ParquetFile", CountedFile)
    without_ray(monkeypatch)
    return counted


def of(asked: Counter[tuple[str, str]], kind: str, start: str) -> dict[str, int]:
    return {name: count for (what, name), count in asked.items() if what == kind and start in name}


@pytest.mark.parametrize("verb", ["run", "extract"])
def test_a_finished_run(tmp_path: Path, asked: Counter[tuple[str, str]], verb: str) -> None:
    write_photos(tmp_path / "photos", 12)
    done = go(tmp_path, verb=verb)
    before = written(tmp_path / "run")
    asked.clear()
    run_verb(verb, tiny(tmp_path))
    assert set(of(asked, "read", "passes/").values()) == {1}  # each pass.json and each marker
    assert len(of(asked, "read", "/done/")) == len([p for p in before if "/done/" in p])
    assert len(of(asked, "read", "/pass.json")) == len(done.ledger.by_name)
    assert of(asked, "list", "passes") == {"passes": 1}  # finds every pass folder
    for folder in ("images/", "features/", "rejects/", "channels/", "embedding/"):
        assert of(asked, "read", folder) == {}, folder
    assert set(of(asked, "write", "")) == {"summary.json", "lease.json"}
    changed = {path for path, at in written(tmp_path / "run").items() if before.get(path) != at}
    assert changed == {"summary.json"}


def test_a_map_reads_each_image_shard_once(
    tmp_path: Path, asked: Counter[tuple[str, str]]
) -> None:
    write_photos(tmp_path / "photos", 12)
    go(tmp_path, verb="extract")
    asked.clear()
    go(tmp_path, verb="reduce")  # of two layers
    assert list(of(asked, "read", "images/").values()) == [1, 1]
