"""Folders of the models that people have, tiny and of random weights, saved by timm and transformers themselves; and
the rows of the table of what becomes of them, which the documentation has.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import transformers as hf
from torch import nn

BASE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
                        "patch_size": 8}  # fmt: skip
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32, "vocab_size": 10,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}  # fmt: skip
SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
DECODER = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
           "decoder_intermediate_size": 16}  # fmt: skip
Make = Callable[[Path], Path]


def far_from_its_start(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def of_hf(model: str, config: str, **given: Any) -> Make:
    def make(path: Path) -> Path:
        far_from_its_start(getattr(hf, model)(getattr(hf, config)(**{**BASE, **given}))).save_pretrained(path)
        return path

    return make


def of_both_towers(model: str, config: str, vision: str) -> Make:
    def make(path: Path) -> Path:
        tower = getattr(hf, vision)(**BASE, intermediate_size=48).to_dict()
        far_from_its_start(
            getattr(hf, model)(getattr(hf, config)(vision_config=tower, text_config=TEXT))
        ).save_pretrained(path)
        return path

    return make


def of_timm(function: str, classes: int = 0, **given: Any) -> Make:
    def make(path: Path) -> Path:
        arguments = {**SIZES, **given}
        model = far_from_its_start(timm.create_model(function, num_classes=classes, **arguments))
        timm.models.save_for_hf(model, path, model_args=arguments, safe_serialization=True)
        return path

    return make


FAMILIES: dict[str, Make] = {
    "DINOv2 (`Dinov2Model`)": of_hf("Dinov2Model", "Dinov2Config", mlp_ratio=2),
    "the same with a classifier, SwiGLU":
        of_hf("Dinov2ForImageClassification", "Dinov2Config", mlp_ratio=2, use_swiglu_ffn=True),
    "DINOv2 with registers": of_hf("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", mlp_ratio=2),
    "DINOv3": of_hf("DINOv3ViTModel", "DINOv3ViTConfig", intermediate_size=48, num_register_tokens=4),
    "DINOv3, gated MLPs":
        of_hf("DINOv3ViTModel", "DINOv3ViTConfig", intermediate_size=48, use_gated_mlp=True, hidden_act="silu"),
    "CLIP's vision tower": of_hf("CLIPVisionModel", "CLIPVisionConfig", intermediate_size=48),
    "CLIP, both towers": of_both_towers("CLIPModel", "CLIPConfig", "CLIPVisionConfig"),
    "SigLIP's and SigLIP 2's vision tower": of_hf("SiglipVisionModel", "SiglipVisionConfig", intermediate_size=48),
    "SigLIP, both towers": of_both_towers("SiglipModel", "SiglipConfig", "SiglipVisionConfig"),
    "SigLIP, a classifier": of_both_towers("SiglipForImageClassification", "SiglipConfig", "SiglipVisionConfig"),
    "I-JEPA": of_hf("IJepaModel", "IJepaConfig", intermediate_size=48),
    "I-JEPA, a classifier": of_hf("IJepaForImageClassification", "IJepaConfig", intermediate_size=48),
    "MAE with its decoder": of_hf("ViTMAEForPreTraining", "ViTMAEConfig", intermediate_size=48, **DECODER),
    "timm's DeiT-III": of_timm("deit3_small_patch16_224", 5),
    "timm's DINOv2": of_timm("vit_small_patch14_dinov2"),
    "timm's DINOv2 with registers, SwiGLU": of_timm("vit_giant_patch14_reg4_dinov2"),
    "timm's CLIP": of_timm("vit_base_patch16_clip_quickgelu_224", 5),
    "timm's SigLIP": of_timm("vit_base_patch16_siglip_224"),
    "timm's MAE, fine-tuned (`fc_norm`)": of_timm("vit_base_patch16_224", 5, global_pool="avg"),
    "timm's EVA-02 Ti": of_timm("eva02_tiny_patch14_224", 5),
    "timm's EVA-02 B (a norm in its MLPs)": of_timm("eva02_base_patch14_224", 5),
    "timm's DINOv3": of_timm("vit_small_patch16_dinov3"),
    "timm's DINOv3, class token": of_timm("vit_small_plus_patch16_dinov3", global_pool="token"),
    "norms of queries and keys": of_timm("vit_base_patch16_224", 5, qk_norm=True),
}  # fmt: skip
ALIKE = 1e-4


def row(name: str, settings: Any, proof: dict[str, Any]) -> str:
    """A row of the table: the fields that a plain ViT leaves alone, and what its library says."""
    parts = {**({"pool": settings.pool} if settings.pool != "cls" else {}),
             **({"gelu": settings.gelu} if settings.gelu != "erf" else {}), **settings.later_parts}  # fmt: skip
    shown = ", ".join(f"`{key}: {_text(value)}`" for key, value in parts.items()) or "a plain ViT"
    assert proof["error"] <= ALIKE and proof["compared"], name
    return f"| {name} | {shown} |"


def table(rows: list[str]) -> str:
    return "\n".join(["| Models of random weights | What they are here |", "|---|---|", *rows])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(part)}" for key, part in value.items() if part is not None) + "}"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
