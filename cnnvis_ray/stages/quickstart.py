"""The verb ``quickstart``: train the digits network, then every stage, without data or network."""

import logging
from collections.abc import Sequence
from pathlib import Path

from cnnvis_ray.config import load_config
from cnnvis_ray.network.digits import train_digits
from cnnvis_ray.stages.run import run_verb

log = logging.getLogger(__name__)

NETWORK = "cnnvis_ray.network.digits:digits_vgg"
LAYERS = "[block1, block3, block4]"


def quickstart(run_dir: str, sets: Sequence[str], replace: Sequence[str] = ()) -> list[str]:
    """Train, unless the weights lie beside the run already, and run every stage.

    Returns:
        The last screen.

    Raises:
        IncompleteError: the network recognizes fewer than 97 % of the digits it did not see.
    """
    weights = Path(f"{run_dir.rstrip('/')}-weights.safetensors")
    if not weights.exists():
        weights.parent.mkdir(parents=True, exist_ok=True)
        log.info("training a small network on scikit-learn's handwritten digits")
        accuracy = train_digits(str(weights))
        log.info("it recognizes %.1f %% of the digits it did not see", 100 * accuracy)
    own = [
        f"network.name={NETWORK}",
        f"network.weights={weights}",
        "images.source=digits",
        f"layers={LAYERS}",
        "maximize={size: 32, steps: 64, channels: '0:16'}",
    ]
    return run_verb("run", load_config(None, [*own, *sets], run_dir), replace)
