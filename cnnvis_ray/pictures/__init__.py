"""Pictures of many images: mosaics of an embedding and labelled contact sheets. No torch."""

from cnnvis_ray.pictures.colours import ClassColours, Rgb, check_background, class_colours
from cnnvis_ray.pictures.drawing import Sheet, encode_png, stack, write_sheet
from cnnvis_ray.pictures.layouts import (
    grid_places,
    grid_quality,
    grid_shape,
    sample_by_label,
    scatter_places,
)
from cnnvis_ray.pictures.mosaic import (
    LAYOUTS,
    check_layouts,
    choose_images,
    colour_groups,
    draw_grid,
    draw_overview,
    draw_scatter,
)
from cnnvis_ray.pictures.pyramid import (
    Pyramid,
    draw_band,
    pack_colours,
    plan_pyramid,
    shrink_band,
    sort_thumbnails,
    write_description,
)
from cnnvis_ray.pictures.sheets import (
    Tile,
    check_look,
    columns_of,
    draw_sheet,
    lay_sheet,
    text_tile,
)

__all__ = [
    "LAYOUTS",
    "ClassColours",
    "Pyramid",
    "Rgb",
    "Sheet",
    "Tile",
    "check_background",
    "check_layouts",
    "check_look",
    "choose_images",
    "class_colours",
    "colour_groups",
    "columns_of",
    "draw_band",
    "draw_grid",
    "draw_overview",
    "draw_scatter",
    "draw_sheet",
    "encode_png",
    "grid_places",
    "grid_quality",
    "grid_shape",
    "lay_sheet",
    "pack_colours",
    "plan_pyramid",
    "sample_by_label",
    "scatter_places",
    "shrink_band",
    "sort_thumbnails",
    "stack",
    "text_tile",
    "write_description",
    "write_sheet",
]
