"""How sure a score is, and what no skill would reach: its 95 % interval, guessing, and always the most frequent class.

Reads indexes of shards, no image; knows no page.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitpipe.stages.artifacts import Score, ShardSet
from vitpipe.stages.images.manifest import load_index, load_manifest
from vitpipe.stages.report.results import ScoreRow, percent, split_of
from vitpipe.stages.report.samples import MAX_INDEXES

Z_95 = 1.959963984540054
"""Standard deviations that hold the middle 95 % of a normal distribution."""


@dataclass(frozen=True)
class Levels:
    """What a classifier reaches on a split without looking at an image. Fractions."""

    chance: float
    """One class in so many."""
    majority: float
    """The share of the most frequent class."""

    @property
    def words(self) -> str:
        """Both, in percent; one where they are equal."""
        if math.isclose(self.chance, self.majority, abs_tol=5e-4):
            return f"chance, and always the most frequent class: {percent(self.chance)}"
        return f"chance {percent(self.chance)}, always the most frequent class {percent(self.majority)}"


def wilson(share: float, number: int) -> tuple[float, float]:
    """Wilson's score interval, 95 %, of a share of `number` images."""
    square = Z_95**2 / number
    middle = (share + square / 2) / (1 + square)
    half = Z_95 / (1 + square) * math.sqrt(share * (1 - share) / number + square / (4 * number))
    return max(0.0, middle - half), min(1.0, middle + half)


def interval(row: ScoreRow) -> tuple[float, float] | None:
    """The interval of a score of one seed; None of several, and of ReaL, which leaves images out."""
    alone = len(row.per_seed) == 1 and row.num_test > 0 and row.protocol.get("method") != "real"
    return wilson(row.value, row.num_test) if alone else None


def whisker(row: ScoreRow) -> tuple[float, float] | None:
    """Both ends of what is drawn around the mean: one standard deviation over seeds, of one seed the interval."""
    return (row.low, row.high) if row.std is not None else interval(row)


def interval_words(row: ScoreRow) -> str:
    """The interval as text, empty where there is none."""
    found = interval(row)
    return f"95 %: {100 * found[0]:.1f} to {100 * found[1]:.1f}" if found else ""


def levels(scores: Sequence[Score], data: Mapping[str, ShardSet]) -> dict[str, Levels]:
    """Find both levels of each score whose data, by the score's URI, is at hand and has one label an image."""
    known: dict[tuple[str, str], Levels] = {}
    found = {}
    for score in scores:
        shards, split = data.get(score.uri), split_of(score)
        if shards is None or shards.multi_label or not shards.splits.get(split):
            continue
        key = shards.uri, split
        if key not in known:
            counted = _counted(shards, split)
            if not counted:
                continue
            known[key] = Levels(1 / shards.num_classes, max(counted.values()) / counted.total())
        found[score.uri] = known[key]
    return found


def _counted(shards: ShardSet, split: str) -> Counter[int]:
    """Images of each class; empty for a split of more shards than a page opens."""
    entries = load_manifest(shards).of(split)
    if len(entries) > MAX_INDEXES:
        return Counter()
    return Counter(labels[0] for entry in entries for labels in load_index(shards, entry).labels if labels)
