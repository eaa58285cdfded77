"""One frozen configuration goes in: its sections, and how it is read from YAML and ``--set``."""

from cnnvis_ray.config.commented import commented_config
from cnnvis_ray.config.explanation import Explain, Pictures
from cnnvis_ray.config.loading import Config, dump_config, load_config, parse_config
from cnnvis_ray.config.maximization import Maximize
from cnnvis_ray.config.sections import (
    Cluster,
    Extract,
    Images,
    Mosaic,
    Network,
    Place,
    PreprocessValues,
    Reduce,
    Report,
    Section,
    recipe_of,
)
from cnnvis_ray.config.values import Channels, check_name, parse_range
from cnnvis_ray.config.yaml_text import read_yaml

__all__ = [
    "Channels",
    "Cluster",
    "Config",
    "Explain",
    "Extract",
    "Images",
    "Maximize",
    "Mosaic",
    "Network",
    "Pictures",
    "Place",
    "PreprocessValues",
    "Reduce",
    "Report",
    "Section",
    "check_name",
    "commented_config",
    "dump_config",
    "load_config",
    "parse_config",
    "parse_range",
    "read_yaml",
    "recipe_of",
]
