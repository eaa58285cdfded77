"""Writes docs/reference.md from the code: configuration keys, verbs, files and their columns.

``make reference`` runs it; a test compares the page with what this returns.
"""

import argparse
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

import cnnvis_ray
from cnnvis_ray.cli import parser
from cnnvis_ray.config import Config, Section
from cnnvis_ray.config.yaml_text import write_yaml

PAGE = Path(__file__).parent / "reference.md"

HEAD = """\
# Reference

<!-- Written by docs/make_reference.py: edit the code, then run `make reference`. -->

Configuration keys, verbs, exit codes, and the files of a run with their columns. All of it is
generated from the code.
"""
# Every file of a run: path, what is in it, and the name of its schema in the code.
FILES: tuple[tuple[str, str, str], ...] = (
    ("run.json", "format version, identity of the run, versions of packages", ""),
    ("config.yaml", "the resolved configuration", ""),
    ("history/", "earlier configurations, and those that held for one invocation", ""),
    ("lease.json", "the driver that holds the run, while one does", ""),
    ("summary.json", "counts, quality, seconds per stage, exit status", ""),
    ("damage.json", "what `verify` found damaged, until the next run makes it again", ""),
    ("passes/STAGE-FINGERPRINT8/pass.json", "recipe, fingerprint and layers of a pass", ""),
    ("passes/STAGE-FINGERPRINT8/done/UNIT.json", "a unit's marker: files, rows and SHA-256", ""),
    ("plan/NNNNNN.parquet", "which image has which unit and slot", "SCHEMA"),
    ("labels.parquet", "the present label of each image", "LABEL_ROWS"),
    ("images/UNIT.TOKEN.parquet", "a row per usable image", "IMAGES"),
    ("rejects/UNIT.TOKEN.parquet", "a row per image that could not be used", "REJECTS"),
    ("features/LAYER/UNIT.TOKEN.parquet", "a feature per image", "features"),
    ("channels/LAYER/UNIT.TOKEN.parquet", "mergeable statistics of one unit", "UNIT"),
    ("channels/LAYER.parquet", "merged statistics, a row per channel", "MERGED"),
    ("maximization/NAME/LAYER/UNIT.TOKEN.parquet", "a row per picture", "PICTURES"),
    (
        "maximization/NAME/LAYER.parquet",
        "the same rows of all units, with `percentile` and `best_image` (both float)",
        "",
    ),
    ("maximization/NAME/sheets/LAYER-NNN.png", "labelled sheets of pictures", ""),
    ("explanation/heat/UNIT.TOKEN.parquet", "a row per image and method", "heat_schema"),
    ("explanation/images/IMAGE.png", "an image's sheet", ""),
    ("explanation/crops/LAYER/UNIT.TOKEN.parquet", "crops of the best images", "CROPS"),
    ("explanation/cards/LAYER.parquet", "a card per channel", "CARDS"),
    ("explanation/selectivity/LAYER.parquet", "the classes that excite a channel", "SELECTIVITY"),
    ("explanation/classes.parquet", "mean heat maps per class", "CLASS_MAPS"),
    ("explanation/probe/LAYER.parquet", "a linear probe per layer", "PROBE"),
    ("explanation/examples.png", "one image of each class", ""),
    ("explanation/weights/", "kernels of convolutions as sheets, in colour and grey", ""),
    ("spectra/HEIGHTxWIDTH.npz", "mean magnitude spectrum of the images, for `maco`", ""),
    ("reduction/LAYER/", "positions, principal components, quality", "POSITIONS"),
    ("embedding/LAYER.parquet", "the map with key, label and thumbnail", "EMBEDDING"),
    ("neighbours/LAYER/UNIT.TOKEN.parquet", "the nearest images of each image", "NEIGHBOURS"),
    ("mosaic/LAYER-scatter.png, LAYER-grid.png", "all images, by position and on a grid", ""),
    ("report/index.html", "the explorer", ""),
    ("audit/duplicates.parquet", "pairs of images that are nearly equal", "DUPLICATES"),
    ("audit/labels.parquet", "labels that probe and neighbours contradict", "SUSPECTS"),
    ("audit/outliers.parquet", "images far from all others", "OUTLIERS"),
    ("compare/NAME/cka.parquet", "linear CKA between layers", "CKA"),
)
INTERNAL = {"SORTED"}  # of files that no finished run has
# Columns whose name does not say enough, where the code has no comment beside them.
MEANINGS = {
    "image_id": "unit * 2**24 + slot, never assigned twice",
    "key": "the image's stable name in its source",
    "label": "its class; null without one",
    "width": "of the source image, pixels",
    "height": "of the source image, pixels",
    "thumbnail": "JPEG",
    "top5": "the five likeliest classes; null where the network does not classify",
    "stage": "where it failed: fetch, decode, worker",
    "error": "why, in one line",
    "feature": "the pooled activation; layer, pooling, dtype and shape are in the metadata",
    "channel": "index on axis 1 of the activation",
    "variant": "number of the picture among those of one channel",
    "picture": "PNG",
    "status": "live, stuck (could not be made to respond) or dead (no gradient reached it)",
    "activation": "mean over the map at the end, in activation units",
    "start_activation": "the same of the start image",
    "attempts": "how many starts it took",
    "curve": "the objective at each step",
    "start_key": "the image that the last attempt started from; empty: noise",
    "note": "remarks on how it was made",
    "count": "images",
    "mean": "of the images' map means",
    "squares": "sum of squared deviations of the map means",
    "variance": "of the images' map means",
    "maximum": "of the images' map means",
    "excited": "images whose map mean is above zero, counted or as a share",
    "histogram": "of the map means, 8 bins per octave",
    "peak_mean": "of the images' map maxima",
    "peak_squares": "sum of squared deviations of the map maxima",
    "peak_variance": "of the images' map maxima",
    "peak_maximum": "of the images' map maxima",
    "peak_excited": "images whose map maximum is above zero, counted or as a share",
    "peak_histogram": "of the map maxima",
    "sampled_histogram": "of single positions drawn from the maps",
    "exemplars": "the images with the largest map maxima, best first",
    "strongest": "how often the channel is among an image's five strongest",
    "x": "position on the map",
    "y": "position on the map",
    "image": "thumbnail as {bytes, path}",
    "rank": "place among the channel's best images, from 0",
    "value": "activation",
    "method": "how it was explained",
    "target": "index of the class; null for a mask or numbers",
    "score": "of the target, for the image as it is",
    "map": "row by row; heat is low + map * (high - low)",
    "deletion": "area under the deletion curve; null where none was asked",
    "insertion": "area under the insertion curve; null where none was asked",
    "unit": "number of the work unit",
    "revision": "how often the unit was done again",
    "version": "size and time, or ETag, of the source file",
    "layer": "dotted name of the module",
    "accuracy": "of the linear probe, mean over the folds",
    "start": "a range of rows; null for a single image",
    "stop": "end of the range, exclusive",
    "peak_median": "of the map maxima, within 4.4 %",
    "peak_top": "what 0.5 % of the map maxima exceed, within 4.4 %",
    "sampled_median": "of single positions, within 4.4 %",
    "sampled_top": "what 0.5 % of single positions exceed, within 4.4 %",
    "name": "of the target",
    "low": "raw value where map is 0",
    "high": "raw value where map is 1",
    "top": "pixels of the network's input",
    "right": "pixels of the network's input",
    "bottom": "pixels of the network's input",
    "source_top": "pixels of the source image, upright",
    "source_right": "pixels of the source image, upright",
    "source_bottom": "pixels of the source image, upright",
    "whole_image": "whether the receptive field covers the whole image",
    "picture_activation": "of the picture",
    "picture_status": "live, stuck or dead",
    "picture_percentile": "share of the images whose mean activation is below the picture's",
    "classes": "the classes that excite the channel most; of a probe, how many there are",
    "crops": "the parts of the best images that the channel sees",
    "images": "how many were used",
    "folds": "of the cross-validation",
    "run": "name of the run",
    "other_run": "name of the run that it is compared with",
    "other_layer": "layer of that run",
    "plane_y": "the second of them",
    "neighbours": "image_id of the nearest images, nearest first, itself not among them",
    "distances": "to the neighbours, in the space that t-SNE sees",
    "SUSPECTS.score": "how strongly probe and neighbours contradict the label",
    "OUTLIERS.score": "the distance in units of the typical one",
    "DUPLICATES.score": "likeness of the two images",
    "BROKEN_CLASSES.score": "how strong the finding is",
    "BROKEN_CLASSES.images": "image_id of examples",
    "probe_label": "the class that a linear probe predicts",
    "neighbour_label": "the class of most neighbours",
    "chance": "what the score would be by chance",
    "distance": "to the fifth nearest image",
    "kind": "what was found",
    "other_label": "class of the other",
    "other_image_id": "the other image",
    "other_images": "image_id of the others",
    "other_key": "key of the other",
    "cosine": "of the two features",
    "across_classes": "whether the two have different labels",
    "leak": "whether one is in a training part and the other in a test part",
}


def make_reference() -> str:
    """Return the page."""
    parts = [HEAD, *configuration(), *verbs(), EXIT_CODES, *files()]
    return "\n".join(parts).rstrip() + "\n"


EXIT_CODES = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done and reconciled |
| 1 | done, but something is missing or below its bar |
| 2 | refused; nothing was written |
| 3 | another driver holds the run |
| 130 | interrupted or past its deadline; run again to continue |
"""


def configuration() -> Iterator[str]:
    """Return the keys of each section, with defaults and meanings."""
    yield "## Configuration keys\n"
    yield "`cnnvis init` writes a file with all of them.\n"
    config = Config()
    plain = {n: f for n, f in Config.model_fields.items() if not is_section(config, n)}
    yield "| key | default | meaning |\n|---|---|---|"
    for name, field in plain.items():
        yield row(f"`{name}`", f"`{flow(getattr(config, name))}`", field.description or "")
    for name in Config.model_fields:
        if name in plain:
            continue
        section = getattr(config, name)
        yield f"\n### {name}\n\n{first_line(type(section).__doc__)}\n"
        yield "| key | default | meaning |\n|---|---|---|"
        for key, field in type(section).model_fields.items():
            value = f"`{flow(getattr(section, key))}`"
            yield row(f"`{name}.{key}`", value, field.description or "")
    yield ""


def is_section(config: Config, name: str) -> bool:
    """Whether a key has keys below it."""
    return isinstance(getattr(config, name), Section)


def flow(value: object) -> str:
    """Return a value as YAML on one line."""
    return write_yaml(list(value) if isinstance(value, tuple) else value, flow=True).strip()


def verbs() -> Iterator[str]:
    """Return each verb with its arguments."""
    yield "## Verbs\n"
    (commands,) = (
        action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    for verb, described in commands.choices.items():
        yield f"### cnnvis {verb}\n\n{sentence(helps.get(verb, ''))}\n"
        yield "| argument | meaning |\n|---|---|"
        for action in described._actions:
            if not isinstance(action, argparse._HelpAction):
                yield row(f"`{shape(action)}`", action.help or "")
        yield ""


def shape(action: argparse.Action) -> str:
    """Return how an argument is written."""
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    if not action.option_strings:
        return name.upper() if action.nargs != "?" else f"[{name.upper()}]"
    flag = action.option_strings[-1]
    choices = "|".join(map(str, action.choices)) if action.choices else name.upper()
    return flag if action.nargs == 0 else f"{flag} {choices}"


def files() -> Iterator[str]:
    """Return the files of a run and the columns of each table."""
    found = dict(find_schemas())
    yield "## Files of a run\n"
    yield "| path | what is in it |\n|---|---|"
    for path, what, _ in FILES:
        yield row(f"`{path}`", what)
    yield "\nUNIT is a unit's number and part, TOKEN names the attempt that wrote the file.\n"
    yield "## Columns\n"
    named = {name: path for path, _, name in FILES if name}
    for name, path in named.items():
        if name in found:
            schema, source, _ = found[name]
            yield from columns(f"`{path}`", schema, source, name)
    for name, (schema, source, module) in found.items():
        if name not in {*named, *INTERNAL}:
            yield from columns(f"`{module}.{name}`", schema, source, name)


def find_schemas() -> Iterator[tuple[str, tuple[pa.Schema, str, str]]]:
    """Find every schema of the project: its name, itself, its module's text and name."""
    for info in sorted(
        pkgutil.walk_packages(cnnvis_ray.__path__, "cnnvis_ray."), key=lambda each: each.name
    ):
        module = importlib.import_module(info.name)
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            if isinstance(value, pa.Schema) and re.search(rf"^{name} = ", source, re.MULTILINE):
                yield name, (value, source, info.name)
            if name == "heat_schema" and f"def {name}(" in source:
                yield name, (value(28), source, info.name)
    feature = pa.list_(pa.field("item", pa.float16()), 1)
    yield "features", (pa.schema([("image_id", pa.int64()), ("feature", feature)]), "", "")


def columns(title: str, schema: pa.Schema, source: str, name: str) -> Iterator[str]:
    """Return a table of columns; what a column means is the comment beside it in the code."""
    yield f"### {title}\n\n| column | type | meaning |\n|---|---|---|"
    for field in schema:
        beside = re.search(rf'\("{field.name}",[^#\n]*# (.+)$', source, re.MULTILINE)
        own = MEANINGS.get(f"{name}.{field.name}", MEANINGS.get(field.name, ""))
        meaning = beside[1] if beside else own
        yield row(f"`{field.name}`", f"`{kind(field.type)}`", meaning)
    yield ""


def kind(value: pa.DataType) -> str:
    """Return a type in a few words."""
    if pa.types.is_fixed_size_list(value):
        return f"list of {kind(value.value_type)}, of fixed size"
    if pa.types.is_list(value):
        return f"list of {kind(value.value_type)}"
    if pa.types.is_struct(value):
        return "{" + ", ".join(field.name for field in value) + "}"
    return str(value)


def row(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def first_line(text: str | None) -> str:
    """Return the first line of a docstring."""
    return (text or "").strip().splitlines()[0]


def sentence(text: str) -> str:
    """Return a help text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


if __name__ == "__main__":
    PAGE.write_text(make_reference(), encoding="utf-8")
