"""How scores grow with labels, with pretraining images and with pretraining compute (Figures 3 to 5).

Knows rows of the table and their lineage; draws with `lines`.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vitpipe.stages.artifacts import Artifact, Checkpoint, ShardSet, deviation
from vitpipe.stages.paper.tables import title
from vitpipe.stages.report.lines import Lines, Point, Series
from vitpipe.stages.report.overview import variant
from vitpipe.stages.report.record_lineage import LineageNode
from vitpipe.stages.report.results import ScoreRow
from vitpipe.stages.report.wording import count, flops, last_part
from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.training.objective_costs import train_flops


@dataclass(frozen=True)
class Pretraining:
    """The pretraining that one set of weights comes from."""

    node: str
    model: str
    images: int
    """Training images of its data sets."""
    flops: float
    """3 x forward x images seen, two operations a multiply-add, as Table 6 counts; of the objective's own parts too."""
    data: str


def pretrainings(lineage: Sequence[LineageNode]) -> dict[str, Pretraining]:
    """Map the record digest of any node to the pretraining it comes from, where there is exactly one."""
    found: dict[str, Pretraining] = {}
    by_digest = {node.record_sha256: node for node in lineage}
    for node in lineage:  # each after those it was made from
        artifact = node.artifact()
        if isinstance(artifact, Checkpoint):
            found[node.record_sha256] = _pretraining(node, artifact, by_digest)
        elif node.record is not None:
            names = ("weights", "checkpoint", "init")
            above = {ref.record_sha256 for name in names for ref in node.record.inputs.get(name, ())}
            known = [found[sha256] for sha256 in above if sha256 in found]
            if len(known) == 1:
                found[node.record_sha256] = known[0]
    return found


def over_labels(rows: Sequence[ScoreRow]) -> list[Lines]:
    """Draw one chart a benchmark: every arm that was scored with several numbers of labels a class."""
    charts = []
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        points: dict[str, list[Point]] = {}
        for row in rows:
            if row.benchmark == benchmark:
                for labels, per_seed in _by_labels(row):
                    points.setdefault(_arm_of(row), []).append(_point(labels, per_seed))
        series = [Series(name, _ordered(found)) for name, found in points.items() if len({p.x for p in found}) > 1]
        if series:
            charts.append(Lines.draw(title(benchmark), "", "labels per class", series, "{:g}".format))
    return charts


def over_pretraining(rows: Sequence[ScoreRow], known: Mapping[str, Pretraining]) -> list[Lines]:
    """Draw accuracy over images and over compute, for each benchmark and arm with several pretrainings."""
    charts = []
    groups: dict[tuple[str, str, str], list[tuple[ScoreRow, Pretraining]]] = {}
    for row in rows:
        if (made := known.get(row.record_sha256)) is not None and row.kind in ("pretrained", "frozen"):
            groups.setdefault((row.benchmark, row.arm, row.labels), []).append((row, made))
    for (benchmark, arm, labels), found in groups.items():
        named = f"{title(benchmark)}, {arm}"
        if len({made.images for _, made in found}) > 1:
            charts.append(_chart(named, labels, found, _DATA))
        if len({made.flops for _, made in found}) > 1:
            charts.append(_chart(named, labels, found, _COMPUTE))
    return charts


@dataclass(frozen=True)
class _Over:
    """What a chart has along its x axis, and what makes a line."""

    name: str
    x: Callable[[Pretraining], float]
    line: Callable[[Pretraining], str]
    write: Callable[[float], str]


_DATA = _Over("pretraining images", lambda made: made.images, lambda made: made.model, count)
_COMPUTE = _Over("pretraining compute", lambda made: made.flops, lambda made: f"on {count(made.images)} images", flops)


def _chart(named: str, labels: str, found: Iterable[tuple[ScoreRow, Pretraining]], over: _Over) -> Lines:
    points: dict[str, list[Point]] = {}
    for row, made in found:
        points.setdefault(over.line(made), []).append(_point(over.x(made), row.per_seed))
    if all(len(each) == 1 for each in points.values()):
        points = {"each with other images": [point for each in points.values() for point in each]}
    series = [Series(name, _ordered(each)) for name, each in sorted(points.items())]
    return Lines.draw(named, labels, over.name, series, over.write)


def _pretraining(node: LineageNode, checkpoint: Checkpoint, by_digest: Mapping[str, LineageNode]) -> Pretraining:
    model = checkpoint.model
    refs = node.record.inputs.get("shards", ()) if node.record else ()
    data: list[Artifact | None] = [by_digest[ref.record_sha256].artifact() for ref in refs]
    shards = [one for one in data if isinstance(one, ShardSet)]
    objective = ObjectiveSettings.model_validate(node.record.config.get("objective") or {}) if node.record else None
    return Pretraining(
        node=node.name,
        model=variant(model),
        images=sum(one.splits.get("train", 0) for one in shards),
        flops=float(train_flops(objective or ObjectiveSettings(), model) * checkpoint.samples_seen),
        data=", ".join(last_part(ref.uri) for ref in refs),
    )


def _arm_of(row: ScoreRow) -> str:
    """Arms of one chart differ in the method and in the weights they start from."""
    start = last_part(str(row.protocol.get("weights") or ""))
    size = f", {row.protocol['image_px']} px" if row.protocol.get("image_px") else ""
    return f"{row.arm} ({start}{size})" if start else f"{row.arm}{size}"


def _by_labels(row: ScoreRow) -> list[tuple[int, tuple[float, ...]]]:
    labels = row.protocol.get("train_per_class") or row.protocol.get("shots")
    own = [(int(labels), row.per_seed)] if labels else []
    return [*own, *row.by_shots.items()]


def _point(x: float, per_seed: Sequence[float]) -> Point:
    std = deviation(per_seed)
    return Point(float(x), 100 * statistics.fmean(per_seed), None if std is None else 100 * std)


def _ordered(points: Iterable[Point]) -> tuple[Point, ...]:
    return tuple(sorted(points, key=lambda point: point.x))
