"""Hand a command to a cluster as a Ray job, and follow it from here.

Ships the code beside the files it is given, and no environment: credentials are the nodes' own, and what stands in a
job's runtime environment can be read back by everyone who may look at the cluster. Knows no spec.
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitpipe.infra.errors import NotFound, StorageError
from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.ray.connect import prepare_environment
from vitpipe.infra.retry import RetryPolicy, persist
from vitpipe.infra.storage.opening import open_store

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[2]
_NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")
PROBE_S = 180.0
"""A probe job starts Python on every node; on a busy cluster that takes its time."""
_RAYS_OWN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s+INFO \w+\.py:\d+ -- ")
"""How lines begin that Ray writes into a job's log: `Runtime env is setting up.`"""
PYTHON = "python.sh"
_PYTHON_SH = r"""# Python of the environment that Ray itself runs in (an ancestor's), though nobody activated it.
above=$PPID
while [ "${above:-0}" -gt 1 ]; do
  bin=$(sed -n 's|^[^/]*\(/.*\)/lib[0-9]*/python[0-9.]*/site-packages/ray/_raylet.*|\1/bin|p' /proc/$above/maps \
    | head -n 1)
  [ -n "$bin" ] && break
  above=$(sed -n 's|^PPid:[[:space:]]*||p' /proc/$above/status)
done
PATH=${bin:+$bin:}$PATH exec python "$@"
"""


@dataclass(frozen=True)
class Submitted:
    """A job that the cluster has taken."""

    job: str
    dashboard_url: str
    """Where a person sees it; asks for the cluster's token."""


@dataclass(frozen=True)
class JobState:
    """The state of a job."""

    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    exit_code: int | None
    """What the command ended with, once it has ended by itself."""
    message: str

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class Jobs:
    """The jobs of one cluster, through its dashboard at `address`, e.g. `http://head:8265`.

    StorageError from every method when it does not answer, refuses our token, or answers without asking for one.
    """

    def __init__(self, address: str) -> None:
        self.address = (address if "://" in address else f"http://{address}").rstrip("/")
        ray_auth.refuse_open(self.address)
        prepare_environment()
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            os.environ.pop(name, None)  # Ray would prefer them to the address that was asked for
        from ray.exceptions import RayError  # not before the environment is prepared
        from ray.job_submission import JobSubmissionClient

        self._failures = (RuntimeError, OSError, RayError)
        for chatty in ("ray.dashboard", "ray._private.runtime_env"):
            logging.getLogger(chatty).setLevel(logging.WARNING)  # they print every upload to the terminal
        with self._errors("connect"):
            self._client = JobSubmissionClient(self.address)

    def submit(
        self, arguments: Sequence[str], files: Mapping[str, str], name: str, about: Mapping[str, str] | None = None
    ) -> Submitted:
        """Run `vitpipe *arguments` on the head node, in a folder with the code and `files` (name -> text).

        `about` is the job's metadata, which the dashboard shows: nothing secret.
        """
        return self._run(["vitpipe.pipeline", *arguments], files, name, about)

    def require_shared(self, store_uri: str) -> None:
        """Raise StorageError unless this machine and all nodes of the cluster see the same `file://` store."""
        nonce = secrets.token_hex(8)
        store, question = open_store(store_uri), f".probe-{nonce}/asked"
        store.create(question, nonce.encode())
        try:
            probe = self._run(["vitpipe.infra.ray.store_probe", store_uri, nonce], {}, "store-probe")
            state = self.wait(probe.job, timeout_s=PROBE_S)
            said = self.logs(probe.job)
            answers = [entry.path for entry in store.list(f".probe-{nonce}/") if entry.path != question]
        finally:
            for entry in list(store.list(f".probe-{nonce}/")):
                with contextlib.suppress(NotFound):
                    store.delete(entry.path)
        if state.exit_code != 0 or not answers:
            blind = [line for line in said.splitlines() if "does not see" in line]
            asked = f"use the store {store_uri} on the cluster at {self.address}"
            found = "; ".join(blind) or f"no node answered through it: {state.status} {state.message}"
            raise StorageError(asked, found, "use a store that this machine and all nodes see, such as s3://")

    def state(self, job: str) -> JobState:
        """Ask how a job stands now. StorageError."""
        with self._errors(f"ask for job {job}"):
            info = self._client.get_job_info(job)
        return JobState(str(info.status.value), info.driver_exit_code, info.message or "")

    def logs(self, job: str) -> str:
        """Read all that the command has printed so far."""
        with self._errors(f"read the log of job {job}"):
            return str(self._client.get_job_logs(job))

    def follow(self, job: str) -> Iterator[str]:
        """Yield what the command prints, as it comes, until it ends; without what Ray says about itself."""
        loop = asyncio.new_event_loop()
        lines: AsyncIterator[str] = self._client.tail_job_logs(job)
        try:
            while True:
                with self._errors(f"follow the log of job {job}"):
                    try:
                        chunk = loop.run_until_complete(anext(lines))
                    except StopAsyncIteration:
                        return
                if said := said_by_the_command(chunk):
                    yield said
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def stop(self, job: str) -> None:
        """Send SIGTERM to the command; Ray kills it some seconds later. `vitpipe stop RUN` leaves it more time."""
        with self._errors(f"stop job {job}"):
            self._client.stop_job(job)

    def wait(self, job: str, timeout_s: float = float("inf"), every_s: float = 1.0) -> JobState:
        """Wait until the job has ended; its state then. After `timeout_s` it is stopped, and that is a StorageError."""
        deadline = time.monotonic() + timeout_s
        while not (state := self.state(job)).ended:
            if time.monotonic() > deadline:
                self.stop(job)
                found = f"still {state.status} after {timeout_s:g} s"
                raise StorageError(f"wait for job {job}", found, f"look at {self._link(job)}")
            time.sleep(every_s)
        return state

    def _run(
        self, module: Sequence[str], files: Mapping[str, str], name: str, about: Mapping[str, str] | None = None
    ) -> Submitted:
        job = f"{name}-{secrets.token_hex(4)}"
        with tempfile.TemporaryDirectory(prefix="vitpipe-submit-") as folder, self._errors(f"submit {name}"):
            shutil.copytree(PACKAGE, Path(folder, PACKAGE.name), ignore=_NOT_SHIPPED)
            for path, text in {PYTHON: _PYTHON_SH, **files}.items():
                Path(folder, path).write_text(text, encoding="utf-8")
            persist(
                lambda: self._client.submit_job(
                    entrypoint=f"sh {PYTHON} -m {shlex.join(module)}",
                    submission_id=job,
                    metadata=dict(about or {}),
                    runtime_env={"working_dir": folder},
                ),
                passes=lambda error: "No available agent" in str(error),  # a head answers before its nodes can run
                patience=RetryPolicy(),
                noticed=lambda error, tries: log.info("the cluster is still starting (%d tries): %s", tries, error),
            )
        return Submitted(job, self._link(job))

    def _link(self, job: str) -> str:
        return f"{self.address}/#/jobs/{job}"

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn Ray's errors, and those of the HTTP library below it, into ours."""
        try:
            yield
        except self._failures as error:
            raise _refused(what, self.address, error) from error


def said_by_the_command(lines: str) -> str:
    """Leave out Ray's own lines."""
    return "".join(line for line in lines.splitlines(keepends=True) if not _RAYS_OWN.match(line))


def _refused(what: str, address: str, error: Any) -> StorageError:
    asked = f"{what} on the Ray cluster at {address}"
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "authentication" in str(error).lower() or "401" in str(error) or "403" in str(error):
        mine = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else ray_auth.token_path()
        found = f"the token in {mine} is not its token" if ray_auth.token() else "there is no token on this machine"
        return StorageError(asked, f"{found} ({first})", f"put the cluster's token into {ray_auth.token_path()}")
    return StorageError(asked, first, "check the address, and that the cluster is up")
