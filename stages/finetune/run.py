"""Fine-tune: sweep on the dev split, commit the choice, retrain on all of train, test once per seed.

Only arranges trials; each is a task of the cluster's one queue. The test split is out of reach of a sweep: its trials
are given data without those files, and the test trials name the committed choice that they follow. No torch.
"""

import json
import statistics
from collections.abc import Callable
from typing import Any

from vitpipe.infra.errors import StageError, UsageError, VitpipeError, gravest
from vitpipe.stages.artifacts import Artifact, File, Score, ShardSet, Weights
from vitpipe.stages.contract import Inputs, Known, StageContext
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources, micro_batch
from vitpipe.stages.finetune.estimate import memory_bytes, trial_work
from vitpipe.stages.finetune.protocol import Outcome, Trial, TrialTask, choose, final_trials, finished, sweep_trials
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.model_settings import ModelSettings

_TOLD = {"batch_images", "crop", "crop_px", "antialias", "flip", "eval_resize", "seeds", "precision"}
"""Fields of the config that stand in the score's protocol: what a comparison, or who predicts with it, must know."""

Finished = dict[Trial, tuple[Outcome, File]]


def run(config: FinetuneConfig, inputs: Inputs, ctx: StageContext) -> Score:
    """Errors: those of the trials, the gravest of several, once the others have finished and left their pieces."""
    data = inputs.one("data", ShardSet)
    _check(data)
    sweep = _phase(sweep_trials(config), config, inputs, ctx, choice=None)
    choice = choose(config, {trial: outcome for trial, (outcome, _) in sweep.items()})
    for rate in choice.get("hopeless", ()):
        ctx.events.emit("hopeless", f"peak_lr {rate:g} had learned nothing when stop_hopeless looked; it was ended")
    committed = ctx.out.commit("choice.json", _json(choice))
    tested = _phase(final_trials(config, choice["chosen"]["peak_lr"]), config, inputs, ctx, choice=committed)
    score = _score(config, inputs, choice, committed, [outcome for outcome, _ in tested.values()])
    labels = {"id2label": {str(number): name for number, name in enumerate(load_manifest(data).classes)}}
    files = (
        ctx.out.put("score.json", _json(score.facts() | {"std": _std(score.per_seed), "seeds": config.seeds})),
        ctx.out.put("labels.json", _json(labels)),
        committed,
        *(file for _, file in (sweep | tested).values()),
        *(file for outcome, _ in tested.values() for file in outcome.weights),
    )
    ctx.metrics.set("score", score.value, benchmark=score.benchmark)
    return score.model_copy(update={"files": files})


def _phase(
    trials: list[Trial], config: FinetuneConfig, inputs: Inputs, ctx: StageContext, choice: File | None
) -> Finished:
    """Run what no attempt has finished yet, all at once; the outcomes in the trials' order."""
    done = finished(ctx.out, trials, choice.sha256 if choice else None)
    if done:
        ctx.events.emit("resumed", f"{len(done)} of {len(trials)} trials were finished by an earlier attempt")
    tasks = [_task(trial, config, inputs, ctx, choice) for trial in trials if trial not in done]
    if choice and tasks:
        seeds = ", ".join(str(task.trial.seed) for task in tasks)
        ctx.events.emit("test_opened", f"once each for the seeds {seeds}, after the choice {choice.sha256[:12]}")
    errors: list[Exception] = []
    resources, seconds = _means(config, inputs, ctx)
    for end in ctx.cluster.fan(_run_trial, tasks, resources=resources, label=str, seconds=seconds):
        if end.error is not None:
            errors.append(end.error)
        else:
            done[end.item.trial] = end.value()
        ctx.progress.update(len(done), len(trials), unit="trials", note=f"last: {end.item}")
    _raise(errors)
    return {trial: done[trial] for trial in trials}


def _means(
    config: FinetuneConfig, inputs: Inputs, ctx: StageContext
) -> tuple[FinetuneResources, Callable[[TrialTask], float]]:
    """What one trial gets, and how long it will take, both by the estimate."""
    data, gpus = inputs.one("data", ShardSet), ctx.cluster.gpus()
    model = config.architecture(_settings(_weights(inputs)), data.num_classes)
    work, known = trial_work(config, model, data.splits, data.num_classes), Known(gpus=gpus)
    memory = memory_bytes(model, micro_batch(config, ctx.resources))
    return ctx.resources.on_gpus(gpus, memory), lambda task: work.seconds(task.trial.phase, known)


def _task(trial: Trial, config: FinetuneConfig, inputs: Inputs, ctx: StageContext, choice: File | None) -> TrialTask:
    data = inputs.one("data", ShardSet)
    return TrialTask(
        trial=trial,
        config=config,
        micro_batch=micro_batch(config, ctx.resources),
        threads=ctx.resources.threads,
        cpus=max(1, int(ctx.resources.cpus_per_task)),
        data=data if choice else _without_test(data),
        weights=_weights(inputs),
        keep_weights=choice is not None and trial.seed == config.seeds[0],
        choice_sha256=choice.sha256 if choice else None,
        context=ctx.task,
    )


def _run_trial(task: TrialTask) -> tuple[Outcome, File]:
    from vitpipe.stages.finetune.trial import run_trial  # torch is imported only where the work runs

    return run_trial(task)


def _without_test(data: ShardSet) -> ShardSet:
    return data.model_copy(update={"files": tuple(file for file in data.files if not file.path.startswith("test-"))})


def _weights(inputs: Inputs) -> Weights | Score | None:
    given = inputs.maybe("weights", Artifact)
    if given is None or isinstance(given, Weights) or (isinstance(given, Score) and given.model):
        return given
    raise UsageError(
        f"fine-tune from {given.uri}", f"a {given.kind} without weights", "give Weights, or a finetune's Score"
    )


def _check(data: ShardSet) -> None:
    missing = [name for name in ("train", "test") if not data.splits.get(name)]
    if missing:
        found = ", ".join(f"{name} ({count})" for name, count in data.splits.items()) or "no split"
        raise UsageError(f"fine-tune on {data.uri}", f"it has {found}", f"ingest it with a split {missing[0]}")
    if data.multi_label or data.num_classes < 2:
        found = "several labels per image" if data.multi_label else f"{data.num_classes} class"
        raise UsageError(
            f"fine-tune on {data.uri}", f"it has {found}", "give a data set with one of several classes per image"
        )


def _score(
    config: FinetuneConfig, inputs: Inputs, choice: dict[str, Any], committed: File, tested: list[Outcome]
) -> Score:
    data, weights = inputs.one("data", ShardSet), _weights(inputs)
    diverged = [seed for seed, outcome in zip(config.seeds, tested, strict=True) if outcome.diverged_at is not None]
    if diverged:
        rate = choice["chosen"]["peak_lr"]
        raise StageError(
            f"train on all of train with peak_lr {rate:g}", f"seed {diverged[0]} diverged", "lower peak_lr"
        )
    old = _settings(weights)
    pretrained = config.architecture(old, data.num_classes)
    per_seed = tuple(outcome.accuracy for outcome in tested)
    protocol = {
        "method": "finetune",
        "pretrained": weights is not None,
        "weights": weights.uri if weights else None,
        "image_px": pretrained.image_px,
        "train_per_class": config.train_per_class,
        "num_train": tested[0].num_train,
        "steps": tested[0].steps,
        "why": choice["reason"],
        "choice_sha256": committed.sha256,
        "positions": _resized(old, pretrained, config.position_resize),
        **config.model_dump(mode="json", include=_TOLD),
    }
    return Score(
        benchmark=data.uri.rsplit("/", 1)[-1],
        metric="top1",
        value=statistics.fmean(per_seed),
        per_seed=per_seed,
        chosen=choice["chosen"],
        dev_scores=choice["dev_scores"],
        protocol=protocol,
        num_test=tested[0].num_scored,
        model=pretrained.model_dump(mode="json"),
        metrics={"accuracy": statistics.fmean(per_seed), "accuracy_std": _std(per_seed)},
    )


def _resized(old: ModelSettings | None, new: ModelSettings, mode: str) -> str | None:
    """How the position embedding came to another grid, in words; None where it did not have to."""
    if old is None or old.grid == new.grid or new.position in ("none", "sincos2d") or new.resnet is not None:
        return None
    return f"{old.grid}x{old.grid} to {new.grid}x{new.grid} patches as {mode}"


def _settings(weights: Weights | Score | None) -> ModelSettings | None:
    return ModelSettings.model_validate(weights.model) if weights else None


def _std(values: tuple[float, ...]) -> float:
    """Sample standard deviation over seeds; 0 for one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _raise(errors: list[Exception]) -> None:
    unexpected = [error for error in errors if not isinstance(error, VitpipeError)]
    if unexpected:
        raise unexpected[0]
    if errors:
        raise gravest([error for error in errors if isinstance(error, VitpipeError)])


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
