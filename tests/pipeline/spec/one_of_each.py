"""The nodes of a small run that is right, one of every stage; and the same with a node changed, or repeated."""

from typing import Any

Nodes = dict[str, dict[str, Any]]

NODES: Nodes = {
    "data": {
        "stage": "ingest",
        "config": {
            "source": {"kind": "glyphs", "classes": 4, "images_per_class": 20, "image_px": 8},
            "splits": {"train": 0.8, "test": 0.2},
        },
    },
    "backbone": {
        "stage": "pretrain",
        "needs": {"shards": "data", "probes": "data"},
        "config": {
            "model": {"variant": {"layers": 1, "width": 8, "mlp": 8, "heads": 1, "patch_px": 4}, "image_px": 8},
            "batch_images": 8,
            "total": "50 epochs",
            "evaluate": {"every": "5 epochs"},
        },
    },
    "weights": {"stage": "convert", "needs": {"checkpoint": "backbone"}, "config": {}},
    "foreign": {"stage": "convert", "config": {"source": {"path": "model.safetensors", "heads": 4}}},
    "transfer": {
        "stage": "finetune",
        "needs": {"data": "data", "weights": "weights"},
        "config": {"batch_images": 8, "total": "50 epochs", "peak_lr": 0.1},
    },
    "scratch": {
        "stage": "finetune",
        "needs": {"data": "data"},
        "config": {
            "batch_images": 8,
            "total": "50 epochs",
            "peak_lr": 0.1,
            "model": {"variant": {"layers": 1, "width": 8, "mlp": 8, "heads": 1, "patch_px": 4}, "image_px": 8},
        },
    },
    "probe": {"stage": "evaluate", "needs": {"data": "data", "weights": "weights"}, "config": {"method": "fewshot"}},
    "table": {"stage": "report", "needs": {"scores": "probe", "checkpoint": "backbone"}, "config": {}},
}


def changed(node: str, **sections: Any) -> Nodes:
    return {**NODES, node: {**NODES[node], **sections}}


def beside(node: str, section: str, filled: list[Any]) -> Nodes:
    """The node once for each of these sections, and each time all that depends on it."""
    chain = {node}
    for name, one in NODES.items():
        if chain.intersection(_named(one.get("needs", {}))):
            chain.add(name)
    nodes = dict(NODES)
    for number, content in enumerate(filled):
        for name in NODES:
            if name in chain:
                needs = {
                    key: f"{ref}-{number}" if ref in chain else ref for key, ref in NODES[name].get("needs", {}).items()
                }
                nodes[f"{name}-{number}"] = {**NODES[name], **({"needs": needs} if needs else {})}
        nodes[f"{node}-{number}"][section] = content
    return nodes


def _named(needs: dict[str, str]) -> set[str]:
    return set(needs.values())
