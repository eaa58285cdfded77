"""Nodes: what the alive ones have, what an autoscaler can start, and a call on each of them."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, TypeVar

import ray
import yaml
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnvis_ray.cluster import stopping
from cnnvis_ray.cluster.placement import Offer
from cnnvis_ray.config import Cluster
from cnnvis_ray.errors import RefusedError

KUBERAY = "RAY_CLUSTER_NAME"  # KubeRay sets it in its pods
BOOTSTRAP = "~/ray_bootstrap_config.yaml"
POLL_SECONDS = 1.0
ANSWER_SECONDS = 120.0  # for one call on a node: a fresh process and its imports

Given = TypeVar("Given")


def wait_for_nodes(config: Cluster) -> list[Offer]:
    """List what the nodes offer, or can, after waiting for the first one with a CPU.

    Raises:
        RefusedError: none came up in time.
    """
    timeout_seconds = config.startup_timeout_seconds
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        found = [*alive_offers(), *startable_offers(), *asked_offers(config)]
        if any(offer.cpus for offer in found):
            return found
        time.sleep(POLL_SECONDS)
    raise RefusedError(
        f"cluster: no node with a CPU within {timeout_seconds:g} s; raise "
        "cluster.startup_timeout_seconds or look at the cluster"
    )


class Node(TypedDict):
    """What Ray says of a node, as far as it is used."""

    NodeID: str
    NodeManagerAddress: str
    Alive: bool
    Resources: dict[str, float]


def alive_nodes() -> list[Node]:
    """List the nodes that are alive."""
    nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def alive_offers() -> list[Offer]:
    """List what the alive nodes have."""
    return [
        Offer(int(has.get("CPU", 0)), float(has.get("GPU", 0)), has.get("memory", math.inf))
        for has in (node["Resources"] for node in alive_nodes())
    ]


def startable_offers() -> list[Offer]:
    """List what the autoscaler may start beside the alive nodes, by its node types.

    Workers that wait for a place are what makes it start them. Its node types are read on the
    head, where a submitted job runs: the Ray cluster launcher leaves them in `BOOTSTRAP`.
    """
    path = Path(os.environ.get("CNNVIS_AUTOSCALING_CONFIG", BOOTSTRAP)).expanduser()
    if not path.is_file() or not has_autoscaler():
        return []
    types = yaml.safe_load(path.read_text(encoding="utf-8")).get("available_node_types", {})
    alive = alive_offers()
    found = []
    for kind in types.values():
        resources = kind.get("resources", {})
        offer = Offer(int(resources.get("CPU", 0)), float(resources.get("GPU", 0)))
        running = sum(offer == other for other in alive)
        found.extend([offer] * max(0, kind.get("max_workers", 0) - running))
    return found


def asked_offers(config: Cluster) -> list[Offer]:
    """Trust numbers that were asked for, where an autoscaler does not say what it can start.

    That is KubeRay's: its groups stand in a resource that a job may not read. The workers then
    wait for their nodes up to ``startup_timeout_seconds``.
    """
    if config.workers == "auto" or config.gpus_per_worker == "auto" or startable_offers():
        return []
    if KUBERAY not in os.environ or not has_autoscaler():
        return []
    cpus = 1 if config.cpus_per_worker == "auto" else config.cpus_per_worker
    return [Offer(cpus, config.gpus_per_worker)] * config.workers


def has_autoscaler() -> bool:
    """Whether an autoscaler reports to this cluster."""
    return _internal_kv_get(DEBUG_AUTOSCALING_STATUS) is not None or is_autoscaler_v2()


def on_every_node(function: Callable[[Given], str], given: Given) -> dict[str, str]:
    """Call a function once on each alive node.

    Returns:
        What it gave, by the node's address; a node that died or did not answer gives its failure.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in alive_nodes()}
    remote = ray.remote(function)
    calls = {
        remote.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(given): address
        for node, address in nodes.items()
    }
    answers = {}
    for call, address in calls.items():
        try:
            answers[address] = ray.get(call, timeout=ANSWER_SECONDS)
        except ray.exceptions.RayError as failure:
            stopping.check()
            answers[address] = " ".join(str(failure).split())[-300:]
    return answers
