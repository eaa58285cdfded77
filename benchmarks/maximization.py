"""How fast and how good the pictures are, beside lucent, the seed's loop and lucid's settings.

    python benchmarks/maximization.py speed       time to lucent's end activation, features.10
    python benchmarks/maximization.py loop        the loop against bare forward and backward
    python benchmarks/maximization.py seed        the loop against the seed's, at equal steps
    python benchmarks/maximization.py transfer    class pictures read by another network
    python benchmarks/maximization.py statuses    live, stuck and dead by network and layer
    python benchmarks/maximization.py gpu         VGG16's 13 convolutions, channels a second

Weights come from ``CNNVIS_SHARED`` (default ../shared). ``speed`` makes ``.venv-lucent`` beside
the project the first time: lucent without its own dependencies, kornia 0.4.1, and torch of this
environment. Run on a quiet machine; ``OMP_NUM_THREADS`` decides the cores.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from timing import alternate, apart
from torch import Tensor, nn

from cnnvis_ray.config import Maximize
from cnnvis_ray.maximization import Evidence, Picture, Setting, maximize_channels
from cnnvis_ray.maximization.ascent import Slope, ascend
from cnnvis_ray.maximization.batches import (
    Climber,
    Origin,
    batch_images,
    draw,
    measure,
    take_aim,
)
from cnnvis_ray.maximization.cutting import Cut, cut_after
from cnnvis_ray.maximization.maximizing import climbing
from cnnvis_ray.network import Layer, Preprocess, prepare_device, trace_layers

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("CNNVIS_SHARED", ROOT.parent / "shared"))
LUCENT = ROOT / ".venv-lucent"
LUCENT_PACKAGES = ("torch-lucent==0.1.8", "kornia==0.4.1", "tqdm")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUCENT_STEPS = 512
ROUNDS = 5
SEED_RECIPE = {
    "objective": "squared_maximum",
    "captured": "in_place",
    "parametrization": "normalized",
    "transforms": "none",
    "redirect_steps": 0,
}
# conv1_1 to conv5_1 of VGG16, as in jobs/seeds/maximization.yaml
SEED_SIZES = {
    "features.0": 100,
    "features.5": 112,
    "features.10": 128,
    "features.17": 144,
    "features.24": 160,
}
RECIPES: dict[str, dict[str, object]] = {
    "lucid, 512 steps": {"objective": "logit", "transforms": "lucid", "steps": 512},
    "lucid, 256 steps": {"objective": "logit", "transforms": "lucid", "steps": 256},
    "lucid, 128 steps": {"objective": "logit", "transforms": "lucid"},
    "logit, window of the picture's size": {"objective": "logit"},
    "class (log odds), lucid's transforms": {"objective": "class", "transforms": "lucid"},
    "default: class": {"objective": "class"},
    "default, 256 steps": {"objective": "class", "steps": 256},
}


STATUS_LAYERS = {
    "squeezenet1_1": ("features.0", "features.4", "features.9", "features.12"),
    "mobilenet_v2": (
        "features.1.conv.1",
        "features.7.conv.1.0",
        "features.14.conv.1.0",
        "features.14.conv.3",
        "features.18",
    ),
    "resnet50": ("conv1", "layer1.0.conv2", "layer2.3", "layer4.2.conv3", "layer4.2"),
}


def load(name: str) -> nn.Module:
    """Load a squeezenet with the shared weights."""
    module: nn.Module = getattr(torchvision.models, name)()
    module.load_state_dict(load_file(SHARED / "weights" / f"{name}.safetensors"))
    return frozen(module)


def frozen(module: nn.Module, device: str = "cpu") -> nn.Module:
    """Prepare a network as `network.build_module` does."""
    module = module.eval().requires_grad_(False).to(device)
    return module.to(memory_format=torch.channels_last)


def find(module: nn.Module, name: str) -> Layer:
    """Find a layer's record."""
    table = trace_layers(module, Preprocess(256, 224, 3, MEAN, STD))
    return next(layer for layer in table.layers if layer.name == name)


def setting(device: str = "cpu") -> Setting:
    """Describe a run without images."""
    return Setting(MEAN, STD, 224, device=device)


def bare(
    cut: Cut, slope: Slope, images: Tensor, channels: Tensor, steps: int
) -> Callable[[], None]:
    """Make forward and backward passes of the cut network alone, in the loop's precision."""

    def run() -> None:
        with torch.autocast(
            images.device.type, slope.precision, enabled=slope.precision != torch.float32
        ):
            for _ in range(steps):
                inputs = images.detach().requires_grad_()
                own = cut(inputs)[range(len(inputs)), channels]
                torch.autograd.grad(own.sum(), inputs)

    return run


def loop_seconds(
    module: nn.Module,
    layer: Layer,
    recipe: Maximize,
    device: str = "cpu",
    *others: Callable[[], object],
) -> list[float]:
    """Time an image and step of the loop, of the cut network alone, and other work beside them.

    The network alone gets the recipe's batch; the loop gets what climbs together of it.
    """
    plain = deepcopy(module)  # the loop's own may have its order changed (`pooled_first`)
    with (
        climbing(module, layer, recipe, setting(device)) as slope,
        cut_after(plain, layer) as cut,
    ):
        together = batch_images(slope, device)
        climbers = [
            Climber(Origin(0, layer.name, number % layer.channels, 0, 0), None)
            for number in range(together)
        ]
        starts, placements = draw(slope, setting(device), climbers)
        aim = take_aim(slope, climbers, device)
        images = torch.randn(recipe.batch_size, 3, *slope.window, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        channels = torch.arange(recipe.batch_size, device=device) % layer.channels
        works = (
            lambda: ascend(slope, starts, placements, aim),
            bare(cut, slope, images, channels, recipe.steps),
            *others,
        )
        own, alone, *rest = (statistics.median(times) for times in alternate(works, ROUNDS))
    return [own / recipe.steps / together, alone / recipe.steps / recipe.batch_size, *rest]


def head(*columns: str) -> None:
    """Print the head of a table."""
    row(*columns)
    row(*["---"] * len(columns))


def row(*cells: object) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def loop() -> None:
    """Print the loop's cost against the cut network's at several batch sizes."""
    module = load("squeezenet1_1")
    head("layer", "batch", "bare, ms an image and step", "loop", "loop / best bare")
    for name in ("features.3", "features.7", "features.10", "features.12"):
        times = {}
        for size in (4, 8, 16, 32):
            recipe = Maximize(batch_size=size, steps=16, redirect_steps=0)
            own, alone = loop_seconds(module, find(module, name), recipe)
            times[size] = alone, own
        best = min(alone for alone, _ in times.values())
        for size, (alone, own) in times.items():
            row(name, size, f"{alone * 1e3:.2f}", f"{own * 1e3:.2f}", f"{own / best:.2f}")


def make_lucent() -> Path:
    """Make lucent's own environment, once; torch comes from this one."""
    python = LUCENT / "bin" / "python"
    if not python.exists():
        venv.create(LUCENT, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--no-deps", *LUCENT_PACKAGES], check=True
        )
        packages = next((LUCENT / "lib").glob("python*")) / "site-packages"
        own = Path(torch.__file__).parent.parent
        (packages / "borrowed.pth").write_text(f"{own}\n", encoding="utf-8")
    return python


def lucent_picture(number: int, size: str) -> tuple[float, np.ndarray]:
    """Let lucent draw a channel: its seconds and its picture."""
    script = Path(__file__).with_name("maximization_lucent.py")
    weights = SHARED / "weights" / "squeezenet1_1.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "picture.npy"
        done = subprocess.run(
            [make_lucent(), script, weights, str(number), size, out],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return float(done.stdout.split()[-1]), np.load(out)


def judge(slope: Slope, pixels: np.ndarray, number: int) -> float:
    """Measure a picture: mean over the map, transforms off."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    aim = take_aim(slope, [Climber(Origin(0, "", number, 0, 0), None)], "cpu")
    return float(measure(slope, image, aim)[0])


def steps_to(
    module: nn.Module, layer: Layer, numbers: Sequence[int], goals: Sequence[float]
) -> tuple[int, float]:
    """Find the fewest steps after which all channels of a batch are at their goals.

    Returns:
        Steps, and the seconds of that climb divided by the channels: start, steps and painting.
    """
    for steps in range(16, LUCENT_STEPS + 1, 8):
        recipe = Maximize(steps=steps, attempts=1)
        started = time.perf_counter()
        pictures = maximize_channels(module, layer, numbers, recipe, setting())
        spent = time.perf_counter() - started
        if all(p.activation >= goal for p, goal in zip(pictures, goals, strict=True)):
            return steps, spent / len(numbers)
    return LUCENT_STEPS, float("nan")


def speed(num_channels: int) -> None:
    """Print the time a channel to the activation that lucent ends with, alternating."""
    module = load("squeezenet1_1")
    layer = find(module, "features.10")
    batch = list(range(Maximize().batch_size))
    head("channel", "lucent at", "seconds", "activation", "our steps", "seconds", "shorter")
    for number in batch[:num_channels]:
        for size in ("128", "default"):
            spent, picture = lucent_picture(number, size)
            with climbing(module, layer, Maximize(), setting()) as slope:
                goal = judge(slope, picture, number)
            goals = [goal if other == number else -np.inf for other in batch]
            steps, own = steps_to(module, layer, batch, goals)
            times = f"{spent:.1f}", f"{goal:.0f}", steps, f"{own:.2f}", f"{spent / own:.0f}x"
            row(number, size, *times)


def seed_loop(name: str, size: int, steps: int) -> Callable[[], None]:
    """Make the seed's loop: one image, the whole network, a hook, nothing frozen."""
    module = torchvision.models.vgg16().eval()

    def run() -> None:
        seen: list[Tensor] = []
        hook = module.get_submodule(name).register_forward_hook(
            lambda _, __, out: seen.append(out)
        )
        image = torch.empty(1, 3, size, size).uniform_(-0.5, 0.5).requires_grad_()
        optimizer = torch.optim.Adam([image], lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            seen.clear()
            module(image)
            maps = seen[0][0, 0]
            target = torch.full_like(maps, maps.detach().max().item() ** 2)
            torch.autograd.backward(nn.functional.mse_loss(maps, target))
            optimizer.step()
        hook.remove()

    return run


def seed() -> None:
    """Print the seed's loop on VGG16 (random weights) against its recipe here at equal steps."""
    torch.manual_seed(0)
    own = frozen(torchvision.models.vgg16())
    head("layer", "size", "the seed's, ms a step", "its recipe here", "shorter")
    steps = 5
    total = np.zeros(2)
    for name, size in SEED_SIZES.items():
        layer = find(own, name)
        recipe = Maximize.model_validate({**SEED_RECIPE, "size": size, "steps": steps})
        theirs = apart(seed_loop, name, size, steps)
        spent, _, other = loop_seconds(own, layer, recipe, "cpu", theirs)
        other /= steps
        total += other, spent
        times = f"{other * 1e3:.1f}", f"{spent * 1e3:.1f}", f"{other / spent:.1f}x"
        row(name, size, *times)
    other, spent = total
    row("all five", "", f"{other * 1e3:.1f}", f"{spent * 1e3:.1f}", f"{other / spent:.1f}x")


def transfer(num_classes: int, names: Sequence[str], precision: str) -> None:
    """Print how many class pictures of squeezenet1_1 squeezenet1_0 recognizes."""
    writer, reader = load("squeezenet1_1"), load("squeezenet1_0")
    layer = find(writer, "classifier.3")
    classes = list(range(0, 1000, 1000 // num_classes))[:num_classes]
    head("recipe", "top-1", "top-5", "mean log probability", "seconds a class")
    for name in names or RECIPES:
        values = {"size": 224, "attempts": 1, "precision": precision, **RECIPES[name]}
        recipe = Maximize.model_validate(values)
        started = time.perf_counter()
        pictures = maximize_channels(writer, layer, classes, recipe, setting())
        spent = (time.perf_counter() - started) / num_classes
        one, five, log_probability = read(reader, pictures)
        row(name, f"{one:.2f}", f"{five:.2f}", f"{log_probability:.2f}", f"{spent:.1f}")


@torch.no_grad()
def read(reader: nn.Module, pictures: Sequence[Picture]) -> tuple[float, float, float]:
    """Let a network read class pictures: top-1, top-5, mean log probability of the class."""
    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    images = (pixels.permute(0, 3, 1, 2) / 255 - mean) / std
    logits = torch.cat([reader(part) for part in torch.split(images, 10)])
    wanted = torch.tensor([picture.channel for picture in pictures])[:, None]
    own = logits.gather(1, wanted)
    rank = (logits > own).sum(1)
    log_probability = logits.log_softmax(1).gather(1, wanted)
    return (
        float((rank == 0).float().mean()),
        float((rank < 5).float().mean()),
        float(log_probability.mean()),
    )


def statuses() -> None:
    """Print status counts of 8 channels of some layers, before and after statuses had a test.

    Before, a picture was live as soon as it was above its start. SqueezeNet has its weights and is
    held against photos too, the others have random weights and none; 64 pixels, 64 steps.
    """
    photos = sorted((SHARED / "data" / "photos").rglob("*.jpg"))[::20][:100]
    head("network", "layer", "live", "stuck", "dead", "above their start", "why not live")
    for name, layers in STATUS_LAYERS.items():
        torch.manual_seed(0)
        trained = name == "squeezenet1_1"
        module = load(name) if trained else frozen(getattr(torchvision.models, name)())
        for layer_name in layers:
            layer = find(module, layer_name)
            run = (
                replace(setting(), evidence=evidence_of(module, layer, photos))
                if trained
                else setting()
            )
            spread = max(1, layer.channels // 8)
            channels = range(0, layer.channels, spread)[:8]
            made = maximize_channels(module, layer, channels, Maximize(size=64, steps=64), run)
            found = [picture.status for picture in made]
            rose = sum(picture.activation > picture.start_activation for picture in made)
            counts = [found.count(status) for status in ("live", "stuck", "dead")]
            notes = {part.split(",")[0] for one in made for part in one.note.split("; ") if part}
            row(name, layer_name, *counts, rose, "; ".join(sorted(notes)))


@torch.no_grad()
def evidence_of(module: nn.Module, layer: Layer, photos: Sequence[Path]) -> Evidence:
    """Measure what some photos reach in a layer."""
    preprocess = Preprocess(256, 224, 3, MEAN, STD)
    means, peaks = [], []
    for path in photos:
        with Image.open(path) as image:
            pixels = np.asarray(preprocess.fit(image.convert("RGB")))[None]
        with cut_after(module, layer) as cut:
            maps = cut(preprocess.normalize(pixels, "cpu")).flatten(2)
        means.append(maps.mean(2)[0].numpy())
        peaks.append(maps.amax(2)[0].numpy())
    return Evidence(np.max(means, 0), np.max(peaks, 0) > 0, lowest=np.min(means, 0))


def gpu(batch: int) -> None:
    """Print channels a second for all convolutions of VGG16, random weights, 128 px, 128 steps."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    module = frozen(torchvision.models.vgg16(), device)
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)]
    total, bare_total, num_channels = 0.0, 0.0, 0
    print(f"on {device}, batches of {batch}")
    head("layer", "channels a second", "share of bare forward and backward")
    for name in names:
        layer = find(module, name)
        own, alone = loop_seconds(module, layer, Maximize(batch_size=batch), device)
        row(name, f"{1 / (own * 128):.1f}", f"{alone / own:.0%}")
        total += own * 128 * layer.channels
        bare_total += alone * 128 * layer.channels
        num_channels += layer.channels
    row(f"all {num_channels}", f"{num_channels / total:.1f}", f"{bare_total / total:.0%}")
    print(f"{total:.0f} s for all")


def main(arguments: Sequence[str]) -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "loop", "seed", "transfer", "statuses", "gpu"])
    parser.add_argument("--channels", type=int, default=4, help="speed: how many")
    parser.add_argument("--classes", type=int, default=50, help="transfer: how many")
    parser.add_argument("--recipes", nargs="*", default=[], choices=list(RECIPES), help="transfer")
    parser.add_argument("--precision", default="auto", help="transfer: of the climb")
    parser.add_argument("--batch", type=int, default=16, help="gpu: channels at a time")
    given = parser.parse_args(arguments)
    prepare_device("cuda:0" if torch.cuda.is_available() else "cpu", torch.get_num_threads())
    measurements: dict[str, Callable[[], None]] = {
        "speed": lambda: speed(given.channels),
        "loop": loop,
        "seed": seed,
        "transfer": lambda: transfer(given.classes, given.recipes, given.precision),
        "statuses": statuses,
        "gpu": lambda: gpu(given.batch),
    }
    measurements[given.what]()


if __name__ == "__main__":
    main(sys.argv[1:])
