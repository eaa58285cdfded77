"""Images per second of extraction, against the loop that the seeds use, alternating in one run.

    python benchmarks/extraction.py PHOTOS [--images 96] [--rounds 3] [--network vgg16]

The seed's loop, in a process of its own, takes one image at a time, decodes and forwards in turn
and keeps the layer's output through a hook. Extraction is the worker of this project as an actor
runs it: decoding ahead in threads, batches of 32, channels last, a Parquet shard and channel
statistics a layer. Weights are random: they do not matter for speed. Predictions are off on both
sides.

Predicted: on two cores SqueezeNet (45 images/s in the seed's loop) gains little, since its forward
keeps both cores busy and decoding is a small part; VGG16 to pool5 gains from channels last (3.3 to
5.0 images/s when measured alone). Seen: the table in README.md, "How fast".
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import alternate, apart
from torchvision import models
from torchvision.transforms import v2

from cnnvis_ray.config import load_config
from cnnvis_ray.extraction import ExtractionTask, Extractor
from cnnvis_ray.extraction.observation import Observer
from cnnvis_ray.stages.extract import decide, extraction_setup
from cnnvis_ray.stages.job import open_job

CASES = {"squeezenet1_1": "features.12", "vgg16": "features.30"}  # features.30 is pool5
THREADS = torch.get_num_threads()


def seed_loop(name: str, layer: str, paths: list[Path]) -> Callable[[], None]:
    """Make the loop of the seeds."""
    module = models.get_model(name, weights=None).eval()
    preprocess = v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    kept: list[torch.Tensor] = []
    module.get_submodule(layer).register_forward_hook(lambda m, i, output: kept.append(output))

    def run() -> None:
        features = []
        with torch.no_grad():
            for path in paths:
                kept.clear()
                with Image.open(path) as image:
                    module.features(preprocess(image.convert("RGB"))[None])
                features.append(kept[0].mean((2, 3)).numpy())
        np.concatenate(features)

    return run


def extraction(name: str, layer: str, photos: Path, num_images: int) -> Callable[[], None]:
    """Make one unit's extraction, as the worker in an actor does it."""
    folder = tempfile.mkdtemp(prefix="cnnvis-benchmark-")
    config = load_config(
        None,
        [
            f"run_dir={folder}",
            f"images={{source: {photos}, limit: {num_images}, unit_size: {num_images}}}",
            f"network={{name: {name}, weights: random}}",
            f"layers=[{layer}]",
            "extract.predictions=false",
        ],
    )
    job = open_job(config, ("extract",))
    work = decide(job)
    job.write()
    work.open()
    (task,) = work.tasks()
    setup = extraction_setup(config.run_dir, config, job.images, job.vision)
    worker = Extractor(setup, "cpu", THREADS)
    return lambda: repeat(worker, task)


def repeat(worker: Extractor, task: ExtractionTask) -> None:
    """Do the unit once more; the statistics ride along."""
    worker(replace(task))


def without_statistics(run: Callable[[], None]) -> Callable[[], None]:
    """Do the same without channel statistics, to see what they cost."""

    def plain() -> None:
        observe = Observer.observe_statistics
        Observer.observe_statistics = lambda self, layer, activation: None  # type: ignore[method-assign]
        try:
            run()
        finally:
            Observer.observe_statistics = observe  # type: ignore[method-assign]

    return plain


def compare(sides: dict[str, Callable[[], object]], num_images: int, rounds: int) -> None:
    """Alternate the sides and print medians and the median ratio, round by round."""
    seconds = dict(zip(sides, alternate(list(sides.values()), rounds), strict=True))
    first = next(iter(sides))
    for name, own in seconds.items():
        ratios = [theirs / mine for mine, theirs in zip(own, seconds[first], strict=True)]
        print(
            f"  {name:32} {num_images / statistics.median(own):7.1f} images/s   "
            f"{statistics.median(ratios):5.2f} x {first}"
        )


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description="extraction against the seed's loop")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", choices=list(CASES), action="append")
    parsed = parser.parse_args()
    paths = sorted(path for path in parsed.photos.rglob("*.jpg"))[: parsed.images]
    for name in parsed.network or CASES:
        layer = CASES[name]
        print(f"{name} to {layer}, {len(paths)} images, {THREADS} threads")
        ours = extraction(name, layer, parsed.photos, len(paths))
        sides = {
            "the seed's loop": apart(seed_loop, name, layer, paths),
            "extraction": ours,
            "extraction without statistics": without_statistics(ours),
        }
        compare(sides, len(paths), parsed.rounds)


if __name__ == "__main__":
    main()
