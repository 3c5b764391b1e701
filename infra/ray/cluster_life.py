"""Whether a cluster lives: which of its machines do, and whether it answers at all. Knows no gang and no task."""

import threading

import ray
from ray.exceptions import RayError

from vitpipe.infra.errors import Lost, StorageError
from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.ray.capacity import machines
from vitpipe.infra.ray.deaths import in_words

_GO_ON = "run the same command again, on a new cluster if this one lost its head: it goes on from the last commit"

leaving = threading.Event()
"""Set once this process leaves its cluster: whoever asks Ray anything after that ends the process on the spot."""


def cluster_gone() -> str | None:
    """Say why no gang can be started or led here, or None.

    Asked before Ray is, where it matters: Ray itself waits for a minute, and then ends this process.
    """
    context = ray.get_runtime_context()
    try:
        ray_auth.require_answer(context.gcs_address)
        return None if context.get_node_id() in machines() else "this machine is no part of it any more"
    except (StorageError, RayError) as error:
        return getattr(error, "found", None) or in_words(error)


def lost_cluster(asked: str, found: str) -> Lost:
    """Return what a gang ends with when no other can be started."""
    return Lost(asked, f"the cluster is gone ({found})", _GO_ON)
