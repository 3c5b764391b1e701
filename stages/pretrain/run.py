"""Pretrain a ViT: start a gang of ranks and hand its last checkpoint on. No torch: the work is in `rank.py`."""

import functools
import json
import re
from typing import Any

import numpy as np

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.infra.work import Rank
from vitpipe.stages.artifacts import Checkpoint, File, Score, ShardSet, Weights
from vitpipe.stages.contract import Events, Inputs, Out, StageContext
from vitpipe.stages.images.classes import names_of
from vitpipe.stages.images.manifest import Manifest, load_manifest
from vitpipe.stages.images.split import Split
from vitpipe.stages.images.united import united
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources, validation_split
from vitpipe.stages.pretrain.continuation import refuse_change, refuse_end
from vitpipe.stages.pretrain.input_checks import (
    check_classes,
    check_init,
    check_init_names,
    check_probe,
    check_shards,
    watched_outputs,
)
from vitpipe.stages.pretrain.job import FINISHED, SPLIT, PretrainJob, ResolvedRecipe, Watched, model_of
from vitpipe.stages.tasks import weights_in
from vitpipe.stages.training.checkpoint.committed_steps import EVALUATION, LEDGER, METRICS, StepPlace
from vitpipe.stages.training.measure.fewshot import short_classes


def run(config: PretrainConfig, inputs: Inputs, ctx: StageContext[PretrainResources]) -> Checkpoint:
    """Train to the last step, from the newest committed one where there is one.

    Errors: UsageError for shards that do not fit the recipe, DriftError for a recipe that is not the one it goes on
    with, StageError, Stopped, LeaseLost, StorageError, and
    IntegrityError when checkpoints were committed and none is whole.
    """
    shards = inputs.many("shards", ShardSet)
    for one in shards:
        check_shards(one.uri, one.splits, one.multi_label, config)
        check_classes(one.uri, one.num_classes, config)
    recipe = ResolvedRecipe(config, ctx.resources, sum(one.splits[SPLIT] for one in shards))
    manifests = united(shards, config.objective.labelled)
    job = PretrainJob(
        recipe=recipe,
        model=model_of(config, shards[0].num_classes),
        shards=shards,
        init=weights_in(inputs, "begin", "init"),
        task=ctx.task,
        probes=_probes(config, inputs, ctx),
        watch=_watched(inputs, shards[0]),
        continued=_continued(config, inputs),
    )
    if job.continued is not None:
        refuse_end(recipe.total_steps, job.continued.step, job.continued.uri)
    validation_split(config, [one.splits for one in shards], bool(job.probes or job.watch))
    if job.init is not None:
        _check_head(job.init, job, manifests[0], ctx.events)
    note = f"waits for {ctx.resources.least_workers} workers to have their machines and start"
    ctx.progress.update(0, job.recipe.total_steps, note=note)
    ctx.cluster.gang(functools.partial(_on_rank, job), resources=ctx.resources)
    return _artifact(job, ctx.out)


def _check_head(init: Weights | Score, job: PretrainJob, manifest: Manifest, events: Events) -> None:
    """UsageError where the head that is taken over calls a number otherwise than the shards."""
    check_init(init.model, job.model, init.uri)
    if job.model.classes and init.model and init.model.classes:
        classes = dict(enumerate(manifest.classes))
        note = check_init_names(init.uri, names_of(init), job.shards[0].uri, classes)
        if note:
            events.emit("note", note)


def _continued(config: PretrainConfig, inputs: Inputs) -> Checkpoint | None:
    given = inputs.maybe("continue", Checkpoint)
    if given is None:
        return None
    if "init" in inputs.names():
        raise UsageError(f"go on from {given.uri}", "`init` is given too", "remove one of them")
    refuse_change(config, inputs.many("shards", ShardSet), given)
    given.read(f"{given.folder}/manifest.json")  # of what its record vouches for
    return given


def _probes(config: PretrainConfig, inputs: Inputs, ctx: StageContext[PretrainResources]) -> tuple[ShardSet, ...]:
    """UsageError for one that no ridge can be fitted and tested on; a class with fewer images than shots is told."""
    probes = _several(inputs, "probes")
    for probe in probes:
        check_probe(probe.uri, probe.splits, probe.multi_label, probe.num_classes)
        if config.evaluate is not None:  # now, not when training has come to its first measurement
            labels_N = Split(probe, "train", ctx.task.scratch / "images").labels.astype(np.int64)
            most, strict = max(config.evaluate.fewshot.shots), config.evaluate.fewshot.strict_shots
            try:
                short = short_classes(labels_N, probe.num_classes, most, strict, "shots")
            except StageError as error:
                raise UsageError(f"score on {probe.uri}", error.in_brief, error.do) from error
            if short:
                found = f"{short} of {probe.num_classes} classes of {probe.name} have fewer training images than"
                ctx.events.emit("note", f"{found} {most} shots: all of theirs are taken")
    return probes


def _watched(inputs: Inputs, shards: ShardSet) -> tuple[Watched, ...]:
    """UsageError for a set with a class that the shards do not have."""
    matched = ((one, watched_outputs(one, shards)) for one in _several(inputs, "watch"))
    return tuple(Watched(one, outputs) for one, outputs in matched if outputs is not None)


def _several(inputs: Inputs, name: str) -> tuple[ShardSet, ...]:
    """Sets that are reported by their nodes' names. UsageError where two have one name."""
    given = inputs.many(name, ShardSet)
    names = [one.name for one in given]
    if twice := [one.uri for one in given if names.count(one.name) > 1]:
        found = f"two of them have one name, by which they are reported: {' and '.join(twice)}"
        raise UsageError(f"score {name} while training", found, "leave one of them out")
    return given


def _on_rank(job: PretrainJob, rank: Rank) -> None:
    # torch is imported only where the work runs
    from vitpipe.stages.pretrain.rank import train_rank

    train_rank(job, rank)


def _artifact(job: PretrainJob, out: Out) -> Checkpoint:
    finished = _finished(out)
    place = StepPlace(attempt=finished["attempt"], step=finished["step"])
    manifest = place.read(out.node)
    files = place.files(manifest)
    curves = {f"{manifest.folder}/{name}": name for name in (METRICS, LEDGER, EVALUATION)}
    classes = load_manifest(job.shards[0]).classes if job.model.classes else ()
    labels: dict[str, Any] = {"id2label": {str(index): name for index, name in enumerate(classes)}}
    if job.recipe.config.objective.kind == "sigmoid":
        labels["objective"] = "sigmoid"  # who predicts takes each class by itself
    return Checkpoint(
        folder=manifest.folder,
        step=manifest.step,
        samples_seen=manifest.samples_seen,
        model=job.model,
        shards_sha256=tuple(one.manifest_sha256 for one in job.shards),
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
