"""The configuration that ``cnnvis init`` writes: every key, its default and what it means."""

import textwrap

from pydantic.fields import FieldInfo

from cnnvis_ray.config.loading import Config
from cnnvis_ray.config.sections import Section
from cnnvis_ray.config.yaml_text import write_yaml

HEAD = """\
# A configuration of cnnvis with every key and its default. Keys left out keep these values, and
# each can be set on the command line: --set extract.pooling=max. ${NAME} in a value is taken from
# the environment; $${NAME} is the text itself.
"""
# What people change: these sections, and these keys of a section, come first.
ON_TOP = (
    "run_dir", "images", "network", "layers",
    "source", "labels", "limit", "name", "weights", "pooling", "channels", "objective", "size",
    "workers", "deadline",
)  # fmt: skip
INDENT = 34  # column of the comments
WIDTH = 99


def commented_config() -> str:
    """Return a configuration as text: valid YAML that loads to the defaults, with comments."""
    config = Config()
    blocks = [HEAD]
    for name, field in in_order(Config):
        value = getattr(config, name)
        if not isinstance(value, Section):
            blocks.append(write_key(name, field, value))
            continue
        title = (type(value).__doc__ or "").splitlines()[0]
        lines = [
            write_key(f"  {key}", below, getattr(value, key))
            for key, below in in_order(type(value))
        ]
        blocks.append(f"# {title}\n{name}:\n" + "".join(lines))
    return "\n".join(blocks)


def in_order(section: type[Section]) -> list[tuple[str, FieldInfo]]:
    """Return a section's keys, those that people change first."""
    rank = {key: number for number, key in enumerate(ON_TOP)}
    return sorted(section.model_fields.items(), key=lambda pair: rank.get(pair[0], len(rank)))


def write_key(key: str, field: FieldInfo, value: object) -> str:
    """Return a key's lines: its default, and its description as a comment beside and below."""
    given = f"{key}: {write_yaml(list(value) if isinstance(value, tuple) else value, flow=True)}"
    comment = textwrap.wrap(field.description or "", WIDTH - INDENT - 2)
    lines = [given]
    if comment and len(given) <= INDENT - 2:
        lines = [f"{given:<{INDENT - 2}}  # {comment.pop(0)}"]
    lines += [" " * INDENT + f"# {line}" for line in comment]
    return "\n".join(lines) + "\n"
