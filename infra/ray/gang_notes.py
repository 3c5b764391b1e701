"""What the driver and the ranks of a gang tell each other. Knows no Ray and no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.lease_state import Holder

Address = tuple[str, int]


@dataclass(frozen=True)
class RankProcess:
    """A process of a rank, wherever it runs."""

    node: str
    """Ray's id of its machine."""
    address: str
    """Of its machine, as the other ranks reach it."""
    who: Holder
    gpus: tuple[str, ...] = ()
    """Ids of the GPUs that Ray gave it."""

    def __str__(self) -> str:
        return f"{self.who.host}, pid {self.who.pid}"


@dataclass(frozen=True)
class Seat:
    """What a rank is told of itself before it begins."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int
    restart: int
    """How often this gang was started before, by this driver."""
    threads: int
    gpus: tuple[str, ...]
    """Ids of all GPUs that ranks on this machine have, sorted; none on CPUs."""
    device: str
    """`cuda:0` or `cpu`."""
    timeout_s: int
    """A collective that takes longer fails on every rank, whoever made its group: a hung peer is found."""
    since: float = 0.0
    """Unix time at which the gang's machines were its own."""


@dataclass(frozen=True)
class News:
    """What a rank hears with every question of the driver's."""

    address: Address | None = None
    """Where the ranks meet, once all are ready."""
    notice: str | None = None
    """Why they are to commit and start again, if they are."""


@dataclass(frozen=True)
class Failure:
    """What ended a rank."""

    words: str
    """`ValueError: a bug (in step 7)`: the same words again are the same failure."""
    error: VitpipeError | None = None
    """One of ours, as it was raised."""
    trace: str = ""
    is_gone: bool = False
    """Whether its process or its machine is dead or silent, as opposed to an exception raised in it."""
    of_memory: bool = False
    """Whether Ray's memory monitor ended it."""
    noticed: bool = False
    """Whether it has left, with all others, because of a notice."""


@dataclass(frozen=True)
class Beat:
    """What a rank answers."""

    is_ready: bool = False
    """Whether everything slow is loaded, and it waits for where to meet, or has met."""
    address: Address | None = None
    """Where rank 0 listens for the others."""
    has_ended: bool = False
    failure: Failure | None = None


@dataclass(frozen=True)
class Ending:
    """How a gang's start ended: done, if nothing failed."""

    failures: Mapping[int, Failure]
    """By rank."""
    places: Mapping[int, RankProcess]
    """Of the ranks whose process was known."""
    reclaimed: frozenset[str] = frozenset()
    """Ray's ids of machines that were to be taken away."""

    @property
    def noticed(self) -> bool:
        """Whether all left together because they were told to."""
        return bool(self.failures) and all(failure.noticed for failure in self.failures.values())

    @property
    def preempted(self) -> bool:
        """Whether a machine that was taken away is why."""
        nodes = {place.node for rank, place in self.places.items() if rank in self.failures}
        return bool(nodes & self.reclaimed) or (self.noticed and bool(self.reclaimed))

    @property
    def traces(self) -> str:
        """What each rank failed with, as the log has it."""
        failures = sorted(self.failures.items())
        return "\n".join(f"rank {rank}: {one.trace or one.words}" for rank, one in failures)
