"""How trainings went: curves, what was measured meanwhile, and where the time went. No torch."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitpipe.stages.artifacts import Checkpoint, Score
from vitpipe.stages.report.charts import Curve
from vitpipe.stages.report.results import few_in, percent, split_of
from vitpipe.stages.training.measure.account import CAUSES
from vitpipe.stages.training.measure.metrics_log import measured

CURVES = (
    ("loss", "Training loss", True),
    ("lr", "Learning rate", False),
    ("grad_norm", "Gradient norm before clipping", True),
)
"""Field of metrics.jsonl, title, whether it is noisy."""
WORDS = {
    "productive": "steps that updated weights, less waits for data", "startup": "from each start to its first step",
    "queue": "waiting for machines, while other work had them",
    "data_wait": "waiting for data", "checkpoint": "standing still for checkpoints",
    "evaluation": "measuring the model", "skipped": "steps left out, their loss or gradient not finite",
    "restarts": "from a checkpoint to the restart that went on from it", "other": "writing curves, asking the store",
}  # fmt: skip


@dataclass(frozen=True)
class Spent:
    """The time that one cause took."""

    cause: str
    words: str
    seconds: float
    share: float
    """Share of all time but that between a stop that was asked for and the next start."""


def curves(checkpoint: Checkpoint) -> list[Curve]:
    """Draw loss, learning rate and gradient norm step by step, and held-out and few-shot numbers if there are any."""
    drawn = []
    lines = log_lines(checkpoint, "metrics.jsonl")
    for field, title, noisy in CURVES:
        drawn += _curve(title, "", lines, field, smooth=noisy, zero=field != "loss")
    evaluations = log_lines(checkpoint, "evaluation.jsonl")
    rows: list[dict[str, Any]] = [{"step": line["step"]} | measured(line) for line in evaluations]
    for name in dict.fromkeys(name for row in rows for name in row if name != "step"):
        accuracy = name != "validation/loss"
        scaled = [row | {name: 100 * row[name]} if accuracy and name in row else row for row in rows]
        named = measured_title(name) + _short(name, evaluations[-1])
        drawn += _curve(named, "%" if accuracy else "", scaled, name, smooth=False, zero=False)
    return drawn


def _short(name: str, line: Mapping[str, Any]) -> str:
    """Add to a title that classes of the probe have fewer images than shots, where a measurement says so."""
    kind, probe, shots = (*name.split("/"), "", "")[:3]
    few = line.get("short_classes", {}).get(probe, {}).get(shots, 0) if kind == "fewshot" else 0
    return f" ({few_in(few)})" if few else ""


def finetuning_curves(scores: Sequence[Score], nodes: Mapping[str, str]) -> list[Curve]:
    """Draw one curve a fine-tuned score: the mean over its seeds, each of which took the same steps."""
    drawn = []
    for score in scores:
        trials = [file.path for file in score.files if file.path.startswith("trials/test-")]
        losses = [json.loads(score.read(path))["losses"] for path in sorted(trials)]
        if losses and min(map(len, losses)) > 1:
            mean = [statistics.fmean(step) for step in zip(*losses, strict=False)]
            seeds = f"mean of {len(losses)} seeds, " if len(losses) > 1 else ""
            then = f"{seeds}then {percent(score.value)} of the {split_of(score)} images"
            named = f"{nodes.get(score.uri, score.uri)}: training loss ({then})"
            drawn.append(Curve.draw(named, "", range(1, len(mean) + 1), mean, smooth=True))
    return drawn


def spent(checkpoint: Checkpoint) -> list[Spent]:
    """List where the time went: productive first, then the most expensive cause."""
    metrics = checkpoint.metrics
    seconds = {cause: metrics[f"seconds_{cause}"] for cause in (*CAUSES, "other") if f"seconds_{cause}" in metrics}
    total = sum(seconds.values())
    found = [Spent(cause, WORDS[cause], one, one / total) for cause, one in seconds.items() if one > 0]
    return sorted(found, key=lambda one: (one.cause != "productive", -one.seconds))


def measured_title(name: str) -> str:
    """Title a measurement: `validation/loss` -> Held-out loss; `watch/imagenet-v2` -> Accuracy on imagenet-v2;
    `fewshot/cifar10/5` -> 5-shot accuracy on cifar10."""
    kind, *rest = name.split("/")
    if kind == "watch":
        return f"Accuracy on {rest[0]}"
    return f"Held-out {rest[0]}" if kind == "validation" else f"{rest[1]}-shot accuracy on {rest[0]}"


def _curve(
    title: str, unit: str, lines: Sequence[Mapping[str, Any]], field: str, smooth: bool, zero: bool
) -> list[Curve]:
    points = [(line["step"], line[field]) for line in lines if line.get(field) is not None]
    if len(points) < 2:
        return []
    steps, values = zip(*points, strict=True)
    return [Curve.draw(title, unit, steps, values, smooth=smooth, zero=zero)]


def log_lines(checkpoint: Checkpoint, name: str) -> list[dict[str, Any]]:
    """Read a log of a training, verified; empty where it has none."""
    return [json.loads(line) for line in checkpoint.read(name).splitlines()] if checkpoint.has(name) else []
