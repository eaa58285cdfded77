"""A full disk: one line, nothing half written, and the run goes on when there is room."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from cnnvis_ray.storage import Store, StoreError, shard_writer, write_table

ROOT = Path(__file__).parents[2]
TABLE = pa.table({"x": list(range(1000))})


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


def test_a_disk_that_is_full_at_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="no space left there; free some, what is comm") as caught:
        write_table(store, "a.parquet", TABLE)
    failure = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (failure.errno, failure.filename) == (errno.ENOSPC, store.root)
    assert store.files("") == []


def test_a_disk_that_fills_between_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnvis_ray.storage.shards.Hashing.write", full)
    with pytest.raises(StoreError, match="no space left"):
        write_table(store, "a.parquet", TABLE)
    assert store.files("") == []


def test_the_blocks_own_errors_stay_as_they_are(store: Store) -> None:
    mine = FileNotFoundError(errno.ENOENT, "no such image", "somewhere/a.jpg")
    with pytest.raises(FileNotFoundError) as caught, store.writing("x") as file:
        file.write(b"1")
        raise mine
    assert caught.value is mine
    other = OSError(errno.ENOSPC, "of another disk", "/elsewhere")
    with pytest.raises(OSError, match="of another disk") as again, store.writing("x"):
        raise other
    assert again.value is other
    assert store.files("") == []


def test_the_temp_folder_of_a_store_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("memory://full/run")
    monkeypatch.setattr("cnnvis_ray.storage.shards.Hashing.write", full)
    with pytest.raises(StoreError, match=r"for a temporary file in .* \(TMPDIR\)"):
        write_table(store, "a.parquet", TABLE)
    assert store.files("") == []


def test_a_file_with_other_rows_than_were_written_is_not_published(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(OSError, match="1001 rows were written, the file has 1000"),
        shard_writer(store, "a.parquet", TABLE.schema) as writer,
    ):
        writer.write(TABLE)
        writer.rows += 1
    assert store.files("") == []


LIMITED = """
import resource, sys
from cnnvis_ray.storage import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
store = Store(sys.argv[1])
store.write("small", b"x" * 1000)
store.write("large", b"x" * (2 << 20))
"""


def test_a_real_limit_on_the_size_of_files(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, store.root],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("cnnvis_ray.storage.store_errors.StoreError")
    )
    assert "no space left there" in done.stderr
    assert store.files("") == ["small"]


SETS = [
    "network={name: squeezenet1_1, weights: random, preprocess: {resize: 72, crop: 64}}",
    "layers=[features.0, features.5]",
    "images.source=digits",
    "images.limit=600",
    "images.unit_size=50",
    "extract.pooling=grid:4",
    "maximize.layers=[]",
    "mosaic.layers=[]",
    "cluster={gpus_per_worker: 0, cpus_per_worker: 1, workers: 1}",
]
FILL_AND_FREE = """
set -u
mount -t tmpfs -o size=1200k none "$RUN" || exit 77
"$@"; echo "first ended with $?"
ls -R "$RUN" | grep -c 'r0.json$'
mount -o remount,size=64m "$RUN"
"$@"; echo "second ended with $?"
"""


@pytest.mark.slow  # starts Ray twice
@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_a_run_on_a_full_disk_ends_in_one_line_and_continues(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    given = [part for setting in [f"run_dir={run}", *SETS] for part in ("--set", setting)]
    cnnvis = [sys.executable, "-m", "cnnvis_ray.cli", "extract", "--config", os.devnull, *given]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FILL_AND_FREE, "sh", *cnnvis],
        cwd=ROOT,
        env={**os.environ, "RUN": str(run), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("no tmpfs can be mounted here")
    told = done.stdout + done.stderr
    assert "first ended with 1" in done.stdout, told
    assert "second ended with 0" in done.stdout, told
    assert "no space left there; free some, what is committed stays" in told
    assert "Traceback" not in told
    assert "600 images = 600 rows + 0 rejects" in done.stdout
