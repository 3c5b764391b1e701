"""What a page says around its results: the model, how exports were proved, which software ran.

Reads small files of artifacts; knows no page.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from vitpipe.stages.artifacts import Artifact, Checkpoint, Weights
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.paper.recipes import full_name
from vitpipe.stages.report.record_lineage import LineageNode
from vitpipe.stages.report.wording import count, duration, flops
from vitpipe.stages.vit.flops import num_parameters

A = TypeVar("A", bound=Artifact)

Fact = tuple[str, str, str]
"""Name, value, and an addition in small print."""


def upstream(lineage: Sequence[LineageNode], kind: type[A], chosen: A | None = None) -> list[tuple[str, A]]:
    """List the artifacts of a kind that the page rests on, with their nodes' names, in their order, `chosen` last."""
    used = [(node.name, node.artifact()) for node in lineage]
    found = [(name, artifact) for name, artifact in used if isinstance(artifact, kind)]
    return sorted(found, key=lambda one: chosen is not None and one[1].uri == chosen.uri)


def key_figures(checkpoint: Checkpoint | None, lineage: Sequence[LineageNode]) -> list[Fact]:
    """Sum the run, and its pretraining if it has one, up in a handful of figures."""
    facts: list[Fact] = []
    if checkpoint is not None:
        model = checkpoint.model
        facts.append(("Model", variant(model), f"{model.image_px} px"))
        facts.append(("Parameters", count(num_parameters(model)), ""))
        facts.append(("Pretrained on", count(checkpoint.samples_seen), "images seen"))
    recorded = [node.record for node in lineage if node.record]
    compute = sum(record.estimate.get("flops") or 0.0 for record in recorded)
    if compute:
        facts.append(("Compute", flops(compute), "by the plan"))
    facts.append(("Work", duration(sum(record.seconds for record in recorded)), f"in {len(recorded)} nodes"))
    files = sum(len(record.files) for record in recorded)
    facts.append(("Traceable to", f"{files:,}", "files with digests"))
    return facts


def variant(model: ModelSettings) -> str:
    """A model as the paper writes it, or by explicit sizes."""
    if isinstance(model.variant, str):
        return full_name(model.variant)
    return f"ViT {model.sizes.layers}×{model.sizes.width}/{model.sizes.patch_px}"


def pretraining(name: str, checkpoint: Checkpoint) -> str:
    """Describe a pretraining in a sentence."""
    model = checkpoint.model
    return (
        f"{name}: {_built(model)}, {checkpoint.step:,} steps, {checkpoint.samples_seen:,} images seen. "
        "The faint line is every step, the strong one a running mean."
    )


def _built(model: ModelSettings) -> str:
    if model.resnet is not None:
        return f"a ResNet of {sum(model.resnet.blocks)} units on {model.image_px} px images"
    sizes = model.sizes
    layers = f"{sizes.layers} layers of width {sizes.width} with {sizes.heads} heads"
    if model.family == "hybrid":
        return f"{layers} on a ResNet’s {model.grid}×{model.grid} patches of {model.image_px} px images"
    later = "".join(f", {_part(*part)}" for part in model.later_parts.items())
    return f"{layers}{later}, {sizes.patch_px} px patches of {model.image_px} px images"


def _part(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    return words if value is True else f"{words} {value['kind'] if isinstance(value, dict) else value}"


def parity(exported: Sequence[tuple[str, Weights]]) -> list[tuple[str, str, dict[str, Any]]]:
    """List node, format and proof of every export."""
    proofs = []
    for name, weights in exported:
        if weights.has("parity.json"):
            proofs += [(name, form, proof) for form, proof in weights.read_json("parity.json").items()]
    return proofs


def versions(lineage: Sequence[LineageNode]) -> dict[str, str]:
    """Versions of vitpipe and of the packages it ran with, the newest record's where several differ."""
    found: dict[str, str] = {}
    for node in lineage:
        if node.record:
            found |= {"vitpipe": node.record.code, **node.record.versions}
    return found
