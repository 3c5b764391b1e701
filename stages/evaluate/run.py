"""Evaluate frozen weights: probes on their features, or the classes that their own head names. No torch.

Only arranges tasks and puts their scores together. Penalties are chosen by tasks that cannot read the scored split,
and the choice is committed before anything of that split is computed.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vitpipe.infra.curves import SETTLE_S, LiveCurves
from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import File, Score, ShardSet, Weights
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.evaluate import frozen
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.estimate import check_head, check_set, with_gpus
from vitpipe.stages.evaluate.way import way_of
from vitpipe.stages.evaluate.work_items import Drawn, EvaluateTask, Features, FitTask, HeadTask
from vitpipe.stages.images.class_match import join
from vitpipe.stages.seal import readable
from vitpipe.stages.tasks import train_alone, weights_in

if TYPE_CHECKING:
    from vitpipe.stages.evaluate.score import Fitted


def run(config: EvaluateConfig, inputs: Inputs, ctx: StageContext[EvaluateResources]) -> Score:
    """Score frozen weights on one split of a data set.

    Errors: UsageError for data or weights that do not fit the method; those of the tasks, the gravest of several.
    """
    data, weights = inputs.one("data", ShardSet), _weights(config, inputs)
    check_set(config, data, data.splits)
    if weights is not None:
        check_head(config, weights.model)
    model, gpus = weights.model if weights else None, ctx.cluster.gpus()
    resources = with_gpus(config, ctx.resources, model, data.splits, data.num_classes, gpus)
    if weights is not None and not config.probes:  # now, not when the features are there
        match = join(data, weights, config.called)
        if match and match.note:
            ctx.events.emit("note", match.note)
    ctx = replace(ctx, resources=resources)
    way = way_of(config, weights, ctx.events)
    about = EvaluateTask(config, data, weights, ctx.resources.batch_images, ctx.resources.whole_cpus, ctx.task, way)
    if config.probes:
        per_seed, details, files, used = _probed(about, ctx)
    else:
        scored = _scored(about, config.seeds[0], ctx)
        ((value, details),) = frozen.run_all(_head, [HeadTask(about, scored)], ctx)
        per_seed, files, used = (value,), (), (scored,)
    score = _score(about, per_seed, used)
    ctx.metrics.set("score", score.value, benchmark=score.benchmark)
    _tell_curves(score, details, ctx)
    details |= {"features": [part.reference for pieces in used for part in pieces]}
    return score.model_copy(update={"files": (ctx.out.put("score.json", readable(score.facts() | details)), *files)})


def _tell_curves(score: Score, details: dict[str, Any], ctx: StageContext[EvaluateResources]) -> None:
    """Leave the accuracy over the number of shots, mean over seeds, among the live curves; 0 shots are all images."""
    live = LiveCurves(ctx.out.node, ctx.out.attempt)
    by_shots = {0 if shots == "all" else int(shots): found for shots, found in details.get("by_shots", {}).items()}
    for shots, found in sorted(by_shots.items() or {0: [score.value]}.items()):
        live.add(shots, {"shots/accuracy": statistics.fmean(found)}, told=False)
    live.tell()
    live.settle(SETTLE_S)


def _probed(
    about: EvaluateTask, ctx: StageContext
) -> tuple[tuple[float, ...], dict[str, Any], tuple[File, ...], tuple[Features, ...]]:
    """Values by seed, details for score.json, the committed choice, and the features they rest on."""
    config = about.config
    blind = replace(about, data=train_alone(about.data))
    ((draws, dev, short),) = frozen.run_all(_draw, [blind], ctx)
    fits = []
    for seeds in _seeds(config):
        wanted = [rows for seed in seeds for rows in draws[seed].values()] + [
            dev[seed] for seed in seeds if seed in dev
        ]
        train = frozen.features(blind, "train", seeds[0], np.unique(np.concatenate(wanted)), ctx)
        fits.append(FitTask(blind, seeds, {seed: draws[seed] for seed in seeds}, dev, train))
    files: tuple[File, ...] = ()
    details: dict[str, Any] = {"seeds": config.scored_seeds}
    if short:
        details |= {"short_classes": max(short.values()), "short_by_shots": {str(n): few for n, few in short.items()}}
    if config.method == "linear" or config.l2_shared:
        chosen = frozen.run_all(_fit, fits, ctx)
        choice = {"l2": _by_shots(config, chosen, "l2"), "dev_by_l2": _by_shots(config, chosen, "by_l2")}
        files = (ctx.out.commit("choice.json", readable(choice)),)
        details |= {"chosen_l2": choice["l2"]} if config.method == "linear" else {"dev_by_l2": choice["dev_by_l2"]}
        fits = [replace(task, l2=part.l2) for task, part in zip(fits, chosen, strict=True)]
    fits = [replace(task, about=about, test=_scored(about, task.seeds[0], ctx)) for task in fits]
    scored = frozen.run_all(_fit, fits, ctx)
    details["by_shots"] = _by_shots(config, scored, "accuracy")
    if config.l2_shared:
        details["by_l2"] = _by_shots(config, scored, "by_l2")
    first = next(iter(details["by_shots"].values()))
    return tuple(first), details, files, tuple(each for task in fits for each in (task.train, task.test) if each)


def _scored(about: EvaluateTask, seed: int, ctx: StageContext) -> Features:
    split = about.config.split
    return frozen.features(about, split, seed, np.arange(about.data.splits[split]), ctx)


def _by_shots(config: EvaluateConfig, parts: Sequence["Fitted"], field: str) -> dict[str, list[Any]]:
    """One field of all parts: the seeds' values by number of shots, in the config's order; empty where the field is."""
    by_seed = {seed: found for part in parts for seed, found in getattr(part, field).items()}
    shots = config.drawn or (0,)
    if not by_seed:
        return {}
    return {
        str(number) if number else "all": [by_seed[seed][number] for seed in config.scored_seeds] for number in shots
    }


def _seeds(config: EvaluateConfig) -> list[tuple[int, ...]]:
    """The seeds of each task: features of a fixed model serve all, an untrained model has one seed."""
    if config.features == "untrained":
        return [(seed,) for seed in config.scored_seeds]
    return [config.scored_seeds]


# torch is imported only where the work runs


def _draw(task: EvaluateTask) -> Drawn:
    from vitpipe.stages.evaluate.score import draws

    return draws(task)


def _fit(task: FitTask) -> "Fitted":
    from vitpipe.stages.evaluate.score import fit

    return fit(task)


def _head(task: HeadTask) -> tuple[float, dict[str, Any]]:
    from vitpipe.stages.evaluate.score import head

    return head(task)


def _weights(config: EvaluateConfig, inputs: Inputs) -> Weights | Score | None:
    weights = weights_in(inputs, f"evaluate by {config.method}")
    if weights is None and not (config.features == "raw_pixels" and config.image_px):
        do = "give Weights, or the Score of a finetune"
        raise UsageError(f"evaluate weights by {config.method}", "none are given", do)
    return weights


def _score(about: EvaluateTask, per_seed: tuple[float, ...], used: Sequence[Features]) -> Score:
    config, data, weights = about.config, about.data, about.weights
    protocol: dict[str, Any] = {
        "method": config.method,
        "weights": weights.uri if weights else None,
        "image_px": about.image_px,
        **about.way.facts(),
    }
    if config.split != "test":
        protocol["split"] = config.split
    if config.called:
        protocol["class_map"] = dict(config.called)
    if config.probes:
        protocol |= {"features": config.features, "seeds": list(config.scored_seeds)}
        protocol |= {"shots": config.drawn[0]} if config.drawn else {"num_train": data.splits["train"]}
    if config.method == "fewshot":
        protocol["l2"] = config.l2
    elif config.method == "knn":
        protocol |= {"neighbours": config.neighbours, "temperature": config.temperature}
    speeds = [piece.images_per_second for pieces in used for piece in pieces]
    return Score(
        benchmark=data.name,
        metric="real" if config.method == "real" else "top1",
        value=statistics.fmean(per_seed),
        per_seed=per_seed,
        protocol=protocol,
        num_test=data.splits[config.split],
        metrics={"accuracy": statistics.fmean(per_seed), "inference_images_per_second": statistics.median(speeds)},
    )
