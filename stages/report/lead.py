"""The second sentence of a page, below its headline. Knows rows and levels, no artifact."""

from collections.abc import Mapping, Sequence

from vitpipe.stages.report.certainty import Levels, interval
from vitpipe.stages.report.results import Gain, ScoreRow, percent


def lead(table: Sequence[ScoreRow], found: Sequence[Gain], reached: Mapping[str, Levels]) -> str:
    """Say, where there is one benchmark, how few labels it took and what frozen features reach; of a single score,
    how sure it is and what no skill would reach."""
    parts = []
    if len(table) == 1:
        return _alone(table[0], reached.get(table[0].uri))
    if len(found) == 1 and found[0].pretrained.labels:
        parts.append(f"Both arms saw the same {found[0].pretrained.labels}; ± is the standard deviation over seeds.")
    for row in table if len({row.benchmark for row in table}) == 1 else ():
        if row.kind in ("frozen", "baseline"):
            per_class = f" with {row.labels}" if row.labels else ""
            parts.append(f"{row.arm[:1].upper()}{row.arm[1:]}{per_class}: {percent(row.value, row.std)}.")
    return " ".join(parts[:4])


def _alone(row: ScoreRow, level: Levels | None) -> str:
    ends, parts = interval(row), []
    if ends:
        low, high = (f"{100 * end:.1f}" for end in ends)
        parts.append(f"95 % interval: {low} to {high} %, from {row.num_test:,} {row.split} images (Wilson).")
    if level:
        parts.append(f"{level.words[:1].upper()}{level.words[1:]}.")
    return " ".join(parts)
