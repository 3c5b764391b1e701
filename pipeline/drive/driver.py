"""What all nodes of a run share while this driver holds it, and the options that say how it reaches the world.

Knows no graph and no plan.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vitpipe.infra.errors import StorageError
from vitpipe.infra.events import Event, StoreEvents
from vitpipe.infra.lease_state import CLOCK, TIMING, Clock, Timing
from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.storage.spare import SpareRoom
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive.lease import Lease
from vitpipe.pipeline.drive.shared_pieces import Turns
from vitpipe.stages.contract import Cluster, Events, Fence

log = logging.getLogger(__name__)


class Clusters(Protocol):
    """Where the heavy work of all nodes goes."""

    @property
    def dashboard_url(self) -> str:
        """Where a person can watch it, or an empty text."""

    def named(self, node: str, *, fence: Fence, events: Events) -> Cluster:
        """The cluster as one node sees it: its tasks and ranks carry the node's name, and end when asked to."""


def connect_ray(run: str, cpus_wanted: float) -> AbstractContextManager[Clusters]:
    """Start Ray in this process, or join the cluster that `RAY_ADDRESS` names. StorageError when it does not answer."""
    from vitpipe.infra.ray.connect import connect  # ray takes a second to import: only where something runs

    return connect(run, cpus_wanted, os.environ.get("RAY_ADDRESS"))


def ray_answers() -> None:
    """Ask the cluster that `RAY_ADDRESS` names, if any, for a sign of life. StorageError within seconds."""
    address = os.environ.get("RAY_ADDRESS")
    if address and "://" not in address:  # joining refuses a URL in words of its own
        ray_auth.require_answer(address)


def ignore(_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class DriverOptions:
    """How a driver reaches the world; tests and the terminal bring their own."""

    connect: Callable[[str, float], AbstractContextManager[Clusters]] = connect_ray
    probe: Callable[[], None] = ray_answers
    """Raises what `connect` would raise for want of a cluster: asked before anything is written."""
    on_lease: Callable[[int], None] = ignore
    """Hears the fence number once the run is ours."""
    on_event: Callable[[Event], None] = ignore
    """Hears every event that the driver itself writes, from any of its threads."""
    on_note: Callable[[str], None] = ignore
    """Hears what a person should know of a run though it goes on."""
    on_cluster: Callable[[str], None] = ignore
    """Hears the dashboard's address once the cluster is there."""
    on_metrics: Callable[[str], None] = ignore
    """Hears the address of the metrics that Prometheus may scrape."""
    verify_sources: bool = False
    """Whether sources are compared by digest with what was taken from them, not by names and sizes alone."""
    metrics_port: int | None = 9464
    """Port of the exporter on 127.0.0.1, or a free one when it is taken; None for no exporter."""
    timing: Timing = TIMING
    clock: Clock = CLOCK
    stop_grace_s: float = 120.0
    """Nodes that were asked to end have this long before they are abandoned; a second signal cuts it short."""


_LAST_WORDS = ("failed", "preempted")
"""Kinds of events for which room is held on the disk of a run."""


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

    def emit(self, node: str, kind: str, text: str) -> None:
        """Write an event, and tell the log and whoever listens here; they hear it too when the store refuses it."""
        log.info("%s %s: %s", node, kind, text)
        event = self.events(node).event(kind, text)
        self.options.on_event(event)  # before others can see it: who listens here has heard of all that it finds there
        try:
            self._write(event)
        except StorageError as error:
            log.warning("this event is not in the store: %s", error)

    def _write(self, event: Event) -> None:
        try:
            event.write(self.run)
        except StorageError:
            if event.kind not in _LAST_WORDS or not self.spare.give_back():
                raise
            event.write(self.run)

    def events(self, node: str) -> StoreEvents:
        """The door by which a node's events reach the store."""
        return StoreEvents(self.run, self.lease.fence, node)

    def scratch(self, node: str) -> Path:
        """Local folder of a node's attempts, the same on every machine, apart from those of other runs and users."""
        run = f"{self.name}-{hashlib.sha256(self.run.uri.encode()).hexdigest()[:12]}"
        return Path(tempfile.gettempdir()) / f"vitpipe-{os.getuid()}" / run / node
