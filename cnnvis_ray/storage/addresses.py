"""Addresses: from a path or URI to the file system behind it, s3:// by s3fs and gs:// by gcsfs.

Object stores take credentials and endpoint from the environment (``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``), never from an
address, since addresses are written to run.json, logs and errors. Listings are never cached: a
driver must see what its workers wrote. s3 is tested against a real server (moto), gs is untested.
"""

import os
import re
from collections.abc import Mapping

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cnnvis_ray.errors import RefusedError

BLOCK_BYTES = 8 << 20
"""Read ahead of an open object; s3fs' own 50 MB would be fetched for a footer of 10 kB."""

ATTEMPTS = 6
"""Of one request, with waits of up to 1, 2, 4, 8 and 16 s between them (botocore's ``standard``
mode): half a minute of a store's bad time. ``AWS_MAX_ATTEMPTS`` sets another number."""

CONNECT_SECONDS, READ_SECONDS = 10, 60

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Which extra of this package serves a protocol."""

SECRETS = re.compile(r"(?<=://)[^/@?]*@|[?#].*$", re.DOTALL)
WITH_QUERY = ("s3", "s3a", "gs", "gcs", "http", "https")


def check_address(address: str) -> None:
    """Refuse an address that carries credentials; the message does not repeat them.

    Raises:
        RefusedError: it holds ``user:password@`` or a query (a signature, a token).
    """
    protocol, mark, rest = address.partition("://")
    if not mark:
        return
    # a question mark alone is that of a pattern, like s3://bucket/00?.tar
    signed = protocol in WITH_QUERY and ("#" in rest or ("?" in rest and "=" in rest))
    if "@" in rest.partition("/")[0] or signed:
        raise RefusedError(
            f"the address {redact(address)!r} carries credentials or a query, which would be "
            "stored with the run; take them out and set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
        )


def redact(address: str) -> str:
    """Return an address without what may be secret in it."""
    return SECRETS.sub(lambda found: "***@" if found[0].endswith("@") else "?***", address)


def locate(address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of an address and its path there (fsspec keeps one instance each).

    Raises:
        RefusedError: the address carries credentials, its protocol is unknown, or the package
            that serves it is not installed.
    """
    check_address(address)
    protocol = address.partition("://")[0] if "://" in address else "file"
    try:
        file_system, path = fsspec.core.url_to_fs(address, **options(protocol))
    except ImportError:
        extra = EXTRAS.get(protocol)
        hint = f"pip install 'cnnvis_ray[{extra}]'" if extra else f"it needs {protocol}'s package"
        raise RefusedError(f"cannot use {address!r} yet: {hint}") from None
    except ValueError as failure:
        text = " ".join(str(failure).split())
        raise RefusedError(f"cannot use {address!r}: {text}") from None
    return file_system, str(path)


def options(protocol: str) -> dict[str, object]:
    """Return the arguments that a file system is opened with."""
    if protocol in ("s3", "s3a"):
        attempts = {} if "AWS_MAX_ATTEMPTS" in os.environ else {"total_max_attempts": ATTEMPTS}
        retries = {"mode": "standard", **attempts}
        timeouts = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        return {
            "use_listings_cache": False,
            "default_block_size": BLOCK_BYTES,
            "config_kwargs": {**timeouts, "retries": retries},
        }
    return {"use_listings_cache": False} if protocol in ("gs", "gcs") else {}


def is_local(file_system: fsspec.AbstractFileSystem) -> bool:
    """Whether files lie in this machine's own tree."""
    return isinstance(file_system, LocalFileSystem)


def version_of(info: Mapping[str, object]) -> str:
    """Return what changes with an object's content: its size and ETag, or its size and time."""
    for name in ("ETag", "etag", "md5Hash", "mtime", "created", "LastModified"):
        if info.get(name) is not None:
            return f"{info['size']}-{str(info[name]).strip(chr(34))}"
    return str(info["size"])
