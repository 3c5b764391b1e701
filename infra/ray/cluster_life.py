"""Whether a cluster lives: which of its machines do, and whether it answers at all. Knows no gang and no task."""

import threading

import ray
from ray.exceptions import RayError

from vitpipe.infra.errors import Lost
from vitpipe.infra.ray.capacity import machines
from vitpipe.infra.ray.deaths import in_words
from vitpipe.infra.ray.head import unreachable

leaving = threading.Event()
"""Set once this process leaves its cluster: whoever asks Ray anything after that ends the process on the spot."""


def cluster_gone() -> str | None:
    """Say why no gang can be started or led here, or None.

    Asked before Ray is, where it matters: Ray itself waits for a minute, and then ends this process.
    """
    context = ray.get_runtime_context()
    if found := unreachable(context.gcs_address):
        return found
    try:
        return None if context.get_node_id() in machines() else "this machine is no part of it any more"
    except Lost as error:
        return error.found
    except RayError as error:
        return in_words(error)
