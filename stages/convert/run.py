"""Convert a checkpoint to files others can load, and prove each of them against it.

Only arranges two rounds of tasks: one writes all formats in one pass (and one the ONNX graph), then one a format checks
what was written.
"""

import json
from dataclasses import replace
from typing import Any

from vitpipe.infra.errors import StageError
from vitpipe.stages.artifacts import Artifact, Checkpoint, File, Weights
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.convert.config import ConvertConfig
from vitpipe.stages.convert.foreign.weights import Foreign, look
from vitpipe.stages.convert.lineage import lineage_of
from vitpipe.stages.convert.origin import labels_of, listing_sha256, source_json
from vitpipe.stages.convert.task import CheckTask, LookTask, ProveTask, Source, WriteTask, refuse, settings_of


def run(config: ConvertConfig, inputs: Inputs, ctx: StageContext) -> Weights:
    """Errors: UsageError for what a format cannot hold; StageError when a written file is not the checkpoint."""
    source = _source(config, inputs, ctx)
    refuse(config.formats, settings_of(source))
    labels = labels_of(source, settings_of(source).classes or 0)
    names = tuple(labels["id2label"].values())
    sigmoid = str(labels.get("objective")) == "sigmoid"
    written = _write(WriteTask(config, source, names, ctx.task, sigmoid), ctx)
    proofs = _check(config, source, written, ctx)
    files = (*written, ctx.out.put("labels.json", _json(labels)), ctx.out.put("parity.json", _json(proofs)))
    if isinstance(source, Foreign):
        files += (ctx.out.put("source.json", _json(source_json(source))),)
    _raise(proofs)
    return Weights(
        files=files,
        formats=config.formats,
        model=settings_of(source).model_dump(mode="json"),
        lineage=lineage_of(source),
        pretrained_on=source.shards_sha256 if isinstance(source, Checkpoint) else getattr(source, "pretrained_on", ()),
        source_sha256=listing_sha256(source) if isinstance(source, Foreign) else "",
        metrics={f"parity_{name}": proof["max_abs_difference"] for name, proof in proofs.items() if _measured(proof)},
    )


def _source(config: ConvertConfig, inputs: Inputs, ctx: StageContext) -> Source:
    if config.source:
        done = list(
            ctx.cluster.fan(_look_task, [LookTask(config.source, ctx.task)], resources=ctx.resources, label=str)
        )
        foreign = done[0].value()
        for note in (f"{foreign.uri} is {foreign.architecture}, by {foreign.format}'s names", *foreign.notes):
            ctx.events.emit("note", note)
        return foreign
    given = inputs.maybe("checkpoint", Checkpoint) or inputs.one("weights", Artifact)
    settings_of(given)
    return given  # type: ignore[return-value]  # settings_of refuses any other kind


def _write(task: WriteTask, ctx: StageContext) -> tuple[File, ...]:
    """One task streams; the graph of ONNX, which needs the whole model, is built by another beside it."""
    tasks = [replace(task, graph=graph) for graph in (False, True) if _has_work(task.config, graph)]
    done = {end.item.graph: end for end in ctx.cluster.fan(_write_task, tasks, resources=ctx.resources, label=str)}
    return tuple(file for graph in sorted(done) for file in done[graph].value())


def _has_work(config: ConvertConfig, graph: bool) -> bool:
    return any((name == "onnx") == graph for name in config.formats)


def _check(
    config: ConvertConfig, source: Source, written: tuple[File, ...], ctx: StageContext
) -> dict[str, dict[str, Any]]:
    tasks = [
        CheckTask(name, config, source, tuple(file for file in written if file.path.startswith(f"{name}/")), ctx.task)
        for name in config.formats
    ]
    done = {end.item.format: end for end in ctx.cluster.fan(_check_task, tasks, resources=ctx.resources, label=str)}
    proofs: dict[str, dict[str, Any]] = {name: done[name].value() for name in config.formats}
    if isinstance(source, Foreign):
        task = ProveTask(source, ctx.task)
        proofs["source"] = next(iter(ctx.cluster.fan(_prove_task, [task], resources=ctx.resources, label=str))).value()
    return proofs


def _write_task(task: WriteTask) -> tuple[File, ...]:
    if task.graph:
        from vitpipe.stages.convert.onnx_file import write_onnx  # torch is imported only where the work runs

        return write_onnx(task)
    from vitpipe.stages.convert.write import write  # likewise

    return write(task)


def _look_task(task: LookTask) -> Foreign:
    return look(task.source, task.ctx.scratch / "source")


def _prove_task(task: ProveTask) -> dict[str, Any]:
    from vitpipe.stages.convert.foreign.parity import prove  # torch is imported only where the work runs

    return prove(task)


def _check_task(task: CheckTask) -> dict[str, Any]:
    from vitpipe.stages.convert.parity import check  # torch is imported only where the work runs

    return check(task)


def _measured(proof: dict[str, Any]) -> bool:
    return "max_abs_difference" in proof


def _raise(proofs: dict[str, dict[str, Any]]) -> None:
    changed = [
        f"{name} comes back with another {', '.join(proof['differing'])}"
        for name, proof in proofs.items()
        if proof.get("differing")
    ]
    wrong = changed + [
        f"{name} differs by {proof['error']:.3g}, allowed are {proof['tolerance']:.3g}"
        for name, proof in proofs.items()
        if _measured(proof) and not proof["error"] <= proof["tolerance"]
    ]
    if wrong:
        told = (
            "compare config.source.gelu and norm_eps with what its makers say"
            if wrong[-1].startswith("source")
            else "report this"
        )
        raise StageError("prove the written weights", "; ".join(wrong), f"{told}: parity.json has the figures")


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
