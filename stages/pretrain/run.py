"""Pretrain a ViT: start a gang of ranks and hand its last checkpoint on. No torch: the work is in `rank.py`."""

import functools
import json
import re
from typing import Any

from infra.errors import StageError, UsageError
from infra.work import Rank
from stages.artifacts import Artifact, Checkpoint, File, Score, ShardSet, Weights
from stages.contract import Inputs, Out, StageContext
from stages.images.manifest import load_manifest
from stages.pretrain.config import PretrainConfig, validation_split
from stages.pretrain.job import FINISHED, SPLIT, Course, Job, check_init, model_of
from stages.training.steps import EVALUATION, LEDGER, METRICS, Place

_NO_SPLIT = f"ingest with a split named {SPLIT}"


def run(config: PretrainConfig, inputs: Inputs, ctx: StageContext) -> Checkpoint:
    """Train to the last step, from the newest committed one where there is one.

    Errors: UsageError for shards that do not fit the recipe, StageError, Stopped, LeaseLost, StorageError, and
    IntegrityError when checkpoints were committed and none is whole.
    """
    shards = inputs.one("shards", ShardSet)
    if not shards.splits.get(SPLIT):
        raise UsageError(f"pretrain on {shards.uri}", f"it holds {shards.splits}, no images to train on", _NO_SPLIT)
    if shards.multi_label and config.objective.kind == "softmax":
        found = "its images have several classes each, a softmax has one"
        raise UsageError(f"pretrain on {shards.uri}", found, "set objective.kind to sigmoid")
    job = Job(
        course=Course(config, ctx.resources, shards.splits[SPLIT]),
        model=model_of(config, shards.num_classes),
        shards=shards,
        init=_init(inputs),
        task=ctx.task,
        probes=_probes(inputs),
    )
    validation_split(config, shards.splits, bool(job.probes))
    if job.init is not None:
        check_init(job.init.model, job.model, job.init.uri)
    note = f"waits for {ctx.resources.workers} workers to have their machines and start"
    ctx.progress.update(0, job.course.total_steps, note=note)
    ctx.cluster.gang(functools.partial(_on_rank, job), resources=ctx.resources)
    return _artifact(job, ctx.out)


def _init(inputs: Inputs) -> Weights | Score | None:
    given = inputs.maybe("init", Artifact)
    if given is None or isinstance(given, (Weights, Score)):
        return given
    raise UsageError(f"begin from {given.uri}", f"a {given.kind}", "give Weights, or a finetune's Score")


def _probes(inputs: Inputs) -> tuple[ShardSet, ...]:
    """UsageError for one that no ridge can be fitted and tested on."""
    probes = inputs.many("probes", ShardSet)
    for probe in probes:
        missing = [name for name in ("train", "test") if not probe.splits.get(name)]
        if missing or probe.multi_label:
            found = f"it has no split {missing[0]}" if missing else "its images have several classes each"
            raise UsageError(f"score {probe.uri} while training", found, "give one with train, test and single labels")
    return probes


def _on_rank(job: Job, rank: Rank) -> None:
    # torch is imported only where the work runs
    from stages.pretrain.rank import train_rank

    train_rank(job, rank)


def _artifact(job: Job, out: Out) -> Checkpoint:
    finished = _finished(out)
    place = Place(attempt=finished["attempt"], step=finished["step"])
    manifest = place.read(out.node)
    files = place.files(manifest)
    curves = {f"{manifest.folder}/{name}": name for name in (METRICS, LEDGER, EVALUATION)}
    classes = load_manifest(job.shards).classes if job.model.classes else ()
    labels: dict[str, Any] = {"id2label": {str(index): name for index, name in enumerate(classes)}}
    if job.course.config.objective.kind == "sigmoid":
        labels["objective"] = "sigmoid"  # who predicts takes each class by itself
    return Checkpoint(
        folder=manifest.folder,
        step=manifest.step,
        samples_seen=manifest.samples_seen,
        model=job.model.model_dump(mode="json"),
        shards_sha256=(job.shards.manifest_sha256,),
        metrics=finished["metrics"],
        files=(
            *files,
            *(file.model_copy(update={"path": curves[file.path]}) for file in files if file.path in curves),
            out.put("labels.json", json.dumps(labels, indent=1).encode()),
            *(File(**file) for file in finished["files"]),
        ),
    )


def _finished(out: Out) -> dict:  # type: ignore[type-arg]
    """The word of the gang's last start, of all its restarts."""
    pattern = re.compile(rf"{re.escape(out.attempt)}(?:\.(\d+))?/{re.escape(FINISHED)}")
    found = [match for entry in out.node.list(out.attempt) if (match := pattern.fullmatch(entry.path))]
    if not found:
        raise StageError("pretrain", f"the gang ended without a {FINISHED} under {out.node.uri}/{out.attempt}")
    newest = max(found, key=lambda match: int(match[1] or 0))
    return json.loads(out.node.read(newest[0]))  # type: ignore[no-any-return]
