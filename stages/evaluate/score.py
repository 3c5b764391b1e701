"""What probes and heads make of frozen features: the choice of a penalty first, then scores on the split asked for.

A pure function of its task. Shapes: N training images, M test images, D features, K classes.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vitpipe.stages.evaluate.features import Floats, device, pretrained, read
from vitpipe.stages.evaluate.probes import choose_l2, linear, nearest
from vitpipe.stages.evaluate.quality import quality, real_accuracy
from vitpipe.stages.evaluate.work_items import Drawn, EvaluateTask, FitTask, HeadTask, Indices
from vitpipe.stages.images.class_match import join
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.training.measure.fewshot import draw, left_over, short_classes
from vitpipe.stages.training.measure.ridge import Ridge
from vitpipe.stages.training.measure.wrong import surest, wrong_names

Labelled = tuple[Floats, Indices]
"""Features and the classes of their images."""


@dataclass(frozen=True)
class Fitted:
    """What probes of one task found, by seed and number of shots; 0 shots are all training images."""

    accuracy: dict[int, dict[int, float]] = field(default_factory=dict)
    """On the scored split; empty while choosing."""
    l2: dict[int, dict[int, float]] = field(default_factory=dict)
    """linear, while choosing: the penalty that held-out images chose."""
    by_l2: dict[int, dict[int, dict[float, float]]] = field(default_factory=dict)
    """fewshot: accuracy with every penalty of `l2_shared`, on dev images while choosing, else on the scored
    split."""


def draws(task: EvaluateTask) -> Drawn:
    """Training images of every seed and number of shots, the dev images where penalties are compared, and in how many
    classes there are fewer. StageError where the config refuses these."""
    config, classes = task.config, task.data.num_classes
    labels_N = _labels(task, "train")
    if config.drawn is None:
        return {seed: {0: np.arange(len(labels_N))} for seed in config.scored_seeds}, {}, {}
    most = max(config.drawn)
    short_classes(labels_N, classes, most, config.strict_shots, "shots")
    short = {shots: short_classes(labels_N, classes, shots, False, "shots") for shots in config.drawn}
    chosen = {seed: draw(labels_N, classes, seed, config.drawn) for seed in config.scored_seeds}
    if not config.l2_shared:
        return chosen, {}, short
    return chosen, {seed: left_over(labels_N, supports[most], seed) for seed, supports in chosen.items()}, short


def fit(task: FitTask) -> Fitted:
    """Choose, where the task has no features of the scored split; else score on all of it."""
    about = task.about
    torch.set_num_threads(about.cpus)
    labels_N = _labels(about, "train")
    test = None
    if task.test is not None:
        labels_M = _labels(about, about.config.split)
        test = read(task.test, np.arange(len(labels_M)), about), labels_M
    result = Fitted()
    for seed in task.seeds:
        dev = task.dev.get(seed)
        wanted = [*task.draws[seed].values(), *([] if dev is None or test is not None else [dev])]
        drawn = np.unique(np.concatenate(wanted))
        train_ND = read(task.train, drawn, about)
        held = test or (None if dev is None else (train_ND[np.searchsorted(drawn, dev)], labels_N[dev]))
        for shots, support in task.draws[seed].items():
            labelled = train_ND[np.searchsorted(drawn, support)], labels_N[support]
            _fit_one(task, seed, shots, labelled, held, result)
    return result


def _fit_one(task: FitTask, seed: int, shots: int, support: Labelled, held: Labelled | None, result: Fitted) -> None:
    config, classes, (x_ND, y_N) = task.about.config, task.about.data.num_classes, support
    if task.test is None and config.method == "linear":
        result.l2.setdefault(seed, {})[shots] = choose_l2(x_ND, y_N, classes, config.l2_sweep, seed, device())
        return
    assert held is not None, "only logistic regression holds its dev images out of the support"
    held_MD, labels_M = held
    if config.method == "fewshot":
        ridge = Ridge.fit(x_ND, y_N, classes)
        if config.l2_shared:
            every = {l2: _share(ridge.predict(held_MD, l2), labels_M) for l2 in config.l2_shared}
            result.by_l2.setdefault(seed, {})[shots] = every
        named_M = ridge.predict(held_MD, config.l2)
    elif config.method == "linear":
        assert task.l2 is not None, "the choice is committed before the scored split is opened"
        named_M = linear(x_ND, y_N, held_MD, classes, task.l2[seed][shots], device())
    elif config.method == "knn":
        named_M = nearest(x_ND, y_N, held_MD, classes, config.neighbours, config.temperature, device())
    else:
        raise AssertionError(f"{config.method} fits nothing")
    if task.test is not None:
        result.accuracy.setdefault(seed, {})[shots] = _share(named_M, labels_M)


def head(task: HeadTask) -> tuple[float, dict[str, Any]]:
    """Score the weights' own head on the scored split, classes matched by name: the share it names right, and details.

    UsageError when the data has a class that the weights do not know.
    """
    about = task.about
    assert about.weights is not None
    match = join(about.data, about.weights, about.config.called)
    assert match is not None, "both are committed"
    theirs = np.array(match.outputs, dtype=np.int64)
    labels = EvalImages.labels_of(about.data, about.config.split, about.context.shards)
    features_MD = read(task.test, np.arange(len(labels)), about)
    model = pretrained(about)
    with torch.inference_mode():
        logits_MK = model.head(torch.as_tensor(features_MD, device=device())).float().cpu().numpy()
    if about.config.method == "real":
        right_MK = np.zeros(logits_MK.shape, dtype=np.float32)
        right_MK[:, theirs] = labels if labels.ndim == 2 else np.eye(len(theirs))[np.asarray(labels, dtype=np.int64)]
        value, counted = real_accuracy(logits_MK.argmax(axis=1), right_MK)
        return value, {"counted": counted}
    labels_M: Indices = theirs[np.asarray(labels, dtype=np.int64)]
    found = quality(logits_MK, labels_M) | {
        "classes": [match.known.get(number, "") for number in range(logits_MK.shape[1])],
        "wrong": surest(wrong_names(torch.as_tensor(logits_MK), torch.as_tensor(labels_M), range(len(labels_M)))),
    }
    return float((logits_MK.argmax(axis=1) == labels_M).mean()), found


def _share(named_M: Indices, labels_M: Indices) -> float:
    return float((named_M == labels_M).mean())


def _labels(task: EvaluateTask, split: str) -> Indices:
    return np.asarray(EvalImages.labels_of(task.data, split, task.context.shards), dtype=np.int64)
