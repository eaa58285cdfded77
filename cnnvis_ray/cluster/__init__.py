"""The only room that knows Ray: a session, where workers run, and work units in flight.

Nothing here knows networks or images. A worker is any callable that a factory builds inside an
actor; what it takes and returns belongs to the room that computes.
"""

from cnnvis_ray.cluster.dispatcher import Outcome, work
from cnnvis_ray.cluster.nodes import on_every_node
from cnnvis_ray.cluster.placement import Offer, Placement, SingleThread, Slot, place_workers
from cnnvis_ray.cluster.progress import Progress, snapshot
from cnnvis_ray.cluster.session import Session, in_submitted_job, session
from cnnvis_ray.cluster.stopping import interrupt, stoppable

__all__ = [
    "Offer",
    "Outcome",
    "Placement",
    "Progress",
    "Session",
    "SingleThread",
    "Slot",
    "in_submitted_job",
    "interrupt",
    "on_every_node",
    "place_workers",
    "session",
    "snapshot",
    "stoppable",
    "work",
]
