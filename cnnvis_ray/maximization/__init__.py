"""Activation maximization: what an image must look like to excite a channel.

    parameters -> parametrization -> image in [0, 1] -> transforms -> preprocess -> cut network
    -> activation -> objective

`maximize_channels` makes pictures of channels of one layer, `check_recipe` refuses beforehand what
cannot work. Four nouns are orthogonal, three of them literal dicts: `OBJECTIVES`,
`PARAMETRIZATIONS`, `TRANSFORMS`, and the layer to cut after. `Maximizer` does this for units of a
run, `join_pictures` and `draw_catalogue` bring their rows together.
"""

from cnnvis_ray.maximization.catalogue import describe_recipe, draw_catalogue, join_pictures
from cnnvis_ray.maximization.checks import (
    check_names,
    check_recipe,
    resolve_precision,
    select_channels,
)
from cnnvis_ray.maximization.maximizing import maximize_channels
from cnnvis_ray.maximization.objectives import OBJECTIVES, is_comparable
from cnnvis_ray.maximization.parametrizations import PARAMETRIZATIONS
from cnnvis_ray.maximization.records import Evidence, Picture, Setting, StartImage
from cnnvis_ray.maximization.spectrum import SpectrumSum, measure_spectrum
from cnnvis_ray.maximization.transforms import TRANSFORMS
from cnnvis_ray.maximization.worker import (
    PICTURES,
    ImageEvidence,
    MaximizationReport,
    MaximizationTask,
    Maximizer,
    MaximizerSetup,
)

__all__ = [
    "OBJECTIVES",
    "PARAMETRIZATIONS",
    "PICTURES",
    "TRANSFORMS",
    "Evidence",
    "ImageEvidence",
    "MaximizationReport",
    "MaximizationTask",
    "Maximizer",
    "MaximizerSetup",
    "Picture",
    "Setting",
    "SpectrumSum",
    "StartImage",
    "check_names",
    "check_recipe",
    "describe_recipe",
    "draw_catalogue",
    "is_comparable",
    "join_pictures",
    "maximize_channels",
    "measure_spectrum",
    "resolve_precision",
    "select_channels",
]
