"""What changed in a night, and what is wrong with a data set: plain computation, no torch, no Ray.

A `place` stage reads features pooled by mean (the channels' means of every image) and calls

1. ``rows = draw_reference(N, seed)``; ``compare_night({layer: reference[rows]}, {layer: night})``
   -> `Drift`, whose ``drift_fields`` are the top of changes.json;
2. ``find_neighbours(reference_pca, night_pca)`` (or an index's answer as `Neighbours`), then
   ``place_images(positions, neighbours)`` and ``judge_placement(...)``;
3. ``find_novelty(reference_fifth_distances, neighbours.distances[:, 4])``, ``find_known``,
   ``compare_classes``, ``compare_confidence``, ``compare_cells(positions, placed)``, and
   ``find_new_tops(layer, ...)`` of each layer;
4. ``collect_trends(documents of all nights)``;
5. what `pages` and `plots` draw, to be written as PNG.

An `audit` stage calls

1. ``directions = standardize(features)``, ``neighbours = nearest_rows(directions)`` (or the run's
   kept neighbours as rows, -1 for a missing one);
2. ``images = Images(image_ids, keys, labels, thumbnails)``;
3. ``find_duplicates(images, directions, neighbours)``, ``find_suspects(images, features,
   neighbours, seed)``, ``find_outliers(images, fifth_distances(features))``,
   ``find_broken_classes(images, features, neighbours)``: tables to be written as Parquet;
4. `draw_duplicates`, `draw_suspects`, `draw_outliers`, `draw_broken_classes`; a picture is `None`
   where there is nothing to show.
"""

from cnnvis_ray.monitoring.calibration import draw_reference
from cnnvis_ray.monitoring.doctor import (
    BROKEN_CLASSES,
    OUTLIERS,
    fifth_distances,
    find_broken_classes,
    find_outliers,
)
from cnnvis_ray.monitoring.drift import (
    MOVED_CHANNELS,
    Drift,
    LayerDrift,
    MovedChannel,
    compare_night,
    drift_fields,
    not_judged,
)
from cnnvis_ray.monitoring.duplicates import (
    DUPLICATES,
    KNOWN_DUPLICATES,
    Images,
    find_duplicates,
    find_known,
    nearest_rows,
    split_of,
    standardize,
)
from cnnvis_ray.monitoring.novelty import (
    CELL_CHANGES,
    CLASS_CHANGES,
    NEW_TOPS,
    NOVEL_IMAGES,
    CellChange,
    ClassCounts,
    NewTop,
    Novelty,
    class_fields,
    collect_trends,
    compare_cells,
    compare_classes,
    compare_confidence,
    expected_new_tops,
    find_new_tops,
    find_novelty,
    novelty_fields,
    novelty_rows,
)
from cnnvis_ray.monitoring.pages import (
    ChannelCrops,
    draw_broken_classes,
    draw_channels,
    draw_duplicates,
    draw_known,
    draw_outliers,
    draw_strangest,
    draw_suspects,
    draw_tops,
)
from cnnvis_ray.monitoring.placement import (
    Neighbours,
    PlacementQuality,
    find_neighbours,
    judge_placement,
    place_images,
)
from cnnvis_ray.monitoring.plots import draw_cells, draw_classes, draw_trends
from cnnvis_ray.monitoring.suspects import SUSPECTS, LabelCalibration, find_suspects

__all__ = [
    "BROKEN_CLASSES",
    "CELL_CHANGES",
    "CLASS_CHANGES",
    "DUPLICATES",
    "KNOWN_DUPLICATES",
    "MOVED_CHANNELS",
    "NEW_TOPS",
    "NOVEL_IMAGES",
    "OUTLIERS",
    "SUSPECTS",
    "CellChange",
    "ChannelCrops",
    "ClassCounts",
    "Drift",
    "Images",
    "LabelCalibration",
    "LayerDrift",
    "MovedChannel",
    "Neighbours",
    "NewTop",
    "Novelty",
    "PlacementQuality",
    "class_fields",
    "collect_trends",
    "compare_cells",
    "compare_classes",
    "compare_confidence",
    "compare_night",
    "draw_broken_classes",
    "draw_cells",
    "draw_channels",
    "draw_classes",
    "draw_duplicates",
    "draw_known",
    "draw_outliers",
    "draw_reference",
    "draw_strangest",
    "draw_suspects",
    "draw_tops",
    "draw_trends",
    "drift_fields",
    "expected_new_tops",
    "fifth_distances",
    "find_broken_classes",
    "find_duplicates",
    "find_known",
    "find_neighbours",
    "find_new_tops",
    "find_novelty",
    "find_outliers",
    "find_suspects",
    "judge_placement",
    "nearest_rows",
    "not_judged",
    "novelty_fields",
    "novelty_rows",
    "place_images",
    "split_of",
    "standardize",
]
