"""Doors of a stage that is called as a function: its tasks run here one after the other, its files go to a folder.

The stage is the same that a driver runs, so its numbers are the same. No run, no lease, no record, no Ray.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.work import Done, Item, Rank, Result, unknown
from vitpipe.pipeline.drive.shared_pieces import SharedPieces, Turns
from vitpipe.stages.contract import Out, StageContext
from vitpipe.stages.settings import TaskResources

ATTEMPT = "a1"
Needs = TypeVar("Needs", bound=TaskResources)


def doors(folder: Path, name: str, resources: Needs) -> StageContext[Needs]:
    """Make all doors of one call; everything it writes lies below `folder`, which the caller removes."""
    place = open_store(f"file://{folder.absolute()}/store")
    fence = _NobodyElse()
    out = Out(place.child(name), ATTEMPT, fence, b"{}")
    out.begin()
    return StageContext(
        run="library",
        node=name,
        out=out,
        scratch=folder / "scratch",
        fence=fence,
        metrics=_Unmeasured(),
        events=_Notes(),
        progress=_Unseen(),
        cluster=_Here(),
        shared=SharedPieces(place, ATTEMPT, fence, Turns()),
        resources=resources,
    )


def cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def notes_of(ctx: StageContext[Any]) -> tuple[str, ...]:
    """What the stage remarked through these doors."""
    return tuple(text for kind, text in ctx.events.told if kind == "note") if isinstance(ctx.events, _Notes) else ()


@dataclass(frozen=True)
class _Notes:
    """Keeps the facts that a stage tells, in order."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def emit(self, kind: str, text: str) -> None:
        self.told.append((kind, text))


class _Here:
    """Satisfies `stages.contract.Cluster` for stages whose work is tasks."""

    def fan(
        self,
        fn: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        resources: TaskResources,
        label: Callable[[Item], str] = str,
        seconds: Callable[[Item], float | None] = unknown,
    ) -> Iterator[Done[Item, Result]]:
        for item in items:
            try:
                done = Done(item, result=fn(item))
            except Exception as error:
                done = Done(item, error=error)
            yield done

    def gang(self, fn: Callable[[Rank], None], *, resources: Any) -> None:
        raise UsageError("train in this process", "ranks need a run", "write a YAML and use `vitpipe run`")

    def gpus(self) -> int:
        return 0


class _NobodyElse:
    """A fence around a folder that nobody else knows; Ctrl-C ends the call as any other."""

    def check(self) -> None:
        return None

    def stopping(self) -> str | None:
        return None


class _Unmeasured:
    def set(self, name: str, value: float, **labels: str) -> None:
        return None

    def inc(self, name: str, amount: float = 1.0, **labels: str) -> None:
        return None


class _Unseen:
    def update(self, step: int, total: int, unit: str = "steps", **facts: Any) -> None:
        return None
