"""Doors for unit tests: a cluster in this process, a context over a folder, and a commit without a runner.

The stage under test sees the same contract as under Ray; it knows nothing of which one it got.
"""

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from forking import processes

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.work import Done, Item, Rank, Result, unknown
from vitpipe.pipeline.drive.shared_pieces import SharedPieces, Turns
from vitpipe.pipeline.plan.fingerprint import encode
from vitpipe.stages.artifacts import Artifact, Origin
from vitpipe.stages.contract import Cluster, Out, StageContext
from vitpipe.stages.record import Record, load_artifact
from vitpipe.stages.settings import TaskResources


class InProcessCluster:
    """`fan` runs inline, in order; `gang` runs gloo ranks: one in this process, several in spawned ones.

    A gang gets `min(most workers asked for, ranks_supported)` ranks, and no restarts. With `rerun_tasks` every task
    runs twice, as after a machine lost just before its answer: the second try has to come out the same.
    """

    def __init__(self, ranks_supported: int = 1, rerun_tasks: bool = False) -> None:
        self.ranks_supported, self.rerun_tasks = ranks_supported, rerun_tasks

    def fan(
        self,
        fn: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        resources: TaskResources,
        label: Callable[[Item], str] = str,
        seconds: Callable[[Item], float | None] = unknown,
    ) -> Iterator[Done[Item, Result]]:
        pickle.dumps(fn)  # what Ray would refuse, the unit test refuses too
        for item in items:
            pickle.dumps(item)
            label(item)
            seconds(item)
            try:
                if self.rerun_tasks:
                    fn(item)
                yield Done(item, result=fn(item))
            except Exception as error:
                yield Done(item, error=error)

    def gang(self, fn: Callable[[Rank], None], *, resources: Any) -> None:
        workers = resources.workers
        most = workers if isinstance(workers, int) else max(workers)
        world = min(most, self.ranks_supported)
        with tempfile.TemporaryDirectory() as folder:
            if world == 1:
                with mock.patch.dict(os.environ):
                    _rank(fn, 0, 1, folder)
            else:
                _spawn(fn, world, folder)

    def gpus(self) -> int:
        return 0


class Unranked:
    """What a driver asks of clusters beside one node's view, where all runs at once."""

    def gpus(self) -> int:
        return 0

    def pace(self, node: str) -> float | None:
        return None

    def held(self, node: str) -> Mapping[str, float]:
        return {}

    def rank(self, chains: Mapping[str, float]) -> None:
        return None


@dataclass(frozen=True)
class HeldFence:
    """A fence that always holds; a test asks the stage to end with `stop(reason)`, from any process."""

    folder: Path

    def check(self) -> None:
        return None

    def stopping(self) -> str | None:
        path = self.folder / "stop"
        return path.read_text() if path.exists() else None

    def stop(self, reason: str) -> None:
        (self.folder / "stop").write_text(reason)


@dataclass(frozen=True)
class CollectedEvents:
    """Events as lines of a file, so that those of other processes arrive too."""

    path: Path

    def emit(self, kind: str, text: str) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "text": text}) + "\n")

    def all(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def of(self, kind: str) -> list[str]:
        return [event["text"] for event in self.all() if event["kind"] == kind]


@dataclass(frozen=True)
class KeptMetrics:
    """Keeps what this process counted: the newest of each gauge, the sum of each counter."""

    values: dict[str, float] = field(default_factory=dict)

    def set(self, name: str, value: float, **labels: str) -> None:
        self.values[name] = value

    def inc(self, name: str, amount: float = 1.0, **labels: str) -> None:
        self.values[name] = self.values.get(name, 0.0) + amount


@dataclass(frozen=True)
class KeptProgress:
    """Keeps what this process reported, in order."""

    updates: list[dict[str, Any]] = field(default_factory=list)

    def update(self, step: int, total: int, unit: str = "steps", **facts: Any) -> None:
        self.updates.append({"step": step, "total": total, "unit": unit, **facts})


def make_context(
    tmp_path: Path,
    node: str,
    resources: Any,
    cluster: Cluster | None = None,
    *,
    run: str = "test",
    attempt: str = "a1",
    earlier: tuple[str, ...] = (),
    header: Mapping[str, Any] | None = None,
    store_uri: str | None = None,
) -> StageContext:
    """All doors of one attempt over `{store_uri}/{run}/{node}`, its `attempt.json` written; in `tmp_path` by default.

    Call again with `attempt="a2", earlier=("a1",)` for a second driver that resumes the first.
    """
    local = tmp_path / "local" / node
    local.mkdir(parents=True, exist_ok=True)
    whole = open_store(store_uri or f"file://{tmp_path}/store").child(run)
    store = whole.child(node)
    fence = HeldFence(local)
    out = Out(store, attempt, fence, json.dumps(dict(header or {"node": node}), sort_keys=True).encode(), earlier)
    out.begin()
    return StageContext(
        run=run, node=node, out=out, scratch=local / attempt, fence=fence, metrics=KeptMetrics(),
        events=CollectedEvents(local / "events.jsonl"), progress=KeptProgress(),
        cluster=cluster or InProcessCluster(), shared=SharedPieces(whole, attempt, fence, Turns()),
        resources=resources,
    )  # fmt: skip


def commit(
    ctx: StageContext,
    artifact: Artifact,
    *,
    stage: str = "test",
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Sequence[Artifact]] | None = None,
) -> Artifact:
    """Write the smallest valid record of this attempt; the artifact as the next stage receives it."""
    taken = {
        name: tuple(Origin(**one.origin.model_dump()) for one in many if one.origin)
        for name, many in (inputs or {}).items()
    }
    recipe = {"stage": stage, "config": dict(config or {}), "node": ctx.node}
    record = Record(
        schema=1, node=ctx.node, stage=stage, recipe=recipe, config=dict(config or {}), inputs=taken,
        fingerprint=hashlib.sha256(encode(recipe)).hexdigest(),
        output=artifact.facts(), files=artifact.files, metrics=artifact.metrics, code="test", versions={},
        started="2026-01-01T00:00:00Z", seconds=1.0, attempt=ctx.out.attempt,
    )  # fmt: skip
    ctx.out.node.create("record.json", record.model_dump_json(by_alias=True, indent=1).encode())
    return load_artifact(ctx.out.node.uri)


def _rank(fn: Callable[[Rank], None], rank: int, world_size: int, folder: str) -> None:
    import torch.distributed as dist  # only where a rank runs

    from vitpipe.stages.training.engine import forget_gang

    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world_size),
        LOCAL_SIZE=str(world_size), DS_ACCELERATOR="cpu", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500",
    )  # fmt: skip
    store = dist.FileStore(f"{folder}/rendezvous", world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    try:
        fn(Rank(rank, world_size, rank, world_size, restart=0, device="cpu"))
    finally:
        dist.destroy_process_group()
        forget_gang()


def _rank_process(
    fn: Callable[[Rank], None], rank: int, world_size: int, folder: str, environment: dict[str, str]
) -> None:
    import torch  # only where a rank runs

    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        _rank(fn, rank, world_size, folder)
    except Exception as error:
        Path(folder, f"error-{rank}").write_bytes(pickle.dumps(error))
        raise SystemExit(1) from error


def _spawn(fn: Callable[[Rank], None], world_size: int, folder: str) -> None:
    """Run the ranks; once one has failed the others are ended, and its error is raised here."""
    context = processes()
    ranks = [
        context.Process(target=_rank_process, args=(fn, rank, world_size, folder, dict(os.environ)))
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    try:
        while any(process.is_alive() for process in ranks) and not any(process.exitcode for process in ranks):
            ranks[0].join(timeout=0.05)
        if any(process.exitcode for process in ranks):
            ranks[0].join(timeout=2)  # a rank that stops together with the failed one has its say too
    finally:
        for process in ranks:
            process.kill()
            process.join()
    codes = [process.exitcode for process in ranks]
    if any(codes):
        errors = [pickle.loads(path.read_bytes()) for path in sorted(Path(folder).glob("error-*"))]
        errors.sort(key=lambda error: not isinstance(error, VitpipeError))  # before the broken pipes it caused
        raise errors[0] if errors else RuntimeError(f"ranks ended with {codes} and left no error")
