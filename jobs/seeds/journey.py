"""One image through seven networks: python jobs/seeds/journey.py [--set KEY=VALUE ...].

Each network is a run of jobs/seeds/journey.yaml; `cnnvis compare` then puts the sheets of an image
side by side. Weights: NAME.safetensors in the folder that CNNVIS_WEIGHTS names, else the published
ones, else random, and then the run is called NAME-random. A network whose weights cannot be had is
left out.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cnnvis_ray.cli import leave, main

RECIPE = Path(__file__).with_name("journey.yaml")
RUNS = Path("runs/seeds/journey")
# By name: the network, its first convolution, and whether its library publishes weights.
NETWORKS = {
    "alexnet": ("alexnet", "features.0", True),
    "vgg16": ("vgg16", "features.0", True),
    "resnet18": ("resnet18", "conv1", True),
    "resnet50": ("resnet50", "conv1", True),
    "senet": ("timm:seresnet50", "conv1", False),
    "unet": ("networks:unet", "down1.0", False),
    "control": ("networks:control", "features.0", False),
}


def choose_weights(name: str, published: bool) -> str:
    """Return the weights of a network: a file's, ``DEFAULT`` or ``random``."""
    file = Path(os.environ.get("CNNVIS_WEIGHTS", ".")) / f"{name}.safetensors"
    if file.is_file():
        return str(file.absolute())
    return "DEFAULT" if published else "random"


def travel(arguments: Sequence[str]) -> int:
    """Run every network and compare those that could be run; return the exit code."""
    done = []
    for name, (network, layer, published) in NETWORKS.items():
        asked = "network.weights=random" in arguments
        weights = "random" if asked else choose_weights(name, published)
        run = str(RUNS / (f"{name}-random" if weights == "random" else name))
        sets = [f"network.name={network}", f"network.weights={weights}", f"layers=[{layer}]"]
        given = [part for each in [*sets, f"run_dir={run}"] for part in ("--set", each)]
        if main(["run", "--config", str(RECIPE), *given, *arguments]) == 0:
            done.append(run)
    return main(["compare", *done]) if done else 2


if __name__ == "__main__":
    leave(travel(sys.argv[1:]))
