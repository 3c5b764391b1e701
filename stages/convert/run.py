"""Convert a checkpoint to files others can load, and prove each of them against it.

Only arranges two rounds of tasks: one writes all formats in one pass, then one a format checks what was written.
"""

import json
from typing import Any

from infra.errors import StageError
from stages.artifacts import Artifact, Checkpoint, File, Weights
from stages.contract import Inputs, StageContext
from stages.convert.config import ConvertConfig
from stages.convert.task import CheckTask, Source, WriteTask, refuse, settings_of


def run(config: ConvertConfig, inputs: Inputs, ctx: StageContext) -> Weights:
    """Errors: UsageError for what a format cannot hold; StageError when a written file is not the checkpoint."""
    source = _source(inputs)
    refuse(config.formats, settings_of(source))
    labels = source.read_json("labels.json") if source.has("labels.json") else {"id2label": {}}
    names = tuple(labels["id2label"][str(number)] for number in range(len(labels["id2label"])))
    written = _write(WriteTask(config, source, names, ctx.task), ctx)
    proofs = _check(config, source, written, ctx)
    files = (*written, ctx.out.put("labels.json", _json(labels)), ctx.out.put("parity.json", _json(proofs)))
    _raise(proofs)
    return Weights(
        files=files,
        formats=config.formats,
        model=settings_of(source).model_dump(mode="json"),
        pretrained_on=source.shards_sha256 if isinstance(source, Checkpoint) else getattr(source, "pretrained_on", ()),
        metrics={f"parity_{name}": proof["max_abs_difference"] for name, proof in proofs.items() if _measured(proof)},
    )


def _source(inputs: Inputs) -> Source:
    given = inputs.maybe("checkpoint", Checkpoint) or inputs.one("weights", Artifact)
    settings_of(given)
    return given  # type: ignore[return-value]  # settings_of refuses any other kind


def _write(task: WriteTask, ctx: StageContext) -> tuple[File, ...]:
    done = list(ctx.cluster.fan(_write_task, [task], resources=ctx.resources, label=str))
    return done[0].value()


def _check(
    config: ConvertConfig, source: Source, written: tuple[File, ...], ctx: StageContext
) -> dict[str, dict[str, Any]]:
    tasks = [
        CheckTask(name, config, source, tuple(file for file in written if file.path.startswith(f"{name}/")), ctx.task)
        for name in config.formats
    ]
    done = {end.item.format: end for end in ctx.cluster.fan(_check_task, tasks, resources=ctx.resources, label=str)}
    return {name: done[name].value() for name in config.formats}


def _write_task(task: WriteTask) -> tuple[File, ...]:
    from stages.convert.write import write  # torch is imported only where the work runs

    return write(task)


def _check_task(task: CheckTask) -> dict[str, Any]:
    from stages.convert.parity import check  # torch is imported only where the work runs

    return check(task)


def _measured(proof: dict[str, Any]) -> bool:
    return "max_abs_difference" in proof


def _raise(proofs: dict[str, dict[str, Any]]) -> None:
    wrong = [
        f"{name} differs by {proof['error']:.3g}, allowed are {proof['tolerance']:.3g}"
        for name, proof in proofs.items()
        if _measured(proof) and not proof["error"] <= proof["tolerance"]
    ]
    if wrong:
        raise StageError("prove the written weights", "; ".join(wrong), "report this: parity.json has the figures")


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
