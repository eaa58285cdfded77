"""The smallest whole run: two layers of one convolution on twelve photos, in this process."""

from collections.abc import Sequence
from pathlib import Path

from cnnvis_ray.config import Config, load_config
from cnnvis_ray.ledger import Run, open_run
from cnnvis_ray.stages.run import run_verb

NETWORK = (
    "network={name: 'tests.faults.networks:watched', weights: random, "
    "preprocess: {resize: 32, crop: 32}}"
)
LAYERS = ("features.0", "features.1")


def tiny(folder: Path, *sets: str, run: str = "run") -> Config:
    """Configure it on FOLDER/photos."""
    own = [
        f"run_dir={folder / run}",
        f"images.source={folder / 'photos'}",
        "images.unit_size=8",
        NETWORK,
        f"layers=[{', '.join(LAYERS)}]",
        "extract.batch_size=8",
        "maximize={size: 24, steps: 2, attempts: 1, transforms: none, channels: '0:2'}",
        "reduce.iterations=20",
        "mosaic={width: 100, height: 80, tile: 10}",
        "cluster={gpus_per_worker: 0, cpus_per_worker: 1, workers: 1}",
    ]
    return load_config(None, [*own, *sets])


def go(
    folder: Path,
    *sets: str,
    run: str = "run",
    verb: str = "run",
    replace: Sequence[str] = (),
    keep: bool = True,
) -> Run:
    """Run a verb and open the run."""
    config = tiny(folder, *sets, run=run)
    run_verb(verb, config, replace, keep)
    return open_run(config.run_dir)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Read every file below a folder; folders are there without content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def written(folder: Path) -> dict[str, int]:
    """Return when each file below a folder was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


def digests(run: Run, *stages: str) -> dict[str, str]:
    """Return the digest of each winning file by its name without the attempt."""
    return {
        file.path.rsplit(".", 2)[0] if "/0000" in file.path else file.path: file.sha256
        for stage in stages or run.ledger.stages
        for owner in run.passes(stage)
        for marker in run.ledger.markers(owner).values()
        for file in marker.files
    }
