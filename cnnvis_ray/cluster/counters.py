"""Counters for those who watch the cluster, on the driver: ``ray_cnnvis_*_total`` in Prometheus.

A result that has counts (images, rejects, bytes, seconds) is counted by stage and worker; retries,
deaths of workers and time limits are counted by themselves.
"""

from typing import Protocol, runtime_checkable

from ray.util.metrics import Counter

KINDS = {
    "images": "images done",
    "rejects": "images that could not be used",
    "bytes": "bytes written",
    "seconds": "seconds that workers were busy",
    "pictures": "pictures made",
    "retries": "tasks tried again",
    "deaths": "worker processes that died",
    "overdue": "tasks ended for taking too long",
}


@runtime_checkable
class Counted(Protocol):
    """A result that can be counted."""

    @property
    def stage(self) -> str:
        """The verb that it belongs to."""

    def counts(self) -> dict[str, float]:
        """Give numbers by kind, each one of `KINDS`."""


class Counters:
    """The counters of one driver, made when they are first needed."""

    def __init__(self) -> None:
        self.made: dict[str, Counter] = {}
        self.totals: dict[str, float] = {}

    def add(self, kind: str, amount: float, stage: str, worker: int) -> None:
        """Count."""
        if amount <= 0:
            return
        if kind not in self.made:
            self.made[kind] = Counter(f"cnnvis_{kind}", KINDS[kind], ("stage", "worker"))
        self.made[kind].inc(amount, {"stage": stage, "worker": str(worker)})
        self.totals[kind] = self.totals.get(kind, 0.0) + amount

    def take(self, result: object, worker: int) -> None:
        """Count a result, if it says what to count."""
        if isinstance(result, Counted):
            for kind, amount in result.counts().items():
                self.add(kind, amount, result.stage, worker)
