"""An extraction without Ray: a folder of images, a small network, one worker in this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnvis_ray.config import Config, load_config
from cnnvis_ray.extraction import ExtractionReport, Extractor
from cnnvis_ray.ledger import Ledger
from cnnvis_ray.stages.extract import decide, extraction_setup, write_labels
from cnnvis_ray.stages.job import Job, open_job

Extract = Callable[..., Job]


def write_images(folder: Path, count: int) -> None:
    """Write pictures that no network takes for one another."""
    for index in range(count):
        random = np.random.default_rng(index)
        coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((80 + index % 7, 60), Image.Resampling.BICUBIC)
        path = folder / f"class{index % 3}" / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def configure(tmp_path: Path, *sets: str) -> Config:
    """Configure SqueezeNet with random weights on 64 x 64 pixels."""
    return load_config(
        None,
        [
            f"run_dir={tmp_path / 'run'}",
            f"images.source={tmp_path / 'photos'}",
            "images.unit_size=20",
            "network={name: squeezenet1_1, weights: random, preprocess: {resize: 72, crop: 64}}",
            "layers=[features.0, features.5]",
            "extract.dtype=float32",
            "extract.batch_size=8",
            *sets,
        ],
    )


def extract_here(config: Config) -> tuple[Job, list[ExtractionReport]]:
    """Do everything that is due in this process."""
    job = open_job(config, ("extract",))
    work = decide(job)
    job.write()
    work.open()
    worker = Extractor(extraction_setup(config.run_dir, config, job.images, job.vision), "cpu", 1)
    reports = [worker(task) for task in work.tasks()]
    job.ledger.refresh((*work.images.passes, *work.features.passes))
    write_labels(job)
    return job, reports


@pytest.fixture
def extract(tmp_path: Path) -> Extract:
    """Extract the images in tmp_path/photos with some settings."""

    def run(*sets: str) -> Job:
        return extract_here(configure(tmp_path, *sets))[0]

    return run


def digests(job: Job, stage: str) -> dict[str, str]:
    """Return the digest of every winning shard by its name without the attempt's token."""
    records = Ledger(job.store)
    return {
        file.path.rsplit(".", 2)[0]: file.sha256
        for owner in records.passes(stage)
        for marker in records.markers(owner).values()
        for file in marker.files
    }
