"""What a reader should know before believing a score: overlap of training with test images, what broke on the way, and
which penalty a few-shot score has. Reads small files of artifacts and the run's events; knows no page.
"""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.errors import StorageError
from infra.events import Event, read_events
from infra.storage.opening import open_store
from stages.artifacts import Score, ShardSet
from stages.paper.tables import benchmark_id, tables, title
from stages.report.lineage import Link

SURVIVED = ("rank_lost", "preempted", "resumed", "takeover", "failed", "quarantined", "checkpoint_refused", "hopeless")
"""Kinds of events that tell of trouble and of its end."""
MAX_EVENTS = 60


@dataclass(frozen=True)
class Overlap:
    """Training images left out of one data set because they equal or resemble another's test images."""

    data: str
    test: str
    exact: int
    near: int
    published: str
    """What BiT's authors found of that test set in each of their pretraining sets."""


@dataclass(frozen=True)
class SharedPenalty:
    """For one set of weights and number of shots: the penalty that is best over all data sets together."""

    weights: str
    shots: str
    l2: float
    scores: tuple[tuple[str, str, float, float], ...]
    """Benchmark, node, accuracy with the fixed penalty, accuracy with this one; percent."""


def overlaps(links: Sequence[Link]) -> list[Overlap]:
    """One row for each data set and each set of test images that it was cleaned of."""
    found = []
    for link in links:
        data = link.artifact()
        refs = link.record.inputs.get("exclude", ()) if link.record else ()
        if not isinstance(data, ShardSet) or not refs or not data.has("duplicates.jsonl"):
            continue
        rows = [json.loads(line) for line in data.read("duplicates.jsonl").splitlines()]
        for ref in refs:
            kinds = Counter("near" if row["equal"] == "near" else "exact" for row in rows
                            if str(row["of"]).startswith(f"{ref.uri}#"))  # fmt: skip
            name = ref.uri.rsplit("/", 1)[-1]
            found.append(Overlap(link.name, title(name), kinds["exact"], kinds["near"], _published(name)))
    return found


def survived(run_uri: str) -> list[Event]:
    """The run's events that tell of trouble, oldest first; none where the store does not keep them."""
    try:
        return [event for event in read_events(open_store(run_uri)) if event.kind in SURVIVED][-MAX_EVENTS:]
    except StorageError:
        return []


def shared_penalties(scores: Sequence[Score]) -> list[SharedPenalty]:
    """The paper's way of few-shot scores, one penalty for all data sets: by mean rank, on dev images alone."""
    groups: dict[str, list[tuple[Score, dict[str, Any]]]] = {}
    for score in scores:
        if score.protocol.get("method") == "fewshot" and score.has("choice.json"):
            content = score.read_json("score.json")
            if content.get("by_l2"):
                groups.setdefault(str(score.protocol.get("weights")), []).append((score, content))
    found = []
    for weights, members in groups.items():
        shots = [one for one in members[0][1]["by_l2"] if all(one in content["by_l2"] for _, content in members)]
        for number in sorted(shots, key=int):
            ranks: dict[str, list[float]] = {}
            for _, content in members:
                means = _means(content["dev_by_l2"][number])
                for l2, value in means.items():
                    ranks.setdefault(l2, []).append(sum(other > value for other in means.values()))
            shared = {l2: statistics.fmean(each) for l2, each in ranks.items() if len(each) == len(members)}
            best = min(shared, key=lambda l2: (shared[l2], float(l2)))
            told = tuple(
                (title(score.benchmark), score.uri.rsplit("/", 1)[-1],
                 100 * statistics.fmean(content["by_shots"][number]), 100 * _means(content["by_l2"][number])[best])
                for score, content in members
            )  # fmt: skip
            found.append(SharedPenalty(weights.rsplit("/", 1)[-1], number, float(best), told))
    return found


def _means(per_seed: Sequence[dict[str, float]]) -> dict[str, float]:
    return {l2: statistics.fmean(one[l2] for one in per_seed) for l2 in per_seed[0]}


def _published(name: str) -> str:
    table, known = tables()["contamination"], benchmark_id(name)
    if known not in table["columns"]:
        return "–"
    place = table["columns"].index(known)
    return ", ".join(f"{data} {row[place]:,}" for data, row in table["rows"].items())
