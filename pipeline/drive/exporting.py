"""Serve a run's numbers while it lasts: what its nodes count, and what each running node's progress file says.

The last thing that is served is that the driver has ended: who hears no more without having heard that knows that it
was lost.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vitpipe.infra.at_once import by_key
from vitpipe.infra.errors import IntegrityError, Stopped, StorageError, VitpipeError
from vitpipe.infra.exporter import Address, Exporter
from vitpipe.infra.metrics import NodeMetrics, count_storage, publish_progress
from vitpipe.infra.progress import read_progress
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive.driver import Clusters
from vitpipe.pipeline.drive.signals import Signals
from vitpipe.pipeline.plan.planned import Plan

EVERY_S = 2.0

log = logging.getLogger(__name__)


@contextmanager
def exporting(
    name: str, at: Address | None, signals: Signals, on_metrics: Callable[[str], None]
) -> Iterator[Callable[[int], None]]:
    """Serve until the block ends and that was heard; gives what is told the fence number once the run is ours.

    A port that cannot be bound is only a warning: the run does not depend on it.
    """
    try:
        exporter = Exporter(at) if at else None
    except StorageError as error:
        log.warning("no metrics are served: %s", error)
        exporter = None
    if exporter is None:
        yield lambda fence: None
        return
    with exporter:
        on_metrics(exporter.url)
        run, fences = NodeMetrics(name, ""), list[int]()

        def begun(fence: int) -> None:
            fences.append(fence)
            run.set("driver_ended_fence", 0)
            run.set("driver_fence", fence)
            count_storage(name, "")

        def ended(patient: bool) -> None:
            signalled = list[str]()
            signals.tell(signalled.append)
            for fence in fences:
                run.set("driver_ended_fence", fence)
                if patient:
                    exporter.say_farewell(hurried=lambda: bool(signalled))

        try:
            yield begun
        except VitpipeError as error:  # any other is a bug, and nobody's end
            ended(patient=not isinstance(error, Stopped))  # who asked may not wait for long, and it was said then
            raise
        ended(patient=True)


@contextmanager
def publishing(name: str, run: Store, plan: Plan, clusters: Clusters | None) -> Iterator[Mapping[str, int]]:
    """Bring the numbers of all processes to this one's exporter until the block ends; nothing where it has none.

    Yields the newest committed step of each node that runs, as it becomes known.
    """
    commits: dict[str, int] = {}
    if clusters is None:
        yield commits
        return
    end = threading.Event()
    told = (name, run, plan, end, commits)
    thread = threading.Thread(target=_publish, args=told, name="vitpipe-exporting", daemon=True)
    with clusters.counting():
        thread.start()
        try:
            yield commits
        finally:
            end.set()
            thread.join()


def _publish(name: str, run: Store, plan: Plan, end: threading.Event, commits: dict[str, int]) -> None:
    published: dict[str, object] = {}
    while not end.wait(EVERY_S):
        nodes = [planned.node for planned in plan.due]
        for node, progress in by_key(lambda node: _progress(run, node), nodes).items():
            if progress and progress != published.get(node):
                publish_progress(name, node, progress)
                published[node] = progress
                if (step := progress.get("committed_step")) is not None:
                    commits[node] = int(step)


def _progress(run: Store, node: str) -> dict[str, Any] | None:
    try:
        return read_progress(run.child(node))
    except IntegrityError:
        return None  # `status` says so; the process that runs the node writes it anew in a moment
    except VitpipeError as error:
        log.warning("numbers of %s are not exported: %s", node, error)
        return None
