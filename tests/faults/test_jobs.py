"""Submitted jobs: each script of jobs/ runs on a head that the test started, with a token too."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import open_run
from cnnvis_ray.stages.run import check_run_dir
from tests.faults.conftest import summary
from tests.faults.heads import Head, small_config, started_head, write_submitted
from tests.stages.conftest import write_photos


@pytest.fixture(params=["disabled", "token"])
def head(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Head]:
    """Start a head, with and without token authentication, and lay out what is submitted."""
    write_submitted(tmp_path / "submitted")
    config = small_config(tmp_path / "run", tmp_path / "photos")
    (tmp_path / "submitted" / "run.yaml").write_text(yaml.safe_dump(config))
    write_photos(tmp_path / "photos", 12)
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    access = {"RAY_AUTH_MODE": request.param, "RAY_AUTH_TOKEN_PATH": str(token)}
    with started_head(tmp_path / "head.log", access) as started:
        yield started


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(480)
def test_jobs_run_and_a_finished_one_does_nothing(head: Head, tmp_path: Path) -> None:
    def submit(script: str) -> str:
        entry = ["python", f"jobs/{script}.py", "--config", "run.yaml"]
        return head.job(tmp_path / "submitted", "submit", "--working-dir", ".", "--", *entry)

    if head.environment["RAY_AUTH_MODE"] == "token":
        for script in ("extract", "reduce", "maximize"):
            submit(script)
    else:
        assert "12 images = 12 rows + 0 rejects" in submit("pipeline")
        before = written(tmp_path / "run")
        told = submit("pipeline")
        assert "nothing is due, all 12 images are done" in told
        assert written(tmp_path / "run") == before
    run = open_run(str(tmp_path / "run"))
    assert run.embedding("0").num_rows == 12
    assert run.pictures("0").num_rows == 1
    assert summary(tmp_path / "run")["exit_status"] == 0


def written(run_dir: Path) -> dict[str, int]:
    found = {str(path): path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    return {path: at for path, at in found.items() if not path.endswith("summary.json")}


def test_a_relative_run_dir_is_refused_inside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    check_run_dir("runs/mine")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(RefusedError, match="temporary copy"):
        check_run_dir("runs/mine")
    check_run_dir("/data/mine")
    check_run_dir("s3://bucket/mine")
