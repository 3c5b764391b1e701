"""What a task or a rank is given and gives back, wherever it runs, and the node it works for.

`stages.contract` passes `Done` and `Rank` on; they live here because `infra.ray.connect` makes them. Knows no Ray.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from vitpipe.infra.errors import Stopped
from vitpipe.infra.waiting import Waiting

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Done(Generic[Item, Result]):
    """One finished task of a fan-out: its item with either a result or the error it ended with."""

    item: Item
    result: Result | None = None
    error: Exception | None = None

    def value(self) -> Result:
        """Return the result, or raise the error that the task ended with."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


def _none() -> str | None:
    return None


def _ignore(step: int) -> None:
    pass


@dataclass(frozen=True)
class Rank:
    """Where a gang's function runs. torch.distributed is already initialised."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    restart: int
    """How often this gang was restarted by this driver."""
    device: str
    """`cuda:0` or `cpu`: the one place where the device is chosen."""
    notice: Callable[[], str | None] = _none
    """Says why a machine of this gang will soon be taken away, or None. A rank that then commits and raises Stopped is
    started again on the machines that are left. Cheap: called every step."""
    reached: Callable[[int], None] = _ignore
    """Called with every step, so that two crashes at one step are known to be the same. Cheap."""
    threads: int = 1
    """CPU cores that are its own."""
    since: float = 0.0
    """Unix time, by the driver's clock, since when this start of the gang has its machines; 0 where nobody waited."""


class Stop(Protocol):
    """The part of a fence that waiting for work needs."""

    def stopping(self) -> str | None:
        """Return why this work is to end, or None."""


class Emit(Protocol):
    """The part of a run's events that losing work needs."""

    def emit(self, kind: str, text: str) -> None:
        """Write an event of that kind."""


class Waits(Protocol):
    """The part of a node's progress that waiting for machines needs. Picklable."""

    def waits(self, waiting: Waiting) -> None:
        """Write what the node waits for, while nothing of it runs."""

    def starts(self) -> None:
        """Write that a process of it starts."""

    def begun(self) -> None:
        """Take back, wherever its work begins, that it waits."""


class TaskNeeds(Protocol):
    """What a fan-out has to know of its tasks' resources."""

    @property
    def cpus_per_task(self) -> float:
        """CPU cores of one task, fractions allowed."""

    @property
    def gpus_per_task(self) -> float | None:
        """GPUs of one task; None for one where the cluster has any."""

    @property
    def max_failures(self) -> int:
        """Times one task may be lost before it counts as failed."""


class GangNeeds(Protocol):
    """What a gang has to know of its ranks' resources."""

    @property
    def workers(self) -> int | tuple[int, int]:
        """How many ranks, or the least and the most."""

    @property
    def gpus_per_worker(self) -> int | None:
        """GPUs of one rank; None for one where the cluster has any."""

    @property
    def cpus_per_worker(self) -> int | None:
        """CPU cores of one rank; None for its GPUs' share of their machine, and for one where it has none."""

    @property
    def max_failures(self) -> int:
        """Times the gang may be lost before the node fails."""

    @property
    def hang_timeout_s(self) -> int:
        """Seconds for which a rank may be silent before it counts as lost."""


RANKS_PER_CORE = 4
"""CPUs for each real core that an embedded Ray offers at most, where tasks and ranks ask for more than there are."""


def cores_beside_gpus(cores: float, gpus: float, asked: float) -> int:
    """Share a machine's cores among its GPUs, for a rank that asked for so many of them; one core is left for tasks."""
    return max(1, int((cores - 1) / gpus * asked))


def stop_if_asked(fence: Stop, asked: str, so_far: str = "") -> None:
    """Raise Stopped once someone wants the work `asked` to end; LeaseLost to another driver.

    `so_far` says how far the work came: `after step 3 of 9`. What is committed until then is kept.
    """
    if reason := fence.stopping():
        raise Stopped(asked, f"{so_far}: {reason}" if so_far else reason, "the same command goes on from here")


@dataclass(frozen=True)
class Job:
    """The node that heavy work is done for: its names in the dashboard, logs and metrics carry it. Picklable."""

    run: str
    node: str
    fence: Stop | None = None
    events: Emit | None = None
    progress: Waits | None = None
    seconds: float | None = None
    """What the plan thinks that the node takes."""
    counting: Any = None
    """Takes the numbers of tasks and ranks to the driver (`infra.ray.counting`); None where nobody exports."""

    def ask_to_stop(self) -> None:
        """Raise Stopped (or LeaseLost) once someone has asked this work to end."""
        if self.fence:
            stop_if_asked(self.fence, f"run node {self.node}", "asked to end")

    def tell(self, kind: str, text: str) -> None:
        """Log an event, and emit it where the job has a place for events."""
        log.info("%s: %s", kind, text)
        if self.events:
            self.events.emit(kind, text)


def unknown(item: object) -> float | None:
    """Give no length: nobody estimated that of the task."""
    return None
