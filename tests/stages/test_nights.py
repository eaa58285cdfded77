"""Nights on a frozen map, and the audit: what they write, and that the run stays as it is."""

import json
from pathlib import Path

import pytest

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import open_run
from cnnvis_ray.stages.audit import audit
from cnnvis_ray.stages.place import place
from cnnvis_ray.stages.verify import verify
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import contents, go, tiny


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with maps, and five new photos beside it."""
    without_ray(monkeypatch)
    write_photos(tmp_path / "photos", 12)
    write_photos(tmp_path / "night", 17, first=12)
    go(tmp_path)
    return tmp_path


def test_a_night_is_placed_once_and_moves_nothing(mapped: Path) -> None:
    run = mapped / "run"
    before = contents(run)
    for _ in range(2):
        lines = place(str(run), tiny(mapped), str(mapped / "night"), "one")
        assert lines[0].startswith("verdict   not judged")  # five images are too few
    after = contents(run)
    assert {path: after[path] for path in before} == before
    changes = json.loads((run / "placed/one/changes.json").read_text())
    assert changes["arrived"]["images"] == 5
    placed = open_run(str(run / "placed/one")).table("embedding/features.1.parquet")
    assert placed.num_rows == len(set(placed["key"].to_pylist())) == 5
    assert verify(str(run), False)[1].startswith(str(run / "placed/one"))


def test_the_run_s_own_source_has_nothing_new(mapped: Path) -> None:
    lines = place(str(mapped / "run"), tiny(mapped), str(mapped / "photos"), "same")
    assert lines == [
        f"nothing new in {mapped / 'photos'}: every image is in the run or another night"
    ]


@pytest.mark.parametrize(
    ("sets", "name", "part"),
    [
        ((), "../out", "is not a name"),
        (("extract.pooling=max",), "one", "extract.pooling was mean, is max"),
    ],
)
def test_a_night_is_refused(mapped: Path, sets: tuple[str, ...], name: str, part: str) -> None:
    before = contents(mapped)
    with pytest.raises(RefusedError, match=part):
        place(str(mapped / "run"), tiny(mapped, *sets), str(mapped / "night"), name)
    after = contents(mapped)
    assert {path for path in after if path not in before} <= {"run/placed"}


def test_an_audit_is_made_once(mapped: Path) -> None:
    run = mapped / "run"
    audit(str(run))
    found = json.loads((run / "audit/audit.json").read_text())
    assert (found["layer"], found["images"]) == ("features.1", 12)
    before = contents(run)
    audit(str(run))
    assert contents(run) == before
    with pytest.raises(RefusedError, match=r"features\.1"):
        audit(str(run), "features.11")
