"""Channel statistics: mergeable in any order, without storing an activation map."""

from cnnvis_ray.channels.statistics import (
    ImageResponses,
    Statistics,
    StatisticsBuilder,
    merge,
    merge_all,
    nothing,
)
from cnnvis_ray.channels.tables import from_table, merged_table, unit_table

__all__ = [
    "ImageResponses",
    "Statistics",
    "StatisticsBuilder",
    "from_table",
    "merge",
    "merge_all",
    "merged_table",
    "nothing",
    "unit_table",
]
