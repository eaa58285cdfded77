"""Failures of file systems and object stores as one `StoreError` with a message of ours.

Nothing of a store's own text is kept but its error code: it may repeat endpoints, signatures and
key ids. A missing file stays a `FileNotFoundError`; a missing bucket does not, or a run would take
its absence for an empty folder.
"""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from cnnvis_ray.storage.addresses import redact

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LIBRARIES = frozenset({"botocore", "aiobotocore", "aiohttp", "gcsfs", "google"})
"""Packages whose exceptions are not `OSError` and mean that a store fails."""

CODES = {
    "NoSuchBucket": (errno.ENODEV, "the bucket does not exist; create it or correct the name"),
    "AccessDenied": (errno.EACCES, "the store denies access; check the credentials' rights"),
    "401": (errno.EACCES, "the store wants other credentials; renew them and run again"),
    "403": (errno.EACCES, "the store denies access; check the credentials and their rights"),
    "InvalidAccessKeyId": (errno.EACCES, "the access key is not known; check AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (
        errno.EACCES,
        "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY",
    ),
    "ExpiredToken": (errno.EACCES, "the session token has expired; renew it and run again"),
}
UNREACHED = (
    errno.ECONNREFUSED,
    "the store cannot be reached; check AWS_ENDPOINT_URL and the network, then run again",
)
KINDS = {
    "NoCredentialsError": (
        errno.EACCES,
        "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, here and on every node",
    ),
    "PartialCredentialsError": (errno.EACCES, "half of the credentials is missing; set both"),
    "EndpointConnectionError": UNREACHED,
    "ConnectTimeoutError": UNREACHED,
    "ClientConnectorError": UNREACHED,
    "ClientConnectorDNSError": UNREACHED,
}
AGAIN = "what is committed stays: run the same command again when it works"


class StoreError(OSError):
    """A store or disk that fails: errno, what to do, the address."""


@contextmanager
def store_errors(address: str) -> Iterator[None]:
    """Turn the failures of an address into one `StoreError` that names it and says what to do.

    Raises:
        FileNotFoundError: a file is not there; as it was.
        StoreError: everything else that a store or disk does.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as failure:
        better = store_error(failure, address)
        if better is None:
            raise
        raise better from None
    except Exception as failure:
        if type(failure).__module__.partition(".")[0] not in LIBRARIES:
            raise
        raise store_error(failure, address) or failure from None


def store_error(failure: BaseException, address: str) -> StoreError | None:
    """Return a failure as `StoreError`, or None where the system's own message is good."""
    remote = "://" in address
    number = failure.errno if isinstance(failure, OSError) else None
    if number in FULL:
        where = f"for a temporary file in {tempfile.gettempdir()} (TMPDIR)" if remote else "there"
        text = f"no space left {where}; free some, {AGAIN}"
        return StoreError(errno.ENOSPC, text, redact(address))
    if not remote:
        return None
    code = error_code(failure)
    if isinstance(failure, FileNotFoundError | FileExistsError) and code != "NoSuchBucket":
        return None
    kind = type(failure).__name__
    if code in CODES or kind in KINDS:
        return StoreError(*(CODES.get(code) or KINDS[kind]), redact(address))
    text = f"the store answers {code or kind}; {AGAIN}"
    denied = isinstance(failure, PermissionError)
    return StoreError(errno.EACCES if denied else errno.EIO, text, redact(address))


def is_disk_full(failure: OSError) -> bool:
    """Whether a disk was full for a file without a name yet, as in writing to a handle."""
    return failure.errno in FULL and failure.filename is None and failure.filename2 is None


def error_code(failure: BaseException | None) -> str:
    """Return the store's own error code of a failure or its cause, or an empty text."""
    while failure is not None:
        response = getattr(failure, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code", ""))
        if isinstance(number := getattr(failure, "code", None), int):  # gcsfs
            return str(number)
        failure = failure.__cause__
    return ""
