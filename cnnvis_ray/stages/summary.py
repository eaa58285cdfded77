"""summary.json: what a run has, how good it is, how long each stage took, how it ended."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cnnvis_ray.errors import InterruptedRunError
from cnnvis_ray.ledger import Value, dump
from cnnvis_ray.storage import Store

NAME = "summary.json"
FOLDERS = {
    "report": "report/index.html",
    "mosaics": "mosaic",
    "maps": "embedding",
    "features": "features",
    "channels": "channels",
    "pictures": "maximization",
    "explained": "explanation",
}
"""Where people look, by what they call it."""


class Summary:
    """Collects what stages report.

    Attributes:
        unfinished: whether the invocation before did not end well, so that its attempts may have
            left files.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.fields: dict[str, dict[str, Value]] = read_summary(store)
        outcome = read_outcome(store)
        self.unfinished = outcome is not None and outcome[0] != 0

    def note(self, section: str, **values: Value) -> None:
        """Set values in one section."""
        self.fields.setdefault(section, {}).update(values)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a stage in seconds."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.note("seconds", **{stage: round(time.monotonic() - started, 3)})

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Write the summary as running, and at the end of the block how it ended."""
        self.write(None, "running")
        try:
            yield
        except BaseException as failure:
            code = getattr(failure, "exit_code", 1)
            if isinstance(failure, KeyboardInterrupt):
                code = InterruptedRunError.exit_code
            words = " ".join(str(failure).split()) or type(failure).__name__
            with suppress(OSError):  # a full disk, a store that fails for good
                self.write(code, words)
            raise
        self.write(0, "done")

    def write(self, exit_status: int | None, reason: str) -> None:
        """Write the file."""
        fields = {
            **dict(sorted(self.fields.items())),
            "exit_status": exit_status,
            "reason": reason,
        }
        self.store.write(NAME, dump(fields))


def read_fields(store: Store) -> dict[str, Value]:
    """Read summary.json; empty where there is none or it is damaged: the next run writes it."""
    try:
        fields = json.loads(store.read(NAME))
    except (FileNotFoundError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def read_summary(store: Store) -> dict[str, dict[str, Value]]:
    """Read the sections of the last summary."""
    fields = read_fields(store)
    return {name: section for name, section in fields.items() if isinstance(section, dict)}


def read_outcome(store: Store) -> tuple[int | None, str] | None:
    """Read exit status and reason of the last invocation; the status is None while it runs."""
    fields = read_fields(store)
    if "exit_status" not in fields:
        return None
    status = fields["exit_status"]
    return status if isinstance(status, int) else None, str(fields.get("reason", ""))
