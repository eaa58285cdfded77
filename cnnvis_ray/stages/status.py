"""The verb ``status``: how far a run is, from its directory alone, also while it is written."""

import time
from collections import defaultdict

from cnnvis_ray import ledger
from cnnvis_ray.ledger import Holder, Pass, Run, open_run, read_plan
from cnnvis_ray.ledger.verification import PER_IMAGE, stages
from cnnvis_ray.stages.summary import read_outcome, read_summary


def status(run_dir: str) -> list[str]:
    """Say what is done, running and failed, how fast it goes and how long it takes still.

    Raises:
        RefusedError: there is no run.
    """
    run = open_run(run_dir)
    return [
        run_line(ledger.read_holder(run.store)),
        *pass_lines(run),
        *failed_lines(run),
        outcome_line(run),
    ]


def run_line(holder: Holder | None) -> str:
    """Say who works on the run, on what, how fast, and what is left."""
    if holder is None:
        return "running   nothing"
    if holder.is_gone or holder.expires_in <= 0:
        return f"running   nothing; {holder} ended without a word, run again to continue"
    progress = holder.progress
    if "total" not in progress:
        return f"running   {holder}"
    done, total, rate = (float(str(progress[name])) for name in ("done", "total", "rate"))
    left = time.strftime("%H:%M:%S", time.gmtime((total - done) / rate)) if rate else "unknown"
    return (
        f"running   {progress['stage']} {done:,.0f}/{total:,.0f} {progress['noun']}, "
        f"{rate:.1f}/s, {left} left; {holder}"
    )


def pass_lines(run: Run) -> list[str]:
    """Count the finished units of each pass."""
    num_units = sum(1 for unit in read_plan(run.store).units() if len(unit))
    lines = []
    counts: dict[str, list[tuple[Pass, int]]] = defaultdict(list)
    for stage in stages(run.store):
        for owner in run.passes(stage):
            counts[stage].append((owner, len(ledger.done(run.store, owner))))
    for stage, passes in counts.items():
        for owner, finished in passes:
            of = f"/{num_units:,}" if stage in PER_IMAGE else ""
            layers = f" of {', '.join(owner.layers)}" if owner.layers else ""
            lines.append(f"done      {stage} {finished:,}{of} units{layers}")
    return lines


def failed_lines(run: Run) -> list[str]:
    """Name the units that the last invocation gave up."""
    failed = read_summary(run.store).get("failed_units", {})
    return [f"failed    unit {unit}: {error}" for unit, error in failed.items()]


def outcome_line(run: Run) -> str:
    """Say how the last invocation ended."""
    outcome = read_outcome(run.store)
    if outcome is None:
        return "ended     not yet"
    exit_status, reason = outcome
    return f"ended     with {exit_status}: {reason}"
