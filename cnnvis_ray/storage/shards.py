"""Shards: Parquet files that a work unit writes, hashed while they are written.

The same rows give the same bytes: row groups are cut by the schema's row size, not by how the
rows arrived. zstd level 1 without dictionary and statistics was smallest, or within 0.3 points,
for post-ReLU features in float16 (measured on SqueezeNet and VGG16 features), and a
dictionary makes lists of half floats 2 to 3 times slower to read.
"""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from cnnvis_ray.storage.store_errors import store_errors
from cnnvis_ray.storage.stores import Store, path_to

GROUP_BYTES = 8 << 20  # one to eight rows when rows are megabytes wide: bounds a reader's memory
GROUP_ROWS = 4096


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One written file, as its marker names it."""

    path: str
    rows: int
    bytes: int
    sha256: str


class Hashing:
    """A file that is hashed while it is written in order."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write bytes and take them into the digest."""
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        """Flush the file below."""
        self.file.flush()

    def tell(self) -> int:
        """Return the bytes written so far."""
        return self.size

    @property
    def closed(self) -> bool:
        """Whether the file below is closed."""
        return self.file.closed


def rows_per_group(schema: pa.Schema) -> int:
    """Return the rows of a group, decided by the widest column."""
    widest = max(row_bytes(field.type) for field in schema)
    return max(1, min(GROUP_ROWS, GROUP_BYTES // max(widest, 1)))


def row_bytes(kind: pa.DataType) -> int:
    """Bytes of one value of a column; variable columns count as a small picture."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * row_bytes(kind.value_type)
    if pa.types.is_primitive(kind):
        return max(1, int(kind.bit_width) // 8)
    return 2048


class ShardWriter:
    """Collects rows of one schema into one Parquet file; use `shard_writer`."""

    def __init__(self, path: str, schema: pa.Schema, file: Hashing) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self.file = file
        self.group = rows_per_group(schema)
        self.pending: list[pa.Table] = []
        self.writer = pq.ParquetWriter(
            pa.PythonFile(file, mode="w"),
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
        )

    def write(self, table: pa.Table) -> None:
        """Add rows; whole row groups are written at once."""
        self.rows += table.num_rows
        self.pending.append(table)
        waiting = pa.concat_tables(self.pending)
        whole = waiting.num_rows - waiting.num_rows % self.group
        if whole:
            self.writer.write_table(waiting.slice(0, whole), row_group_size=self.group)
            waiting = waiting.slice(whole)
        self.pending = [waiting] if waiting.num_rows else []

    def finish(self) -> None:
        """Write what waits and the file's end."""
        if self.pending:
            self.writer.write_table(pa.concat_tables(self.pending), row_group_size=self.group)
        self.writer.close()

    @property
    def shard(self) -> ShardFile:
        """The finished file: what a marker keeps."""
        return ShardFile(self.path, self.rows, self.file.size, self.file.digest.hexdigest())


@contextmanager
def shard_writer(store: Store, path: str, schema: pa.Schema) -> Iterator[ShardWriter]:
    """Write a shard that appears whole when the block ends without an error."""
    with store.writing(path) as file:
        writer = ShardWriter(path, schema, Hashing(file))
        try:
            yield writer
            writer.finish()
        except BaseException:
            with suppress(OSError, pa.ArrowException):  # a full disk takes no footer either
                writer.writer.close()
            raise
        file.flush()
        check_rows(writer, path_to(file))


def check_rows(writer: ShardWriter, written: str) -> None:
    """Count the rows of a file before it is published.

    Raises:
        OSError: its footer says another number than were written.
    """
    rows = pq.read_metadata(written).num_rows
    if rows != writer.rows:
        raise OSError(errno.EIO, f"{writer.rows} rows were written, the file has {rows}", written)


def write_table(store: Store, path: str, table: pa.Table) -> ShardFile:
    """Write one table as a Parquet file and say what was written."""
    with shard_writer(store, path, table.schema) as writer:
        writer.write(table)
    return writer.shard


def write_bytes(store: Store, path: str, data: bytes) -> ShardFile:
    """Write one file that is not a table (a picture, an archive); return what a marker keeps."""
    store.write(path, data)
    return ShardFile(path, 0, len(data), hashlib.sha256(data).hexdigest())


def read_table(store: Store, path: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file of the store.

    Nothing is read ahead: pyarrow's reading threads keep a Python file beyond the call, and the
    interpreter aborts if it ends before they let go of it. Local files pyarrow opens itself.
    """
    if store.is_local:
        with store_errors(store.root), pq.ParquetFile(store.path(path), pre_buffer=False) as local:
            return local.read(columns=columns)
    with (
        store.open(path) as file,
        pq.ParquetFile(pa.PythonFile(file, mode="r"), pre_buffer=False) as remote,
    ):
        return remote.read(columns=columns)
