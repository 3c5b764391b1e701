"""What a stage is: `run(config, inputs, ctx) -> Artifact`, and the only doors it has outward.

Knows the shapes of the doors, not what is behind them: no Ray, no S3, no environment, no torch.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from vitpipe.infra.errors import AlreadyExists, IntegrityError, LeaseLost, StageError, VitpipeError
from vitpipe.infra.storage.store import Digest, Store
from vitpipe.infra.work import Done, GangNeeds, Item, Rank, Result, unknown
from vitpipe.stages.artifacts import Artifact, File
from vitpipe.stages.estimates import Estimate, Given, Known
from vitpipe.stages.record import Record
from vitpipe.stages.settings import Settings, TaskResources
from vitpipe.stages.sighting import Sighted

A = TypeVar("A", bound=Artifact)
C = TypeVar("C", bound=Settings)
"""A stage's config."""
R = TypeVar("R", bound=Settings, covariant=True, default=TaskResources)
"""A stage's resources section; `StageContext` by itself is that of a stage whose work is tasks."""


class Fence(Protocol):
    """The right to commit, and the wish that we end. Picklable: ranks and tasks ask the store themselves."""

    def check(self) -> None:
        """Return only if this driver still holds the run, confirmed within the last 10 s. LeaseLost otherwise.

        Called before every commit and deletion, on whatever machine does it.
        """

    def stopping(self) -> str | None:
        """Why we are to end (SIGTERM, `stop`, preemption), or None; polled every step. LeaseLost to another driver."""


class Events(Protocol):
    """Facts for people, in the store when said; of kinds that repeat, some are counted. Ends no work. Picklable."""

    def emit(self, kind: str, text: str) -> None:
        """Say one fact: its kind in a word, and a sentence."""


class Metrics(Protocol):
    """Numbers for Prometheus; names from `infra.metrics`, labels run and node already on them. Picklable."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Give a gauge its value."""

    def inc(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Raise a counter."""


class Progress(Protocol):
    """How far a running node is, kept at most 5 s old in the store, without making the caller wait. Picklable."""

    def update(self, step: int, total: int, unit: str = "steps", **facts: Any) -> None:
        """`facts` may hold images_per_second, loss, ranks=[{rank, host, pid}], note, committed_step."""


@dataclass(frozen=True)
class Out:
    """This attempt's folder in the store: the only place a stage writes. Picklable."""

    node: Store
    """Rooted at `{store}/{run}/{node}`; `at` of a file is relative to it."""
    attempt: str
    """`a{fence}`, or `a{fence}.{k}` after a gang's k-th restart."""
    fence: Fence
    header: bytes
    """Content of `attempt.json`: config, fingerprint and inputs of this attempt."""
    earlier: tuple[str, ...] = ()
    """Attempts with the same fingerprint and inputs, newest first: their finished pieces may be adopted."""

    def at(self, path: str) -> str:
        """Where a file of this attempt lies in the node's folder."""
        return f"{self.attempt}/{path}"

    def begin(self) -> None:
        """Write `attempt.json` unless it stands there, the same. LeaseLost for another: each names its own driver."""
        asked, found = f"begin {self.node.uri}/{self.attempt}", "another driver began it under the same fence"
        self._create(self.at("attempt.json"), self.header, LeaseLost(asked, found, "run the same command again"))

    def restarted(self, restart: int) -> "Out":
        """The folder after the gang's `restart`-th restart; this one and those between become earlier ones."""
        if restart == 0:
            return self
        between = tuple(f"{self.attempt}.{k}" for k in range(restart - 1, 0, -1))
        return replace(self, attempt=f"{self.attempt}.{restart}", earlier=(*between, self.attempt, *self.earlier))

    def put(self, path: str, data: bytes) -> File:
        """Write a small file of this attempt. A retried task writes the same bytes or another path."""
        digest = self.node.write(self.at(path), data)
        return File(path=path, at=self.at(path), bytes=digest.bytes, sha256=digest.sha256)

    def upload(self, local: Path, path: str, given: Digest | None = None) -> File:
        """Copy a local file into this attempt; with its digest `given`, it is given away and need not be copied.

        IntegrityError when what arrived is not what was given.
        """
        digest = self.node.upload(local, self.at(path), given)
        if given not in (None, digest):
            raise IntegrityError(f"upload {local} as {path}", f"{digest} arrived of {given}", "run the command again")
        return File(path=path, at=self.at(path), bytes=digest.bytes, sha256=digest.sha256)

    def commit(self, path: str, data: bytes) -> File:
        """Create a small file that makes others true (a step's manifest): only while we hold the run, only once.

        LeaseLost when we do not; IntegrityError when another content stands there.
        """
        self.fence.check()
        asked, found = f"create {self.node.uri}/{self.at(path)}", "another content stands there"
        self._create(self.at(path), data, IntegrityError(asked, found, "do not write into a run by hand"))
        return File(path=path, at=self.at(path), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def _create(self, at: str, data: bytes, refusal: VitpipeError) -> None:
        try:
            self.node.create(at, data)
        except AlreadyExists:
            if self.node.read(at) != data:  # the same content is our own create whose answer was lost
                raise refusal from None


class Cluster(Protocol):
    """Where heavy work goes. Functions are module-level and picklable, and import torch only when called."""

    def fan(
        self,
        fn: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        resources: TaskResources,
        label: Callable[[Item], str] = str,
        seconds: Callable[[Item], float | None] = unknown,
    ) -> Iterator[Done[Item, Result]]:
        """Many independent tasks; results as they end; one failure stops no other.

        All nodes' tasks are one queue, by the longest chain of nodes that begins with theirs and then the longest
        first: `seconds` is how long a task will take by the estimate; what is unknown goes first.
        """

    def gang(self, fn: Callable[[Rank], None], *, resources: GangNeeds) -> None:
        """N ranks in lockstep, restarted together from the top of `fn`.

        A VitpipeError of a rank is raised as it is and not retried; StageError once `max_failures` losses are spent or
        workers stay missing.
        """

    def gpus(self) -> int:
        """GPUs of the whole cluster."""


class Shared(Protocol):
    """Finished pieces that several nodes of a run need: computed once, by whichever node comes first."""

    def alone(self, what: Mapping[str, Any]) -> AbstractContextManager[Out]:
        """Lend this node the folder of what depends on `what` alone, until it leaves. Stopped when asked to end."""


@dataclass(frozen=True)
class TaskContext:
    """The doors that travel to tasks and ranks."""

    run: str
    node: str
    out: Out
    scratch: Path
    """A folder of this attempt on the local disk of whatever machine we are on; make it before use."""
    fence: Fence
    metrics: Metrics
    events: Events
    progress: Progress

    @property
    def shards(self) -> Path:
        """Local copies of shards, shared by all tasks of this attempt on this machine."""
        return self.scratch / "shards"


@dataclass(frozen=True)
class StageContext(TaskContext, Generic[R]):
    """All doors of a stage."""

    cluster: Cluster
    shared: Shared
    resources: R
    """The node's resources section, as the Settings class that the catalog names for the stage."""

    @property
    def task(self) -> TaskContext:
        """The doors that may be sent elsewhere."""
        return TaskContext(**{name: getattr(self, name) for name in TaskContext.__dataclass_fields__})


class Inputs:
    """What a node was given, by the input names of its stage."""

    def __init__(self, named: Mapping[str, Sequence[Artifact]]) -> None:
        self._named = {name: tuple(artifacts) for name, artifacts in named.items()}

    def many(self, name: str, kind: type[A]) -> tuple[A, ...]:
        """All artifacts of an input, none where it was not given. StageError for one of another kind."""
        found = self._named.get(name, ())
        for artifact in found:
            if not isinstance(artifact, kind):
                raise StageError(f"take input {name!r}", f"a {artifact.kind} where a {kind.kind} is needed")
        return found  # type: ignore[return-value]

    def maybe(self, name: str, kind: type[A]) -> A | None:
        """The artifact of an input that need not be given. Errors as `many`."""
        return next(iter(self.many(name, kind)), None)

    def one(self, name: str, kind: type[A]) -> A:
        """The artifact of an input that is always given. Errors as `many`."""
        return self.many(name, kind)[0]

    def names(self) -> tuple[str, ...]:
        """Names of the inputs that the spec gives, in its order."""
        return tuple(self._named)


RunFn = Callable[[C, Inputs, StageContext[R]], Artifact]
"""What a stage does."""
EstimateFn = Callable[[C, R, Given, Known], Estimate]
"""What it will cost. UsageError for a config that cannot work with these inputs."""
LookFn = Callable[[C, R, Artifact, Record, bool], Sighted]
"""Compares its source with the committed artifact and its record; the last says whether by digests too.

Never raises for a source that is gone, unreachable or unreadable: it says so. IntegrityError, or NotFound, for a file
of the artifact that is damaged or lost, StorageError where its store does not answer.
"""
