"""What each pretraining cost, beside what the paper reports for its own. Knows the lineage and no page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.paper.tables import tables
from vitpipe.stages.report.record_lineage import Link
from vitpipe.stages.report.scaling import Pretraining


@dataclass(frozen=True)
class Cost:
    """One pretraining."""

    name: str
    model: str
    data: str
    exaflops: float | None
    seconds: float | None
    """Of the driver's clock, its last attempt alone."""
    where: str
    """How many workers, in words; whose chips, for the paper's."""
    ours: bool


def costs(links: Sequence[Link], known: Mapping[str, Pretraining]) -> list[Cost]:
    """Ours first, then the paper's rows of the same models, or of all where it has none of them."""
    found = []
    for link in links:
        made = known.get(link.record_sha256)
        if link.record is None or made is None or not isinstance(link.artifact(), Checkpoint):
            continue
        workers = link.record.resources.get("workers", 1)
        where = f"{workers} worker{'s' if workers != 1 else ''}"
        exaflops = made.flops / 1e18
        found.append(Cost(link.name, made.model, made.data, exaflops, link.record.seconds, where, ours=True))
    return [*found, *_published({cost.model for cost in found})] if found else []


def _published(models: set[str]) -> list[Cost]:
    rows = []
    days = {(model, data): cores for model, data, cores in tables()["cost"]["tpuv3_core_days"]}
    for row in tables()["table6"]["rows"]:
        model = row["model"] if row["model"].startswith("R") else f"ViT-{row['model']}"
        model = model.replace("+", "+ViT-")
        cores = days.pop((model, "JFT-300M"), None) if row["epochs"] == 14 else None
        where = f"{cores:,} TPUv3-core-days (Table 2)" if cores else "TPUv3"
        data = f"JFT-300M, {row['epochs']} epochs"
        rows.append(Cost("Table 6", model, data, float(row["values"][-1]), None, where, ours=False))
    rows += [Cost("Table 2", model, data, None, None, f"{cores:,} TPUv3-core-days", ours=False)
             for (model, data), cores in days.items()]  # fmt: skip
    same = [row for row in rows if row.model in models]
    return same or [row for row in rows if row.model in ("ViT-B/16", "ViT-L/16", "ViT-H/14", "R152x2")]
