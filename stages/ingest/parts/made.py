"""Parts of an ingest, each made by one task and named by all that it was made from, so that a restart takes them over.

A part is files of tables, and facts beside them in a small JSON, written last: the sign that the part is whole.
Knows nothing of what is in it. No torch.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import NotFound
from vitpipe.infra.work import stop_if_asked
from vitpipe.stages.contract import Out, StageContext
from vitpipe.stages.ingest.parts.sheets import Sheets
from vitpipe.stages.tasks import gather

FOLDER = "parts"
"""Below the attempt; no part of the artifact, so that `gc` may take it once the shards are there."""
VERSION = 1
"""Of all that tasks write here: another one takes nothing over."""
REFUSED = f"{FOLDER}/refused"
"""Says of an attempt that nothing of it, or from before it, is to be taken over."""


@dataclass(frozen=True)
class MadePart:
    """A finished part."""

    facts: Mapping[str, Any]
    """What JSON can hold."""
    files: Mapping[str, Sheets] = field(default_factory=dict)
    is_taken: bool = False
    """Whether an earlier attempt made it."""

    @property
    def sha256(self) -> str:
        """Digest of what is in its files: part of the name of whatever is made from it."""
        return digest([[name, sheets.sha256, sheets.rows] for name, sheets in sorted(self.files.items())])


class PartTask(Protocol):
    """One part to make. Picklable."""

    @property
    def out(self) -> Out:
        """Where it is written."""

    @property
    def path(self) -> str:
        """What it is called below the attempt, without an ending: it holds the digest of what it is made from."""


T = TypeVar("T", bound=PartTask)


def digest(made_from: Any) -> str:
    """SHA-256 of plain values, short enough for a name."""
    return hashlib.sha256(json.dumps([VERSION, made_from]).encode()).hexdigest()[:32]


def part_path(kind: str, made_from: Any) -> str:
    """The path of a part of some kind."""
    return f"{FOLDER}/{kind}/{digest(made_from)}"


def labelled(word: str) -> Callable[[PartTask], str]:
    """What tasks are called: the word, and how their part's digest begins."""
    return lambda task: f"{word}-{task.path.rpartition('/')[2][:8]}"


class Parts:
    """Makes the parts of one ingest, or takes them from earlier attempts."""

    def __init__(self, ctx: StageContext) -> None:
        self._ctx, self._there = ctx, dict[str, str]()
        out = ctx.out
        for attempt in (out.attempt, *out.earlier):
            prefix = f"{attempt}/"
            paths = [entry.path.removeprefix(prefix) for entry in out.node.list(f"{prefix}{FOLDER}/")]
            if REFUSED in paths:
                break
            self._there |= {path: attempt for path in reversed(paths) if path not in self._there}

    def make(
        self, fn: Callable[[T], MadePart], tasks: Sequence[T], label: Callable[[T], str], told: str = ""
    ) -> Iterator[tuple[T, MadePart]]:
        """Each task with its part, as it is there; `told` names what an event says was taken over.

        `fn` makes the part and leaves its facts with `finish`.
        """
        ctx = self._ctx
        known = [task for task in tasks if f"{task.path}.json" in self._there]
        if known and told:
            ctx.events.emit("resumed", f"{len(known)} of {len(tasks)} {told} stand from an earlier attempt")
        lost = list[T]()
        for task, made in zip(known, answers(self._taken, known), strict=True):
            if made is None:
                lost.append(task)
            else:
                yield task, made
        missing = [*(task for task in tasks if f"{task.path}.json" not in self._there), *lost]
        for task, made in gather(ctx.cluster.fan(fn, missing, resources=ctx.resources, label=label)):
            yield task, made
            stop_if_asked(ctx.fence, f"ingest into {ctx.out.node.uri}")

    def all(self, fn: Callable[[T], MadePart], tasks: Sequence[T], label: Callable[[T], str]) -> list[MadePart]:
        """The parts of all tasks, in their order."""
        found = {task.path: made for task, made in self.make(fn, tasks, label)}
        return [found[task.path] for task in tasks]

    def refuse(self) -> None:
        """Let no later attempt take over what this one and those before it have: something of it is not true."""
        self._ctx.out.put(REFUSED, b"")

    def _taken(self, task: PartTask) -> MadePart | None:
        path = f"{task.path}.json"
        out = self._ctx.out
        try:
            facts = json.loads(out.node.read(f"{self._there[path]}/{path}"))
            files = {name: Sheets.of(plain) for name, plain in facts["files"].items()}
            return MadePart(facts["facts"], files, is_taken=True)
        except (NotFound, ValueError, KeyError, TypeError):  # removed since it was listed, or damaged
            return None


def finish(task: PartTask, facts: Mapping[str, Any], **files: Sheets) -> MadePart:
    """Leave a part's facts beside its files, which are written: it is whole."""
    made = MadePart(facts, files)
    plain = {"facts": made.facts, "files": {name: sheets.to_json() for name, sheets in files.items()}}
    task.out.put(f"{task.path}.json", json.dumps(plain).encode())
    return made
