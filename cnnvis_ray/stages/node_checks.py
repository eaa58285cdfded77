"""Before work starts: does every node reach the run directory, the source and the network's code?

Each node writes a probe file, reads the driver's, fetches one image and imports the user's own
network. A single node is the driver's and is not checked. On a node that joins later its workers
check that they see the run.
"""

import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from cnnvis_ray.cluster import on_every_node
from cnnvis_ray.errors import CnnvisError, ImageRejectedError, RefusedError
from cnnvis_ray.images import Source
from cnnvis_ray.network.loading.factories import check_name
from cnnvis_ray.stages.job import Job
from cnnvis_ray.storage import Store

FOLDER = "probe"


@dataclass(frozen=True, slots=True)
class Probe:
    """What a node is asked to reach."""

    run_dir: str
    token: str
    source: Source
    key: str | None
    network: str


def check_nodes(job: Job) -> None:
    """Ask every node, if there are several.

    Raises:
        RefusedError: names each node that does not reach something, and what.
    """
    key = next(job.images.listing.keys(), None)
    token = secrets.token_hex(4)
    name = job.vision.network.name
    probe = Probe(job.config.run_dir, token, job.images.source, key, name)
    driver_file = f"{FOLDER}/{token}-driver"
    job.store.write(driver_file, token.encode())
    try:
        answers = on_every_node(reach, probe)
        wrong = [f"node {node}: {said}" for node, said in answers.items() if not is_path(said)]
        wrong += [
            f"node {node}: what it writes to {probe.run_dir!r} is not seen here"
            for node, said in answers.items()
            if is_path(said) and not job.store.exists(said)
        ]
    finally:
        job.store.delete([f"{FOLDER}/{name}" for name in job.store.names(FOLDER)])
        if job.store.is_local:
            Path(job.store.path(FOLDER)).rmdir()
    if wrong:
        raise RefusedError(
            f"{'; '.join(wrong)}; run_dir and images.source must be a folder that all nodes "
            "mount, or an object store, and a network of your own must be on every node "
            "(ray job submit --working-dir)"
        )


def check_seen(run_dir: str) -> None:
    """Check, where a worker starts, that the run is seen there.

    Raises:
        CnnvisError: what this worker wrote, the driver would never see.
    """
    if not Store(run_dir).exists("run.json"):
        raise CnnvisError(
            f"node {socket.gethostname()} does not see the run in {run_dir!r} as the driver does; "
            "run_dir must be a folder that all nodes mount, or an object store"
        )


def is_path(said: str) -> bool:
    """Whether an answer is a probe file that was written, and not a failure."""
    return said.startswith(f"{FOLDER}/")


def reach(probe: Probe) -> str:
    """Do on a node what a worker will do; give the file written, or what failed."""
    store = Store(probe.run_dir)
    name = f"{FOLDER}/{probe.token}-{secrets.token_hex(4)}"
    try:
        if ":" in probe.network:
            check_name(probe.network)
        if not store.exists(f"{FOLDER}/{probe.token}-driver"):
            return f"does not see {probe.run_dir!r} as the driver does"
        fetch(probe)
        store.write(name, probe.token.encode())
    except (CnnvisError, OSError) as failure:
        return f"{type(failure).__name__}: {failure}"
    return name


def fetch(probe: Probe) -> None:
    """Fetch one image of the source; one that cannot be decoded was read all the same."""
    if probe.key is None:
        return
    with probe.source.open() as reader:
        try:
            reader.fetch(probe.key)
        except ImageRejectedError as reject:
            if reject.stage == "read":
                raise
