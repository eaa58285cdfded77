"""Where bytes lie: folders and object stores, Parquet schemas, and files that appear whole."""

from cnnvis_ray.storage.addresses import check_address, is_local, locate, redact, version_of
from cnnvis_ray.storage.shards import (
    ShardFile,
    ShardWriter,
    read_table,
    shard_writer,
    write_bytes,
    write_table,
)
from cnnvis_ray.storage.store_errors import StoreError, store_errors
from cnnvis_ray.storage.stores import Store

__all__ = [
    "ShardFile",
    "ShardWriter",
    "Store",
    "StoreError",
    "check_address",
    "is_local",
    "locate",
    "read_table",
    "redact",
    "shard_writer",
    "store_errors",
    "version_of",
    "write_bytes",
    "write_table",
]
