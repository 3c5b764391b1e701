"""The dashboard of a cluster that we have joined, which listens on loopback of its head: asked from there."""

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitpipe.infra.errors import StorageError
from vitpipe.infra.ray import auth

PROBE_S = 120.0
"""Time for a task of ours to start on the head's machine."""
_HEAD = "node:__internal_head__"


def refuse_open(dashboard: str) -> None:
    """Raise StorageError unless the cluster's dashboard turns away who has no token. See `auth.refuse_open`."""
    head = next((node["NodeID"] for node in ray.nodes() if _HEAD in node["Resources"]), None)
    if head in (None, ray.get_runtime_context().get_node_id()):
        return auth.refuse_open(dashboard)
    there = NodeAffinitySchedulingStrategy(head, soft=False)
    asked = ray.remote(auth.refuse_open).options(num_cpus=0, max_retries=3, scheduling_strategy=there)
    try:
        ray.get(asked.remote(dashboard), timeout=PROBE_S)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, StorageError) else error) from error
    except RayError as error:
        do = "look at the head's machine"
        raise StorageError(f"ask for {dashboard} on the cluster's head", str(error), do) from error
    return None
