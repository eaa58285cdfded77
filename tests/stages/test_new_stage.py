"""A new stage is one module with ``decide`` and one line in VERBS: here a toy, `tally`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from cnnvis_ray import stages
from cnnvis_ray.cluster import Session
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import Pass
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.summary import Summary, read_summary
from cnnvis_ray.stages.verify import verify
from cnnvis_ray.storage import ShardFile, write_bytes
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import go

made: list[int] = []


@dataclass(slots=True)
class Tally:
    """Writes how many images the run has."""

    job: Job
    units: None = None

    def do(self, session: Session, summary: Summary) -> None:
        count = self.job.image_keys().num_rows

        def build() -> Iterator[ShardFile]:
            made.append(count)
            yield write_bytes(self.job.store, "tally.txt", str(count).encode())

        again = "tally" in self.job.replace
        self.job.ledger.make(Pass("tally", {"seed": 0}, (), str(count)), build, again)
        summary.note("tally", count=count)


def decide(job: Job) -> Tally:
    if job.image_keys().num_rows == 0:
        raise RefusedError("tally: there are no images; extract them first")
    return Tally(job)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cnnvis_ray.stages.tally")
    module.decide = decide  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(stages.VERBS, "tally", ("count the images", ("tally",)))
    without_ray(monkeypatch)
    made.clear()


def test_a_toy_stage(toy: None, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 12)
    with pytest.raises(RefusedError, match="tally: there are no images"):
        go(tmp_path, verb="tally")
    assert not (tmp_path / "run").exists()
    go(tmp_path, verb="extract")
    done = go(tmp_path, verb="tally")
    assert done.store.read("tally.txt") == b"12"
    go(tmp_path, verb="tally")
    assert made == [12]
    go(tmp_path, verb="tally", replace=["tally"])
    assert made == [12, 12]
    summary = read_summary(done.store)
    assert summary["tally"] == {"count": 12}
    assert "tally" in summary["seconds"]
    verify(done.store.root, False)
    done.store.write("tally.txt", b"13")
    with pytest.raises(Exception, match=r"tally\.txt: its checksum"):
        verify(done.store.root, False)
    go(tmp_path, verb="tally")
    assert made == [12, 12, 12]
