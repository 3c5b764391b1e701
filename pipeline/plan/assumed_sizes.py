"""Sizes of data that cannot be counted here, for a plan: the paper's, where a spec says which data set it means.

A laptop can then plan a run whose images lie elsewhere. A run assumes nothing: it counts.
"""

from collections.abc import Mapping

from vitpipe.pipeline.plan.conform import benchmark_of, data_of
from vitpipe.pipeline.spec.graph import Graph, Node, is_uri
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.paper.recipes import size
from vitpipe.stages.paper.tables import tables, title


def assumed_sizes(graph: Graph, data: str | None) -> dict[str, Estimate]:
    """Estimate, by id of an ingest node, the images of the paper's data set that it stands for.

    `data` is the pretraining data that the spec claims; other data sets are known by the names of their nodes.
    """
    found: dict[str, Estimate] = {}
    for node in graph.nodes.values():
        meant = (data or data_of(node)) if node.stage.name == "pretrain" else None
        if meant:
            images, classes = size(meant)
            for ref in _ingested(node, "shards"):
                found.setdefault(ref, _estimate(graph, ref, {"train": images}, classes, meant))
        benchmark = benchmark_of(graph, node) if node.stage.name in ("finetune", "evaluate") else None
        facts = tables()["benchmarks"].get(benchmark or "", {})
        if "train" in facts:
            splits = {"train": facts["train"], "test": facts["test"]}
            for ref in _ingested(node, "data"):
                if ref not in found or "test" not in (found[ref].splits or {}):
                    found[ref] = _estimate(graph, ref, splits, facts["classes"], title(str(benchmark)))
    return found


def _ingested(node: Node, need: str) -> list[str]:
    return [ref for ref in node.needs.get(need, ()) if not is_uri(ref)]


def _estimate(graph: Graph, ref: str, splits: Mapping[str, int], classes: int, name: str) -> Estimate:
    """Estimate what the node takes of the data set, cut into the splits that it asks for."""
    config = graph.nodes[ref].config
    source, asked = getattr(config, "source", None), getattr(config, "splits", None)
    subset, limit = getattr(source, "subset", None), getattr(source, "limit", None)
    share = subset.fraction if subset else 1.0
    kept = {split: round(count * share) for split, count in splits.items()}
    if limit is not None and sum(kept.values()) > limit:
        kept = {split: round(count * limit / sum(kept.values())) for split, count in kept.items()}
    if isinstance(asked, dict) and "train" not in asked:
        kept = {split: count for split, count in kept.items() if split in asked}  # its source is that part alone
    elif isinstance(asked, dict) and "test" not in splits:
        kept = {split: round(kept["train"] * part) for split, part in asked.items()}
    note = f"not counted here: taken to be {name}, {sum(kept.values()):,} images"
    return Estimate(images=sum(kept.values()), splits=kept, num_classes=classes, notes=(note,))
