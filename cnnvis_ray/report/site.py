"""The whole report: which parts it has, which of them are due, and the pages around them.

`plan_report` reads what a run has, `Maker` writes one part wherever it is called, and
`write_report` brings both together. What is written is recorded with the digests of its inputs
in ``report/made.json``: a part whose inputs are as before is left as it is, and files of parts
that are gone are deleted.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files as package_files

import pyarrow as pa
import pyarrow.compute as pc

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.ledger import Run, open_run
from cnnvis_ray.ledger.reading import LABELS
from cnnvis_ray.report.catalogue import Catalogue, read_catalogue
from cnnvis_ray.report.extras import make_heat, make_mosaic, make_neighbours, make_rejects
from cnnvis_ray.report.images import make_images, unit_rows
from cnnvis_ray.report.layers import make_layer, make_strongest
from cnnvis_ray.report.manifest import Made, manifest
from cnnvis_ray.report.maps import make_map, make_other_map
from cnnvis_ray.report.nights import make_audit, make_night
from cnnvis_ray.report.pieces import FOLDER, Part, pack, write_piece
from cnnvis_ray.report.planning import Options, plan_report
from cnnvis_ray.storage import ShardFile, write_bytes

MADE = f"{FOLDER}/made.json"
RECORD_SECONDS = 5.0  # at most so much work is done twice after a kill


@dataclass(frozen=True, slots=True)
class Written:
    """What one call of `write_report` did.

    Attributes:
        path: of ``index.html``.
        parts: of the report.
        made: parts that were written; the others were as before.
        bytes: of all files of the report.
    """

    path: str
    parts: int
    made: int
    bytes: int


class Maker:
    """Writes parts of one run's report; small and picklable, reads a run where it is called."""

    def __init__(self, run_dir: str, options: Options) -> None:
        self.run_dir = run_dir
        self.options = options

    def __getstate__(self) -> dict[str, object]:
        """Travel without what was read."""
        return {"run_dir": self.run_dir, "options": self.options}

    @cached_property
    def run(self) -> Run:
        """The run."""
        return open_run(self.run_dir)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The shown images."""
        return read_catalogue(self.run, self.options.max_images)

    @cached_property
    def other(self) -> Run:
        """The run to compare with."""
        assert self.options.compare is not None
        return open_run(self.options.compare)

    @cached_property
    def labels(self) -> pa.Table | None:
        """The present labels by image id, where they differ from those of the image shards."""
        return self.run.table(LABELS) if self.run.store.exists(LABELS) else None

    def __call__(self, part: Part) -> tuple[Part, list[ShardFile]]:
        """Write one part and return it with its files."""
        return part, MAKERS[part.kind](self, part)


def make_unit(maker: Maker, part: Part) -> list[ShardFile]:
    """Write a work unit's rows and sheets."""
    store = maker.run.store
    ids = unit_rows(store, part, ["image_id"])["image_id"]
    labels = maker.labels
    if labels is not None:
        place = pc.index_in(ids, value_set=labels["image_id"].combine_chunks())
        found = labels["label"].combine_chunks().take(place.combine_chunks()).to_pylist()
    else:
        found = unit_rows(store, part, ["image_id", "label"])["label"].to_pylist()
    return make_images(store, part, found, large=len(part.files) > 1)


def make_unit_channels(maker: Maker, part: Part) -> list[ShardFile]:
    """Write the strongest channels of a work unit's images in one layer."""
    layer, _, unit = part.subject.rpartition("/")
    return make_strongest(maker.run.store, layer, unit, part.files[0], part.ids)


MAKERS: dict[str, Callable[[Maker, Part], list[ShardFile]]] = {
    "images": make_unit,
    "strongest": make_unit_channels,
    "map": lambda maker, part: make_map(maker.run, maker.catalogue, part.subject),
    "layer": lambda maker, part: make_layer(
        maker.run, maker.catalogue, part.subject, maker.options.inputs
    ),
    "neighbours": lambda maker, part: make_neighbours(maker.run, maker.catalogue, part.subject),
    "other": lambda maker, part: make_other_map(
        maker.run, maker.catalogue, maker.other, part.subject
    ),
    "heat": lambda maker, part: make_heat(maker.run, maker.catalogue),
    "night": lambda maker, part: make_night(maker.run, maker.catalogue, part.subject),
    "audit": lambda maker, part: make_audit(maker.run, maker.catalogue),
    "mosaic": lambda maker, part: make_mosaic(maker.run, part.subject),
    "rejects": lambda maker, part: make_rejects(maker.run),
}


def write_report(
    run_dir: str,
    options: Options | None = None,
    map_parts: Callable[
        [Maker, list[Part]], Iterable[tuple[Part, list[ShardFile]]]
    ] = lambda maker, parts: map(maker, parts),
) -> Written:
    """Write a run's report, what is due of it, and return what was done.

    Args:
        run_dir: the run, by path or URI.
        options: what is shown.
        map_parts: calls the maker with each part, here or on a cluster, in any order.

    Raises:
        RefusedError: there is no run, or no image is finished.
    """
    options = options or Options()
    maker = Maker(run_dir, options)
    run = maker.run
    catalogue = maker.catalogue
    if not len(catalogue.image_id):
        raise RefusedError(f"{run_dir!r} has no usable image to show; run cnnvis status on it")
    parts = plan_report(run, catalogue, options)
    made = read_made(run)
    due = [part for part in parts if not is_made(made, part)]
    last = time.monotonic()
    for part, files in map_parts(maker, due):
        written = [(file.path, file.bytes) for file in files]
        made[part.name] = {"inputs": part.inputs, "files": written}
        if time.monotonic() - last > RECORD_SECONDS:
            record(run, made)
            last = time.monotonic()
    wanted = {part.name for part in parts}
    made = {name: entry for name, entry in made.items() if name in wanted}
    record(run, made)
    rest = [write_piece(run.store, "run", manifest(run, catalogue, options, made))]
    rest += [write_columns(run, catalogue), *write_app(run)]
    listed = {path: size for entry in made.values() for path, size in entry["files"]}
    listed |= {file.path: file.bytes for file in rest}
    run.store.delete(set(run.store.files(FOLDER)) - set(listed) - {MADE})
    return Written(f"{run_dir}/{FOLDER}/index.html", len(parts), len(due), sum(listed.values()))


def is_made(made: Mapping[str, Made], part: Part) -> bool:
    """Return whether a part is written from the same inputs."""
    return part.name in made and made[part.name]["inputs"] == part.inputs


def read_made(run: Run) -> dict[str, Made]:
    """Read the record of what is written; none of a damaged one."""
    try:
        return dict(json.loads(run.store.read(MADE)))
    except (FileNotFoundError, ValueError):
        return {}


def record(run: Run, made: dict[str, Made]) -> None:
    """Write the record."""
    text = json.dumps(dict(sorted(made.items())), separators=(",", ":"))
    run.store.write(MADE, text.encode())


def write_columns(run: Run, catalogue: Catalogue) -> ShardFile:
    """Write label and prediction of every image: a byte each up to 255 classes, else two."""
    wide = len(catalogue.classes) > 255
    kind, nothing = ("u2", 65_535) if wide else ("u1", 255)
    value: dict[str, object] = {"bytes": 2 if wide else 1}
    for name in ("label", "prediction"):
        numbers = getattr(catalogue, name)
        if (numbers >= 0).any():
            value[name] = pack([nothing if n < 0 else n for n in numbers.tolist()], kind)
    return write_piece(run.store, "columns", value)


def write_app(run: Run) -> list[ShardFile]:
    """Write the page, its scripts and styles."""
    folder = package_files("cnnvis_ray.report") / "app"
    written = []
    for source in sorted(folder.iterdir(), key=lambda path: path.name):
        place = "" if source.name == "index.html" else "app/"
        if source.is_file():
            path = f"{FOLDER}/{place}{source.name}"
            written.append(write_bytes(run.store, path, source.read_bytes()))
    return written
