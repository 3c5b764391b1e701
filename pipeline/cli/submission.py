"""Hand a whole run to a cluster as one job, and follow it when asked; what a cluster is told of a run.

Of Ray it knows `infra.ray.jobs` alone.
"""

from collections.abc import Callable, Sequence
from functools import partial

from vitpipe.infra.errors import Stopped, StorageError
from vitpipe.infra.ray.jobs import Jobs, Submitted
from vitpipe.pipeline.drive.driver import DriverOptions, connect_ray
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.spec.places import is_local

FILE = "spec.yaml"


def submit_spec(
    spec: PipelineSpec, address: str, replacing: Sequence[str] = (), yaml: str = FILE
) -> tuple[Jobs, Submitted]:
    """Start `vitpipe run` of this spec on the cluster at `address`; the job, and where to ask about it.

    The dashboard shows the run's name, its store and the name of its YAML beside the job.
    StorageError (7) when the cluster does not answer, refuses our token, asks for none, or has a node that does not see
    the store.
    """
    jobs = Jobs(address)
    if is_local(spec.store):
        jobs.require_shared(spec.store)
    replace = [word for node in replacing for word in ("--replace", node)]
    return jobs, jobs.submit(["run", FILE, *replace], {FILE: spec.text}, spec.name, _about(spec, yaml))


def driver_options(spec: PipelineSpec, yaml: str, verify_sources: bool) -> DriverOptions:
    """Return how a driver of this spec in this process reaches the outside."""
    return DriverOptions(partial(connect_ray, about=_about(spec, yaml)), verify_sources=verify_sources)


def _about(spec: PipelineSpec, yaml: str) -> dict[str, str]:
    """Return what Ray's dashboard says of a run's job, embedded, joined or submitted."""
    return {"job_name": spec.name, "vitpipe_run": spec.name, "vitpipe_store": spec.store, "vitpipe_spec": yaml}


def watch(jobs: Jobs, job: str, hear: Callable[[str], None]) -> int:
    """Pass on what the job prints until it ends; its exit code.

    Stopped (6) when somebody stopped it; StorageError (7) when it ended without a code of its own, or the head is gone.
    """
    try:
        for lines in jobs.follow(job):
            hear(lines)
        state = jobs.wait(job)
    except StorageError as error:
        do = "submit the same spec again, there or elsewhere: all state is in the store"
        raise StorageError(f"watch job {job}", f"the cluster answers no more: {error.found}", do) from error
    if state.exit_code is not None:
        return state.exit_code
    if state.status == "STOPPED":
        raise Stopped(f"watch job {job}", "somebody stopped it", "submit the same spec again to go on")
    raise StorageError(f"watch job {job}", f"it ended as {state.status}: {state.message}", "look at its log")
