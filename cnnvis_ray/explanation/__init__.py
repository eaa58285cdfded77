"""Explanation: heat maps, crops, cards and sheets of what networks see; plain torch, no Ray.

`Explainer` does units of a run. What is built from their rows takes tables and returns tables or
sheets: `build_cards`, `draw_card_sheets`, `summarize_heat`, `draw_class_heat`, `probe_rows`,
`compare_layers`; plots are in `explanation.plots`.
"""

from cnnvis_ray.explanation.aims import check_target, find_kind
from cnnvis_ray.explanation.cards import CARDS, build_cards, draw_card_sheets
from cnnvis_ray.explanation.classes import (
    PROBE,
    SELECTIVITY,
    ClassMeans,
    measure_classes,
    probe_rows,
)
from cnnvis_ray.explanation.comparison import CKA, Compared, compare_layers, gram
from cnnvis_ray.explanation.crops import CROPS, Exemplar, by_unit, chosen_channels
from cnnvis_ray.explanation.heat import (
    CLASS_MAPS,
    HeatSummary,
    draw_class_heat,
    draw_examples,
    heat_schema,
    summarize_heat,
)
from cnnvis_ray.explanation.methods import (
    METHODS,
    check_guided,
    check_methods,
    choose_methods,
    find_cam_layer,
)
from cnnvis_ray.explanation.tasks import (
    CropTask,
    ExplanationReport,
    ExplanationSetup,
    HeatTask,
    Wanted,
    decide_setup,
)
from cnnvis_ray.explanation.worker import Explainer

__all__ = [
    "CARDS",
    "CKA",
    "CLASS_MAPS",
    "CROPS",
    "METHODS",
    "PROBE",
    "SELECTIVITY",
    "ClassMeans",
    "Compared",
    "CropTask",
    "Exemplar",
    "Explainer",
    "ExplanationReport",
    "ExplanationSetup",
    "HeatSummary",
    "HeatTask",
    "Wanted",
    "build_cards",
    "by_unit",
    "check_guided",
    "check_methods",
    "check_target",
    "choose_methods",
    "chosen_channels",
    "compare_layers",
    "decide_setup",
    "draw_card_sheets",
    "draw_class_heat",
    "draw_examples",
    "find_cam_layer",
    "find_kind",
    "gram",
    "heat_schema",
    "measure_classes",
    "probe_rows",
    "summarize_heat",
]
