"""The verb ``verify``: every file of a run against its marker, and what the next run will do.

It reads, and leaves one note of what is damaged, which the next run makes due again. A run that
cannot be written to is verified all the same; then there is no note. Sweeping takes the lease.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pyarrow as pa

from cnnvis_ray import channels, ledger
from cnnvis_ray.config import Config, parse_config
from cnnvis_ray.errors import IncompleteError, RefusedError
from cnnvis_ray.ledger import Finding, Ledger, Verifier
from cnnvis_ray.ledger.verification import find_leftovers, is_json, note_damage
from cnnvis_ray.storage import ShardFile, Store, read_table

log = logging.getLogger(__name__)

AT_MOST = 20  # findings in the failure's line; all of them are logged


def verify(run_dir: str, sweep: bool) -> list[str]:
    """Verify a run, and the nights that were placed in it.

    Args:
        run_dir: folder or URI.
        sweep: delete what attempts that did not win have left.

    Returns:
        What was checked.

    Raises:
        IncompleteError: something is damaged, not done or left over; names it.
        HeldError: ``sweep`` was asked while a driver works on the run.
        RefusedError: there is no run.
    """
    store = Store(run_dir)
    if not any(store.exists(name) for name in ("run.json", "passes", "plan")):
        raise RefusedError(f"{run_dir!r} is not a run: it has no run.json")
    with ExitStack() as stack:
        if sweep:
            stack.enter_context(ledger.hold(store))
        holder = ledger.read_holder(store)
        working = holder is not None and not holder.is_gone and holder.expires_in > 0
        records = Ledger(store)
        verifier = Verifier(records)
        findings = [*verifier.findings(), *check_texts(store), *check_merged(records)]
        left = find_leftovers(records)
        try:
            note_damage(records, findings)
        except OSError as failure:
            log.warning("the next run cannot be told of the damage: %s", failure)
        if sweep:
            store.delete(left)
        elif not working:  # otherwise they may be files of a unit that is being done
            findings.extend(Finding(path, "left over; cnnvis verify --sweep") for path in left)
    if findings:
        raise IncompleteError(describe(run_dir, findings, verifier.num_files))
    swept = f", {len(left)} leftovers swept" if sweep else ""
    lines = [f"{run_dir}: {verifier.num_files:,} files are what their markers say{swept}"]
    for name in store.names("placed"):
        lines += verify(f"{run_dir.rstrip('/')}/placed/{name}", sweep)
    return lines


def describe(run_dir: str, findings: Sequence[Finding], num_files: int) -> str:
    """Write in one line what was found; log every finding."""
    for finding in findings:
        log.info("verify: %s", finding)
    shown = "; ".join(str(finding) for finding in findings[:AT_MOST])
    more = f"; and {len(findings) - AT_MOST} more" if len(findings) > AT_MOST else ""
    return (
        f"{run_dir}: {len(findings)} findings in {num_files:,} files: {shown}{more}; "
        "the next run makes again what can be made"
    )


def check_texts(store: Store) -> Iterator[Finding]:
    """Check the files that no marker names: configuration, summary and note of damage."""
    if store.exists("config.yaml"):
        try:
            config = parse_config(store.read("config.yaml").decode(), "config.yaml")
            if config == Config():
                yield Finding("config.yaml", "is empty; give --config FILE")
        except (RefusedError, UnicodeDecodeError) as failure:
            words = "it is not UTF-8" if isinstance(failure, UnicodeDecodeError) else str(failure)
            yield Finding("config.yaml", f"cannot be used: {words}; give --config FILE")
    for name in ("summary.json", "damage.json"):
        if store.exists(name) and not is_json(store.read(name)):
            yield Finding(name, "is damaged; it is written again by the next run")


def check_merged(records: Ledger) -> Iterator[Finding]:
    """Check each layer's merged statistics against those of its units."""
    passes = records.passes("extract")
    for layer in sorted({layer for owner in passes for layer in owner.layers}):
        path = f"channels/{layer}.parquet"
        files = records.files("extract", f"channels/{layer}")
        best = max(int(str(o.recipe["extract.exemplars"])) for o in passes if layer in o.layers)
        if (
            files
            and records.store.exists(path)
            and not is_merged(records.store, path, files, best)
        ):
            yield Finding(path, "is not what the statistics of its units make together")


def is_merged(store: Store, path: str, files: Sequence[ShardFile], best: int) -> bool:
    """Whether a merged table has what some shards make; a damaged shard is found elsewhere."""
    try:
        present = read_table(store, path)
    except (pa.ArrowException, OSError):
        return False
    try:
        pieces = (channels.from_table(read_table(store, file.path), best) for file in files)
        merged = channels.merged_table(channels.merge_all(pieces))
    except (pa.ArrowException, OSError):
        return True
    return bool(present.replace_schema_metadata().equals(merged.replace_schema_metadata()))
