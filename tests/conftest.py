"""What several test folders share: the real photos and weights, where they are at hand."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does: see cnnvis_ray/cli.py
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and trained weights (`CNNVIS_SHARED`, default ../shared)."""
    folder = Path(os.environ.get("CNNVIS_SHARED", ROOT.parent / "shared")).resolve()
    if not (folder / "data" / "photos").is_dir():
        pytest.skip(f"no photos and weights in {folder} (set CNNVIS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One local Ray for all tests: four CPUs and four stand-in GPUs, whatever the machine has."""
    import ray

    os.environ["PYTHONPATH"] = str(ROOT)  # actors import tests' functions
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    with tempfile.TemporaryDirectory(  # sockets need short paths
        prefix="cnnvis-ray-", ignore_cleanup_errors=True
    ) as short:
        ray.init(
            address="local",
            num_cpus=4,
            num_gpus=4,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=short,
        )
        yield
        ray.shutdown()
