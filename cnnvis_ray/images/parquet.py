"""Images as bytes in Parquet files, one per row.

Listing reads the footers alone: one entry per file of any length. Rows are read forward,
one at a time, within a row group: a reader's memory is that of a few images and not of a group,
and neither a long group nor one that expands (a dictionary of few large values) can fill it. Units
are cut along the row groups; a row before the ones last read starts its group again.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from cnnvis_ray.errors import ImageRejectedError, RefusedError
from cnnvis_ray.images.columns import (
    ImageColumn,
    image_column,
    is_label,
    label_names,
    name_label,
)
from cnnvis_ray.images.entries import Entry, Listing
from cnnvis_ray.images.folder import MAX_FILE_BYTES
from cnnvis_ray.images.labels import FindLabel, no_label
from cnnvis_ray.images.memory import allocate_once
from cnnvis_ray.images.rows import choose_rows, row_of, shard_entries
from cnnvis_ray.images.shards import (
    Shard,
    ShardLabels,
    look_into,
    opened,
    refusing,
    shard_of,
    version_at,
)
from cnnvis_ray.images.sources import Reader, Source
from cnnvis_ray.storage import is_local, locate, store_errors

READ_BYTES = 1 << 20
"""Read at a time from a column; without it the whole column of a row group would be."""

USUAL_LABELS = "label"
"""The column that ``labels: folder`` means, if there is one."""

WINDOW_ROWS, WINDOW_BYTES = 64, 64 << 20
"""What stays of the rows last read, for threads that ask out of order."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What the end of a Parquet file states."""

    rows: int
    group_rows: int
    version: str


@dataclass(frozen=True, slots=True)
class ParquetSource(Source):
    """Parquet files with a column of encoded images.

    Attributes:
        shards: the files, in order.
        column: ``images.image_column``.
        indices: which rows, counted through all shards, as configured.
        limit: how many of the first of these are used, or None for all.
    """

    shards: tuple[Shard, ...]
    column: str | None = None
    indices: tuple[int, ...] | str | None = None
    limit: int | None = None

    def list(self) -> Listing:
        """Read the footers and list the chosen rows."""
        footers = look_into(self.shards, self.footer)
        ends = list(accumulate(footer.rows for footer in footers))
        if not ends[-1]:
            raise RefusedError(f"images.source {self.identity!r} holds no rows")
        rows = choose_rows(self.indices, self.limit, ends[-1])
        parts = [
            (f"{shard.name}/", footer.version, end)
            for shard, footer, end in zip(self.shards, footers, ends, strict=True)
        ]
        groups = {
            name: footer.group_rows for (name, _, _), footer in zip(parts, footers, strict=True)
        }
        return Listing(shard_entries(rows, parts), groups)

    def footer(self, shard: Shard) -> Footer:
        """Check one file and read its footer."""
        with refusing(shard.address):
            version = version_at(shard.address)
            with parquet_file(shard) as file:
                image_column(file.schema_arrow, self.column, repr(shard.name))
                data = file.metadata
                group_rows = data.row_group(0).num_rows if data.num_row_groups else 1
                return Footer(data.num_rows, max(1, group_rows), version)

    def open(self) -> "ParquetReader":
        """Open for reading; files are opened when they are needed."""
        return ParquetReader(self.shards, self.column)

    def find_labels(self, name: str, entries: Iterable[Entry]) -> FindLabel | None:
        """Find labels in a column; ``folder`` is the column `USUAL_LABELS`, if there is one."""
        first = self.shards[0]
        with refusing(first.address), parquet_file(first) as file:
            schema = file.schema_arrow
        column = USUAL_LABELS if name == "folder" else name
        if column in schema.names and is_label(schema.field(column).type):
            return ShardLabels(self.shards, ColumnOf(column))
        if name == "folder":
            return no_label
        usable = [field.name for field in schema if is_label(field.type)]
        raise RefusedError(
            f"images.labels {name!r} is not a column of strings or whole numbers in "
            f"{first.name!r}; such columns: {', '.join(usable) or 'none'}"
        )


@dataclass(frozen=True, slots=True)
class ColumnOf:
    """Reads the labels of one file."""

    name: str

    def __call__(self, shard: Shard) -> FindLabel:
        """Read the column."""
        with parquet_file(shard) as file:
            if self.name not in file.schema_arrow.names:
                raise RefusedError(f"images.labels: {shard.name!r} has no column {self.name!r}")
            values = file.read(columns=[self.name])[self.name]
            names = label_names(file.schema_arrow, self.name)
        return lambda own: name_label(values[row_of(own)].as_py(), names)


@contextmanager
def parquet_file(shard: Shard) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file and read its footer.

    Raises:
        RefusedError: it is not a Parquet file, or truncated.
    """
    with ExitStack() as stack:
        file_system, path = locate(shard.address)
        handle = (
            path
            if is_local(file_system)
            else pa.PythonFile(stack.enter_context(opened(shard.address)), mode="r")
        )
        try:
            file = pq.ParquetFile(handle, buffer_size=READ_BYTES, pre_buffer=False)
        except (pa.ArrowException, OSError) as failure:
            if may_pass(failure):
                raise
            text = " ".join(str(failure).split())[:160]
            raise RefusedError(
                f"images.source: {shard.name!r} is not a Parquet file or is truncated: {text}"
            ) from None
        yield stack.enter_context(file)


def may_pass(failure: BaseException) -> bool:
    """Whether a disk, a store or memory failed; damaged content is Arrow's bare `OSError`."""
    bare = type(failure) is OSError and failure.errno is None and failure.__cause__ is None
    return (isinstance(failure, OSError) and not bare) or isinstance(failure, MemoryError)


class ParquetReader(Reader):
    """One open file and one row group in it, read forward, by one thread at a time."""

    def __init__(self, shards: tuple[Shard, ...], column: str | None) -> None:
        self.lock = threading.Lock()
        self.shards = {shard.name: shard.address for shard in shards}
        self.wanted = column
        self.stack = ExitStack()
        self.shard: str | None = None
        self.file: pq.ParquetFile | None = None
        self.starts: list[int] = []
        self.group: Group | None = None

    def fetch(self, key: str) -> bytes:
        """Read the bytes of one row."""
        name, row = shard_of(key, self.shards)
        with self.lock, store_errors(self.shards[name]):
            try:
                data = self.read(name, row_of(row))
            except MemoryError:
                allocate_once(MAX_FILE_BYTES)
                data = self.read_again(name, row_of(row))
        if data is None:
            raise ImageRejectedError("read", "the row holds no image bytes")
        if len(data) > MAX_FILE_BYTES:
            raise ImageRejectedError(
                "read", f"{len(data)} bytes; at most {MAX_FILE_BYTES} are read"
            )
        return data

    def read(self, name: str, row: int) -> bytes | None:
        """Read a row; after a failure that may pass, the next call opens the file again."""
        try:
            self.turn_to(name)
            return self.group_with(row).read(row)
        except ImageRejectedError:
            raise
        except BaseException:
            self.close()
            raise

    def read_again(self, name: str, row: int) -> bytes | None:
        """Read a row for which memory was seen to be free, or reject it."""
        try:
            return self.read(name, row)
        except MemoryError:
            reason = f"row {row}: it requests more than {MAX_FILE_BYTES} bytes of memory"
            raise ImageRejectedError("read", reason) from None

    def turn_to(self, name: str) -> None:
        """Open a shard, unless it is open."""
        if name == self.shard:
            return
        self.close()
        try:
            file = self.stack.enter_context(parquet_file(Shard(name, self.shards[name])))
        except RefusedError as damaged:
            raise ImageRejectedError("read", str(damaged)) from None
        rows = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
        self.starts = [0, *accumulate(rows)]
        self.column = image_column(file.schema_arrow, self.wanted, repr(name))
        self.file, self.shard = file, name

    def group_with(self, row: int) -> "Group":
        """Return the row group that holds a row and is not past it."""
        if not 0 <= row < self.starts[-1]:
            raise ImageRejectedError("read", f"row {row}: the file has {self.starts[-1]} rows")
        index = bisect_right(self.starts, row) - 1
        if self.group is None or self.group.index != index or self.group.is_past(row):
            assert self.file is not None
            self.group = Group(self.file, index, self.starts[index], self.column)
        return self.group

    def close(self) -> None:
        """Close the open file."""
        self.shard, self.file, self.group = None, None, None
        self.stack.close()


class Group:
    """One row group, read forward row by row, with the rows last read."""

    def __init__(
        self, file: pq.ParquetFile, index: int, first_row: int, column: ImageColumn
    ) -> None:
        self.index = index
        self.next_row = first_row
        self.window: OrderedDict[int, bytes | None] = OrderedDict()
        self.window_bytes = 0
        self.damage = ""
        self.column = column
        self.batches = file.iter_batches(1, row_groups=[index], columns=[column.path])

    def is_past(self, row: int) -> bool:
        """Whether a row was read and is no longer kept."""
        return row < self.next_row and row not in self.window

    def read(self, row: int) -> bytes | None:
        """Read on to a row.

        Raises:
            ImageRejectedError: the group is damaged before or at this row.
        """
        while row >= self.next_row:
            self.advance()
        return self.window[row]

    def advance(self) -> None:
        """Read one row into the window."""
        if self.damage:
            raise ImageRejectedError("read", self.damage)
        try:
            value = next(self.batches).column(0)[0].as_py()
        except (pa.ArrowException, OSError, StopIteration) as failure:
            if may_pass(failure):
                raise
            text = " ".join(str(failure).split()) or "it ends too early"
            self.damage = f"row group {self.index} is damaged at row {self.next_row}: {text}"[:200]
            raise ImageRejectedError("read", self.damage) from None
        data = value["bytes"] if isinstance(value, dict) else value
        self.window[self.next_row] = data
        self.next_row += 1
        self.window_bytes += len(data or b"")
        while len(self.window) > WINDOW_ROWS or (
            self.window_bytes > WINDOW_BYTES and len(self.window) > 1
        ):
            self.window_bytes -= len(self.window.popitem(last=False)[1] or b"")
