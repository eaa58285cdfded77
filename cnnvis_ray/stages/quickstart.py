"""The verb ``quickstart``: train on digits, then every stage and the report; needs no data."""

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cnnvis_ray.config import load_config
from cnnvis_ray.network.digits import train_digits
from cnnvis_ray.stages.run import run_verb
from cnnvis_ray.storage import Store

log = logging.getLogger(__name__)

SETTINGS = (
    "network.name=cnnvis_ray.network.digits:digits_vgg",
    "images.source=digits",
    "layers=[block1, block3, block4]",
    "maximize={size: 32, steps: 64, channels: '0:16'}",
)


def quickstart(run_dir: str, sets: Sequence[str], replace: Sequence[str] = ()) -> list[str]:
    """Train, unless the weights lie beside the run already, and run every stage.

    Args:
        run_dir: folder or URI.
        sets: settings over those of the quickstart.
        replace: stages whose work is done again.

    Returns:
        The last screen.

    Raises:
        IncompleteError: the network recognizes fewer than 97 % of the digits it did not see.
    """
    parent, _, name = run_dir.rstrip("/").rpartition("/")
    beside = Store(parent if parent or run_dir.startswith("/") else ".")
    weights = f"{name}-weights.safetensors"
    if not beside.exists(weights):
        log.info("training a small network on scikit-learn's handwritten digits")
        with tempfile.TemporaryDirectory(prefix="cnnvis-quickstart-") as folder:
            trained = Path(folder) / "weights.safetensors"
            accuracy = train_digits(str(trained))
            beside.write(weights, trained.read_bytes())
        log.info("it recognizes %.1f %% of the digits it did not see", 100 * accuracy)
    path = beside.path(weights) if beside.is_local else f"{parent}/{weights}"
    own = [*SETTINGS, f"network.weights={json.dumps(path.replace('${', '$${'))}"]
    config = load_config(None, [*own, *sets], run_dir)
    run_verb("run", config, replace)
    return run_verb("report", config)
