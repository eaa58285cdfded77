"""The verb ``status``: how far a run is, from its directory alone, also while it is written."""

from cnnvis_ray import ledger
from cnnvis_ray.cluster.progress import clock
from cnnvis_ray.ledger import Holder, Run, open_run, read_plan
from cnnvis_ray.stages.extract import mixed_threads
from cnnvis_ray.stages.summary import FOLDERS, read_outcome, read_summary


def status(run_dir: str) -> list[str]:
    """Return what is done, running and failed, how fast it goes and how long it will take.

    Raises:
        RefusedError: there is no run.
    """
    run = open_run(run_dir)
    summary, outcome = read_summary(run.store), read_outcome(run.store)
    lines = [describe_holder(ledger.read_holder(run.store)), *describe_passes(run)]
    failed = summary.get("failed_units", {})
    lines += [f"failed    unit {unit}: {error}" for unit, error in failed.items()]
    if mixed := mixed_threads(run.ledger):
        lines.append(f"note      {mixed}")
    if outcome is None or outcome[0] is None:
        return [*lines, "ended     not yet"]
    return [*lines, f"ended     with {outcome[0]}: {outcome[1]}"]


def describe_holder(holder: Holder | None) -> str:
    """Write who works on the run, on what, how fast, and what is left."""
    if holder is None:
        return "running   nothing"
    if holder.is_gone or holder.expires_in <= 0:
        return f"running   nothing; {holder} ended without a word, run again to continue"
    progress = holder.progress
    if "total" not in progress:
        return f"running   {holder}"
    done, total, rate = (float(str(progress[name])) for name in ("done", "total", "rate"))
    left = clock((total - done) / rate) if rate else "unknown"
    return (
        f"running   {progress['stage']} {done:,.0f}/{total:,.0f} {progress['noun']}, "
        f"{rate:.1f}/s, {left} left; {holder}"
    )


def describe_passes(run: Run) -> list[str]:
    """Count the finished units of each pass."""
    num_units = sum(1 for unit in read_plan(run.store).units() if len(unit))
    lines = []
    for stage in run.ledger.stages:
        for owner in run.passes(stage):
            of = f"/{num_units:,}" if owner.kind == "images" else ""
            layers = f" of {', '.join(owner.layers)}" if owner.layers else ""
            lines.append(f"done      {stage} {len(run.ledger.done(owner)):,}{of} units{layers}")
    return lines


def show(run_dir: str) -> list[str]:
    """Return what there is to look at in a run, the explorer first.

    Raises:
        RefusedError: there is no run.
    """
    run = open_run(run_dir)
    lines = []
    for what, path in FOLDERS.items():
        if run.store.exists(path):
            names = run.store.names(path)
            lines.append(
                f"{what:10}{run.store.root}/{path}"
                + (f" ({len(names)} entries)" if len(names) > 1 else "")
            )
    if lines and not run.store.exists(FOLDERS["report"]):
        lines.insert(0, f"{'report':10}not written yet: cnnvis report {run_dir}")
    if not lines:
        return [f"nothing to look at yet; continue with: cnnvis run {run_dir}"]
    return lines
