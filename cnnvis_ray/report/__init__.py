"""The report: a whole run as one folder of pages that open by double click."""

from cnnvis_ray.report.layers import Inputs
from cnnvis_ray.report.pieces import Part
from cnnvis_ray.report.planning import Options, plan_report
from cnnvis_ray.report.site import Maker, Written, write_report

__all__ = ["Inputs", "Maker", "Options", "Part", "Written", "plan_report", "write_report"]
