"""What all nodes of a run share while this driver holds it, and the options for how it reaches the outside.

Knows no graph and no plan.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from vitpipe.infra.errors import StorageError
from vitpipe.infra.events import Event, StoreEvents
from vitpipe.infra.exporter import Address, asked_address
from vitpipe.infra.lease_state import CLOCK, TIMING, Clock, Timing
from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.spare import SpareRoom
from vitpipe.infra.storage.store import Store
from vitpipe.infra.work import Waits
from vitpipe.pipeline.drive.lease import Lease
from vitpipe.pipeline.drive.shared_pieces import Turns
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.stages.contract import Cluster, Events, Fence

log = logging.getLogger(__name__)


class Clusters(Protocol):
    """A cluster that the heavy work of all nodes goes to."""

    @property
    def dashboard_url(self) -> str:
        """Where a person can watch it, or an empty text."""

    def named(self, node: str, *, fence: Fence, events: Events, progress: Waits, seconds: float | None) -> Cluster:
        """Return one node's view of it: tasks and ranks carry the node's name, and end when `fence` asks them to.

        While nothing of it runs, `progress` is told what it waits for. `seconds` is what its work will take.
        """

    def gpus(self) -> int:
        """GPUs of the whole cluster."""

    def pace(self, node: str) -> float | None:
        """Measured over estimated seconds of what has ended of a node; None while nothing has."""

    def held(self, node: str) -> Mapping[str, float]:
        """Seconds that a node's tasks and ranks held cores and GPUs, by Ray's names; empty where it had none."""

    def rank(self, chains: Mapping[str, float]) -> None:
        """Order all work by the seconds of the longest chain that begins with its node."""

    def counting(self) -> AbstractContextManager[None]:
        """Around the time in which what tasks and ranks count reaches this process's metrics."""


def connect_ray(
    run: str, cpus_wanted: float, about: Mapping[str, str] | None = None
) -> AbstractContextManager[Clusters]:
    """Start Ray in this process, or join the cluster that `RAY_ADDRESS` names. StorageError when it does not answer.

    `about` is what its dashboard says of the run.
    """
    from vitpipe.infra.ray.connect import connect  # ray takes a second to import: only where something runs

    return connect(run, cpus_wanted, os.environ.get("RAY_ADDRESS"), about=about)


def ray_answers() -> None:
    """Check that the cluster that `RAY_ADDRESS` names, if any, answers. StorageError within seconds."""
    address = os.environ.get("RAY_ADDRESS")
    if address and "://" not in address:  # `connect` refuses a URL with a message of its own
        ray_auth.require_answer(address)


def ignore(_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class DriverOptions:
    """How a driver reaches the outside; tests and the terminal bring their own."""

    connect: Callable[[str, float], AbstractContextManager[Clusters]] = connect_ray
    probe: Callable[[], None] = ray_answers
    """Called before anything is written: raises what `connect` would raise when there is no cluster."""
    on_lease: Callable[[int], None] = ignore
    """Called with the fence number once the run is ours."""
    on_event: Callable[[Event], None] = ignore
    """Called with every event that the driver itself writes, from any of its threads."""
    on_plan: Callable[[Plan], None] = ignore
    """Called with what there is to do, before any of it begins; not where there is nothing."""
    on_note: Callable[[str], None] = ignore
    """Called with what a person should know about a run that goes on all the same."""
    on_cluster: Callable[[str], None] = ignore
    """Called with the dashboard's address once the cluster is there."""
    on_metrics: Callable[[str], None] = ignore
    """Called with the address of the metrics that Prometheus may scrape."""
    verify_sources: bool = False
    """Whether sources are compared by digest with what was taken from them, not by names and sizes alone."""
    metrics_at: Callable[[], Address | None] = asked_address
    """Says where metrics are served; None for no exporter."""
    timing: Timing = TIMING
    clock: Clock = CLOCK
    stop_grace_s: float = 120.0
    """Nodes that were asked to end have this long before they are abandoned; a second signal abandons them at once."""


_LAST_WORDS = ("failed", "preempted")
"""Kinds of events that room is held for on the disk of a run."""


@dataclass(frozen=True)
class Driver:
    """One driver's hold on one run."""

    name: str
    run: Store
    lease: Lease
    clusters: Clusters
    options: DriverOptions
    spare: SpareRoom
    turns: Turns = field(default_factory=Turns)
    commits: Mapping[str, int] = field(default_factory=dict)
    """The newest step that each running node is known to have committed."""

    @property
    def store(self) -> Store:
        """The store that the run lies in, with its other runs."""
        return open_store(self.run.uri.rpartition("/")[0])

    def emit(self, node: str, kind: str, text: str) -> None:
        """Log an event, pass it to `on_event` and write it to the store, which may refuse it."""
        log.info("%s %s: %s", node, kind, text)
        event = self.events(node).event(kind, text)
        self.options.on_event(event)  # before it is in the store, so that a listener knows what it finds there
        write = partial(event.write, self.run)
        try:
            self.write_last_words(write) if kind in _LAST_WORDS else write()
        except StorageError as error:
            log.warning("this event is not in the store: %s", error)

    def write_last_words(self, write: Callable[[], object]) -> None:
        """Call `write`, and again in the room that is held for it when the store refuses. StorageError."""
        try:
            write()
        except StorageError:
            if not self.spare.give_back():
                raise
            write()

    def events(self, node: str) -> StoreEvents:
        """Return the door by which a node's events reach the store."""
        return StoreEvents(self.run, self.lease.fence, node)

    def scratch(self, node: str) -> Path:
        """Name the local folder of a node's attempts: the same on every machine, apart from other runs' and users'."""
        run = f"{self.name}-{hashlib.sha256(self.run.uri.encode()).hexdigest()[:12]}"
        return Path(tempfile.gettempdir()) / f"vitpipe-{os.getuid()}" / run / node
