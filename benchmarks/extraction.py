"""Extraction against its limit (bare decoding and bare forward), thingsvision and Ray Data.

    python benchmarks/extraction.py [shared] [--small] [--network vgg16] [--only limit layers]
    python benchmarks/extraction.py [shared] --device cuda [--precision bfloat16] [--tf32]

The limit: CPU seconds of decoding each photo with PIL and torchvision, and of the forward pass of
the network cut after the layer, channels last, at its best batch, on one thread. The worker beside
it does the same photos in this process, on one thread too, with thumbnails, statistics and shards.
A job is measured between two sizes, so that its start drops out. Weights are random: they do not
matter for speed.

Where there is a GPU, bare forward is held against extraction from decoded pixels and from files.

Kept, with prediction and measurement beside the code: two workers of one thread in place of one of
two (`SingleThread`), batches of 8 (`batch_size`), freed memory kept (`keep_memory`), histograms in
place (`Counts`), normalization in rows (`Preprocess.normalize`), pooling before rectifying
(`pooled_first`).

Rejected after measuring: convolution with ReLU in one call of oneDNN (12 % less, other last bits),
bfloat16 on processors without it (2.6 times slower). Rejected without: folded batch norm (other
last bits), scaled JPEG decoding (other pixels; photos whose shorter side is 256 pixels gain
nothing).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from peers import peer_python
from PIL import Image
from timing import Figure, alternate, compare, report
from torchvision import models

from cnnvis_ray.config import load_config
from cnnvis_ray.extraction import ExtractionTask, Extractor, worker
from cnnvis_ray.extraction.batches import batches
from cnnvis_ray.extraction.observation import Observer
from cnnvis_ray.network import Preprocess, forward_precision, prepare_device
from cnnvis_ray.stages.extract import decide, extraction_setup
from cnnvis_ray.stages.job import open_job

AREA = "extraction"
CASES = {  # a late layer of each
    "squeezenet1_1": "features.12",
    "resnet50": "layer4",
    "vgg16": "features.30",
    "mobilenet_v2": "features.18",
}
VGG16_POOL5 = "features.30"
VGG16_LAYERS = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 4, 9, 16, 23, 30]  # conv and pool
BATCHES = (1, 4, 8, 16, 32)
PREPROCESS = Preprocess(256, 224, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
COMMAND = Path(sys.executable).with_name("cnnvis")

Work = Callable[[], object]


def cpu_seconds(works: Sequence[Work], rounds: int) -> list[list[float]]:
    """Measure the CPU seconds of pieces of work in turn."""
    return alternate(works, rounds, time.process_time)


def make_worker(
    photos: Path, name: str, layers: Sequence[str], num_images: int, device: str, *sets: str
) -> tuple[Extractor, ExtractionTask]:
    """Make a worker as an actor has it, and one unit of work for it."""
    run_dir = tempfile.mkdtemp(prefix="cnnvis-benchmark-")
    config = load_config(None, settings(run_dir, photos, name, layers, num_images, *sets))
    job = open_job(config, ("extract",))
    work = decide(job)
    job.write()
    work.open()
    (task,) = work.tasks()
    setup = extraction_setup(config.run_dir, config, job.images, job.vision)
    return Extractor(setup, device, 1 if device == "cpu" else os.cpu_count() or 1), task


def settings(
    run_dir: str, photos: Path, name: str, layers: Sequence[str], num_images: int, *sets: str
) -> list[str]:
    """List the configuration of one unit."""
    return [
        f"run_dir={run_dir}",
        f"images={{source: {photos}, limit: {num_images}, unit_size: {num_images}}}",
        f"network={{name: {name}, weights: random}}",
        f"layers=[{', '.join(layers)}]",
        "extract.predictions=false",
        *sets,
    ]


@contextmanager
def cut_network(name: str, layer: str, device: str) -> Iterator[Callable[[torch.Tensor], None]]:
    """Make the forward pass of a network that ends at a layer."""
    module = models.get_model(name, weights=None).eval().requires_grad_(False).to(device)
    module = module.to(memory_format=torch.channels_last)

    def end(*_: object) -> None:
        raise StopIteration

    def forward(batch: torch.Tensor) -> None:
        with torch.inference_mode():
            try:
                module(batch)
            except StopIteration:
                return

    handle = module.get_submodule(layer).register_forward_hook(end)
    try:
        yield forward
    finally:
        handle.remove()


def forward_all(
    forward: Callable[[torch.Tensor], None], size: int, num_images: int, device: str
) -> None:
    """Run as many images through a network."""
    batch = torch.randn(size, 3, 224, 224, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    for _ in range(max(1, num_images // size)):
        forward(batch)


def decode_all(paths: Sequence[Path]) -> None:
    """Decode, resize and crop photos one after another."""
    for path in paths:
        with Image.open(path) as image:
            PREPROCESS.fit(image.convert("RGB"))


def without_statistics(run: Work) -> Work:
    """Do the same without channel statistics."""

    def plain() -> None:
        with mock.patch.object(Observer, "observe_statistics", lambda *_: None):
            run()

    return plain


def limit(photos: Path, names: Sequence[str], num_images: int, rounds: int) -> None:
    """Report the worker's CPU seconds beside the limit's, and what its statistics cost."""
    paths = sorted(photos.rglob("*.jpg"))[:num_images]
    for name in names:
        extract, task = make_worker(photos, name, [CASES[name]], num_images, "cpu")
        with cut_network(name, CASES[name], "cpu") as forward:
            forwards = [
                partial(forward_all, forward, min(size, num_images), num_images, "cpu")
                for size in BATCHES
            ]
            run = partial(extract, task)
            works: list[Work] = [
                run,
                without_statistics(run),
                partial(decode_all, paths),
                *forwards,
            ]
            own, plain, decoding, *bare = cpu_seconds(works, rounds)
        best = min(bare, key=statistics.median)
        size = BATCHES[bare.index(best)]
        theirs = [one + other for one, other in zip(decoding, best, strict=True)]
        what = f"{name} to {CASES[name]}, {num_images} photos, one worker of one thread"
        peer = f"bare decoding and bare forward at batch {size}"
        compare(AREA, what, peer, [own, theirs], unit="CPU s", goal="<= 1.11")
        what = f"{name}, with channel statistics"
        compare(AREA, what, "without", [own, plain], unit="CPU s", goal="<= 1.05")


def layers(photos: Path, num_images: int, rounds: int) -> None:
    """Report all convolutions and poolings of VGG16 in one pass beside the last pooling alone."""
    everything = [f"features.{number}" for number in VGG16_LAYERS]
    workers = [
        make_worker(photos, "vgg16", asked, num_images, "cpu")
        for asked in (everything, [VGG16_POOL5])
    ]
    works = [partial(extract, task) for extract, task in workers]
    what = f"VGG16, {len(everything)} layers in one pass, {num_images} photos"
    compare(AREA, what, "pool5 alone", cpu_seconds(works, rounds), unit="CPU s", goal="<= 1.1")


def link_photos(photos: Path, folder: Path, num_images: int) -> Path:
    """Make a folder of links to photos, which repeat."""
    paths = sorted(photos.rglob("*.jpg"))
    for number in range(num_images):
        link = folder / f"{num_images}" / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(paths[number % len(paths)])
    return folder / f"{num_images}"


def tree_bytes(root: int) -> int:
    """Add up the resident memory of a process and of its descendants (Linux)."""
    parents, sizes = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = dict(
                line.split(":", 1) for line in (entry / "status").read_text().splitlines()
            )
        except OSError:
            continue
        parents[int(entry.name)] = int(fields["PPid"])
        sizes[int(entry.name)] = int(fields.get("RssAnon", "0").split()[0]) * 1024
    family = {root}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(sizes.get(process, 0) for process in family)


def watch(command: Sequence[str | Path], folder: Path) -> tuple[float, float]:
    """Run a command: its wall seconds, and the most memory that it and its children had."""
    began, most = time.monotonic(), 0
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            most = max(most, tree_bytes(process.pid))
            time.sleep(0.5)
    if process.returncode:
        raise RuntimeError((folder / "log").read_text(encoding="utf-8")[-2000:])
    return time.monotonic() - began, most


def job(folder: Path, photos: Path, unit_size: int) -> tuple[float, float]:
    """Run the command ``cnnvis extract`` on a folder of photos."""
    with tempfile.TemporaryDirectory(dir=folder) as run_dir:
        given = settings(run_dir, photos, "squeezenet1_1", ["features.12"], unit_size)
        given[1] = f"images={{source: {photos}, unit_size: {unit_size}}}"
        pairs = [word for each in given for word in ("--set", each)]
        config = folder / "empty.yaml"
        config.write_text("seed: 0\n")
        return watch([COMMAND, "extract", "--config", config, *pairs], folder)


# Four CPUs are stated, so that the two actors leave some to the tasks that read.
RAY_DATA = """
import sys
import ray, torch
from torchvision import models
from torchvision.transforms import v2
ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
class Model:
    def __init__(self):
        torch.set_num_threads(1)
        self.module = models.squeezenet1_1(weights=None).eval()
        self.fit = v2.Compose([v2.Resize(256), v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    @torch.inference_mode()
    def __call__(self, batch):
        images = [self.fit(torch.as_tensor(image).permute(2, 0, 1)) for image in batch["image"]]
        maps = self.module.features(torch.stack(images))
        return {"path": batch["path"], "feature": maps.mean((2, 3)).numpy()}
data = ray.data.read_images(sys.argv[1], mode="RGB", include_paths=True)
data = data.map_batches(Model, batch_size=32, concurrency=2, num_cpus=1)
data.write_parquet(sys.argv[2])
"""


def ray_data(python: Path, folder: Path, photos: Path) -> tuple[float, float]:
    """Do the same with read_images, map_batches and write_parquet."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        return watch([python, "-c", RAY_DATA, str(photos), out], folder)


def jobs(photos: Path, sizes: tuple[int, int], rounds: int) -> None:
    """Report whole jobs beside Ray Data's, and how time and memory grow with the images."""
    unit_size = max(8, min(256, sizes[0] // 4))
    with tempfile.TemporaryDirectory(prefix="cnnvis-jobs-") as text:
        folder = Path(text)
        few, many = (link_photos(photos, folder, size) for size in sizes)
        cores = os.cpu_count() or 1
        sides: list[list[float]] = [[], []]
        memory: list[list[float]] = [[], []]
        first: list[float] = []
        runs: list[Callable[..., tuple[float, float]]]
        runs = [partial(job, folder, unit_size=unit_size)]
        python = peer_python("ray-data")
        if isinstance(python, Path):
            runs.append(partial(ray_data, python, folder))
        for _ in range(rounds):
            for side, run in enumerate(runs):
                (short, low), (long, high) = run(photos=few), run(photos=many)
                sides[side].append((long - short) / (sizes[1] - sizes[0]) * cores)
                memory[side].append(high / 2**20)
                if side == 0:
                    first.append(short)
                    grown = (low / 2**20, high / 2**20)
        what = f"squeezenet1_1, a job's core seconds per image after its start, {sizes[1]} photos"
        if isinstance(python, Path):
            compare(AREA, what, "Ray Data", sides, unit="core s", goal="<= 0.5")
            compare(AREA, "peak memory of that job", "Ray Data", memory, unit="MiB", goal="<= 1")
        else:
            own = statistics.median(sides[0])
            report(Figure(AREA, what, "Ray Data", own, None, "core s", note=python))
        what = f"peak memory with {sizes[1]} photos"
        report(Figure(AREA, what, f"{sizes[0]} photos", grown[1], grown[0], "MiB", goal="<= 1.1"))
        what = f"a whole job of {sizes[0]} photos, with its start"
        report(Figure(AREA, what, "", statistics.median(first), None, "s", rounds=rounds))


THINGSVISION = """
import resource, sys, tempfile, time
import torch
torch.set_num_threads(int(sys.argv[3]))
from thingsvision import get_extractor
from thingsvision.utils.data import DataLoader, ImageDataset
extractor = get_extractor("squeezenet1_1", source="torchvision", device="cpu", pretrained=False)
def run():
    data = ImageDataset(root=sys.argv[1], out_path=tempfile.mkdtemp(), backend="pt",
        transforms=extractor.get_transformations())
    loader = DataLoader(dataset=data, batch_size=32, backend="pt")
    extractor.extract_features(batches=loader, module_name=sys.argv[2], flatten_acts=False,
        output_type="ndarray").mean((2, 3))
run()
began = time.process_time(), time.perf_counter()
run()
print(time.process_time() - began[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def thingsvision(photos: Path, num_images: int, rounds: int) -> None:
    """Report one worker's CPU seconds beside thingsvision's: same photos, layer and pooling."""
    what = f"squeezenet1_1 to features.12, mean over the map, {num_images} photos"
    python = peer_python("thingsvision")
    if isinstance(python, str):
        report(Figure(AREA, what, "thingsvision", None, None, note=python))
        return
    with tempfile.TemporaryDirectory(prefix="cnnvis-photos-") as folder:
        linked = link_photos(photos, Path(folder), num_images)
        extract, task = make_worker(linked, "squeezenet1_1", ["features.12"], num_images, "cpu")
        run = partial(extract, task)
        command = [str(python), "-c", THINGSVISION, str(linked), "features.12", "1"]
        sides: list[list[float]] = [[], []]
        for _ in range(rounds):
            (own,) = cpu_seconds([run], 1)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                note = done.stderr.strip().splitlines()[-1]
                report(Figure(AREA, what, "thingsvision", None, None, note=note))
                return
            sides[0] += own
            sides[1].append(float(done.stdout.split()[-2]))
        compare(AREA, what, "thingsvision", sides, unit="CPU s", goal="<= 0.67")


def device(photos: Path, names: Sequence[str], num_images: int, asked: argparse.Namespace) -> None:
    """Report bare forward beside extraction from decoded pixels, and from files, on a device."""
    place = "cuda:0" if asked.device == "cuda" else "cpu"
    for name in names:
        sets = (f"extract.precision={asked.precision}", f"extract.batch_size={asked.batch}")
        extract, task = make_worker(photos, name, [CASES[name]], num_images, place, *sets)
        args = (extract.setup, task, extract.reader, extract.threads, extract.batch_size)
        decoded = list(batches(*args))

        def from_pixels(run: Work, kept: object = decoded) -> None:
            with mock.patch.object(worker, "batches", lambda *_: kept):
                run()

        run = partial(extract, task)
        with (
            cut_network(name, CASES[name], place) as forward,
            forward_precision(place, asked.precision),
        ):
            bare = partial(forward_all, forward, asked.batch, num_images, place)
            wall = alternate([partial(from_pixels, run), run, bare], asked.rounds)
        about = f"{name} on {asked.device}, batch {asked.batch}, {asked.precision}"
        about += ", TF32" if asked.tf32 else ""
        compare(AREA, f"{about}, from decoded pixels", "bare forward", [wall[0], wall[2]])
        compare(AREA, f"{about}, from files", "bare forward", [wall[1], wall[2]])
        if place != "cpu":
            most = torch.cuda.max_memory_allocated() / 2**20
            report(Figure(AREA, f"{about}, peak memory", "", most, None, "MiB"))


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description="extraction against its limit and its peers")
    parser.add_argument("shared", type=Path, nargs="?", default=Path("../shared"))
    parser.add_argument("--small", action="store_true", help="few images, one round")
    parser.add_argument("--network", choices=list(CASES), action="append")
    parser.add_argument("--only", nargs="*", default=["limit", "layers", "thingsvision", "jobs"])
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--batch", type=int, default=32, help="of --device")
    asked = parser.parse_args()
    photos = asked.shared / "data" / "photos"
    asked.rounds = 1 if asked.small else 5
    names = asked.network or (["squeezenet1_1"] if asked.small else list(CASES))
    if asked.device:
        prepare_device("cuda:0" if asked.device == "cuda" else "cpu", os.cpu_count() or 1)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = asked.tf32
        device(photos, names, 32 if asked.small else 960, asked)
        return
    prepare_device("cpu", 1)
    measurements: dict[str, Work] = {
        "limit": lambda: limit(photos, names, 32 if asked.small else 64, asked.rounds),
        "layers": lambda: layers(photos, 8 if asked.small else 32, asked.rounds),
        "thingsvision": lambda: thingsvision(photos, 32 if asked.small else 256, asked.rounds),
        "jobs": lambda: jobs(
            photos, (32, 64) if asked.small else (500, 4000), min(3, asked.rounds)
        ),
        "growth": lambda: jobs(photos, (500, 16000), 1),
    }
    for what in asked.only:
        measurements[what]()


if __name__ == "__main__":
    main()
