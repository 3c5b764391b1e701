"""Serve a run's numbers while it lasts: the exporter gets what each running node's progress file says."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vitpipe.infra.at_once import by_key
from vitpipe.infra.errors import IntegrityError, StorageError, VitpipeError
from vitpipe.infra.exporter import Exporter
from vitpipe.infra.metrics import count_storage, publish_progress
from vitpipe.infra.progress import read_progress
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive.driver import DriverOptions
from vitpipe.pipeline.plan.planned import Plan

EVERY_S = 2.0

log = logging.getLogger(__name__)


@contextmanager
def exporting(name: str, run: Store, plan: Plan, options: DriverOptions) -> Iterator[Mapping[str, int]]:
    """Export until the block ends; yields the newest committed step of each node that runs, as it becomes known.

    A port that cannot be bound is only a warning: the run does not depend on it."""
    commits: dict[str, int] = {}
    if options.metrics_port is None:
        yield commits
        return
    try:
        exporter = Exporter(options.metrics_port)
    except StorageError as error:
        log.warning("no metrics are served: %s", error)
        yield commits
        return
    end = threading.Event()
    thread = threading.Thread(target=_copy, args=(name, run, plan, end, commits), name="vitpipe-exporting", daemon=True)
    with exporter:
        options.on_metrics(exporter.url)
        count_storage(name, "")
        thread.start()
        try:
            yield commits
        finally:
            end.set()
            thread.join()


def _copy(name: str, run: Store, plan: Plan, end: threading.Event, commits: dict[str, int]) -> None:
    published: dict[str, object] = {}
    while not end.wait(EVERY_S):
        nodes = [planned.node for planned in plan.due]
        for node, progress in by_key(lambda node: _progress(run, node), nodes).items():
            if progress and progress != published.get(node):  # the exporter ages an old commit by itself
                publish_progress(name, node, progress)
                published[node] = progress
                if (step := progress.get("metrics", {}).get("last_committed_step")) is not None:
                    commits[node] = int(step)


def _progress(run: Store, node: str) -> dict[str, Any] | None:
    try:
        return read_progress(run.child(node))
    except IntegrityError:
        return None  # `status` says so; the process that runs the node writes it anew in a moment
    except VitpipeError as error:
        log.warning("numbers of %s are not exported: %s", node, error)
        return None
