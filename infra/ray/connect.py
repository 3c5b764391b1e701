"""The door to Ray: prepare its environment, connect, and hand out `infra.ray.cluster.RayCluster`.

Imports no Ray itself: Ray reads its environment when it is imported, and a command that runs nothing needs none.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vitpipe.infra.ray import leftovers
from vitpipe.infra.ray.cluster_survey import Survey, survey

if TYPE_CHECKING:
    from vitpipe.infra.ray.cluster import RayCluster

RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # would rebuild the environment in every worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; without it Ray warns
}
"""Set unless the operator's environment already says otherwise."""


def connect(
    run: str,
    cpus_wanted: float = 1,
    address: str | None = None,
    wait_s: float | None = None,
    about: Mapping[str, str] | None = None,
) -> "RayCluster":
    """Embed a Ray of this machine (no address, or `local`), or join the cluster at `address` as one of its nodes.

    An address is `host:port` of the cluster's GCS. An embedded Ray offers at least `cpus_wanted` CPUs, so that two
    ranks also run, slowly, on one core. `wait_s` is how long machines that a node asks for may be missing: by default
    5 min on a cluster, 0 where none can come. `about` is the job's metadata, which the dashboard shows: nothing secret.
    StorageError when the cluster does not answer within seconds, wants another token, or is open to everyone.
    """
    prepare_environment()
    from vitpipe.infra.ray import cluster as ray_cluster  # not before the line above

    if address in (None, "", "local"):
        leftovers.sweep()
        return ray_cluster.embed(run, cpus_wanted, wait_s or 0.0, about or {})
    return ray_cluster.join(run, address, ray_cluster.WAIT_S if wait_s is None else wait_s, about or {})


def survey_cluster(store_uri: str, expected: int, address: str | None) -> Survey:
    """Look at every node of the cluster at `address`, or of an embedded one, as soon as `expected` nodes are there."""
    with connect("doctor", address=address):
        from vitpipe.infra.ray.ray_nodes import RayNodes  # imports ray

        return survey(RayNodes(expected), store_uri)


def prepare_environment() -> None:
    """Set what Ray reads when it is imported, here and in every process it starts."""
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
