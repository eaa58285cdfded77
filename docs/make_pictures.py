"""Writes the pictures of seeds.md from runs of the recipes: python docs/make_pictures.py RUNS.

RUNS holds the runs animals, maximization, occlusion, image_set and journey/NAME, the first of
which has the comparison. seeds.md states which weights they were made with.
"""

import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
QUALITY = 85
# By picture: sheets below one another, by glob in RUNS; the height that is shown (None: all), and
# the width of the JPEG, pixels.
PICTURES: dict[str, tuple[tuple[str, ...], int | None, int]] = {
    "seeds-animals": (("animals/explanation/images/000000000000-*.png",), None, 1200),
    "seeds-examples": (("animals/explanation/examples.png",), None, 872),
    "seeds-maximization": (
        (
            "maximization/maximization/notebook/sheets/features.5-000.png",
            "maximization/maximization/default/sheets/features.6-000.png",
        ),
        None,
        622,
    ),
    "seeds-occlusion": (("occlusion/explanation/images/*[!d].png",), 1300, 600),
    "seeds-occluded": (("occlusion/explanation/images/*-occluded.png",), None, 1000),
    "seeds-journey": (("journey/*/compare/default/images/*.png",), 970, 1400),
    "seeds-weights": (
        (
            "journey/squeezenet1_1/explanation/weights/features.0-grey.png",
            "journey/squeezenet1_1/explanation/weights/features.0.png",
        ),
        None,
        600,
    ),
}
ACROSS = {"seeds-weights"}


def join(sheets: list[Image.Image], across: bool) -> Image.Image:
    """Put sheets beside or below one another."""
    sides = [sheet.size for sheet in sheets]
    widths, heights = [side[0] for side in sides], [side[1] for side in sides]
    size = (sum(widths), max(heights)) if across else (max(widths), sum(heights))
    joined = Image.new("RGB", size)
    left = top = 0
    for sheet in sheets:
        joined.paste(sheet, (left, top))
        left, top = (left + sheet.width, 0) if across else (0, top + sheet.height)
    return joined


def make(name: str, runs: Path) -> None:
    """Write one picture."""
    patterns, height, width = PICTURES[name]
    sheets = [
        Image.open(path).convert("RGB") for each in patterns for path in sorted(runs.glob(each))
    ]
    whole = join(sheets, name in ACROSS)
    shown = whole.crop((0, 0, whole.width, min(height or whole.height, whole.height)))
    width = min(width, shown.width)
    small = shown.resize((width, round(shown.height * width / shown.width)))
    small.save(HERE / f"{name}.jpg", quality=QUALITY, optimize=True)


def main(folder: str) -> None:
    """Write all pictures."""
    for name in PICTURES:
        make(name, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
