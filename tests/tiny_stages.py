"""Three real stages of a few bytes, and runs made of them: for tests of what surrounds a stage.

`make` writes pieces, which a later attempt adopts, then a manifest that makes them true; `train` goes on from its
newest step that is whole, as `pretrain` does and under that name; `add` sums what it is given.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inprocess import InProcessCluster, Unranked

from vitpipe.infra.errors import IntegrityError, NotFound, Stopped
from vitpipe.infra.lease_state import CLOCK, TIMING, Clock, Timing
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive.driver import Clusters, DriverOptions
from vitpipe.pipeline.spec.catalog import CATALOG, Need, Stage
from vitpipe.pipeline.spec.graph import Graph, Node
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.stages.artifacts import Artifact, File, Score, ShardSet
from vitpipe.stages.contract import Inputs, StageContext, TaskContext
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.settings import Settings, TaskResources
from vitpipe.stages.training.checkpoint.committed_steps import StepFile, StepManifest, StepPlace, committed

HOOKS: dict[str, Callable[[StageContext], None]] = {}
"""By node: called in the middle of its work."""


class MakeConfig(Settings):
    value: int = 1
    """What is written into each piece."""
    pieces: int = 2
    """How many."""


class TrainConfig(Settings):
    steps: int = 3
    """How many."""


class AddConfig(Settings):
    times: int = 1
    """Multiplies the sum."""


STAGES = {
    "make": Stage(
        "make", 1, {"sources": Need("ShardSet", many=True)}, "ShardSet",
        "tiny_stages:MakeConfig", "vitpipe.stages.contract:TaskResources", "tiny_stages:make", "tiny_stages:estimate",
        pieces=r"piece-\d+\.json",
    ),
    "train": Stage(
        "pretrain", 1, {"shards": Need("ShardSet", required=True)}, "ShardSet",
        "tiny_stages:TrainConfig", "vitpipe.stages.contract:TaskResources", "tiny_stages:train", "tiny_stages:estimate",
        pieces=CATALOG["pretrain"].pieces,
    ),
    "add": Stage(
        "add", 1, {"shards": Need("ShardSet", required=True, many=True)}, "Score",
        "tiny_stages:AddConfig", "vitpipe.stages.contract:TaskResources", "tiny_stages:add", "tiny_stages:estimate",
    ),
}  # fmt: skip


def make(config: MakeConfig, inputs: Inputs, ctx: StageContext) -> Artifact:
    found = {name: _adopt(ctx, name) for name in _names(config)}
    todo = [(ctx.task, name, config.value) for name, file in found.items() if file is None]
    for done in ctx.cluster.fan(_write, todo, resources=TaskResources(), label=str):
        file = done.value()
        found[file.path] = file
        ctx.progress.update(sum(one is not None for one in found.values()), config.pieces)
        _pause(ctx)
    files = [file for _, file in sorted(found.items()) if file is not None]
    content = json.dumps([[file.path, file.sha256] for file in files]).encode()
    manifest = ctx.out.commit("manifest.json", content)
    return ShardSet(
        files=(*files, manifest), manifest_sha256=manifest.sha256, num_classes=config.value,
        splits={"train": config.pieces},
    )  # fmt: skip


def train(config: TrainConfig, inputs: Inputs, ctx: StageContext) -> Artifact:
    """Each step adds what the shards sum to. IntegrityError when steps were committed and none is whole."""
    node, begun = ctx.out.node, committed(ctx.out.node, (ctx.out.attempt, *ctx.out.earlier), lost=True)
    whole = next((place for place in begun if _whole(node, place)), None)
    if begun and whole is None:
        raise IntegrityError(f"resume {ctx.node}", "no step is whole", "restore the objects")
    state = json.loads(node.read(f"{whole.folder}/state.json")) if whole else 0
    for step in range(whole.step + 1 if whole else 1, config.steps + 1):
        state += _sum(inputs.one("shards", ShardSet))
        file = ctx.out.put(f"step-{step}/state.json", json.dumps(state).encode())
        listed = (StepFile(path=file.path, bytes=file.bytes, sha256=file.sha256),)
        manifest = StepManifest(
            step=step, samples_seen=step, world_size=1, zero=0, precision="fp32", micro_batch=1, files=listed
        ).sealed()
        ctx.out.commit(f"step-{step}/manifest.json", manifest.encoded())
        whole = StepPlace(attempt=ctx.out.attempt, step=step)
        ctx.out.put(whole.mark, b"")
        _pause(ctx)
    assert whole is not None
    files = whole.files(whole.read(node))
    piece = files[1].model_copy(update={"path": "piece-0.json"})
    return ShardSet(
        files=(*files, piece, ctx.out.put("labels.json", b"{}")), manifest_sha256="", num_classes=1, splits={"train": 1}
    )


def _whole(node: Store, place: StepPlace) -> bool:
    try:
        digests = {file.at: file.sha256 for file in place.files(place.read(node))}
        return all(hashlib.sha256(node.read(at)).hexdigest() == digest for at, digest in digests.items())
    except (IntegrityError, NotFound):
        return False


def add(config: AddConfig, inputs: Inputs, ctx: StageContext) -> Artifact:
    _pause(ctx)
    total = config.times * sum(_sum(shards) for shards in inputs.many("shards", ShardSet))
    file = ctx.out.put("score.json", json.dumps(total).encode())
    return Score(files=(file,), benchmark="sum", metric="sum", value=total, per_seed=(total,), num_test=1)


def estimate(config: Settings, resources: Settings, inputs: Mapping[str, Sequence[Any]], known: Known) -> Estimate:
    return Estimate(steps=getattr(config, "pieces", 1))


def _pause(ctx: StageContext) -> None:
    HOOKS.get(ctx.node, lambda ctx: None)(ctx)
    if reason := ctx.fence.stopping():
        raise Stopped(f"run {ctx.node}", reason)


def _names(config: MakeConfig) -> list[str]:
    return [f"piece-{number}.json" for number in range(config.pieces)]


def _write(item: tuple[TaskContext, str, int]) -> File:
    task, name, value = item
    return task.out.put(name, json.dumps(value).encode())


def _adopt(ctx: StageContext, name: str) -> File | None:
    for attempt in ctx.out.earlier:
        at = f"{attempt}/{name}"
        try:
            data = ctx.out.node.read(at)
        except NotFound:
            continue
        return File(path=name, at=at, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    return None


def _sum(shards: ShardSet) -> int:
    return sum(json.loads(shards.read(file.path)) for file in shards.files if file.path.startswith("piece"))


def tiny_spec(folder: Path, nodes: Mapping[str, Mapping[str, Any]], name: str = "tiny") -> PipelineSpec:
    """A run in `folder/runs` of nodes `{id: {stage, needs, **config}}`, written in an order in which they can run."""
    built: dict[str, Node] = {}
    for id, fields in nodes.items():
        stage = STAGES[fields.get("stage", "make")]
        raw = {key: value for key, value in fields.items() if key not in ("stage", "needs")}
        config = stage.config_class().model_validate(raw)
        built[id] = Node(id, stage, config, TaskResources(), fields.get("needs", {}), raw)
    return PipelineSpec(name, f"file://{folder}/runs", Graph(built), json.loads(json.dumps(nodes)))


class _Here(Unranked):
    dashboard_url = ""

    def named(self, node: str, **_: object) -> InProcessCluster:
        return InProcessCluster()


@contextmanager
def in_process(run: str, cpus_wanted: float) -> Iterator[Clusters]:
    yield _Here()


def tiny_ways(timing: Timing = TIMING, clock: Clock = CLOCK, **more: Any) -> DriverOptions:
    """In this process, without metrics, asking no cluster."""
    mine: dict[str, Any] = {"connect": in_process, "probe": lambda: None, "metrics_at": lambda: None}
    return DriverOptions(timing=timing, clock=clock, **{**mine, **more})
