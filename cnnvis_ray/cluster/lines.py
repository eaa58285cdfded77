"""What workers log, shown by the driver: a line per key of the cluster's key-value store.

Ray's own forwarding prints everything that any process of the job writes. These are the lines of
this package alone, with their level, so that a map of an hour shows how far it is.
"""

import json
import logging
import time
from contextlib import suppress

import ray
from ray.exceptions import RayError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

PACKAGE = "cnnvis_ray"
SPACE = b"cnnvis_lines"
LOOK_SECONDS = 1.0


def prefix() -> str:
    """Return what the keys of this job's lines begin with, in its driver and its workers."""
    return f"{ray.get_runtime_context().get_job_id()}:"


class Sender(logging.Handler):
    """Stores each record under a key that sorts by time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Store one record; a cluster that is ending takes none."""
        line = json.dumps([record.name, record.levelno, record.getMessage()])
        with suppress(RayError, RuntimeError):
            key = f"{prefix()}{time.time_ns():020d}"
            _internal_kv_put(key.encode(), line.encode(), namespace=SPACE)


def send_lines() -> None:
    """Let this process, a worker, send its lines from INFO upwards to its driver."""
    logger = logging.getLogger(PACKAGE)
    if not any(isinstance(handler, Sender) for handler in logger.handlers):
        logger.addHandler(Sender(logging.INFO))
        logger.setLevel(logging.INFO)


class Lines:
    """The lines that the workers of this driver sent and that are not shown yet."""

    def __init__(self) -> None:
        self.looked = time.monotonic()

    def show(self, *, at_once: bool = False) -> None:
        """Log the lines that came, looking once per second."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS and not at_once:
            return
        self.looked = now
        with suppress(RayError, RuntimeError):
            for key in sorted(_internal_kv_list(prefix().encode(), namespace=SPACE)):
                text = _internal_kv_get(key, namespace=SPACE)
                _internal_kv_del(key, namespace=SPACE)
                if text is not None:
                    name, level, message = json.loads(text)
                    logging.getLogger(name).log(level, "%s", message)
