"""Scores as rows of one table, and arms that differ only in pretraining as gains.

Knows Score artifacts; opens `score.json` of few-shot scores, no other file, and knows no page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from vitpipe.stages.artifacts import Score, deviation
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.report.wording import last_part

ALIKE = (
    "image_px", "batch_images", "steps", "train_per_class", "num_train", "crop", "pad_px", "flip", "eval_resize",
    "split", "optimizer", "layer_decay", "end_lr", "augment", "label_smoothing", "stochastic_depth",
)  # fmt: skip
"""What two fine-tunings must share so that pretraining is their only difference."""

PAPERS_OPTIMIZER = "SGD with momentum 0.9"
"""What a fine-tuning used that names no optimiser (section 4.1)."""

_NONE: Mapping[str, str] = MappingProxyType({})
_PROBES = {"fewshot": "few-shot ridge", "linear": "linear probe", "knn": "nearest neighbours"}
_OWN_HEAD = {"classify": "own head", "real": "own head, any right label"}


@dataclass(frozen=True)
class ScoreRow:
    """One score, ready to print. Accuracies are fractions."""

    node: str
    benchmark: str
    arm: str
    """`fine-tuned`, `from scratch`, `few-shot on frozen features`, ..."""
    kind: str
    """`pretrained`, `scratch`, `frozen` or `baseline`: the colour."""
    value: float
    std: float | None
    """Sample standard deviation over seeds; None for one."""
    per_seed: tuple[float, ...]
    chosen: dict[str, Any]
    dev_scores: dict[str, float]
    num_test: int
    protocol: dict[str, Any]
    model: ModelSettings | None
    uri: str
    record_sha256: str
    by_shots: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """Few-shot scores, per seed, with other numbers of labels per class than the row's own, fewest first."""
    short: Mapping[int, int] = field(default_factory=dict)
    """By labels per class: how many classes have fewer, of which all were taken. Only where there are such."""

    @property
    def low(self) -> float:
        """One standard deviation below the mean."""
        return self.value - (self.std or 0.0)

    @property
    def high(self) -> float:
        """One standard deviation above the mean."""
        return self.value + (self.std or 0.0)

    @property
    def text(self) -> str:
        """The score in percent with its spread."""
        return percent(self.value, self.std)

    @property
    def split(self) -> str:
        """The split that was scored."""
        return split_of(self)

    @property
    def labels(self) -> str:
        """How many labelled images the arm learned from, in words."""
        per_class = self.protocol.get("train_per_class") or self.protocol.get("shots")
        if per_class:
            own = f"{per_class} {'label' if per_class == 1 else 'labels'} per class"
            told = [f"{few_in(self.short[per_class])}"] if per_class in self.short else []
            told += [f"of {shots} {few_in(few)}" for shots, few in self.short.items() if shots != per_class]
            return ", ".join([own, *told])
        number = self.protocol.get("num_train")
        return f"{number:,} labelled images" if number else ""

    @property
    def recipe(self) -> str:
        """How a fine-tuning updated the weights and varied the images, in words; empty for other scores."""
        said = self.protocol
        if said.get("method") != "finetune":
            return ""
        parts = [str(said.get("optimizer") or PAPERS_OPTIMIZER)]
        others = ("layer_decay", "end_lr", "label_smoothing", "stochastic_depth", "head_init")
        named = {name: said.get(name) for name in others}
        for name, value in {**named, **(said.get("augment") or {})}.items():
            if value is not None:
                parts.append(f"{name.replace('_', ' ')} {_plain(value)}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Gain:
    """A pretrained arm and its twin from scratch."""

    pretrained: ScoreRow
    scratch: ScoreRow

    @property
    def differences(self) -> tuple[float, ...]:
        """Differences per seed where both ran the same seeds (they trained on the same images), else of the means."""
        if self.pretrained.protocol.get("seeds") == self.scratch.protocol.get("seeds"):
            return tuple(a - b for a, b in zip(self.pretrained.per_seed, self.scratch.per_seed, strict=True))
        return (self.pretrained.value - self.scratch.value,)

    @property
    def points(self) -> float:
        """Difference of the means, percentage points."""
        return 100 * (self.pretrained.value - self.scratch.value)

    @property
    def std(self) -> float | None:
        """Sample standard deviation of the paired differences, percentage points."""
        spread = deviation(self.differences)
        return None if spread is None else 100 * spread

    @property
    def clear(self) -> bool:
        """Whether the two means differ by more than the seeds' spread on both sides."""
        return self.pretrained.std is not None and (
            self.pretrained.low > self.scratch.high or self.pretrained.high < self.scratch.low
        )


def rows(
    scores: Sequence[Score], benchmarks: Mapping[str, str] = _NONE, nodes: Mapping[str, str] = _NONE
) -> list[ScoreRow]:
    """Make one row a score, grouped by benchmark, in the order given. Reads `score.json` of few-shot scores.

    Both mappings are by a score's URI: `benchmarks` names the benchmark better than the score itself can, `nodes` has
    the full names of siblings.
    """
    found = [
        _row(one, benchmarks.get(one.uri, one.benchmark), nodes.get(one.uri, last_part(one.uri))) for one in scores
    ]
    order = {benchmark: place for place, benchmark in enumerate(dict.fromkeys(row.benchmark for row in found))}
    return sorted(found, key=lambda row: order[row.benchmark])


def gains(table: Sequence[ScoreRow]) -> list[Gain]:
    """Pair every pretrained fine-tuning with the one from scratch that is otherwise alike."""
    twins = {_likeness(row): row for row in table if row.kind == "scratch"}
    return [Gain(row, twins[_likeness(row)]) for row in table if row.kind == "pretrained" and _likeness(row) in twins]


def split_of(scored: Score | ScoreRow) -> str:
    """Name the split that was scored; one of earlier versions does not say that it is `test`."""
    return str(scored.protocol.get("split") or "test")


def percent(value: float, std: float | None = None) -> str:
    """Write a fraction as `75.1 ± 1.2 %`."""
    return f"{100 * value:.1f} ± {100 * std:.1f} %" if std is not None else f"{100 * value:.1f} %"


def _plain(value: Any) -> str:
    """Write a value, or the fields of a section, in one line."""
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_plain(one)}" for name, one in value.items()) or "with its defaults"
    return f"{value:g}" if isinstance(value, float) else str(value)


def few_in(classes: int) -> str:
    """Say in how many classes there were fewer images than asked for."""
    return f"fewer in {classes} {'class' if classes == 1 else 'classes'}"


def _likeness(row: ScoreRow) -> tuple[Any, ...]:
    return (row.benchmark, *(str(row.protocol.get(name)) for name in ALIKE))


def _row(score: Score, benchmark: str, node: str) -> ScoreRow:
    arm, kind = _arm(score.protocol)
    if split := score.protocol.get("split"):
        arm += f", scored on {split}"
    return ScoreRow(
        node=node,
        benchmark=benchmark,
        arm=arm,
        kind=kind,
        value=score.value,
        std=score.std,
        per_seed=score.per_seed,
        chosen=score.chosen,
        dev_scores=score.dev_scores,
        num_test=score.num_test,
        protocol=score.protocol,
        model=score.model,
        uri=score.uri,
        record_sha256=score.origin.record_sha256 if score.origin else "",
        by_shots=_by_shots(score),
        short=_short(score),
    )


def _by_shots(score: Score) -> dict[int, tuple[float, ...]]:
    """Scores at other numbers of shots; only probes that draw some of the training images have any."""
    first = score.protocol.get("shots")
    if first is None:
        return {}
    every = {int(shots): tuple(values) for shots, values in score.read_json("score.json")["by_shots"].items()}
    return {shots: every[shots] for shots in sorted(every) if shots != first}


def _short(score: Score) -> dict[int, int]:
    """Classes with fewer images than asked for, by the number asked for; a score of earlier versions had none."""
    if score.protocol.get("short_classes"):
        return {score.protocol["train_per_class"]: score.protocol["short_classes"]}
    if score.protocol.get("shots") is None:
        return {}
    found = score.read_json("score.json").get("short_by_shots", {})
    return {int(shots): few for shots, few in sorted(found.items(), key=lambda item: int(item[0])) if few}


def _arm(protocol: dict[str, Any]) -> tuple[str, str]:
    method = protocol.get("method")
    if method == "finetune":
        return ("fine-tuned", "pretrained") if protocol.get("pretrained") else ("from scratch", "scratch")
    if method in _PROBES:
        features = {"untrained": "untrained features", "raw_pixels": "raw pixels"}.get(protocol.get("features") or "")
        return f"{_PROBES[method]} on {features or 'frozen features'}", "baseline" if features else "frozen"
    return _OWN_HEAD.get(str(method), str(method or "score")), "frozen"
