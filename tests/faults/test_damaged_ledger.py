"""Damaged files of the ledger: verify names each one; a verb names it in one line or mends it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cnnvis_ray import cli
from cnnvis_ray.ledger import lease
from cnnvis_ray.ledger.verification import find_leftovers
from tests.stages.conftest import without_ray, write_photos
from tests.stages.tiny import digests, go

GARBAGE = [b"", b"{", b"\xff\xfe\x00garbage", b"[1, 2]", b"null"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with photos and a finished extraction of them."""
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        folder = tmp_path_factory.mktemp("damaged")
        write_photos(folder / "photos", 12)
        go(folder, verb="extract")
        yield folder


@pytest.fixture
def run(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run; leases settle soon."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.05)
    shutil.copytree(original / "run", tmp_path / "run")
    return tmp_path / "run"


def first(run: Path, pattern: str) -> Path:
    return min(run.glob(pattern))


LEDGER = [
    "passes/extract-*/done/000001.r0.json",
    "passes/images-*/done/000000.r0.json",
    "passes/extract-*/pass.json",
    "passes/images-*/pass.json",
    "passes/statistics-*/pass.json",
    "passes/labels-*/done/*.json",
    "run.json",
    "summary.json",
    "damage.json",
    "config.yaml",
    "plan/000000.parquet",
]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Run a command; return its exit code and its lines of failure."""
    code = cli.main(arguments)
    told = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in told), told
    return code, [line for line in told if line.startswith("cnnvis: ")]


@pytest.mark.parametrize("pattern", LEDGER)
@pytest.mark.parametrize("garbage", GARBAGE)
def test_verify_names_it_and_exits_1(
    run: Path, pattern: str, garbage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / pattern if "*" not in pattern else first(run, pattern)
    path.write_bytes(garbage)
    code, (line,) = call(capsys, "verify", str(run))
    assert code == 1
    assert str(path.relative_to(run)) in line
    code, lines = call(capsys, "status", str(run))
    assert code in (0, 2)
    assert len(lines) == (code == 2)
    assert code == 0 or path.name in lines[0]


@pytest.mark.parametrize("pattern", LEDGER)
def test_the_next_run_makes_it_again_or_names_it(
    run: Path, original: Path, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digests(go(original, verb="extract"), "images", "extract", "labels")
    path = run / pattern if "*" not in pattern else first(run, pattern)
    path.write_bytes(b"\xff{")
    call(capsys, "verify", str(run))
    code, lines = call(capsys, "extract", str(run))
    if pattern in ("config.yaml", "plan/000000.parquet"):
        assert code == 2
        (line,) = lines
        assert path.name in line
    else:
        assert (code, lines) == (0, [])
    if pattern == "config.yaml":
        photos = f"images.source={original / 'photos'}"
        go(run.parent, photos, verb="extract")
    if "plan" not in pattern:
        assert call(capsys, "verify", str(run)) == (0, [])
        after = digests(go(run.parent, f"images.source={original / 'photos'}", verb="extract"))
        assert before.items() <= after.items()


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.timeout(20)
def test_a_damaged_lease_stops_no_verb(
    run: Path, garbage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["status"], ["verify"], ["verify", "--sweep"], ["extract"]):
        (run / "lease.json").write_bytes(garbage)
        assert call(capsys, command[0], str(run), *command[1:])[0] == 0, command


def test_sweeping_holds_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a driver that starts meanwhile loses the files of the unit it does."""
    from cnnvis_ray.stages import verify

    held: list[bool] = []
    plain: Callable[..., list[str]] = find_leftovers

    def look(records: object) -> list[str]:
        held.append((run / "lease.json").exists())
        return plain(records)

    monkeypatch.setattr(verify, "find_leftovers", look)
    verify.verify(str(run), False)
    verify.verify(str(run), True)
    assert held == [False, True]
    assert not (run / "lease.json").exists()
