"""Extraction: images in, features, statistics, predictions and thumbnails out; without Ray."""

from cnnvis_ray.extraction.tasks import (
    ExtractionReport,
    ExtractionSetup,
    ExtractionTask,
    ImageDivider,
    batch_size,
    worker_bytes,
)
from cnnvis_ray.extraction.worker import Extractor

__all__ = [
    "ExtractionReport",
    "ExtractionSetup",
    "ExtractionTask",
    "Extractor",
    "ImageDivider",
    "batch_size",
    "worker_bytes",
]
