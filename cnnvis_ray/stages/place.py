"""The verb ``place``: a night of new images on the frozen map of a run, and what changed.

A night, ``placed/NAME``, is a run of its own with the run's network, layers and recipes: its
images are extracted as work units, resumable, exactly once in effect. Placing reads the run and
writes nothing of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cnnvis_ray import ledger
from cnnvis_ray.cluster import interrupt, session, snapshot, stoppable
from cnnvis_ray.config import Config, Maximize, check_name
from cnnvis_ray.errors import IncompleteError, RefusedError
from cnnvis_ray.images import cut
from cnnvis_ray.ledger import Run, by_number, open_run, read_plan
from cnnvis_ray.stages import extract
from cnnvis_ray.stages.changes import compare, night_name
from cnnvis_ray.stages.job import Job, open_job
from cnnvis_ray.stages.run import check_cluster, check_run_dir
from cnnvis_ray.stages.summary import Summary
from cnnvis_ray.storage import Store

MOST_NOVEL = 0.15  # of a night: three times what the reference itself has by definition
# Of the neighbours that the run's own images keep. Unchanged nights keep 0.78 to 0.91 of it on a
# map of 400 photos, 0.93 on one of 1,497 digits: an image that the map was fitted without.
LEAST_KEPT = 0.7
FAILS = {"changed": {"changed"}, "not judged": {"changed", "not judged"}, None: set()}


def place(run_dir: str, config: Config, source: str, name: str) -> list[str]:
    """Place a night's images.

    Args:
        run_dir: the run, whose map stays as it is.
        config: the run's.
        source: of the night's images; the run's own source places what was added to it.
        name: of the night.

    Returns:
        The last screen.

    Raises:
        RefusedError: the run has no map, or the night has another recipe.
        IncompleteError: units failed, or the verdict is one that ``place.fail_on`` names.
        HeldError: another driver places this night.
    """
    try:
        check_name(name)
    except ValueError as failure:
        raise RefusedError(f"place --name: {failure}") from None
    check_run_dir(run_dir)
    run = open_run(run_dir)
    layers = [owner.layers[0] for owner in run.passes("reduce") if run.ledger.done(owner)]
    if not layers:
        raise RefusedError(f"place: {run_dir!r} has no map; first: cnnvis reduce {run_dir}")
    layers = sorted(set(layers) & set(run.layers()), key=by_number)
    night = night_config(config, run_dir, source, name, layers)
    store = Store(night.run_dir)
    with session(night.cluster) as opened, ledger.hold(store, snapshot, interrupt):
        job = open_job(night, ("extract",))
        check_recipe(run, job)
        job = leave_out_known(run, job)
        if not job.images.listing.entries:
            return [f"nothing new in {source}: every image is in the run or another night"]
        work = extract.decide(job)
        check_cluster(job, {"extract": work}, opened)
        job.ledger.heal()
        summary = Summary(store)
        with summary.ending():
            job.write()
            with summary.timed("extract"), stoppable():
                work.do(opened, summary)
            with summary.timed("place"), stoppable():
                changes = compare(run, job, layers)
            verdict = str(changes["verdict"])
            summary.note("place", verdict=verdict)
            if verdict in FAILS[night.place.fail_on]:
                raise IncompleteError(
                    f"place: the verdict on {name} is {verdict!r} (place.fail_on); see "
                    f"{store.root}/changes.json"
                )
    return describe(store, changes)


def night_config(
    config: Config, run_dir: str, source: str, name: str, layers: Sequence[str]
) -> Config:
    """Return the configuration of a night: the run's recipes over another source."""
    images = config.images.model_copy(
        update={"source": source, "indices": None, "limit": None, "max_reject_fraction": 1.0}
    )
    return config.model_copy(
        update={
            "run_dir": f"{run_dir.rstrip('/')}/placed/{name}",
            "images": images,
            "layers": list(layers),
            "maximize": Maximize(layers=[]),
        }
    )


def check_recipe(run: Run, job: Job) -> None:
    """Refuse a night whose features cannot be compared with the run's.

    Raises:
        RefusedError: names each key that differs.
    """
    known = ledger.read_identity(run.store) or {}
    own = job.identity
    wanted = extract.features_recipe(job)
    old: dict[str, ledger.Value] = {key: v for key, v in known.items() if key != "images.source"}
    new: dict[str, ledger.Value] = {key: own[key] for key in old}
    for owner in run.passes("extract"):
        if {layer.name for layer in job.vision.layers} & set(owner.layers):
            for key in set(wanted) - {"root", "images.unit_size"}:
                old[key], new[key] = owner.recipe.get(key), wanted[key]
    changed = ledger.differences(old, json.loads(json.dumps(new)))
    if changed:
        raise RefusedError(
            f"place: {'; '.join(changed)}; a night needs the network and recipe of its run"
        )


def leave_out_known(run: Run, job: Job) -> Job:
    """Keep what neither the run nor another night has, where the source is the run's own."""
    source = job.images.source.identity
    if str((ledger.read_identity(run.store) or {}).get("images.source")) != source:
        return job
    others = [name for name in run.store.names("placed") if name != night_name(job)]
    stores = [run.store, *(Store(f"{run.store.root}/placed/{name}") for name in others)]
    listing, size = job.images.listing, job.config.images.unit_size
    entries = listing.entries
    for store in stores:
        if str((ledger.read_identity(store) or {}).get("images.source")) == source:
            plan = read_plan(store)
            units, _ = ledger.grow(plan, entries, lambda more: cut(more, size, listing.chunk_rows))
            fresh = [unit for unit in units if unit.number >= plan.next_unit]
            entries = tuple(row.entry for unit in fresh for row in unit.planned)
    job.images = replace(job.images, listing=replace(listing, entries=entries))
    return job


def describe(store: Store, changes: Mapping[str, object]) -> list[str]:
    """Write the verdict, the layer, and where to look."""
    lines = [
        f"verdict   {changes['verdict']}"
        + (f" ({changes['reason']})" if changes["reason"] else "")
    ]
    arrived, duplicates = changes["arrived"], changes["duplicates"]
    if isinstance(arrived, Mapping) and isinstance(duplicates, Mapping):
        lines.append(
            f"arrived   {arrived['images']} images, {arrived['rejects']} rejects; the run has "
            f"{duplicates['images']} of them already"
        )
    score, threshold = changes["score"], changes["threshold"]
    if isinstance(score, float) and isinstance(threshold, float):
        lines.append(f"score     {score:.2f} of {threshold:.2f}, over the two most changed layers")
    layers = changes["layers"]
    assert isinstance(layers, list)
    for layer in layers:
        lines.append(
            f"{layer['layer']}: score {layer['score']:.2f}, largest shift "
            f"{layer['largest_shift']:.2f} standard deviations"
        )
    smallest = changes.get("smallest_change")
    if isinstance(smallest, float):
        lines.append(f"smallest change that would show: {smallest:.0%} of the images")
    novelty, placement = changes.get("novelty"), changes.get("placement")
    refit = False
    if isinstance(novelty, Mapping):
        share = float(novelty["share"])
        refit = share > MOST_NOVEL
        lines.append(f"novel images: {share:.0%}, 5 % are expected")
    for layer, judged in placement.items() if isinstance(placement, Mapping) else ():
        if judged:
            kept, usual = judged["kept"], judged["reference_kept"]
            refit |= kept < LEAST_KEPT * usual
            lines.append(
                f"{layer}: {kept:.3f} of the neighbours kept, {usual:.3f} in the run itself"
            )
    if refit:
        lines.append("the map does not fit these images well: fit it again over run and nights")
    lines.append(f"changes   {store.root}/changes.json")
    lines.append(f"pictures  {store.root}/changes")
    return lines
