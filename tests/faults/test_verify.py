"""Verification finds every kind of damage, and the next run makes just that again."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from cnnvis_ray import ledger
from cnnvis_ray.cli import main
from cnnvis_ray.cluster import Session
from cnnvis_ray.config import Config
from cnnvis_ray.errors import HeldError, IncompleteError
from cnnvis_ray.ledger import Ledger, Run, Value, dump, open_run
from cnnvis_ray.ledger.lease import LEASE, Holder
from cnnvis_ray.stages.run import run_verb
from cnnvis_ray.stages.status import status
from cnnvis_ray.stages.verify import verify
from tests.faults.conftest import small_run
from tests.stages.conftest import without_ray, write_photos


@pytest.fixture(scope="module", autouse=True)
def worker_here() -> Iterator[None]:
    """Work in this process: verification is about files, whoever wrote them."""
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        yield


@pytest.fixture(scope="module")
def original(worker_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a finished extraction of them."""
    folder = tmp_path_factory.mktemp("verify")
    write_photos(folder / "photos", 40)
    run_verb("extract", small_run(folder), ())
    return folder


@pytest.fixture
def whole(original: Path, tmp_path: Path) -> Run:
    """A copy of a finished extraction."""
    shutil.copytree(original / "run", tmp_path / "run")
    return open_run(str(tmp_path / "run"))


@pytest.fixture
def again(original: Path, whole: Run) -> Config:
    """The configuration that continues the copy."""
    return small_run(original, f"run_dir={whole.store.root}")


def written(run: Run) -> dict[str, int]:
    return {path: (Path(run.store.root) / path).stat().st_mtime_ns for path in run.store.files("")}


def shard(run: Run, folder: str, unit: int) -> Path:
    (path,) = (p for p in run.store.files(folder) if p.split("/")[-1].startswith(f"{unit:06d}"))
    return Path(run.store.root) / path


def flip(run: Run) -> str:
    path = shard(run, "features/features.5", 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "checksum"


def truncate(run: Run) -> str:
    path = shard(run, "images", 2)
    path.write_bytes(path.read_bytes()[:-50])
    return "its marker says"


def remove_shard(run: Run) -> str:
    shard(run, "channels/features.0", 0).unlink()
    return "is missing"


def remove_marker(run: Run) -> str:
    (owner,) = run.passes("extract")
    run.store.delete([f"passes/{owner.name}/done/000001.r0.json"])
    return "the unit is due"


def damage_merged(run: Run) -> str:
    path = f"{run.store.root}/channels/features.0.parquet"
    shutil.copy(f"{run.store.root}/channels/features.5.parquet", path)
    return "statistics of its units make together"


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        damage_merged,
        truncate,
        remove_shard,
        remove_marker,
    ],
)
def test_damage_is_found_and_made_again(
    whole: Run, again: Config, damage: Callable[[Run], str]
) -> None:
    before = written(whole)
    assert "files are what their markers say" in verify(whole.store.root, False)[0]
    assert written(whole) == before
    words = damage(whole)
    with pytest.raises(IncompleteError, match=words):
        verify(whole.store.root, False)
    run_verb("extract", again, ())
    verify(whole.store.root, False)
    kept = {path for path, at in written(whole).items() if before.get(path) == at}
    redone = {
        path
        for path in before
        if path not in kept and "/0000" in path and "passes/statistics-" not in path
    }
    assert len({path.split("/")[-1].split(".")[0] for path in redone}) <= 1  # one unit, if any
    assert whole.images().num_rows == 40


def test_leftovers_are_found_and_swept(whole: Run) -> None:
    left = [
        "features/features.5/000001.r0.0123abcd.parquet",
        "images/.part-00ff-000000.r0.0123abcd.parquet",
    ]
    for path in left:
        whole.store.write(path, b"left")
    with pytest.raises(IncompleteError) as found:
        verify(whole.store.root, False)
    assert all(path in str(found.value) for path in left)
    assert "2 leftovers swept" in verify(whole.store.root, True)[0]
    assert not any(whole.store.exists(path) for path in left)
    verify(whole.store.root, False)


def test_a_unit_done_again_in_between_is_not_done_a_third_time(whole: Run) -> None:
    flip(whole)
    with pytest.raises(IncompleteError):
        verify(whole.store.root, False)
    (owner,) = whole.passes("extract")
    marker = whole.ledger.markers(owner)["000001.r0"]
    path = f"passes/{owner.name}/done/000001.r0.json"
    assert Ledger(whole.store).doomed == {path}
    whole.store.delete([path])
    ledger.commit(whole.store, owner, ledger.Marker(marker.unit, marker.files[::-1]))
    records = Ledger(whole.store)
    assert "000001.r0" in records.done(owner)
    assert records.heal() == []
    assert not whole.store.exists("damage.json")


def test_while_another_driver_works(whole: Run, again: Config) -> None:
    names = ("token", "another-machine", 17, "", "2026-11-22T01:02:03Z", time.time())
    progress: dict[str, Value] = {
        "stage": "extract",
        "noun": "images",
        "done": 20,
        "total": 40,
        "rate": 4.0,
    }
    whole.store.write(LEASE, dump(asdict(Holder(*names, 1, progress))))
    whole.store.write("images/000003.r0.0123abcd.parquet", b"being written")
    verify(whole.store.root, False)
    with pytest.raises(HeldError, match="another-machine"):
        verify(whole.store.root, True)
    with pytest.raises(HeldError, match="process 17 on another-machine"):
        run_verb("extract", again, ())
    told = "\n".join(status(whole.store.root))
    assert "running   extract 20/40 images, 4.0/s, 0:00:05 left" in told
    assert "done      images 3/3 units" in told
    assert "ended     with 0: done" in told


def test_a_finished_run_does_not_start_ray(
    whole: Run, again: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Session) -> None:
        raise AssertionError

    monkeypatch.setattr(Session, "offers", never)
    run_verb("extract", again, ())


def test_the_command_line(whole: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", whole.store.root]) == 0
    assert main(["status", whole.store.root]) == 0
    assert "running   nothing" in capsys.readouterr().out
    flip(whole)
    assert main(["verify", whole.store.root]) == 1
    assert "features/features.5/000001.r0" in capsys.readouterr().err
    assert main(["verify", f"{whole.store.root}-not"]) == 2
    assert open_run(whole.store.root).store.exists("damage.json")
