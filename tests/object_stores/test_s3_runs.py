"""Whole runs with source and run directory in an object store, also disturbed and continued."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnnvis_ray.config import Config
from cnnvis_ray.ledger import Ledger, Run
from cnnvis_ray.stages.job import Job
from cnnvis_ray.storage import Store, StoreError
from tests.extraction.conftest import configure, digests, extract_here, write_images
from tests.object_stores.conftest import SECRET
from tests.object_stores.server import Fault, S3Server

ROOT = Path(__file__).parents[2]


def upload(folder: Path, address: str) -> None:
    store = Store(address)
    for path in folder.rglob("*.png"):
        store.write(str(path.relative_to(folder)), path.read_bytes())


def configured(tmp_path: Path, bucket: str, *sets: str) -> Config:
    places = (f"run_dir={bucket}/run", f"images.source={bucket}/photos")
    return configure(tmp_path, *places, *sets)


def features(job: Job) -> dict[str, str]:
    return digests(job, "extract")


def check_no_secret(bucket: str) -> None:
    store = Store(bucket)
    for name in store.files("run"):
        data = store.read(name)
        assert SECRET.encode() not in data
        assert b"AKSECRET" not in data
        assert b"127.0.0.1" not in data, name


def test_a_run_in_a_store_equals_one_on_a_disk(tmp_path: Path, bucket: str) -> None:
    write_images(tmp_path / "photos", 45)
    (tmp_path / "photos" / "class0" / "bad.png").write_bytes(b"?")
    upload(tmp_path / "photos", f"{bucket}/photos")
    here, _ = extract_here(configure(tmp_path))
    there, _ = extract_here(configured(tmp_path, bucket))
    assert digests(there, "images") == digests(here, "images")
    assert {name.split("/")[-1] for name in features(there)} == {
        name.split("/")[-1] for name in features(here)
    }
    for layer in ("features.0", "features.5"):
        (keys, values), (others, same) = (Run(job.store).features(layer) for job in (here, there))
        assert keys == others
        assert (values == same).all()
    assert Run(there.store).rejects()["key"].to_pylist() == ["class0/bad.png"]
    check_no_secret(bucket)


def test_a_store_that_fails_for_good_keeps_what_is_committed(
    tmp_path: Path, bucket: str, s3: S3Server
) -> None:
    write_images(tmp_path / "photos", 45)
    upload(tmp_path / "photos", f"{bucket}/photos")
    config = configured(tmp_path, bucket)
    s3.faults.append(Fault("^PUT .*(features/features.5/000001|000002)", "403 No", "AccessDenied"))
    with pytest.raises(StoreError, match="denies access"):
        extract_here(config)
    store = Store(config.run_dir)
    for stage in ("images", "extract"):
        records = Ledger(store)
        (owner,) = records.passes(stage)
        assert records.done(owner) == {"000000.r0"}
    s3.faults.clear()
    s3.requests.clear()
    job, reports = extract_here(config)
    assert [report.rows for report in reports] == [20, 5]
    assert not s3.asked("^(PUT|DELETE) .*(images|features|rejects|extract-.*)/.*000000.r0")
    whole, _ = extract_here(configured(tmp_path, bucket, f"run_dir={bucket}/other"))
    assert features(job) == features(whole)
    assert Run(job.store).images().equals(Run(whole.store).images())


def test_a_store_that_fails_for_a_while_is_not_noticed(
    tmp_path: Path, bucket: str, s3: S3Server
) -> None:
    write_images(tmp_path / "photos", 20)
    upload(tmp_path / "photos", f"{bucket}/photos")
    s3.faults.extend(
        [
            Fault("^PUT .*/features/", "503 Service Unavailable", "SlowDown", times=2),
            Fault("^GET .*00[37].png", "500 Internal Server Error", "InternalError", times=2),
            Fault("^PUT .*/done/", "503 Service Unavailable", "ServiceUnavailable", times=1),
        ]
    )
    _, (report,) = extract_here(configured(tmp_path, bucket))
    assert (report.rows, report.rejects) == (20, 0)
    assert all(fault.times == 0 for fault in s3.faults)


SETS = [
    "network={name: squeezenet1_1, weights: random, preprocess: {resize: 72, crop: 64}}",
    "layers=[features.0, features.5]",
    "images.unit_size=8",
    "extract.batch_size=8",
    "maximize.layers=[]",
    "reduce.iterations=300",
    "mosaic={width: 400, height: 300, tile: 40}",
    "cluster={gpus_per_worker: 0, cpus_per_worker: 1, workers: 1}",
]


def command(bucket: str) -> list[str]:
    sets = [f"run_dir={bucket}/run", f"images.source={bucket}/photos", *SETS]
    given = [part for setting in sets for part in ("--set", setting)]
    return [sys.executable, "-m", "cnnvis_ray.cli", "run", "--config", os.devnull, *given]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }


def end(process: "subprocess.Popen[str]") -> None:
    """End a driver and the Ray that it started (its process group), by id."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow  # starts Ray twice
@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_a_killed_run_in_a_store_is_continued(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    write_images(tmp_path / "photos", 64)
    upload(tmp_path / "photos", f"{bucket}/photos")
    store = Store(f"{bucket}/run")
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(
            command(bucket),
            env=environment(),
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            for _ in range(1200):
                if len(s3.asked("^PUT .*/passes/extract-.*/done/")) >= 2:
                    break
                assert first.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        finally:
            end(first)
    before = store.read_many(store.files("passes"))
    assert 0 < sum("/extract-" in name and "/done/" in name for name in before) < 8
    done = subprocess.run(
        command(bucket), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "64 images = 64 rows + 0 rejects" in done.stdout
    assert {name: store.read(name) for name in before} == before
    assert store.exists("mosaic/features.5-scatter.png")
    summary = json.loads(store.read("summary.json"))
    assert summary["images"] == {"listed": 64, "rows": 64, "rejects": 0, "missing": 0}
    assert summary["exit_status"] == 0
    told = done.stdout + done.stderr + (tmp_path / "log").read_text()
    assert SECRET not in told
    assert not re.search("AKSECRET", told)
    check_no_secret(bucket)


@pytest.mark.slow  # starts Ray
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_store_that_turns_read_only_ends_the_run_with_one_line(
    tmp_path: Path, bucket: str, s3: S3Server
) -> None:
    write_images(tmp_path / "photos", 64)
    upload(tmp_path / "photos", f"{bucket}/photos")
    s3.faults.append(Fault("^(PUT|POST) .*/features/", "403 Forbidden", "AccessDenied"))
    done = subprocess.run(
        [*command(bucket), "--set", "images.unit_size=2"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("cnnvis: ")
    assert "the store denies access; check the credentials' rights" in last
    assert "fails at every attempt" in last
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert len(s3.asked("^PUT .*/features/")) < 20  # and not 32 units, three times each
