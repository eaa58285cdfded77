"""Where an invocation's configuration comes from, and where ``init`` writes the commented one."""

import json
from collections.abc import Sequence
from pathlib import Path

from cnnvis_ray.config import Config, commented_config, load_config, parse_config
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.storage import Store

CONFIG = "config.yaml"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def configured(run_dir: str | None, path: str | None, sets: Sequence[str]) -> Config:
    """Read the configuration of an invocation: a file's, or a run directory's own.

    Raises:
        RefusedError: neither or both were given, or the configuration is not allowed.
    """
    if run_dir is not None and path is not None:
        raise RefusedError(
            f"given both the run {run_dir!r} and --config {path!r}: give one of them"
        )
    if path is not None:
        return load_config(path, sets)
    if run_dir is None:
        raise RefusedError(
            "give --config FILE (cnnvis init writes one) or a run directory, or start with: "
            "cnnvis quickstart"
        )
    store = Store(run_dir)
    if store.exists(CONFIG):
        return parse_config(store.read(CONFIG), f"{run_dir}/{CONFIG}", sets, run_dir)
    if is_image_folder(run_dir):
        return configure_folder(run_dir, sets)
    raise RefusedError(
        f"{run_dir!r} is neither a run (it has no {CONFIG}) nor a folder of images; use --config "
        "FILE, which cnnvis init writes"
    )


def is_image_folder(path: str) -> bool:
    """Whether a path is a folder with images in it or in a sub-folder."""
    folder = Path(path)
    if not folder.is_dir() or (folder / "run.json").exists():
        return False
    return any(
        each.suffix.lower() in SUFFIXES
        for depth in ("*", "*/*", "*/*/*")
        for each in folder.glob(depth)
    )


def configure_folder(path: str, sets: Sequence[str]) -> Config:
    """Return the configuration of a first run over a folder of photos.

    All stages, with pictures of 16 channels per layer; more are added at their own cost. The
    network is resnet50 unless a setting names another; the run is ``runs/NAME`` of the folder.
    """
    source = str(Path(path).absolute()).replace("${", "$${")
    own = [
        f"images.source={json.dumps(source)}",
        "stages=[extract, reduce, mosaic, maximize, explain, report]",
        "maximize.channels='0:16'",
        "network.name=resnet50",
    ]
    if not any(setting.startswith("network") for setting in sets):
        own.append("layers=[layer1, layer4]")
    return load_config(None, [*own, *sets], str(Path("runs") / Path(path).absolute().name))


def write_commented(path: str) -> None:
    """Write the commented configuration; an existing file stays as it is.

    Raises:
        RefusedError: the file exists.
    """
    target = Path(path)
    if target.exists():
        raise RefusedError(f"{path!r} exists: give another name, like cnnvis init mine.yaml")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(commented_config(), encoding="utf-8")
