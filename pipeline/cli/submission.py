"""Hand a whole run to a cluster as one job, and follow it when asked; what a cluster is told of a run.

Of Ray it knows `infra.ray.jobs` alone.
"""

import getpass
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from vitpipe.infra.errors import Stopped, StorageError, VitpipeError
from vitpipe.infra.ray.jobs import Jobs, Submitted
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli import slurm_job
from vitpipe.pipeline.drive.driver import DriverOptions, connect_ray
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.spec.places import is_local
from vitpipe.pipeline.store.runs import ignore
from vitpipe.pipeline.store.submitted import Submission, leave

FILE = "spec.yaml"
LEAVE_S = 10.0
"""A machine that submits may reach the cluster and not the store: it waits no longer to leave word there."""


@dataclass(frozen=True)
class Fate:
    """What a cluster says of a job for which no driver has begun."""

    words: str = ""
    over: bool = False
    """Whether it will not begin any more."""


def fate(waiting: Submission) -> Fate:
    """Ask the cluster what became of a job."""
    if waiting.address == slurm_job.AT:
        return Fate(*slurm_job.outlook(waiting.job))
    try:
        state = Jobs(waiting.address).state(waiting.job)
    except VitpipeError as error:
        return Fate(f"what became of it is not known ({error.found})")
    if not state.ended:
        return Fate({"PENDING": "its job waits on the cluster"}.get(state.status, "its job runs, and has not begun"))
    code = f" with {state.exit_code}" if state.exit_code is not None else ""
    said = " ".join(state.message.split())
    words = f"its job ended as {state.status}{code} before it began, submit it again; {said:.400}"
    return Fate(words.rstrip("; "), True)


def leave_word(spec: PipelineSpec, job: str, address: str, tell: Callable[[str], None]) -> None:
    """Say in the store that the run was submitted; `tell` hears why that could not be done."""
    run, nodes = open_store(spec.uri), tuple(spec.graph.nodes)
    parts = urlsplit(address if "://" in address else f"http://{address}")
    place = address if address == slurm_job.AT else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    problems = [f"the store did not answer within {LEAVE_S:g} s"]

    def write() -> None:
        try:
            leave(run, job, place, by, nodes)
            problems.clear()
        except VitpipeError as error:
            problems[:] = [error.in_brief]

    thread = threading.Thread(target=write, name="vitpipe-submitted", daemon=True)
    thread.start()
    thread.join(LEAVE_S)
    for problem in tuple(problems):
        tell(f"`status` will know of it once it begins: {problem}")


def submit_spec(
    spec: PipelineSpec,
    address: str,
    replacing: Sequence[str] = (),
    yaml: str = FILE,
    tell: Callable[[str], None] = ignore,
) -> tuple[Jobs, Submitted]:
    """Start `vitpipe run` of this spec on the cluster at `address`; the job, and where to ask about it.

    Word of it is left in the store, so that `status` knows of the run at once; `tell` hears where that fails.
    The dashboard shows the run's name, its store and the name of its YAML beside the job.
    StorageError (7) when the cluster does not answer, refuses our token, asks for none, or has a node that does not see
    the store.
    """
    jobs = Jobs(address)
    if is_local(spec.store):
        jobs.require_shared(spec.store)
    replace = [word for node in replacing for word in ("--replace", node)]
    submitted = jobs.submit(["run", FILE, *replace], {FILE: spec.text}, spec.name, _about(spec, yaml))
    leave_word(spec, submitted.job, address, tell)
    return jobs, submitted


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
