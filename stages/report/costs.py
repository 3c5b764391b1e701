"""What each pretraining cost, next to what the paper reports for its own. Knows the lineage and no page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.paper.recipes import dataset, full_name
from vitpipe.stages.paper.tables import tables
from vitpipe.stages.report.record_lineage import LineageNode
from vitpipe.stages.report.scaling import Pretraining


@dataclass(frozen=True)
class Cost:
    """One pretraining."""

    name: str
    model: str
    data: str
    exaflops: float | None
    seconds: float | None
    """By the driver's clock, of the last attempt alone."""
    where: str
    """The number of workers, in words; for the paper's rows, the chips."""
    ours: bool


def costs(lineage: Sequence[LineageNode], known: Mapping[str, Pretraining]) -> list[Cost]:
    """List ours first, then the paper's rows of the same models where a set that the paper pretrains on was learned."""
    found = []
    for node in lineage:
        made = known.get(node.record_sha256)
        if node.record is None or made is None or not isinstance(node.artifact(), Checkpoint):
            continue
        workers = node.record.resources.get("workers", 1)
        where = f"{workers} worker{'s' if workers != 1 else ''}"
        exaflops = made.flops / 1e18
        found.append(Cost(node.name, made.model, made.data, exaflops, node.record.seconds, where, ours=True))
    papers = {cost.model for cost in found if any(dataset(name) for name in cost.data.split(", "))}
    return [*found, *_published(papers)]


def _published(models: set[str]) -> list[Cost]:
    rows = []
    days = {(model, data): cores for model, data, cores in tables()["cost"]["tpuv3_core_days"]}
    for row in tables()["table6"]["rows"]:
        model = full_name(row["model"])
        cores = days.pop((model, "JFT-300M"), None) if row["epochs"] == 14 else None
        where = f"{cores:,} TPUv3-core-days (Table 2)" if cores else "TPUv3"
        data = f"JFT-300M, {row['epochs']} epochs"
        rows.append(Cost("Table 6", model, data, float(row["values"][-1]), None, where, ours=False))
    for (model, data), cores in days.items():
        rows.append(Cost("Table 2", model, data, None, None, f"{cores:,} TPUv3-core-days", ours=False))
    return [row for row in rows if row.model in models]
