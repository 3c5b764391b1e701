"""What stands around the results: the model, how exports were proved, which software ran.

Reads small files of artifacts; knows no page.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from vitpipe.stages.artifacts import Artifact, Checkpoint, Weights
from vitpipe.stages.report.record_lineage import Link
from vitpipe.stages.report.wording import count, duration, flops
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.flops import num_parameters

A = TypeVar("A", bound=Artifact)

Fact = tuple[str, str, str]
"""Name, value, and what to add in small print."""


def behind(links: Sequence[Link], kind: type[A], chosen: A | None = None) -> list[tuple[str, A]]:
    """Every artifact of a kind that the page rests on, with its node's name; later ones later, `chosen` last."""
    used = [(link.name, link.artifact()) for link in links]
    found = [(name, artifact) for name, artifact in used if isinstance(artifact, kind)]
    return sorted(found, key=lambda one: chosen is not None and one[1].uri == chosen.uri)


def glance(checkpoints: Sequence[tuple[str, Checkpoint]], links: Sequence[Link]) -> list[Fact]:
    """The run in a handful of figures."""
    facts: list[Fact] = []
    if checkpoints:
        _, checkpoint = checkpoints[-1]
        model = ModelSettings.model_validate(checkpoint.model)
        facts.append(("Model", variant(model), f"{model.image_px} px"))
        facts.append(("Parameters", count(num_parameters(model)), ""))
        facts.append(("Pretrained on", count(checkpoint.samples_seen), "images seen"))
    recorded = [link.record for link in links if link.record]
    compute = sum(record.estimate.get("flops") or 0.0 for record in recorded)
    if compute:
        facts.append(("Compute", flops(compute), "by the plan"))
    facts.append(("Work", duration(sum(record.seconds for record in recorded)), f"in {len(recorded)} nodes"))
    files = sum(len(record.files) for record in recorded)
    facts.append(("Traceable to", f"{files:,}", "files with digests"))
    return facts


def variant(model: ModelSettings) -> str:
    """`ViT-L/16`, `R50+ViT-B/16`, `R152x2`, or explicit sizes."""
    if isinstance(model.variant, str):
        if model.family == "vit":
            return f"ViT-{model.variant}"
        return model.variant.replace("+", "+ViT-")
    return f"ViT {model.sizes.layers}×{model.sizes.width}/{model.sizes.patch_px}"


def pretraining(checkpoints: Sequence[tuple[str, Checkpoint]]) -> str:
    """One sentence about the newest pretraining."""
    if not checkpoints:
        return ""
    name, checkpoint = checkpoints[-1]
    model = ModelSettings.model_validate(checkpoint.model)
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
    return f"{layers}, {sizes.patch_px} px patches of {model.image_px} px images"


def parity(exported: Sequence[tuple[str, Weights]]) -> list[tuple[str, str, dict[str, Any]]]:
    """Node, format and proof of every export."""
    proofs = []
    for name, weights in exported:
        if weights.has("parity.json"):
            proofs += [(name, form, proof) for form, proof in weights.read_json("parity.json").items()]
    return proofs


def versions(links: Sequence[Link]) -> dict[str, str]:
    """Code and packages that computed, the newest record's where several differ."""
    found: dict[str, str] = {}
    for link in links:
        if link.record:
            found |= {"vitpipe": link.record.code, **link.record.versions}
    return found
