"""Fine-tune: sweep on the dev split, commit the choice, retrain on all of train, score once per seed.

Only arranges trials; each is a task of the cluster's one queue. What is scored is out of reach of a sweep: its
trials are given the files of train alone, and the test trials name the committed choice that they follow. No torch.
"""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from vitpipe.infra.curves import SETTLE_S, LiveCurves
from vitpipe.infra.errors import StageError
from vitpipe.stages.artifacts import File, Score, ShardSet
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.estimates import Known
from vitpipe.stages.finetune import protocol
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.finetune.estimate import check_kept_head, check_set, trial_work, with_gpus
from vitpipe.stages.finetune.protocol import Trial, TrialOutcome, TrialTask
from vitpipe.stages.finetune.sections import TuningOptimizer
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.seal import readable
from vitpipe.stages.settings import micro_batch_of
from vitpipe.stages.tasks import TRAIN, gather, train_alone, weights_in
from vitpipe.stages.training.measure.fewshot import short_classes

ASKED = "fine-tune"
"""How an error about what the node was given begins."""

_IN_PROTOCOL = {"batch_images", "crop", "crop_px", "antialias", "flip", "eval_resize", "seeds", "precision"}
"""Fields of the config that stand in the score's protocol: what a comparison, or a prediction with its model, needs."""

_BEYOND = ("layer_decay", "end_lr", "augment", "label_smoothing", "stochastic_depth", "head_init")
"""Fields that stand there too, where they are not the paper's protocol."""

Finished = dict[Trial, tuple[TrialOutcome, File]]
Seconds = Callable[[TrialTask], float]
Context = StageContext[FinetuneResources]


def run(config: FinetuneConfig, inputs: Inputs, ctx: Context) -> Score:
    """Run both phases and put the score together. Errors: the trials' gravest, once all have left their pieces."""
    data = inputs.one("data", ShardSet)
    check_set(config, data, data.splits)
    weights = weights_in(inputs, ASKED)
    if config.head_init == "keep" and weights and (assumed := check_kept_head(data, weights)):
        ctx.events.emit("note", assumed)
    short = _short(config, data, ctx)
    live = protocol.live_curves(config, ctx.out)
    sweep = _phase(protocol.sweep_trials(config), config, inputs, ctx, live, choice=None)
    choice = protocol.choose(config, {trial: outcome for trial, (outcome, _) in sweep.items()})
    for rate in choice.get("hopeless", ()):
        ctx.events.emit("hopeless", f"peak_lr {rate:g} had learned nothing when stop_hopeless looked; it was ended")
    committed = ctx.out.commit("choice.json", readable(choice))
    trials = protocol.final_trials(config, choice["chosen"]["peak_lr"])
    tested = _phase(trials, config, inputs, ctx, live, choice=committed)
    live.settle(SETTLE_S)
    score = _score(config, inputs, choice, committed, [outcome for outcome, _ in tested.values()], short)
    labels = {"id2label": {str(number): name for number, name in enumerate(load_manifest(data).classes)}}
    files = (
        ctx.out.put("score.json", readable(score.facts() | _details(config, score, tested, short))),
        ctx.out.put("labels.json", readable(labels)),
        committed,
        *(file for _, file in (sweep | tested).values()),
        *(file for outcome, _ in tested.values() for file in outcome.weights),
    )
    ctx.metrics.set("score", score.value, benchmark=score.benchmark)
    return score.model_copy(update={"files": files})


def _short(config: FinetuneConfig, data: ShardSet, ctx: Context) -> int | None:
    """How many classes have fewer images than `train_per_class`, where it is given. StageError if that is refused."""
    if config.train_per_class is None:
        return None
    labels_N = Split(data, TRAIN, ctx.task.shards).labels.astype(np.int64)
    asked = config.train_per_class, config.strict_train_per_class, "train_per_class"
    return short_classes(labels_N, data.num_classes, *asked)


def _phase(
    trials: list[Trial],
    config: FinetuneConfig,
    inputs: Inputs,
    ctx: Context,
    live: LiveCurves,
    choice: File | None,
) -> Finished:
    """Run what no attempt has finished yet, all at once; the outcomes in the trials' order."""
    done = protocol.finished(ctx.out, trials, choice.sha256 if choice else None)
    for trial, (outcome, _) in done.items():
        protocol.add_curve(live, trial, outcome)
    if done:
        ctx.events.emit("resumed", f"{len(done)} of {len(trials)} trials were finished by an earlier attempt")
    tasks = [_task(trial, config, inputs, ctx, choice) for trial in trials if trial not in done]
    if choice and tasks:
        seeds = ", ".join(str(task.trial.seed) for task in tasks)
        opened = "" if config.split == "test" else f"the split {config.split}, "
        opened += f"once each for the seeds {seeds}, after the choice {choice.sha256[:12]}"
        ctx.events.emit("test_opened", opened)
    resources, seconds = _resources(config, inputs, ctx)
    if tasks:  # the time of the phase before says nothing of this one
        ctx.progress.update(len(done), len(trials), unit="trials", note=tasks[0].trial.phase)
    for task, result in gather(ctx.cluster.fan(_run_trial, tasks, resources=resources, seconds=seconds)):
        done[task.trial] = result
        protocol.add_curve(live, task.trial, result[0])
        ctx.progress.update(len(done), len(trials), unit="trials", note=f"last: {task}")
    return {trial: done[trial] for trial in trials}


def _resources(config: FinetuneConfig, inputs: Inputs, ctx: Context) -> tuple[FinetuneResources, Seconds]:
    """What one trial gets, and how long it will take, both by the estimate."""
    data, gpus = inputs.one("data", ShardSet), ctx.cluster.gpus()
    model = config.architecture(_pretrained(inputs), data.num_classes)
    work, known = trial_work(config, model, data.splits, data.num_classes), Known(gpus=gpus)
    return with_gpus(config, ctx.resources, model, gpus), lambda task: work.seconds(task.trial.phase, known)


def _task(trial: Trial, config: FinetuneConfig, inputs: Inputs, ctx: Context, choice: File | None) -> TrialTask:
    data = inputs.one("data", ShardSet)
    return TrialTask(
        trial=trial,
        config=config,
        micro_batch=micro_batch_of(config.batch_images, ctx.resources.micro_batch),
        threads=ctx.resources.threads,
        cpus=ctx.resources.whole_cpus,
        data=data if choice else train_alone(data),
        weights=weights_in(inputs, ASKED),
        keep_weights=choice is not None and trial.seed == config.seeds[0],
        choice_sha256=choice.sha256 if choice else None,
        context=ctx.task,
    )


def _run_trial(task: TrialTask) -> tuple[TrialOutcome, File]:
    from vitpipe.stages.finetune.trial import run_trial  # torch is imported only where the work runs

    return run_trial(task)


def _score(
    config: FinetuneConfig,
    inputs: Inputs,
    choice: dict[str, Any],
    committed: File,
    tested: list[TrialOutcome],
    short: int | None,
) -> Score:
    data, weights = inputs.one("data", ShardSet), weights_in(inputs, ASKED)
    diverged = [seed for seed, outcome in zip(config.seeds, tested, strict=True) if outcome.diverged_at is not None]
    if diverged:
        asked = f"train on all of train with peak_lr {choice['chosen']['peak_lr']:g}"
        raise StageError(asked, f"seed {diverged[0]} diverged", "lower peak_lr")
    old = _pretrained(inputs)
    model = config.architecture(old, data.num_classes)
    per_seed = tuple(outcome.accuracy for outcome in tested)
    measured = {
        "method": "finetune",
        "pretrained": weights is not None,
        "weights": weights.uri if weights else None,
        "image_px": model.image_px,
        "train_per_class": config.train_per_class,
        "num_train": tested[0].num_train,
        "steps": tested[0].steps,
        "why": choice["reason"],
        "choice_sha256": committed.sha256,
        "positions": _resized(old, model, config.position_resize),
        **config.model_dump(mode="json", include=_IN_PROTOCOL),
        **({} if config.split == "test" else {"split": config.split}),
        **({"pad_px": config.pad_px} if config.pad_px else {}),
        **({"short_classes": short} if short else {}),
        **({} if config.optimizer == TuningOptimizer() else {"optimizer": str(config.optimizer)}),
        **config.model_dump(mode="json", include=set(_BEYOND), exclude_defaults=True),
    }
    return Score(
        benchmark=data.name,
        metric="top1",
        value=statistics.fmean(per_seed),
        per_seed=per_seed,
        chosen=choice["chosen"],
        dev_scores=choice["dev_scores"],
        protocol=measured,
        num_test=tested[0].num_scored,
        model=model,
        metrics={"accuracy": statistics.fmean(per_seed), "accuracy_std": _std(per_seed)},
    )


def _details(config: FinetuneConfig, score: Score, tested: Finished, short: int | None) -> dict[str, Any]:
    """What `score.json` has beyond the score: the mistakes are those of the model that is kept."""
    first, _ = next(iter(tested.values()))
    found = {"std": _std(score.per_seed), "seeds": config.seeds, "wrong": first.wrong}
    return found if short is None else found | {"short_classes": short}


def _resized(old: ModelSettings | None, new: ModelSettings, mode: str) -> str | None:
    """How the position embedding came to another grid, in words; None where it did not have to."""
    if old is None or old.grid == new.grid or new.position in ("none", "sincos2d") or new.resnet is not None:
        return None
    return f"{old.grid}x{old.grid} to {new.grid}x{new.grid} patches as {mode}"


def _pretrained(inputs: Inputs) -> ModelSettings | None:
    weights = weights_in(inputs, ASKED)
    return weights.model if weights else None


def _std(values: tuple[float, ...]) -> float:
    """Sample standard deviation over seeds; 0 for one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
