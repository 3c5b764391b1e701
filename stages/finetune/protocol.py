"""The order of a fine-tuning: which trials there are, which rate they choose, and what a finished trial leaves behind.

Knows no torch: a trial is a name, its outcome a small signed JSON file that a later attempt may adopt.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vitpipe.infra.curves import Gathered, LiveCurves
from vitpipe.infra.errors import StageError
from vitpipe.infra.json_object import parse_object
from vitpipe.stages.artifacts import File, Frozen, Score, ShardSet, Weights
from vitpipe.stages.contract import Out, TaskContext
from vitpipe.stages.finetune.config import FinetuneConfig
from vitpipe.stages.seal import SEAL, seal_of

LOSS = "train/loss"
"""Tag of a trial's curve, the same while it runs and when it is done."""
CURVE_ROWS = 8192
"""Rows of all finished trials of a node in its live curves, shared among them."""


@dataclass(frozen=True)
class Trial:
    """One training. With the node's config and inputs this is all that its outcome depends on."""

    phase: Literal["sweep", "test"]
    """sweep: train on the rest, score on the dev split; test: train on all of train, score on the config's split."""
    peak_lr: float
    seed: int

    def __str__(self) -> str:
        return f"{self.phase}-lr{self.peak_lr!r}-seed{self.seed}"

    @property
    def path(self) -> str:
        """Name of the file that it leaves when it is finished."""
        return f"trials/{self}.json"


@dataclass(frozen=True)
class TrialTask:
    """One trial on its way to a machine, with everything that it may see."""

    trial: Trial
    config: FinetuneConfig
    micro_batch: int
    threads: int
    cpus: int
    data: ShardSet
    """In a sweep the files of train alone: no other can be read then."""
    weights: Weights | Score | None
    keep_weights: bool
    choice_sha256: str | None
    context: TaskContext

    def __str__(self) -> str:
        return str(self.trial)


class TrialOutcome(Frozen):
    """What a finished trial found."""

    accuracy: float
    """Share of the scored images named right; 0 for a trial that diverged or was ended."""
    loss: float | None
    """Mean cross-entropy of the scored images; None for a trial that diverged or was ended."""
    num_scored: int
    num_train: int
    steps: int
    losses: tuple[float, ...]
    """Training loss of every step."""
    diverged_at: int | None = None
    """Step whose loss or gradient was not finite; there the trial ended."""
    hopeless_at: int | None = None
    """Step after which a trial of the sweep was ended because it had learned nothing (`stop_hopeless`)."""
    choice_sha256: str | None = None
    """Test trials: the committed choice they followed."""
    wrong: tuple[tuple[int, int, int, float], ...] = ()
    """Test trials: the surest mistakes, as `measure.wrong.Wrong`: image, true class, class given, confidence."""
    weights: tuple[File, ...] = ()
    """The test trial of the first seed keeps its model."""

    @property
    def failed(self) -> bool:
        """Whether it diverged or was ended: its rate cannot be chosen."""
        return self.diverged_at is not None or self.hopeless_at is not None


def sweep_trials(config: FinetuneConfig) -> list[Trial]:
    """All rates on the first `sweep_seeds` seeds; none when there is nothing to choose."""
    if len(config.rates) == 1:
        return []
    return [Trial("sweep", rate, seed) for rate in config.rates for seed in config.seeds[: config.sweep_seeds]]


def final_trials(config: FinetuneConfig, peak_lr: float) -> list[Trial]:
    """One test trial per seed, all with the chosen rate."""
    return [Trial("test", peak_lr, seed) for seed in config.seeds]


def choose(config: FinetuneConfig, outcomes: dict[Trial, TrialOutcome]) -> dict[str, Any]:
    """The content of `choice.json`: the rate with the best mean dev accuracy, and all that it was chosen from.

    Equal accuracies go to the lower mean dev loss, then to the lower rate. StageError when every rate failed.
    """
    if not outcomes:
        return {"chosen": {"peak_lr": config.rates[0]}, "dev_scores": {}, "reason": "one rate given, nothing to choose"}
    by_rate = {rate: [outcome for trial, outcome in outcomes.items() if trial.peak_lr == rate] for rate in config.rates}
    usable = [rate for rate, found in by_rate.items() if not any(outcome.failed for outcome in found)]
    if not usable:
        asked = f"choose among the peak_lr {', '.join(f'{rate:g}' for rate in config.rates)}"
        found = "with every one of them the training diverged or had learned nothing when stop_hopeless looked"
        raise StageError(asked, found, "sweep other rates, or lengthen the warm-up")
    dev_scores = {f"{rate:g}": _mean([outcome.accuracy for outcome in found]) for rate, found in by_rate.items()}
    dev_losses = {rate: _mean([outcome.loss or 0.0 for outcome in by_rate[rate]]) for rate in usable}
    best = min(usable, key=lambda rate: (-dev_scores[f"{rate:g}"], dev_losses[rate], rate))
    return {
        "chosen": {"peak_lr": best},
        "dev_scores": dev_scores,
        "dev_losses": {f"{rate:g}": loss for rate, loss in dev_losses.items()},
        "diverged": [rate for rate, found in by_rate.items() if any(one.diverged_at is not None for one in found)],
        "hopeless": [rate for rate, found in by_rate.items() if any(one.hopeless_at is not None for one in found)],
        "reason": _reason(usable, best, dev_scores),
        "dev_images": next(iter(outcomes.values())).num_scored,
    }


def _reason(usable: Sequence[float], best: float, dev_scores: dict[str, float]) -> str:
    equal = sum(dev_scores[f"{rate:g}"] == dev_scores[f"{best:g}"] for rate in usable)
    if equal > 1:
        return f"lowest mean loss of {equal} rates with the best mean accuracy on the dev split"
    return "best mean accuracy on the dev split"


def write_piece(out: Out, trial: Trial, outcome: TrialOutcome) -> File:
    """Leave a finished trial behind, with the digest of its own content; the same bytes in any attempt."""
    content = {"schema": 1, "trial": str(trial), **outcome.model_dump(mode="json")}
    content["weights"] = [{**file, "at": file["path"]} for file in content["weights"]]
    return out.put(trial.path, json.dumps({SEAL: seal_of(content), **content}, indent=1).encode())


def finished(out: Out, trials: Iterable[Trial], choice_sha256: str | None) -> dict[Trial, tuple[TrialOutcome, File]]:
    """Trials that this attempt or an earlier one of the same recipe has finished, the newest first.

    A piece that is damaged, that followed another choice, or whose weights are gone, does not count.
    """
    named = {trial.path: trial for trial in trials}
    found: dict[Trial, tuple[TrialOutcome, File]] = {}
    for attempt in (out.attempt, *out.earlier):
        for entry in out.node.list(f"{attempt}/trials/"):
            trial = named.get(entry.path.removeprefix(f"{attempt}/"))
            if trial is None or trial in found:
                continue
            data = out.node.read(entry.path)
            outcome = _parse(data, trial, attempt)
            if outcome is None or outcome.choice_sha256 != choice_sha256:
                continue
            if all(out.node.size(file.at) == file.bytes for file in outcome.weights):
                sha256 = hashlib.sha256(data).hexdigest()
                found[trial] = outcome, File(path=trial.path, at=entry.path, bytes=len(data), sha256=sha256)
    return found


def live_curves(config: FinetuneConfig, out: Out) -> LiveCurves:
    """Begin the node's curves, to which finished trials are added; while one runs, its task leaves its own."""
    each = max(16, CURVE_ROWS // (len(sweep_trials(config)) + len(config.seeds)))
    return LiveCurves(out.node, out.attempt, gathered=Gathered(recent=1, older=each), has_parts=True)


def add_curve(live: LiveCurves, trial: Trial, outcome: TrialOutcome) -> None:
    """Add a finished trial: its losses, and its accuracy at the step where it ended."""
    for of, step, clock, values in trial_points(str(trial), outcome):
        live.add(step, values, clock, of, told=False)
    live.tell()


def trial_points(trial: str, outcome: TrialOutcome) -> Iterator[tuple[str, int, float, Mapping[str, float | None]]]:
    """Yield a finished trial's curve: its name, step, clock (nobody counted it) and values."""
    yield from ((trial, step, 0.0, {LOSS: loss}) for step, loss in enumerate(outcome.losses, 1))
    if not outcome.failed:
        split = "dev" if trial.startswith("sweep") else "test"
        yield trial, outcome.steps, 0.0, {f"{split}/accuracy": outcome.accuracy}


def _parse(data: bytes, trial: Trial, attempt: str) -> TrialOutcome | None:
    try:
        content = parse_object(data)
        signed, found = content.pop(SEAL), seal_of(content)
        if signed != found or content.pop("trial") != str(trial) or content.pop("schema") != 1:
            return None
        content["weights"] = [{**file, "at": f"{attempt}/{file['path']}"} for file in content["weights"]]
        return TrialOutcome.model_validate(content)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # a torn write: the trial runs again


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
