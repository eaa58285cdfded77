"""How fast and how good the pictures are, beside lucent, the seed's loop and lucid's settings.

    python benchmarks/maximization.py [SHARED] [PART ...] [--small]

    speed       time to lucent's end activation, features.10
    loop        the loop against bare forward and backward
    seed        the loop against the seed's, at equal steps
    transfer    class pictures read by another network, beside lucid's recipe
    statuses    live, stuck and dead by network and layer
    gpu         VGG16's 13 convolutions, channels per second; only where there is a GPU

Without a part all run; ``--small`` makes each so small that it shows only that it runs. SHARED
(default: ``CNNVIS_SHARED``, ../shared) has the weights and photos. Run on a quiet machine;
``OMP_NUM_THREADS`` decides the cores.

``transfer`` takes class sets that do not meet, ``--classes`` in each of ``--sets``, with 95 %
intervals (Wilson 1927). No network that reads a picture takes part in making it. The two
SqueezeNets are of one family, trained apart; what a stranger would see is approached by reading
the same pictures grey, blurred, smaller, cropped, farther away and under noise (`EDITS`).
"""

import argparse
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from peers import peer_python
from PIL import Image
from safetensors.torch import load_file
from timing import Figure, alternate, apart, compare, report
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur, rgb_to_grayscale

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
AREA = "maximization"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUCENT_STEPS = 512
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
# lucid's recipe: optvis/render.py (Adam's 0.05, 512 steps), optvis/transform.py, param/spatial.py
LUCID: dict[str, object] = {
    "objective": "logit",
    "transforms": "lucid",
    "learning_rate": 0.05,
    "betas": (0.9, 0.999),
    "steps": LUCENT_STEPS,
}
RECIPES: dict[str, dict[str, object]] = {
    "the default": {"objective": "class"},
    "lucid's recipe": LUCID,
    "lucid's recipe, 128 steps": {**LUCID, "steps": 128},
    "256 steps": {"objective": "class", "steps": 256},
    "the logit": {"objective": "logit"},
    "wide transforms": {
        "objective": "class",
        "transforms": {
            "pad": 11, "jitter": (14, 8), "scale": (0.6, 1.4), "rotate": 20, "flip": True,
        },
    },
}  # fmt: skip
PAIRS = (("squeezenet1_1", "squeezenet1_0"), ("squeezenet1_0", "squeezenet1_1"))
TRAINED = ("squeezenet1_0", "squeezenet1_1")
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
    "timm:vit_tiny_patch16_224": ("patch_embed.proj", "blocks.0", "blocks.5", "blocks.11", "norm"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked on the command line."""

    shared: Path
    small: bool
    channels: int
    classes: int
    sets: int
    recipes: tuple[str, ...]
    batch: int

    @property
    def rounds(self) -> int:
        """How often each side of a comparison runs."""
        return 1 if self.small else 5


def load(name: str, shared: Path) -> nn.Module:
    """Build a network: with the shared weights where there are some, else with random ones."""
    torch.manual_seed(0)
    if name.startswith("timm:"):
        return frozen(timm.create_model(name.removeprefix("timm:"), pretrained=False))
    module: nn.Module = getattr(torchvision.models, name)()
    if name in TRAINED:
        module.load_state_dict(load_file(shared / "weights" / f"{name}.safetensors"))
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
    rounds: int,
    device: str = "cpu",
    *others: Callable[[], object],
) -> list[list[float]]:
    """Time an image and step of the loop, of the cut network alone, and other work beside them.

    The network alone gets the recipe's batch; the loop gets what climbs together of it.

    Returns:
        Seconds in each round: the loop's and the network's per image and step, then of others.
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
        own, alone, *rest = alternate(works, rounds)
    return [
        [seconds / recipe.steps / together for seconds in own],
        [seconds / recipe.steps / recipe.batch_size for seconds in alone],
        *rest,
    ]


def loop(options: Options) -> None:
    """Compare the loop at the default batch with the cut network's best batch, layer by layer."""
    module = load("squeezenet1_1", options.shared)
    layers = ["features.3", "features.7", "features.10", "features.12"]
    sizes, steps, goal = [16, 4, 8, 32], 16, "<= 1.1"
    if options.small:
        layers, sizes, steps, goal = layers[:1], [4], 2, ""
    for name in layers:
        times = {}
        for size in sizes:
            recipe = Maximize(batch_size=size, steps=steps, redirect_steps=0)
            times[size] = loop_seconds(module, find(module, name), recipe, options.rounds)
        own, _ = times[sizes[0]]
        best = min((alone for _, alone in times.values()), key=statistics.median)
        what = f"the loop at {name} of SqueezeNet 1.1, 128 px, an image and step"
        compare(AREA, what, "bare forward and backward", (own, best), goal=goal)


def lucent_picture(python: Path, shared: Path, number: int, size: str) -> tuple[float, np.ndarray]:
    """Let lucent draw a channel: its seconds and its picture."""
    script = Path(__file__).with_name("maximization_lucent.py")
    weights = shared / "weights" / "squeezenet1_1.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "picture.npy"
        done = subprocess.run(
            [python, script, weights, str(number), size, out],
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


def speed(options: Options) -> None:
    """Compare the time per channel to the activation that lucent ends with."""
    python = "left out of --small" if options.small else peer_python("lucent")
    what = "a channel of features.10 of SqueezeNet 1.1 to lucent's end activation"
    if isinstance(python, str):
        report(Figure(AREA, what, "lucent, 512 steps", None, None, note=python))
        return
    module = load("squeezenet1_1", options.shared)
    layer = find(module, "features.10")
    batch = list(range(Maximize().batch_size))
    for number in batch[: options.channels]:
        for size in ("128", "default"):
            spent, picture = lucent_picture(python, options.shared, number, size)
            with climbing(module, layer, Maximize(), setting()) as slope:
                goal = judge(slope, picture, number)
            goals = [goal if other == number else -np.inf for other in batch]
            steps, own = steps_to(module, layer, batch, goals)
            note = f"channel {number}, lucent at size {size}: {goal:.0f}, here in {steps} steps"
            report(Figure(AREA, what, "lucent, 512 steps", own, spent, goal="<= 0.1", note=note))


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


def seed(options: Options) -> None:
    """Compare the seed's loop on VGG16 (random weights) with its recipe here at equal steps."""
    torch.manual_seed(0)
    own = frozen(torchvision.models.vgg16())
    steps = 2 if options.small else 5
    sizes = list(SEED_SIZES.items())[: 1 if options.small else None]
    total = np.zeros((2, options.rounds))
    for name, size in sizes:
        recipe = Maximize.model_validate({**SEED_RECIPE, "size": size, "steps": steps})
        theirs = apart(seed_loop, name, size, steps)
        spent, _, other = loop_seconds(own, find(own, name), recipe, options.rounds, "cpu", theirs)
        sides = np.array([spent, np.array(other) / steps])
        total += sides
        what = f"a step of the seed's recipe, {name} of VGG16, {size} px"
        compare(AREA, what, "the seed's loop", sides.tolist())
    what = f"a step of the seed's recipe, {len(sizes)} layers of VGG16"
    compare(AREA, what, "the seed's loop", total.tolist())


def transfer(options: Options) -> None:
    """Report how many class pictures of one SqueezeNet the other recognizes, by recipe."""
    pairs = PAIRS[:1] if options.small else PAIRS
    small = {"size": 64, "steps": 4} if options.small else {}
    for writer_name, reader_name in pairs:
        writer, reader = (load(name, options.shared) for name in (writer_name, reader_name))
        layer = find(writer, "classifier.3")
        theirs: Reading | None = None
        names = ["lucid's recipe", *(name for name in options.recipes if name != "lucid's recipe")]
        for name in names:
            values = {"size": 224, "attempts": 1, "precision": "float32", **RECIPES[name], **small}
            recipe = Maximize.model_validate(values)
            started = time.process_time()
            pictures = maximize_channels(writer, layer, class_sets(options), recipe, setting())
            spent = (time.process_time() - started) / len(pictures)
            ours = read(reader, pictures, options.sets)
            what = f"class pictures of {writer_name} read by {reader_name}, {name}"
            report_reading(what, ours, theirs)
            report(Figure(AREA, f"{what}, a class", "none", spent, None, "CPU s"))
            theirs = theirs or ours


def class_sets(options: Options) -> list[int]:
    """List the classes of all sets, one set after the other; no class is in two of them."""
    spacing = 1000 // options.classes
    starts = [number * spacing // options.sets for number in range(options.sets)]
    return [start + spacing * step for start in starts for step in range(options.classes)]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a network read pictures.

    Attributes:
        ranks: by edit, the rank of each picture's own class, 0 for the first.
        sets: how many class sets follow one another.
    """

    ranks: dict[str, np.ndarray]
    sets: int


@torch.no_grad()
def read(reader: nn.Module, pictures: Sequence[Picture], sets: int) -> Reading:
    """Let a network read class pictures, as they are and edited."""
    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    images = pixels.permute(0, 3, 1, 2) / 255
    wanted = torch.tensor([picture.channel for picture in pictures])[:, None]
    ranks = {}
    for name, edit in EDITS.items():
        seen = (edit(images) - mean) / std
        logits = torch.cat([reader(part) for part in torch.split(seen, 10)])
        ranks[name] = (logits > logits.gather(1, wanted)).sum(1).numpy()
    return Reading(ranks, sets)


def smaller(images: Tensor, share: float) -> Tensor:
    """Resize to a share of both sides."""
    sides = [round(side * share) for side in images.shape[2:]]
    return functional.interpolate(images, sides, mode="bilinear", antialias=True)


def farther(images: Tensor) -> Tensor:
    """Shrink to two thirds within a grey border."""
    inner = smaller(images, 2 / 3)
    before = (images.shape[2] - inner.shape[2]) // 2
    after = images.shape[2] - inner.shape[2] - before
    return functional.pad(inner, (before, after, before, after), value=0.5)


def noisy(images: Tensor) -> Tensor:
    """Add noise of a tenth of the range."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 0.1 * noise).clamp(0, 1)


def cropped(images: Tensor) -> Tensor:
    """Enlarge the middle 70 % of both sides."""
    edge = round(images.shape[2] * 0.15)
    return functional.interpolate(
        images[:, :, edge:-edge, edge:-edge], images.shape[2:], mode="bilinear"
    )


# what a reader of another family would be troubled by; the first is the picture as it is
EDITS: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda images: images,
    "grey": lambda images: rgb_to_grayscale(images, 3),
    "blurred": lambda images: gaussian_blur(images, [13, 13], [3.0, 3.0]),
    "smaller": lambda images: smaller(smaller(images, 3 / 7), 7 / 3),
    "cropped": cropped,
    "farther": farther,
    "noisy": noisy,
}


def report_reading(what: str, ours: Reading, theirs: Reading | None) -> None:
    """Report shares of pictures read as their class, with intervals, beside lucid's recipe."""
    plain, *edited = EDITS
    for said, names in (("as they are", [plain]), ("edited, six ways", edited)):
        for top in (1, 5):
            own = [ours.ranks[name] < top for name in names]
            other = None if theirs is None else [theirs.ranks[name] < top for name in names]
            each = [np.mean(part) for part in np.array_split(np.mean(own, 0), ours.sets)]
            low, high = wilson(float(np.mean(own)), ours.ranks[plain].size)
            shares = ", ".join(f"{share:.2f}" for share in each)
            note = f"95 % {low:.2f} to {high:.2f}; sets {shares}"
            report(
                Figure(
                    AREA,
                    f"{what}, {said}, top-{top} of {ours.ranks[plain].size}",
                    "lucid's recipe",
                    round(float(np.mean(own)), 2),
                    None if other is None else round(float(np.mean(other)), 2),
                    "share",
                    note=note,
                )
            )


def wilson(share: float, count: int, deviations: float = 1.96) -> tuple[float, float]:
    """Return the bounds between which a share lies, 95 % sure; edits of one picture count once."""
    square = deviations**2 / count
    middle = (share + square / 2) / (1 + square)
    half = (
        deviations * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    )
    return middle - half, middle + half


def statuses(options: Options) -> None:
    """Report status counts of 8 channels of some layers.

    SqueezeNet has its weights and is held against photos too, the others have random weights and
    none. 64 pixels where the network takes them, 64 steps.
    """
    photos = sorted((options.shared / "data" / "photos").rglob("*.jpg"))[::20][:100]
    for name, layers in STATUS_LAYERS.items():
        module = load(name, options.shared)
        side = 224 if "vit" in name else 64
        steps = 24 if options.small else 64
        for layer_name in layers[1 : 2 if options.small else None]:
            layer = find(module, layer_name)
            run = setting()
            if name in TRAINED:
                own = photos[: 4 if options.small else None]
                run = replace(run, evidence=evidence_of(module, layer, own))
            count = 2 if options.small else 8
            channels = range(0, layer.channels, max(1, layer.channels // count))[:count]
            recipe = Maximize(size=side, steps=steps, batch_size=count, attempts=3)
            made = maximize_channels(module, layer, channels, recipe, run)
            found = [picture.status for picture in made]
            others = [f"{found.count(status)} {status}" for status in ("stuck", "dead")]
            rose = sum(picture.activation > picture.start_activation for picture in made)
            notes = {part.split(",")[0] for one in made for part in one.note.split("; ") if part}
            report(
                Figure(
                    AREA,
                    f"live channels of {layer_name} of {name}, {side} px",
                    "channels asked",
                    found.count("live"),
                    len(made),
                    "channels",
                    note="; ".join([*others, f"{rose} above their start", *sorted(notes)]),
                )
            )


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


def gpu(options: Options) -> None:
    """Compare channels per second at VGG16's convolutions, random weights, 128 px, 128 steps."""
    what = "channels of all convolutions of VGG16"
    if not torch.cuda.is_available():
        report(Figure(AREA, what, "bare forward and backward", None, None, note="no GPU here"))
        return
    torch.manual_seed(0)
    module = frozen(torchvision.models.vgg16(), "cuda")
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)]
    total = np.zeros((2, options.rounds))
    for name in names:
        layer = find(module, name)
        recipe = Maximize(batch_size=options.batch)
        sides = loop_seconds(module, layer, recipe, options.rounds, "cuda")
        total += np.array(sides) * recipe.steps * layer.channels
        where = f"{name} of VGG16, batches of {options.batch}, an image and step"
        compare(AREA, where, "bare forward and backward", sides)
    compare(
        AREA, f"{what}, batches of {options.batch}", "bare forward and backward", total.tolist()
    )


PARTS: dict[str, Callable[[Options], None]] = {
    "speed": speed,
    "loop": loop,
    "seed": seed,
    "transfer": transfer,
    "statuses": statuses,
    "gpu": gpu,
}


def main() -> None:
    """Run the asked measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("given", nargs="*", metavar="SHARED|PART", help=", ".join(PARTS))
    parser.add_argument("--small", action="store_true", help="everything, in about a minute")
    parser.add_argument("--channels", type=int, default=4, help="speed: how many")
    parser.add_argument("--classes", type=int, default=50, help="transfer: how many in a set")
    parser.add_argument("--sets", type=int, default=1, help="transfer: how many")
    parser.add_argument(
        "--recipes", nargs="*", default=["the default"], choices=RECIPES, help="transfer"
    )
    parser.add_argument("--batch", type=int, default=16, help="gpu: channels at a time")
    given = parser.parse_args()
    folders = [Path(each) for each in given.given if each not in PARTS]
    options = Options(
        folders[0] if folders else SHARED,
        given.small,
        given.channels,
        2 if given.small else given.classes,
        1 if given.small else given.sets,
        tuple(given.recipes),
        given.batch,
    )
    prepare_device("cuda:0" if torch.cuda.is_available() else "cpu", torch.get_num_threads())
    for name in [each for each in given.given if each in PARTS] or PARTS:
        PARTS[name](options)


if __name__ == "__main__":
    main()
