"""Families of Vision Transformers beside ViT's in transformers: how their files are told from each other and taken."""

import re
from collections.abc import Collection

from vitpipe.stages.convert.families.renamed import as_they_are, by_our_names, without
from vitpipe.stages.convert.formats import common
from vitpipe.stages.convert.formats.huggingface_files import FILES, describe
from vitpipe.stages.convert.formats.timm import LANDMARKS
from vitpipe.stages.convert.numbers import Arrays

_WRAPPER = re.compile(r"^(dinov2_with_registers|dinov2|ijepa|dinov3_vit|vision_model)\.")
_MARKS = (
    re.compile(r"^(encoder\.|model\.)?layers?\.0\.layer_scale1\.lambda1$"),  # DINOv2, DINOv3
    re.compile(r"^embeddings\.patch_embedding\.weight$"),  # CLIP, SigLIP
)
_PATCHES = ("embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.weight",
            "embeddings.patch_embedding.weight")  # fmt: skip
_WRAPPED = ("", "dinov2.", "dinov2_with_registers.", "ijepa.", "dinov3_vit.", "vision_model.")
SIGNS = {f"{before}{patch}" for patch in _PATCHES for before in _WRAPPED}
"""Patch projections by the names that these files have for them, after what a wrapper may put before."""
_OTHER_THINGS = (
    r"^(text_model\.|logit_(scale|bias)$|text_projection\.)|(^|\.)position_ids$|embeddings\.mask_token$|rope_emb"
)
"""Of a text's tower, of pretraining, or computed."""


def claim(arrays: Arrays, beside: Collection[str], asked: str) -> common.Named | None:
    """The tensors by our names, where they are of one of these families and not of a plain ViT."""
    plain = common.renamed(arrays, {_WRAPPER.sub("", name): name for name in arrays.shapes})
    names = plain.shapes.keys()
    is_ijepa = "embeddings.patch_embeddings.projection.weight" in names and "embeddings.cls_token" not in names
    if not is_ijepa and not any(sign.search(name) for sign in _MARKS for name in names):
        return None
    kept, dropped = without(plain, _OTHER_THINGS)
    notes = [f"left out, of a text's tower or of pretraining: {len(dropped)} of its tensors"] if dropped else []
    kept, note = _head(kept)
    return common.Named("huggingface", by_our_names(kept), (*notes, *note), dialect=FAMILIES, theirs=arrays)


def _head(arrays: Arrays) -> tuple[Arrays, list[str]]:
    """Without what stands behind the encoder and is no head of ours."""
    shapes = arrays.shapes
    patch = shapes.get("embeddings.patch_embeddings.projection.weight", (0,))
    if "visual_projection.weight" in shapes:
        return without(arrays, r"^visual_projection\.")[0], ["its projection to texts was left out"]
    if "classifier.weight" not in shapes:
        return arrays, []
    if shapes["classifier.weight"][1] == 2 * patch[0]:
        why = "its classifier, which sees class token and mean of the patches side by side, was left out"
        return without(arrays, r"^classifier\.")[0], [why]
    if "embeddings.class_embedding" in shapes:
        return without(arrays, r"^classifier\.")[0], ["its classifier, which sees no class token, was left out"]
    if "head.probe" in shapes:  # SiglipForImageClassification averages the tokens instead
        return without(arrays, r"^head\.")[0], ["its attention pooling was left out: its classifier sees none"]
    return arrays, []


FAMILIES = common.Dialect(
    common.Reading(
        claim=claim,
        links=as_they_are,
        landmarks=LANDMARKS,
        gelu="erf",
        norm_eps=1e-6,
        untabled=("none",),
        is_pixels_certain=False,
        companions=FILES,
        describe=describe,
    ),
    "vitpipe.stages.convert.families.consumers:transformers_family",
)
