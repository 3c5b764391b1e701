"""Kinds of Vision Transformers in transformers beside ViT: what their `config.json` says that decides the model, and
what their classes take where it is silent. No torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.formats.described import Described, Gelu, known_gelu, square
from vitpipe.stages.convert.formats.fields import Fields
from vitpipe.stages.model_settings import Rope

IDLE = {
    # of training and of the first values
    "initializer_range", "initializer_factor", "attention_dropout", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "drop_path_rate", "pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale",
    # shown by the tensors, or of what is left out
    "num_channels", "num_labels", "use_mask_token", "projection_dim", "query_bias", "key_bias", "value_bias",
    "vision_use_head", "use_swiglu_ffn", "use_gated_mlp", "mlp_ratio", "num_register_tokens", "pooler_output_size",
    "pooler_act",
    # of how a library computes it, of what it gives beside, and where it is from
    "out_features", "out_indices", "_out_features", "_out_indices", "stage_names", "reshape_hidden_states",
    "transformers_version", "architectures", "output_hidden_states", "output_attentions", "return_dict", "dtype",
    "torch_dtype", "chunk_size_feed_forward", "_name_or_path", "_commit_hash", "auto_map", "finetuning_task",
    "attn_implementation", "_attn_implementation", "gradient_checkpointing", "torchscript", "license",
    "id2label", "label2id", "problem_type", "encoder_stride",
}  # fmt: skip
READ = {
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "layer_norm_eps", "image_size", "patch_size", "layerscale_value", "rope_theta", "rope_parameters",
}  # fmt: skip
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,), "is_decoder": (False,), "add_cross_attention": (False,), "pruned_heads": ({}, None),
    "quantization_config": (None,), "apply_layernorm": (True,), "mlp_bias": (True,), "proj_bias": (True,),
    "qkv_bias": (True,), "head_dim": (None,), "layer_types": (None,), "num_patches": (None,),
}  # fmt: skip
FAMILY = Fields("config.json", READ - IDLE, IDLE, _ONLY)


@dataclass(frozen=True)
class FamilyDefaults:
    """What a class takes where its config is silent."""

    norm_eps: float
    act: str = "gelu"
    heads: int = 12
    image_px: int = 224
    patch_px: int = 16
    layer_scale: float | None = None
    registers: int = 0
    rope_theta: float | None = None
    pooled: str | None = "token"
    """As timm calls it; None where the tensors show it."""
    section: str | None = None
    """Where the vision tower's fields stand in the config of a model of images and texts."""


_CLIP = FamilyDefaults(1e-5, "quick_gelu", patch_px=32)
_SIGLIP = FamilyDefaults(1e-6, "gelu_pytorch_tanh", pooled=None)
KINDS: Mapping[str, FamilyDefaults] = {
    "dinov2": FamilyDefaults(1e-6, layer_scale=1.0),
    "dinov2_with_registers": FamilyDefaults(1e-6, layer_scale=1.0, registers=4),
    "dinov3_vit": FamilyDefaults(1e-5, heads=6, layer_scale=1.0, rope_theta=100.0),
    "clip_vision_model": _CLIP,
    "clip": FamilyDefaults(1e-5, "quick_gelu", patch_px=32, section="vision_config"),
    "siglip_vision_model": _SIGLIP,
    "siglip": FamilyDefaults(1e-6, "gelu_pytorch_tanh", pooled=None, section="vision_config"),
    "ijepa": FamilyDefaults(1e-12, pooled="avg"),
}


def described_kind(config: Mapping[str, Any], asked: str) -> Described:
    """What the config of one of these kinds says of the encoder, silence filled in.

    UsageError for a function that we do not have.
    """
    name = str(config["model_type"])
    kind = KINDS[name]
    said = config.get(kind.section, {}) if kind.section else config
    sizes = {
        "layers": said.get("num_hidden_layers"),
        "width": said.get("hidden_size"),
        "patch_px": square(said.get("patch_size"), "patch_size", asked),
        "mlp": None if name.startswith("dinov2") else said.get("intermediate_size"),
    }
    return Described(
        heads=said.get("num_attention_heads", kind.heads),
        gelu=_gelu(said, kind, asked),
        norm_eps=said.get("layer_norm_eps", kind.norm_eps),
        image_px=square(said.get("image_size", kind.image_px), "image_size", asked),
        registers=said.get("num_register_tokens", kind.registers) if name.startswith("dino") else None,
        layer_scale=said.get("layerscale_value", kind.layer_scale),
        rope=_rope(said, kind, asked),
        says_rope=True,
        pooled=kind.pooled,
        sizes={field: size for field, size in sizes.items() if type(size) is int},
        notes=FAMILY.check(said, asked),
    )


def _gelu(said: Mapping[str, Any], kind: FamilyDefaults, asked: str) -> Gelu | None:
    """Which GELU, where it has one; a gated MLP has SiLU."""
    act = said.get("hidden_act", kind.act)
    if said.get("use_swiglu_ffn") or (said.get("use_gated_mlp") and act == "silu"):
        return None
    if said.get("use_gated_mlp"):
        why = f"its MLP is gated by {act}, of models here by silu"
        raise UsageError(asked, why, "it would be another function: it cannot be converted")
    return known_gelu(act, asked)


def _rope(said: Mapping[str, Any], kind: FamilyDefaults, asked: str) -> Rope | None:
    if kind.rope_theta is None:
        return None
    parameters = said.get("rope_parameters") or {}
    if parameters.get("rope_type", "default") != "default":
        why = f"its rope_parameters say rope_type {parameters['rope_type']}"
        raise UsageError(asked, why, "it would be another function: it cannot be converted")
    theta = parameters.get("rope_theta", said.get("rope_theta", kind.rope_theta))
    return Rope(kind="dinov3", base=float(theta))
