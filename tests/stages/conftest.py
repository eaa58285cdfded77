"""Whole runs with a small network on small pictures: in this process, or on a local Ray."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnvis_ray.cluster import Offer, Outcome, Session, Slot
from cnnvis_ray.config import Config, load_config
from cnnvis_ray.errors import CnnvisError
from cnnvis_ray.ledger import Run, open_run
from cnnvis_ray.stages.run import run_verb

NETWORK = "network={name: squeezenet1_1, weights: random, preprocess: {resize: 72, crop: 64}}"


def write_photos(folder: Path, count: int, first: int = 0) -> None:
    """Write small pictures in three classes, by number, from ``first`` up to ``count``."""
    for index in range(first, count):
        random = np.random.default_rng(index)
        base = np.zeros((6, 8, 3), np.uint8) + np.uint8(60 * (index % 3))
        coarse = base + random.integers(0, 90, (6, 8, 3), dtype=np.uint8)
        path = folder / ("cane", "gatto", "mucca")[index % 3] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Config]:
    """Configure a run on tmp_path/photos."""

    def make(*sets: str) -> Config:
        own = [
            f"run_dir={tmp_path / 'run'}",
            f"images.source={tmp_path / 'photos'}",
            "images.unit_size=16",
            NETWORK,
            "layers=[features.0, features.5]",
            "maximize.layers=[]",
            "extract.batch_size=8",
            "reduce.iterations=300",
            "mosaic={width: 400, height: 300, tile: 40}",
            "cluster={gpus_per_worker: 0, cpus_per_worker: 1, workers: 1}",
            *sets,
        ]
        return load_config(None, own)

    return make


def work_here(
    tasks: Iterable[object],
    make_worker: Callable[[object, Slot], Callable[[object], object]],
    setup: object,
    *rest: object,
) -> Iterator[Outcome[object, object]]:
    """Do tasks in this process, as an actor would: starting one costs seconds of imports."""
    worker = make_worker(setup, Slot("cpu", 1))
    for task in tasks:
        try:
            yield Outcome(task, worker(task))
        except CnnvisError as failure:
            yield Outcome(task, None, str(failure))


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Let this process be the cluster: one node of four CPUs, and the worker here."""
    patch.setattr(Session, "offers", lambda session: [Offer(4, 0)])
    patch.setattr(Session, "num_nodes", 1)
    patch.setattr("cnnvis_ray.stages.units.work", work_here)


@pytest.fixture
def run(configured: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Run a verb without Ray, the worker in this process, and open the run."""
    without_ray(monkeypatch)

    def go(*sets: str, verb: str = "run", replace: Sequence[str] = (), keep: bool = True) -> Run:
        config = configured(*sets)
        run_verb(verb, config, replace, keep)
        return open_run(config.run_dir)

    return go


@pytest.fixture
def ray_run(ray_cluster: None, configured: Callable[..., Config]) -> Callable[..., Run]:
    """Run a verb on the shared local Ray and open the run."""

    def go(*sets: str, verb: str = "run", replace: Sequence[str] = ()) -> Run:
        config = configured(*sets)
        run_verb(verb, config, replace)
        return open_run(config.run_dir)

    return go
