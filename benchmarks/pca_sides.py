"""One side of a comparison of `pca`, as a process with nothing but its own imports.

    python benchmarks/pca_sides.py ours '["FOLDER", [1000, 512]]'

prints what it took as JSON.
"""

import json
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

Array = npt.NDArray[np.floating]
Shape = tuple[int, int]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one side took: seconds, CPU seconds, peaks in MiB, and what it found."""

    seconds: float
    cpu: float
    peak: float
    worker_peak: float
    variances: list[float]


def peak_mib() -> float:
    """Return this process's peak memory, MiB.

    On Linux from /proc: getrusage keeps the peak of the parent that this process was started from.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def track(function: Callable[[Item], Result], item: Item) -> tuple[Result, float, float]:
    """Call a function; return also this process's CPU seconds and its whole peak memory so far."""
    started = time.process_time()
    found = function(item)
    return found, time.process_time() - started, peak_mib()


class Workers:
    """Processes as `map_blocks`, as a cluster's workers are; they state CPU seconds and peaks."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pool = ProcessPoolExecutor(
            number, get_context("spawn"), import_module, ("cnnvis_ray.reduction.layer",)
        )
        self.cpu, self.peak = 0.0, 0.0

    def __call__(
        self, function: Callable[[Item], Result], items: Sequence[Item], /
    ) -> Iterator[Result]:
        """Yield results in order; as many calls at once as there are processes."""
        running: deque[Future[tuple[Result, float, float]]] = deque()
        for item in items:
            if len(running) == self.number:
                yield self.wait(running.popleft())
            running.append(self.pool.submit(track, function, item))
        while running:
            yield self.wait(running.popleft())

    def wait(self, future: Future[tuple[Result, float, float]]) -> Result:
        """Wait for a call and note what it took."""
        found, cpu, peak = future.result()
        self.cpu += cpu
        self.peak = max(self.peak, peak)
        return found


def ours(folder: str, shape: Shape, solver: str = "auto", workers: int = 0) -> Measured:
    """Components by this project, in this process or by workers."""
    from cnnvis_ray.reduction import PcaOptions, fit_pca
    from cnnvis_ray.reduction.layer import feature_blocks
    from cnnvis_ray.storage import Store

    blocks = feature_blocks(Store(folder), shards_in(folder))
    options = PcaOptions(50, solver=solver)
    if not workers:
        return timed(lambda: fit_pca(blocks, (shape[0], shape[1]), options).explained_variance)
    pool = Workers(workers)
    list(pool(time.sleep, [0.5] * workers))  # all are started before the clock
    found = timed(lambda: fit_pca(blocks, (shape[0], shape[1]), options, pool).explained_variance)
    pool.pool.shutdown()
    return Measured(found.seconds, found.cpu + pool.cpu, found.peak, pool.peak, found.variances)


def scikit(folder: str, shape: Shape, solver: str = "covariance_eigh") -> Measured:
    """Components by scikit-learn, of everything in memory as float32."""
    from sklearn.decomposition import PCA

    def work() -> Array:
        features = np.empty(shape, np.float32)
        first = 0
        for rows in read_shards(folder):
            features[first : first + len(rows)] = rows
            first += len(rows)
        found: Array = PCA(50, svd_solver=solver, copy=False).fit(features).explained_variance_
        return found

    return timed(work)


def incremental(folder: str, batch: int, limit: int | None = None) -> Measured:
    """Components by scikit-learn's IncrementalPCA, a batch of rows at a time."""
    from sklearn.decomposition import IncrementalPCA

    def work() -> Array:
        fitted = IncrementalPCA(50)
        done, waiting = 0, np.empty((0, 0), np.float32)
        for rows in read_shards(folder):
            exact = rows.astype(np.float32)
            waiting = np.concatenate([waiting, exact]) if len(waiting) else exact
            while len(waiting) >= batch:
                fitted.partial_fit(waiting[:batch])
                waiting, done = waiting[batch:], done + batch
            if limit is not None and done >= limit:
                break
        found: Array = fitted.explained_variance_
        return found

    return timed(work)


def timed(work: Callable[[], Array]) -> Measured:
    """Do work once, after its imports."""
    before, cpu, started = peak_mib(), time.process_time(), time.perf_counter()
    variances = work()
    seconds = time.perf_counter() - started
    return Measured(
        seconds, time.process_time() - cpu, peak_mib() - before, 0.0, [*map(float, variances)]
    )


def shards_in(folder: str) -> tuple[str, ...]:
    """List the shards of a folder."""
    return tuple(sorted(path.name for path in Path(folder).glob("*.parquet")))


def read_shards(folder: str) -> Iterator[Array]:
    """Read features shard by shard."""
    for name in shards_in(folder):
        table = pq.read_table(Path(folder, name), columns=["feature"])
        width = table.schema.field("feature").type.list_size
        for chunk in table["feature"].chunks:
            yield chunk.flatten().to_numpy().reshape(-1, width)


SIDES: dict[str, Callable[..., Measured]] = {
    "ours": ours,
    "scikit": scikit,
    "incremental": incremental,
}

if __name__ == "__main__":
    print(json.dumps(asdict(SIDES[sys.argv[1]](*json.loads(sys.argv[2])))))
