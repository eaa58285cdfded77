"""The stage ``catalogue``: tables and sheets of pictures, brought up to pictures and statistics.

Percentiles are joined after maximization, and again when the images' statistics grow. It takes
seconds, so another recipe never refuses.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cnnvis_ray import ledger
from cnnvis_ray.cluster import Session
from cnnvis_ray.config import Maximize, Pictures, recipe_of
from cnnvis_ray.ledger import Pass, Run, digest_files
from cnnvis_ray.maximization import describe_recipe, draw_catalogue, join_pictures
from cnnvis_ray.maximization.objectives import main_term
from cnnvis_ray.pictures import check_look, write_sheet
from cnnvis_ray.stages.extract import statistics_digest
from cnnvis_ray.stages.job import Job
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import ShardFile, read_table, write_table

STATUSES = ("live", "stuck", "dead")


@dataclass(slots=True)
class Catalogues:
    """Every catalogue of the run."""

    job: Job
    units: None = None

    def do(self, session: Session, summary: Summary) -> None:
        """Join and draw the catalogues that are not up to date."""
        records = self.job.ledger
        made = set()
        for owner in records.passes("maximize"):
            (layer,) = owner.layers
            files = records.files_of(owner, f"maximization/{owner.subject}/{layer}")
            if not files:
                continue
            recipe = recipe_in(owner)
            digests: dict[str, ledger.Value] = {
                "pictures": digest_files(files),
                "statistics": statistics_digest(records, layer),
            }
            if main_term(recipe)[0] == "class":  # the version before left its percentile out
                digests["percentile"] = "of the logit"
            digests |= look_recipe(self.job.config.pictures, ("pictures",), "captions")
            wanted = Pass("catalogue", {}, (layer,), ledger.fingerprint(digests), owner.subject)
            build = partial(write_catalogue, self.job, owner, files, recipe)
            name = f"{owner.subject}/{layer}"
            if records.make(wanted, build)[1] or name not in summary.fields.get("pictures", {}):
                made.add(owner.subject)
                summary.note("pictures", **{name: count_statuses(self.job, owner)})
        for name in sorted(made):
            records.sweep(("catalogue",), [f"maximization/{name}/sheets"])


def decide(job: Job) -> Catalogues:
    """Check how sheets are drawn; what is due follows from pictures and statistics by then.

    Raises:
        RefusedError: an unknown colour or kind of sheet.
    """
    check_look(job.config.pictures)
    return Catalogues(job)


def write_catalogue(
    job: Job, owner: Pass, files: Sequence[ShardFile], recipe: Maximize
) -> Iterator[ShardFile]:
    """Write one layer's table of pictures and its sheets."""
    (layer,), name = owner.layers, owner.subject
    has_statistics = statistics_digest(job.ledger, layer) is not None
    statistics = Run(job.store, job.ledger).statistics(layer) if has_statistics else None
    shards = [read_table(job.store, file.path) for file in files]
    table = join_pictures(shards, statistics, recipe)
    yield write_table(job.store, f"maximization/{name}/{layer}.parquet", table)
    title = f"{job.title_of(layer)}, {name}"
    captions = "below each: channel, percent of the images that it exceeds (p), activation"
    notes = [describe_recipe(owner.recipe)]
    if job.config.pictures.captions == "below":
        notes[0] += f"; {captions}"
    look = job.config.pictures
    sheets = draw_catalogue(table, title, notes, job.class_names(layer), look)
    for number, sheet in enumerate(sheets):
        stem = f"maximization/{name}/sheets/{layer}-{number:03d}"
        yield from write_sheet(job.store, stem, sheet, look)


def look_recipe(look: Pictures, sheets: Collection[str], *keys: str) -> ledger.Recipe:
    """Return how some sheets are drawn: what differs from the defaults.

    Args:
        look: the section.
        sheets: kinds whose columns matter.
        keys: that matter, beside those of all sheets.
    """
    exclude = set(type(look).model_fields) - {"background", "print", "columns", *keys}
    columns = {kind: number for kind, number in look.columns.items() if kind in sheets}
    own = look.model_copy(update={"columns": columns})
    return {f"pictures.{key}": value for key, value in recipe_of(own, exclude).items()}


def count_statuses(job: Job, owner: Pass) -> dict[str, int]:
    """Count the pictures of a layer by status."""
    path = f"maximization/{owner.subject}/{owner.layers[0]}.parquet"
    found = read_table(job.store, path, ["status"])["status"].to_pylist()
    return {name: found.count(name) for name in STATUSES if name in found}


def recipe_in(owner: Pass) -> Maximize:
    """Read back from a pass the part of its recipe that states what was measured."""
    values = {key: owner.recipe[f"maximize.{key}"] for key in ("objective", "captured")}
    return Maximize.model_validate(values)
