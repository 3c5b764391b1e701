"""What a reader should know before believing a score: failures on the way, and the penalty of few-shot scores.

Reads small files of artifacts and the run's events; knows no page.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitpipe.infra.errors import StorageError
from vitpipe.infra.events import Event, read_events
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.artifacts import Score
from vitpipe.stages.paper.tables import title
from vitpipe.stages.report.wording import last_part

SURVIVED = ("rank_lost", "preempted", "resumed", "takeover", "failed", "quarantined", "checkpoint_refused", "hopeless")
"""Kinds of events that report a failure, or how the run came through it."""
MAX_EVENTS = 60


@dataclass(frozen=True)
class SharedPenalty:
    """The ridge penalty that is best over all data sets together, for one set of weights and number of shots."""

    weights: str
    shots: str
    l2: float
    scores: tuple[tuple[str, str, float, float], ...]
    """Benchmark, node, accuracy with the fixed penalty, accuracy with this one; percent."""


def survived(run_uri: str) -> list[Event]:
    """List the run's events of the kinds `SURVIVED`, oldest first; none where the store does not keep events."""
    try:
        return [event for event in read_events(open_store(run_uri)) if event.kind in SURVIVED][-MAX_EVENTS:]
    except StorageError:
        return []


def shared_penalties(scores: Sequence[Score]) -> list[SharedPenalty]:
    """Choose one penalty for all data sets, as the paper does for few-shot scores: by mean rank on dev images alone."""
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
            rows = []
            for score, content in members:
                fixed, same = statistics.fmean(content["by_shots"][number]), _means(content["by_l2"][number])[best]
                rows.append((title(score.benchmark), last_part(score.uri), 100 * fixed, 100 * same))
            found.append(SharedPenalty(last_part(weights), number, float(best), tuple(rows)))
    return found


def _means(per_seed: Sequence[dict[str, float]]) -> dict[str, float]:
    return {l2: statistics.fmean(one[l2] for one in per_seed) for l2 in per_seed[0]}
