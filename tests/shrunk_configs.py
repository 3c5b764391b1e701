"""Shipped configs made small: models, images, steps and draws shrink; operations, needs and kinds stay as written.

`new_parts` tells which nodes of a config differ in kind from those that ran before.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitpipe.pipeline.cli.starters import FOLDER
from vitpipe.pipeline.plan.fingerprint import canonical
from vitpipe.pipeline.spec.graph import Graph, Node, is_uri
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.stages.variants import ResNet

ROOT = Path(__file__).parents[1] / "configs"
SHIPPED = [FOLDER / "folder.yaml", *sorted(ROOT.rglob("*.yaml")), *sorted(FOLDER.glob("[!f]*.yaml"))]
"""The first trains what other presets begin with."""
TINY = {"layers": 2, "width": 32, "mlp": 64, "heads": 2, "patch_px": 8}
SMALL_RESNET = ("R5x1", ResNet((1, 1), 1))
SMALL_ENCODER = ("Xs", (2, 32, 64, 2))
SMALL_HYBRID = ("R+Xs/32", ("Xs", (), 8))
"""A ResNet of two units, and a narrow encoder on a root, as of R+Ti/16: no recipe may name them."""
PX = {32: 32, 28: 32, 48: 48, 64: 32, 224: 32, 384: 48, 512: 48, 518: 48}


def shrunk(spec: PipelineSpec) -> PipelineSpec:
    """The same graph with every node small."""
    nodes = {id: _small(node) for id, node in spec.graph.nodes.items()}
    return replace(spec, graph=Graph(nodes))


def _small(node: Node) -> Node:
    ways = {
        "ingest": _ingest, "pretrain": _pretrain, "finetune": _finetune, "evaluate": _evaluate, "report": _report
    }  # fmt: skip
    raw = ways.get(node.stage.name, lambda raw: raw)(json.loads(json.dumps(node.raw)))
    few = {"workers": 1, "micro_batch": 2} if node.stage.name == "pretrain" else {}
    kept = {name: value for name, value in node.resources.model_dump(exclude_unset=True).items() if name == "zero"}
    return replace(
        node,
        raw=raw,
        config=node.stage.config_class().model_validate(raw),
        resources=node.stage.resources_class().model_validate({**kept, **few}),
    )


def _ingest(raw: dict[str, Any]) -> dict[str, Any]:
    source = raw["source"]
    if source["kind"] == "glyphs":
        source |= {"classes": 5, "images_per_class": 6}
    elif source["kind"] == "digits":
        source["limit"] = 200
    source.pop("subset", None)
    if isinstance(raw.get("splits"), dict) and len(raw["splits"]) > 1:
        others = 0.4 / (len(raw["splits"]) - 1)
        raw["splits"] = {name: 0.6 if name == "train" else others for name in raw["splits"]}
    return raw


def _report(raw: dict[str, Any]) -> dict[str, Any]:
    return raw | {"attention_images": 1} if raw.get("attention_images", 1) else raw


def _pretrain(raw: dict[str, Any]) -> dict[str, Any]:
    variant = _variant(raw["model"]["variant"])
    raw["model"] |= {"variant": variant, "image_px": 32} | ({"dropout": 0.1} if variant != SMALL_RESNET[0] else {})
    if "stochastic_depth" in raw["model"]:
        raw["model"]["stochastic_depth"] = 0.1
    raw |= {"batch_images": 4, "total": "2 steps"}
    augment = raw.get("augment", {})
    if isinstance(augment.get("mixup"), dict):
        augment["mixup"]["alpha"] = 0.2
    elif augment.get("mixup"):
        augment["mixup"] = 0.2
    augment |= {"randaugment": augment["randaugment"] | {"magnitude": 10}} if augment.get("randaugment") else {}
    raw["optimizer"] = {**raw.get("optimizer", {}), "peak_lr": 1e-3, "weight_decay": 0.1}
    raw["schedule"] = {**raw.get("schedule", {}), "warmup": "1 steps"}
    if raw.get("objective", {}).get("kind") == "mae":
        raw["objective"]["decoder"] = {"layers": 1, "width": 32, "heads": 2}
    if "evaluate" in raw:
        raw["evaluate"]["every"] = "1 steps"
    return raw


def _finetune(raw: dict[str, Any]) -> dict[str, Any]:
    rates = raw["peak_lr"]
    raw |= {"batch_images": 2, "total": "1 steps", "warmup": "0 steps", "seeds": [0], "sweep_seeds": 1, "dev": 2}
    raw |= {"peak_lr": [0.01, 0.03] if isinstance(rates, list) else 0.01}
    for name, least in (("train_per_class", 2 if isinstance(rates, list) else 1), ("image_px", None)):
        if name in raw:
            raw[name] = least or PX[raw[name]]
    raw.pop("dropout", None)
    if "model" in raw:
        raw["model"] |= {"variant": TINY, "image_px": 32}
    return raw


def _evaluate(raw: dict[str, Any]) -> dict[str, Any]:
    if raw["method"] in ("fewshot", "linear", "knn"):
        raw |= {"shots": [1]} if raw["method"] != "knn" else {}
        raw["seeds"] = [0]
    if "image_px" in raw:
        raw["image_px"] = PX[raw["image_px"]]
    return raw


def _variant(variant: Any) -> Any:
    if not isinstance(variant, str):
        return TINY
    if "+" in variant:
        return SMALL_HYBRID[0]
    return SMALL_RESNET[0] if variant.startswith("R") else TINY


@dataclass(frozen=True)
class Part:
    """What of a config has not run in kind before, as a spec of its own."""

    spec: PipelineSpec
    kinds: Mapping[str, str]
    """By node of the whole config: what it is, in one text."""


def new_part(spec: PipelineSpec, ran: Iterable[str]) -> Part:
    """The nodes whose kind is not in `ran`, with all that they need; a report of fewer scores is a report."""
    graph, before = spec.graph, set(ran)
    kinds = {id: kind_of(graph, id) for id in graph.nodes}
    wanted, seen = set[str](), set(before)
    for id, kind in kinds.items():
        if kind not in seen:
            seen.add(kind)
            wanted.add(id)
    for id in reversed(graph.nodes):
        if id in wanted:
            wanted |= _needed(graph, id, kinds, wanted)
    nodes = {id: _fewer(graph.nodes[id], wanted) for id in graph.nodes if id in wanted}
    return Part(replace(spec, graph=Graph(nodes)), kinds)


def _needed(graph: Graph, id: str, kinds: Mapping[str, str], wanted: set[str]) -> set[str]:
    """What a node needs; of the many inputs of one name those that run anyway, or else one."""
    found = set[str]()
    for refs in graph.nodes[id].needs.values():
        own = [ref for ref in refs if not is_uri(ref)]
        found |= set(own if len(own) == 1 else [ref for ref in own if ref in wanted] or own[:1])
    return found


def _fewer(node: Node, wanted: set[str]) -> Node:
    needs = {name: tuple(ref for ref in refs if is_uri(ref) or ref in wanted) for name, refs in node.needs.items()}
    return replace(node, needs=needs)


def kind_of(graph: Graph, id: str) -> str:
    """A node in one text: its recipe, and of each input what decides how it is read."""
    node = graph.nodes[id]
    inputs = {name: sorted({_seen(graph, ref) for ref in refs}) for name, refs in node.needs.items() if refs}
    return json.dumps([node.stage.name, canonical(node.config), inputs], sort_keys=True)


def _seen(graph: Graph, ref: str) -> str:
    """What a node sees of an input: of images their source, of weights their architecture, of a score its kind."""
    if is_uri(ref):
        return "weights of another run"
    node = graph.nodes[ref]
    config = node.config.model_dump(mode="json", exclude_defaults=True)
    if node.stage.name == "ingest":
        return json.dumps([config["source"].get("name"), config["source"]["kind"], str(config.get("splits"))])
    if node.stage.name == "pretrain":
        objective = config.get("objective", {}).get("kind") in ("masked_patch", "mae")
        return json.dumps([config["model"], objective], sort_keys=True)
    for name in ("checkpoint", "weights"):
        for above in node.needs.get(name, ()):
            return f"{node.stage.name} {_seen(graph, above)}"
    return f"{node.stage.name} {config.get('method', '')}"
