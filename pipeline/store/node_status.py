"""The state of a run and of each node, as `status` shows them. Knows what a record and a progress report say."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from vitpipe.infra.progress import Restarting
from vitpipe.infra.waiting import waiting_in
from vitpipe.pipeline.store.records import Committed
from vitpipe.pipeline.store.scores import score_row
from vitpipe.pipeline.store.submitted import Submission

_ONE = {"trials": "trial", "tasks": "task"}
"""Units that are counted one by one."""
State = Literal["committed", "running", "waiting", "failed", "blocked"]


@dataclass(frozen=True)
class NodeStatus:
    """The state of one node, and why."""

    node: str
    state: State
    why: str
    step: int | None = None
    total_steps: int | None = None
    ranks: tuple[Mapping[str, Any], ...] = ()
    progress: Mapping[str, Any] | None = None
    """All that the running attempt last reported."""
    eta_seconds: float | None = None
    """Seconds to go, counted down since that report; None where it is not known, or took longer than was thought."""
    score: float | None = None
    """Mean of a committed Score over its seeds."""
    metric: str | None = None
    """What it is the mean of."""
    std: float | None = None
    """Its spread over seeds; None of one."""
    started: str | None = None
    ended: str | None = None
    """When what is committed was begun and done, in UTC."""
    seconds: float | None = None
    """How long that took."""
    waits: Mapping[str, Any] | None = None
    """What its first task or its ranks wait for, as `infra.waiting` says; None once a process of it runs."""


@dataclass(frozen=True)
class RunStatus:
    """The state of a run and of each of its nodes."""

    run: str
    state: str
    """`committed`, `running`, `submitted` (no driver has begun since), `failed`, `stopped` (resumable) or `interrupted`
    (its driver fell silent)."""
    nodes: tuple[NodeStatus, ...]
    submission: Submission | None = None
    """What waits on a cluster to begin."""
    note: str = ""
    """What a person should know of the whole run."""

    def to_json(self) -> dict[str, Any]:
        """What `status --json` prints."""
        nodes = [{key: value for key, value in asdict(node).items() if key != "progress"} for node in self.nodes]
        told: dict[str, Any] = {"submitted": self.submission.to_json()} if self.submission else {}
        told |= {"note": self.note} if self.note else {}
        return {"run": self.run, "state": self.state, "nodes": nodes, **told}


def committed_status(id: str, found: Committed) -> NodeStatus:
    """Say of a committed node what its record has: when, how long, its score."""
    record, row = found.record, score_row(id, found)
    status = NodeStatus(
        id, "committed", f"{committed_at(found)} by {record.attempt}", started=record.started, seconds=record.seconds
    )
    if found.ended:
        status = replace(status, ended=committed_at(found))
    return replace(status, score=row.value, metric=row.metric, std=row.std) if row else status


def committed_at(found: Committed) -> str:
    """Write when a result was complete, in UTC: `2026-01-31T12:05:07Z`.

    A record of an earlier version that does not say when it was begun in a way that is understood is quoted.
    """
    return found.ended.isoformat(timespec="seconds").replace("+00:00", "Z") if found.ended else found.record.started


def running_status(id: str, progress: Mapping[str, Any], restarting: Restarting | None = None) -> NodeStatus:
    """Say how far a node is by what it last reported, or since when nobody runs that could report."""
    step, total = progress.get("step"), progress.get("total")
    if restarting:
        since = datetime.fromtimestamp(restarting.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        steps = f" at {progress.get('unit', 'steps')} {step} of {total}" if step and total else ""
        return NodeStatus(id, "running", f"restarting since {since}{steps}: {restarting.why}", step, total)
    words = [_so_far(step or 0, total, str(progress.get("unit", "steps"))) if total else "", progress.get("note")]
    why = ", ".join(str(word) for word in words if word) or "begins"
    ranks = tuple(progress.get("ranks") or ())
    status = NodeStatus(id, "running", why, step, total, ranks, progress, _to_go(progress))
    if not (waits := waiting_in(progress)):
        return status
    state: State = "running" if waits["for"] == "start" else "waiting"
    so_far = f"{why}, " if step else ""
    return replace(status, state=state, why=f"{so_far}{waits['text']}", waits=waits, eta_seconds=None)


def _so_far(step: int, total: int, unit: str) -> str:
    """Write `trial 3 of 9`, `images 300 of 900`; before the first has ended `9 trials to do`."""
    if not step:
        return f"{total} {unit} to do"
    return f"{_ONE.get(unit, unit)} {step} of {total}"


def _to_go(progress: Mapping[str, Any]) -> float | None:
    said, at = progress.get("eta_seconds"), progress.get("time")
    if not isinstance(said, (int, float)) or not isinstance(at, (int, float)):
        return None
    left = said - max(0.0, time.time() - at)  # another machine's clock may be ahead
    return round(left, 1) if left > 0 else None
