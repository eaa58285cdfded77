"""Features in blocks: what a reduction reads when they do not fit in memory.

A block is a function without arguments that reads some images: their ids ``[n]`` and features
``[n, D]``, of any float type. Whoever runs `map_blocks` reads it where it is needed, so nothing
large travels. A block is a shard, or a range of its rows where rows are wide: a worker holds one
block in the stored type, so `BLOCK_BYTES` is the size to cut to.

Images with a value that is not finite are left out and named; a block of another width refuses.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cnnvis_ray.errors import RefusedError

Ids = npt.NDArray[np.int64]
Features = npt.NDArray[np.floating]
Block = Callable[[], tuple[Ids, Features]]
Item = TypeVar("Item")
Result = TypeVar("Result")

BLOCK_BYTES = 48 << 20
BATCH_ROWS = 1_024  # rows that a matrix product takes at a time: fewer are slower per row


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


def in_batches(
    parts: Iterable[Features], num_rows: int = BATCH_ROWS
) -> Iterator[npt.NDArray[np.floating]]:
    """Yield rows in batches of at least a number, the last with what is left.

    float16 becomes float32, in which its products are exact; the other types stay.
    """
    held: list[Features] = []
    for part in parts:
        exact = part.astype(np.float32) if part.dtype == np.float16 else part
        if len(exact):
            held.append(exact)
        if sum(map(len, held)) >= num_rows:
            yield np.concatenate(held) if len(held) > 1 else held[0]
            held = []
    if held:
        yield np.concatenate(held)


def split(blocks: Sequence[Block], num_groups: int) -> list[list[Block]]:
    """Cut blocks into at most as many groups of neighbours, none of them empty."""
    cuts = np.array_split(np.arange(len(blocks)), max(1, min(num_groups, len(blocks))))
    return [[blocks[index] for index in cut] for cut in cuts if len(cut)]
