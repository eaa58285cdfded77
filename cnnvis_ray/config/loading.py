"""Reading a configuration: YAML 1.2, ``--set key=value``, ``${NAME}`` from the environment.

All faults are refused at once, one per line.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from cnnvis_ray.config.explanation import Explain, Pictures
from cnnvis_ray.config.faults import describe_faults
from cnnvis_ray.config.maximization import Maximize
from cnnvis_ray.config.sections import (
    Cluster,
    Extract,
    Images,
    Mosaic,
    Network,
    Place,
    Reduce,
    Report,
    Section,
)
from cnnvis_ray.config.values import Seed, Text
from cnnvis_ray.config.yaml_text import read_yaml, write_yaml
from cnnvis_ray.errors import Refusals, RefusedError

VARIABLE = re.compile(r"\$\$(?=\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

Tree = dict[str, object]


class Config(Section):
    """The configuration of a run, frozen."""

    run_dir: Text = Field(
        default="runs/quickstart",
        description="folder of the run, or s3://bucket/prefix, gs://bucket/prefix",
    )
    seed: Seed = Field(default=0, description="of everything that is drawn at random")
    images: Images = Images()
    network: Network = Network()
    layers: list[Text] = Field(
        default=["all"],
        min_length=1,
        description="names, aliases, globs, or all: see cnnvis layers NETWORK",
    )
    extract: Extract = Extract()
    maximize: Maximize = Maximize()
    explain: Explain = Explain()
    pictures: Pictures = Pictures()
    reduce: Reduce = Reduce()
    mosaic: Mosaic = Mosaic()
    report: Report = Report()
    place: Place = Place()
    cluster: Cluster = Cluster()


def load_config(path: str | None, sets: Sequence[str] = (), run_dir: str | None = None) -> Config:
    """Read a configuration file (or the defaults) and lay ``key=value`` settings over it.

    Args:
        path: of a YAML file.
        sets: settings laid over it.
        run_dir: the run directory, taken as it is: a path is neither YAML nor expanded.

    Raises:
        RefusedError: the file is missing or not a YAML mapping, a variable is not set, or any key
            or value is not allowed; all of them, one per line.
    """
    return parse_config(b"" if path is None else read_file(path), str(path), sets, run_dir)


def parse_config(
    text: str | bytes, origin: str, sets: Sequence[str] = (), run_dir: str | None = None
) -> Config:
    """Read a configuration's text, as `load_config` does.

    Args:
        text: YAML; bytes are UTF-8.
        origin: what to call it in a refusal.
        sets: settings laid over it.
        run_dir: the run directory, taken as it is.
    """
    tree = parse_tree(text, origin)
    refusals = Refusals()
    for setting in sets:
        with refusals.gather():
            lay_over(tree, setting)
    faults: dict[str, str] = {}
    tree.update({"run_dir": None} if run_dir is not None else {})
    expanded = expand(tree, "", faults)
    assert isinstance(expanded, dict)
    expanded.update({"run_dir": run_dir} if run_dir is not None else {})
    config = None
    try:
        config = Config.model_validate(expanded)
    except ValidationError as invalid:
        faults = describe_faults(invalid, Config) | faults
    refusals.messages.extend(" ".join(line.split()) for line in faults.values())
    refusals.raise_all()
    assert config is not None
    return config


def dump_config(config: Config) -> str:
    """Return a configuration as YAML that `load_config` reads back to the same record."""
    return write_yaml(protect(config.model_dump(mode="json")))


def read_file(path: str) -> bytes:
    """Return a configuration file's bytes."""
    try:
        return Path(path).read_bytes()
    except OSError as failure:
        raise RefusedError(
            f"cannot read configuration {path!r}: {failure.strerror}; "
            "write one with: cnnvis init FILE"
        ) from None


def parse_tree(text: str | bytes, origin: str) -> Tree:
    """Read YAML whose top is a mapping."""
    try:
        tree = read_yaml(text)
    except ValueError as failure:
        raise RefusedError(f"configuration {origin!r} is not YAML: {failure}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise RefusedError(
            f"configuration {origin!r} has no sections; write some, like images: {{limit: 100}}"
        )
    return tree


def lay_over(tree: Tree, setting: str) -> None:
    """Set one dotted key; the value is read as YAML, so lists and null work."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise RefusedError(f"--set {setting!r} is not KEY=VALUE, like extract.batch_size=16")
    try:
        value = read_yaml(os.fsencode(text))
    except ValueError as failure:
        raise RefusedError(f"--set {key}: {text!r} is not YAML: {failure}") from None
    *sections, last = key.split(".")
    for section in sections:
        below = tree.get(section, {})
        if not isinstance(below, dict):
            raise RefusedError(f"--set {key}: {section} is a value and has no keys below it")
        tree[section] = tree = dict(below)  # a copy: an alias may share it with another key
    tree[last] = value


def expand(value: object, key: str, faults: dict[str, str]) -> object:
    """Replace ``${NAME}`` in every text by the environment's value, and ``$${`` by ``${``."""
    if isinstance(value, dict):
        return {
            name: expand(below, f"{key}.{name}".lstrip("."), faults)
            for name, below in value.items()
        }
    if isinstance(value, list):
        return [expand(below, f"{key}.{index}", faults) for index, below in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        if name not in os.environ:
            faults[key] = (
                f"{key}: ${{{name}}} is not set in the environment; export it, "
                f"or write $${{{name}}} for the text itself"
            )
        return os.environ.get(name, match[0])

    return VARIABLE.sub(replace, value)


def protect(value: object) -> object:
    """Return a value in which no text is expanded when it is read again."""
    if isinstance(value, dict):
        return {name: protect(below) for name, below in value.items()}
    if isinstance(value, list):
        return [protect(below) for below in value]
    return value.replace("${", "$${") if isinstance(value, str) else value
