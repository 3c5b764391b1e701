"""Evaluate frozen weights: probes on their features, or the classes that their own head names. No torch.

Only arranges tasks and puts their scores together.
"""

import json
import statistics
from typing import TYPE_CHECKING, Any

from infra.errors import UsageError, VitpipeError, gravest
from stages.artifacts import Artifact, Score, ShardSet, Weights
from stages.contract import Inputs, StageContext
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.estimate import check_head
from stages.evaluate.task import EvaluateTask

if TYPE_CHECKING:
    from stages.evaluate.features import Probed


def run(config: EvaluateConfig, inputs: Inputs, ctx: StageContext) -> Score:
    """Errors: UsageError for data or weights that do not fit the method; those of the tasks, the gravest of several."""
    data, weights = inputs.one("data", ShardSet), _weights(config, inputs)
    _check(config, data)
    if weights is not None:
        check_head(config, weights.model)
    cpus = max(1, int(ctx.resources.cpus_per_task))
    tasks = [
        EvaluateTask(config, data, weights, seeds, ctx.resources.batch_images, cpus, ctx.task)
        for seeds in _seeds(config)
    ]
    if config.probes:
        per_seed, details = _probed(config, _results(_probe, tasks, ctx))
    else:
        value, details = _results(_classify, tasks, ctx)[0]
        per_seed = (value,)
    score = _score(config, data, weights, per_seed)
    ctx.metrics.set("score", score.value, benchmark=score.benchmark)
    content = json.dumps(score.facts() | details, indent=1, sort_keys=True) + "\n"
    return score.model_copy(update={"files": (ctx.out.put("score.json", content.encode()),)})


def _probed(config: EvaluateConfig, parts: list["Probed"]) -> tuple[tuple[float, ...], dict[str, Any]]:
    """Values by seed, and what stands beside them in score.json."""
    found = {seed: by_shots for part in parts for seed, by_shots in part.accuracies.items()}
    penalties = {seed: by_shots for part in parts for seed, by_shots in part.chosen.items()}
    shots = config.drawn or (0,)
    named = {number: str(number) if number else "all" for number in shots}
    details: dict[str, Any] = {
        "by_shots": {named[number]: [found[seed][number] for seed in config.scored_seeds] for number in shots},
        "seeds": config.scored_seeds,
    }
    if config.method == "linear":
        details["chosen_l2"] = {
            named[number]: [penalties[seed][number] for seed in config.scored_seeds] for number in shots
        }
    return tuple(found[seed][shots[0]] for seed in config.scored_seeds), details


def _results(fn: Any, tasks: list[EvaluateTask], ctx: StageContext) -> list[Any]:
    ended = []
    for end in ctx.cluster.fan(fn, tasks, resources=ctx.resources, label=str):
        ended.append(end)
        ctx.progress.update(len(ended), len(tasks), unit="tasks")
    errors = [end.error for end in ended if end.error is not None]
    unexpected = [error for error in errors if not isinstance(error, VitpipeError)]
    if errors:
        raise unexpected[0] if unexpected else gravest([one for one in errors if isinstance(one, VitpipeError)])
    return [end.value() for end in ended]


def _seeds(config: EvaluateConfig) -> list[tuple[int, ...]]:
    """The seeds of each task: features of a fixed model serve all, an untrained model has one seed."""
    if config.features == "untrained":
        return [(seed,) for seed in config.scored_seeds]
    return [config.scored_seeds]


def _probe(task: EvaluateTask) -> "Probed":
    from stages.evaluate.features import probe  # torch is imported only where the work runs

    return probe(task)


def _classify(task: EvaluateTask) -> tuple[float, dict[str, Any]]:
    from stages.evaluate.features import classify  # torch is imported only where the work runs

    return classify(task)


def _weights(config: EvaluateConfig, inputs: Inputs) -> Weights | Score | None:
    given = inputs.maybe("weights", Artifact)
    if isinstance(given, Weights) or (isinstance(given, Score) and given.model):
        return given
    if given is None and config.features == "raw_pixels" and config.image_px:
        return None
    found = "none are given" if given is None else f"a {given.kind} without weights is given"
    raise UsageError(f"evaluate weights by {config.method}", found, "give Weights, or the Score of a finetune")


def _check(config: EvaluateConfig, data: ShardSet) -> None:
    wanted = ("train", "test") if config.probes else ("test",)
    missing = [name for name in wanted if not data.splits.get(name)]
    if missing:
        found = ", ".join(f"{name} ({count})" for name, count in data.splits.items()) or "no split"
        raise UsageError(f"evaluate on {data.uri}", f"it has {found}", f"ingest it with a split {missing[0]}")
    if data.multi_label and config.method != "real":
        raise UsageError(
            f"evaluate on {data.uri}",
            "it has several labels per image",
            "give one of single labels, or use method real",
        )


def _score(
    config: EvaluateConfig, data: ShardSet, weights: Weights | Score | None, per_seed: tuple[float, ...]
) -> Score:
    protocol: dict[str, Any] = {
        "method": config.method,
        "weights": weights.uri if weights else None,
        "image_px": config.image_px or (weights.model["image_px"] if weights and weights.model else None),
        "eval_resize": config.eval_resize,
    }
    if config.probes:
        protocol |= {"features": config.features, "seeds": list(config.scored_seeds)}
        protocol |= {"shots": config.drawn[0]} if config.drawn else {"num_train": data.splits["train"]}
    if config.method == "fewshot":
        protocol["l2"] = config.l2
    elif config.method == "knn":
        protocol |= {"neighbours": config.neighbours, "temperature": config.temperature}
    return Score(
        benchmark=data.uri.rsplit("/", 1)[-1],
        metric="real" if config.method == "real" else "top1",
        value=statistics.fmean(per_seed),
        per_seed=per_seed,
        protocol=protocol,
        num_test=data.splits["test"],
        metrics={"accuracy": statistics.fmean(per_seed)},
    )
