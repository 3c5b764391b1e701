"""The numbers of a run as its records have them: mean, spread, seeds, images and the level of chance of each Score.

Knows records and no stage; reads nothing but the record of data that another run holds.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from vitpipe.infra.errors import VitpipeError
from vitpipe.pipeline.store.records import Committed, read_external
from vitpipe.stages.artifacts import Score, ShardSet

ONE_LABEL = "top1"
"""The metric for which guessing one class of n is right once in n times."""


@dataclass(frozen=True)
class CommittedScore:
    """One committed Score."""

    node: str
    benchmark: str
    metric: str
    value: float
    """Mean over seeds."""
    std: float | None
    """Sample standard deviation over seeds; None of one."""
    seeds: int
    images: int
    """Images that each seed was tested on."""
    chance: float | None = None
    """What guessing gives; None where it is not known: several labels per image, or data that is gone."""
    split: str = "test"
    """The split of the data that these images are."""

    def to_json(self) -> dict[str, Any]:
        """One of `scores` of `run --json`."""
        return asdict(self)


def score_rows(committed: Mapping[str, Committed]) -> list[CommittedScore]:
    """List the scores among these records, in their order."""
    rows = ((found, row) for node, found in committed.items() if (row := score_row(node, found)))
    return [replace(row, chance=_chance(found, committed) if row.metric == ONE_LABEL else None) for found, row in rows]


def score_row(node: str, found: Committed) -> CommittedScore | None:
    """Read one node's score from its record alone, chance left out; None where that is of something else."""
    score = found.artifact()
    if not isinstance(score, Score):
        return None
    return CommittedScore(
        node=node,
        benchmark=score.benchmark,
        metric=score.metric,
        value=score.value,
        std=score.std,
        seeds=len(score.per_seed),
        images=score.num_test,
        split=str(score.protocol.get("split") or "test"),
    )


def _chance(found: Committed, committed: Mapping[str, Committed]) -> float | None:
    data = found.record.inputs.get("data", ())
    if len(data) != 1:
        return None
    here = next((one for one in committed.values() if one.uri == data[0].uri), None)
    try:
        shards = (here or read_external(data[0].uri)).artifact()
    except VitpipeError:
        return None  # the number stands without it
    if not isinstance(shards, ShardSet) or shards.multi_label or shards.num_classes < 1:
        return None
    return 1 / shards.num_classes
