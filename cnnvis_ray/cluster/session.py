"""A session with Ray: the submitted job's own cluster, a named one, or a local one."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import ray

from cnnvis_ray.cluster.nodes import alive_offers, wait_for_nodes
from cnnvis_ray.cluster.placement import Offer
from cnnvis_ray.cluster.stopping import REASON, before_deadline, install_handlers, stoppable
from cnnvis_ray.config import Cluster
from cnnvis_ray.errors import RefusedError

log = logging.getLogger(__name__)

LISTEN_SECONDS = 10.0
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the entry point of a submitted job


class Session:
    """A connection that is made when the first stage needs it: a finished run never starts Ray."""

    def __init__(self, config: Cluster) -> None:
        self.config = config
        self.mine = False

    def offers(self) -> list[Offer]:
        """Connect if needed, and list what the alive nodes have, or the autoscaler can start.

        Raises:
            RefusedError: the address does not answer, or no node with a CPU came up in time.
        """
        self.join()
        return wait_for_nodes(self.config)

    @property
    def num_nodes(self) -> int:
        """How many nodes are alive."""
        return len(alive_offers())

    def join(self) -> None:
        """Connect, unless this process is connected."""
        if not ray.is_initialized():
            connect(self.config)
            self.mine = True
            install_handlers()  # again: ray.init installs handlers of its own

    def close(self) -> None:
        """Leave the cluster if this session joined it."""
        if self.mine:
            ray.shutdown()


@contextmanager
def session(config: Cluster) -> Iterator[Session]:
    """Open a session for the block; SIGTERM, SIGINT and the deadline end it as interrupted.

    A cluster that the process already joined (a test's, a notebook's) is used and left joined.

    Raises:
        InterruptedRunError: a signal came, or the deadline.
    """
    opened = Session(config)
    REASON.clear()
    earlier = install_handlers()
    try:
        with before_deadline(config), stoppable():
            yield opened
    finally:
        opened.close()
        REASON.clear()
        for number, handler in earlier.items():
            signal.signal(number, handler)


def check_listening(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes.

    Raises:
        RefusedError: no connection within `LISTEN_SECONDS`.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return  # auto, local
    try:
        socket.create_connection((host.strip("[]"), int(port)), LISTEN_SECONDS).close()
    except (OSError, OverflowError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise RefusedError(
            f"cluster.address: nothing listens at {address} ({reason}); start a head there (ray "
            "start --head), correct the address, or use null for a local cluster"
        ) from None


def in_submitted_job() -> bool:
    """Whether this process is the entry point of a submitted job."""
    return JOB_VARIABLE in os.environ


def connect(config: Cluster) -> None:
    """Start or join a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    init = partial(ray.init, logging_level=logging.ERROR, log_to_driver=False)
    try:
        if config.address is not None:
            check_listening(config.address)
            init(address=config.address)
        elif in_submitted_job():
            init()
        else:
            log.info("starting Ray on this machine")
            init(address="local", include_dashboard=False)
    except (ConnectionError, ValueError) as failure:
        where = config.address or "a local cluster"
        first = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
        raise RefusedError(f"cluster.address: cannot reach {where}: {first}") from None
