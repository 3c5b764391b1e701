"""The sentence on top of a page: what the run showed, and which side of the strongest baseline that is on.

Knows rows and gains, no artifact and no page.
"""

import statistics
from collections.abc import Sequence

from vitpipe.stages.paper.tables import title
from vitpipe.stages.report.results import Gain, ScoreRow, percent

_BASELINES = ("scratch", "baseline")
"""Kinds of rows that saw none of the pretraining: from scratch, raw pixels, untrained features."""


def headline(table: Sequence[ScoreRow], found: Sequence[Gain]) -> str:
    """Say in one sentence what the run showed, also when pretraining did not help."""
    if len(found) == 1:
        return _one_gain(found[0]) + _beside_strongest(found[0], strongest(found[0].pretrained, table))
    if found:
        helped = [gain for gain in found if gain.clear and gain.points > 0]
        mean = statistics.fmean(gain.points for gain in found)
        return f"Pretraining clearly helps in {len(helped)} of {len(found)} comparisons: {mean:+.1f} points on average"
    if not table:
        return "No scores yet"
    tuned = [row for row in table if row.kind == "pretrained"]
    if len({row.benchmark for row in tuned}) > 1:
        return _several(tuned)
    best = max(table, key=lambda row: row.value)
    return f"{title(best.benchmark)}: {best.text} {best.arm}{_over(best)}"


def strongest(tuned: ScoreRow, table: Sequence[ScoreRow]) -> ScoreRow | None:
    """Find the best score of what saw none of the pretraining, on the same images with as many labels; None without.

    A probe of the pretrained features is no baseline: it is another way to read the same pretraining.
    """
    data = tuned.benchmark, tuned.split, tuned.labels
    others = (row for row in table if row.kind in _BASELINES and (row.benchmark, row.split, row.labels) == data)
    return max(others, key=lambda row: row.value, default=None)


def beside_strongest(table: Sequence[ScoreRow]) -> dict[str, str]:
    """Name the strongest baseline of each benchmark that has one fine-tuned score, and on which side of it that is."""
    tuned = [row for row in table if row.kind == "pretrained"]
    single = [row for row in tuned if sum(row.benchmark == other.benchmark for other in tuned) == 1]
    return {best.node: side(row, best) for row in single if (best := strongest(row, table))}


def side(tuned: ScoreRow, other: ScoreRow) -> str:
    """Say which side of another score the fine-tuned one is on, and whether beyond the spread of the seeds of both."""
    gain = Gain(tuned, other)
    apart = f"{abs(gain.points):.1f} points {'above' if gain.points > 0 else 'below'}"
    if tuned.std is None or other.std is None:
        spread = "with one seed the spread is unknown"
    else:
        spread = "beyond the seeds’ spread" if gain.clear else "within the seeds’ spread"
    return f"fine-tuned is {'as good' if apart.startswith('0.0') else apart}, {spread}"


def _one_gain(gain: Gain) -> str:
    ours, theirs = gain.pretrained, gain.scratch
    name, seeds = _named(ours), _over(ours)
    if ours.std is None:
        return f"{name}: {ours.text} fine-tuned, {theirs.text} from scratch; with one seed the spread is unknown"
    if not gain.clear:
        return f"No clear gain from pretraining on {name}: {ours.text} fine-tuned, {theirs.text} from scratch{seeds}"
    verb = "lifts" if gain.points > 0 else "lowers"
    return f"Pretraining {verb} {name} from {theirs.text} to {ours.text}: {gain.points:+.1f} points{seeds}"


def _beside_strongest(gain: Gain, best: ScoreRow | None) -> str:
    """Name the strongest baseline, unless it is the one from scratch that the sentence has already."""
    if best is None or best is gain.scratch:
        return ""
    return f". Strongest baseline: {best.arm}; {side(gain.pretrained, best)}"


def _several(tuned: Sequence[ScoreRow]) -> str:
    low, high = min(tuned, key=lambda row: row.value), max(tuned, key=lambda row: row.value)
    number, mean = len({row.benchmark for row in tuned}), percent(statistics.fmean(row.value for row in tuned))
    ends = f"{percent(low.value)} on {title(low.benchmark)} to {percent(high.value)} on {title(high.benchmark)}"
    return f"Fine-tuned on {number} benchmarks: {mean} on average, from {ends}"


def _over(row: ScoreRow) -> str:
    return f" over {len(row.per_seed)} seeds" if len(row.per_seed) > 1 else ""


def _named(row: ScoreRow) -> str:
    return title(row.benchmark) + ("" if row.split == "test" else f", split {row.split}")
