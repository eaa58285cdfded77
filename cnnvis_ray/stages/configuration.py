"""Where an invocation's configuration comes from, and where ``init`` writes the commented one."""

from collections.abc import Sequence
from pathlib import Path

from cnnvis_ray.config import Config, commented_config, load_config, parse_config
from cnnvis_ray.errors import RefusedError
from cnnvis_ray.storage import Store


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
    if not store.exists("config.yaml"):
        raise RefusedError(f"{run_dir!r} is no run: it holds no config.yaml; use --config FILE")
    return parse_config(store.read("config.yaml"), f"{run_dir}/config.yaml", sets, run_dir)


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
