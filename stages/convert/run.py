"""Convert a checkpoint to files others can load, and prove each of them against it.

Only arranges two rounds of tasks: one writes all formats in one pass (and one the ONNX graph), then one a format checks
what was written.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from vitpipe.infra.errors import StageError
from vitpipe.stages.artifacts import Artifact, Checkpoint, File, Weights
from vitpipe.stages.commits import COMMITS, at_commits, write_commits
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.convert.config import ConvertConfig
from vitpipe.stages.convert.foreign.weights import ForeignWeights, look
from vitpipe.stages.convert.formats.common import architecture, format_of, json_bytes, load
from vitpipe.stages.convert.origin import labels_of, lineage_of, listing_sha256, preparation_of, source_json
from vitpipe.stages.convert.task import CheckTask, ProveTask, Source, WriteTask, refuse, settings_of, split
from vitpipe.stages.convert.write import write
from vitpipe.stages.preparation import PREPARATION
from vitpipe.stages.tasks import gather


def run(config: ConvertConfig, inputs: Inputs, ctx: StageContext) -> Weights:
    """Write all formats, prove each, and give what was written.

    Errors: UsageError for what a format cannot hold; StageError when a written file is not the checkpoint."""
    config, commits = at_commits(config)
    if commits:
        ctx.out.put(COMMITS, write_commits(commits))
    source = _source(config, inputs, ctx)
    refuse(config.formats, settings_of(source))
    labels = labels_of(source, settings_of(source).classes or 0)
    names = tuple(labels["id2label"].values())
    sigmoid = str(labels.get("objective")) == "sigmoid"
    way = preparation_of(source)
    proved = _prove(source, ctx)
    tasks = [WriteTask(formats, config, source, names, ctx.task, sigmoid, way) for formats in split(config.formats)]
    written = _write(tasks, ctx)
    proofs = _check(config, source, written, ctx) | proved
    files = (*written, ctx.out.put("labels.json", json_bytes(labels)), ctx.out.put("parity.json", json_bytes(proofs)))
    if isinstance(source, ForeignWeights):
        files += (ctx.out.put("source.json", json_bytes(source_json(source))),)
    if way is not None:
        files += (ctx.out.put(PREPARATION, json_bytes(way.model_dump())),)
    _raise(proofs)
    return Weights(
        files=files,
        formats=config.formats,
        model=settings_of(source).model_dump(mode="json"),
        lineage=lineage_of(source),
        pretrained_on=source.shards_sha256 if isinstance(source, Checkpoint) else getattr(source, "pretrained_on", ()),
        source_sha256=listing_sha256(source) if isinstance(source, ForeignWeights) else "",
        commits=commits,
        metrics={f"parity_{name}": proof["max_abs_difference"] for name, proof in proofs.items() if _measured(proof)},
    )


def _source(config: ConvertConfig, inputs: Inputs, ctx: StageContext) -> Source:
    if config.source:
        there, label = partial(look, scratch=ctx.scratch / "source"), f"look at {config.source.path}"
        looked = ctx.cluster.fan(there, [config.source], resources=ctx.resources, label=lambda _: label)
        ((_, foreign),) = gather(looked)
        for note in (f"{foreign.uri} is {architecture(foreign.settings)}, by {foreign.format}'s names", *foreign.notes):
            ctx.events.emit("note", note)
        return foreign
    given = inputs.maybe("checkpoint", Checkpoint) or inputs.one("weights", Artifact)
    settings_of(given)
    return given  # type: ignore[return-value]  # settings_of refuses any other kind


def _write(tasks: Sequence[WriteTask], ctx: StageContext) -> tuple[File, ...]:
    """Have one task stream; a graph, which needs the whole model, is built by another beside it."""
    done = {task.formats: files for task, files in gather(ctx.cluster.fan(_write_task, tasks, resources=ctx.resources))}
    return tuple(file for task in tasks for file in done[task.formats])


def _check(
    config: ConvertConfig, source: Source, written: tuple[File, ...], ctx: StageContext
) -> dict[str, dict[str, Any]]:
    tasks = [
        CheckTask(name, config, source, tuple(file for file in written if file.path.startswith(f"{name}/")), ctx.task)
        for name in config.formats
    ]
    ended = gather(ctx.cluster.fan(_check_task, tasks, resources=ctx.resources))
    done = {task.format: proof for task, proof in ended}
    return {name: done[name] for name in config.formats}


def _prove(source: Source, ctx: StageContext) -> dict[str, dict[str, Any]]:
    """Compare foreign weights with their own library's answers before anything is written: the entry `source`."""
    if not isinstance(source, ForeignWeights):
        return {}
    ((_, proof),) = gather(ctx.cluster.fan(_prove_task, [ProveTask(source, ctx.task)], resources=ctx.resources))
    _raise({"source": proof})
    return {"source": proof}


def _write_task(task: WriteTask) -> tuple[File, ...]:
    contents = format_of(task.formats[0]).contents
    files: tuple[File, ...] = load(contents)(task) if isinstance(contents, str) else write(task)
    return files


def _prove_task(task: ProveTask) -> dict[str, Any]:
    from vitpipe.stages.convert.parity import prove  # torch is imported only where the work runs

    return prove(task)


def _check_task(task: CheckTask) -> dict[str, Any]:
    from vitpipe.stages.convert.parity import check  # torch is imported only where the work runs

    return check(task)


def _measured(proof: dict[str, Any]) -> bool:
    return "max_abs_difference" in proof


def _raise(proofs: dict[str, dict[str, Any]]) -> None:
    wrong, apart = [], []
    for name, proof in proofs.items():
        if proof.get("differing"):
            wrong.append(f"{name} comes back with another {', '.join(proof['differing'])}")
        if _measured(proof) and not proof["error"] <= proof["tolerance"]:
            apart.append(f"{name} differs by {proof['error']:.3g}, allowed are {proof['tolerance']:.3g}")
        if (way := proof.get("prepared")) and not way["levels"] <= way["allowed"]:
            apart.append(f"{name} prepares an image {way['levels']:g} of 255 levels apart, by {way['way']}")
    if not (wrong := wrong + apart):
        return
    if set(proofs) == {"source"}:
        asked, do = "prove the foreign weights", "compare config.source.gelu and norm_eps with what its makers say"
        raise StageError(asked, "; ".join(wrong), do)
    raise StageError("prove the written weights", "; ".join(wrong), "report this: parity.json has the figures")
