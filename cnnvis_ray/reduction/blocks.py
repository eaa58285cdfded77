"""Features in blocks: what a reduction reads when they do not fit in memory.

A block is a function without arguments that reads some images: their ids ``[n]`` and features
``[n, D]``, of any float type. Whoever runs `map_blocks` reads it where it is needed, so nothing
large travels. A block is a shard, or a range of its rows where rows are wide: a worker holds one
block in the stored type, so `BLOCK_BYTES` is the size to cut to.

Images with a value that is not finite are left out and named; a block of another width refuses.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cnnvis_ray.errors import RefusedError
from cnnvis_ray.reduction.resources import num_threads

Ids = npt.NDArray[np.int64]
Features = npt.NDArray[np.floating]
Block = Callable[[], tuple[Ids, Features]]
Item = TypeVar("Item")
Result = TypeVar("Result")

BLOCK_BYTES = 16 << 20
# Rows that a matrix product takes at a time: with 1,024 it took 1.4 times as long per row.
BATCH_ROWS = 2_048
BATCH_BYTES = 64 << 20  # and no more than this, in float32


class MapBlocks(Protocol):
    """How a function is applied to all items: here one after another, on a cluster at once.

    The function is defined in a module, or is a `partial` of such a one, and may carry arrays
    (at most a basis of ``D x 60``), so a cluster stores it once per call and not per item.
    """

    def __call__(
        self, function: Callable[[Item], Result], items: Sequence[Item], /
    ) -> Iterator[Result]:
        """Yield the function's result for each item, in the order of the items."""
        ...


def in_turn(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function to one item after another, in this process."""
    return map(function, items)


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function to all items in this process, as many at once as it may use cores."""
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads()) as pool:
        for item in items:
            if len(running) == num_threads():  # no result waits beside those that are made
                yield running.popleft().result()
            running.append(pool.submit(function, item))
        while running:
            yield running.popleft().result()


@dataclass(frozen=True, slots=True)
class Rows:
    """Images of which everything is finite.

    Attributes:
        ids: ``[n]``.
        features: ``[n, D]`` as stored.
        left_out: ids of the images that hold NaN or infinity.
    """

    ids: Ids
    features: Features
    left_out: Ids


def read_rows(block: Block, num_features: int) -> Rows:
    """Read a block, without the images that hold NaN or infinity.

    Raises:
        RefusedError: its features have another width.
    """
    ids, features = block()
    if features.shape[1] != num_features:
        raise RefusedError(
            f"a shard holds features of {features.shape[1]} values where others hold "
            f"{num_features}; extract the layer again: --replace extract"
        )
    finite = np.isfinite(features).all(axis=1)
    if finite.all():
        return Rows(ids, features, ids[:0])
    return Rows(ids[finite], features[finite], ids[~finite])


def gather(blocks: Iterable[Block], num_features: int) -> Rows:
    """Read all blocks into one array of float32.

    Raises:
        RefusedError: a block has another width.
    """
    parts = [read_rows(block, num_features) for block in blocks]
    empty = np.empty((0, num_features), np.float32)
    return Rows(
        join_ids(part.ids for part in parts),
        np.concatenate([empty, *(part.features.astype(np.float32) for part in parts)]),
        join_ids(part.left_out for part in parts),
    )


def join_ids(parts: Iterable[Ids]) -> Ids:
    """Concatenate ids; of no parts there are none."""
    return np.concatenate([np.empty(0, np.int64), *parts])


def in_batches(parts: Iterable[Features], origin: Features) -> Iterator[Features]:
    """Yield rows less an origin in its type, in batches; the last holds what is left.

    All batches share memory, since new memory costs more than the subtraction: a batch is valid
    until the next one.
    """
    num_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // (4 * max(1, len(origin)))))
    batch = np.empty((num_rows, len(origin)), origin.dtype)
    filled = 0
    for part in parts:
        start = 0
        while start < len(part):
            stop = min(len(part), start + num_rows - filled)
            last = filled + stop - start
            np.subtract(part[start:stop], origin, out=batch[filled:last])
            start, filled = stop, last
            if filled == num_rows:
                yield batch
                filled = 0
    if filled:
        yield batch[:filled]


def mean_of(features: Features) -> Features:
    """Average rows, in float32 or the type of the features if it is wider."""
    mean: Features = features.mean(axis=0, dtype=np.float64)
    return mean.astype(np.result_type(features.dtype, np.float32))


def split(blocks: Sequence[Block], num_groups: int) -> list[list[Block]]:
    """Cut blocks into at most as many groups of neighbours, none of them empty."""
    cuts = np.array_split(np.arange(len(blocks)), max(1, min(num_groups, len(blocks))))
    return [[blocks[index] for index in cut] for cut in cuts if len(cut)]
