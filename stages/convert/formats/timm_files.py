"""timm's `config.json` as somebody else wrote it: which of its fields decide the model, and what they say. No torch."""

import functools
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.formats.described import (
    Described,
    Gelu,
    Prepared,
    known_gelu,
    ordered_names,
    square,
    triple,
)
from vitpipe.stages.convert.formats.fields import Fields
from vitpipe.stages.model_settings import Rope
from vitpipe.stages.preparation import Fit, Interpolation, Preparation

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROP_PCT = 0.875
"""Of timm.models.PretrainedCfg, where a config leaves it out."""

_TOP_READ = {
    "architecture", "pretrained_cfg", "model_args", "global_pool", "num_classes", "label_names", "labels", "id2label",
}  # fmt: skip
_TOP_IDLE = {"num_features", "label_descriptions"}
_CFG_READ = {
    "input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "num_classes", "label_names", "labels",
}  # fmt: skip
_CFG_IDLE = {
    "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag", "custom_load",
    "test_input_size", "min_input_size", "fixed_input_size", "test_crop_pct", "label_descriptions",
    "pool_size", "test_pool_size", "first_conv", "classifier", "license", "description", "origin_url", "paper_name",
    "paper_ids", "notes", "num_features", "global_pool", "num_prefix_tokens",
}  # fmt: skip
_VIT_READ = {
    "img_size", "patch_size", "global_pool", "embed_dim", "depth", "num_heads", "pos_embed", "act_layer",
    "init_values", "reg_tokens", "norm_eps",
}  # fmt: skip
_VIT_IDLE = {
    # shown by the tensors, or refused by them
    "in_chans", "num_classes", "mlp_ratio", "class_token", "fc_norm", "qk_norm", "no_embed_class", "pre_norm",
    "scale_mlp_norm", "kind",
    # of training, of the first values, of how it is computed
    "dynamic_img_size", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate",
    "drop_path_rate", "weight_init", "fix_init", "device", "dtype",
}  # fmt: skip
_VIT_ONLY: dict[str, tuple[Any, ...]] = {
    "qkv_bias": (True,), "scale_attn_norm": (False,), "proj_bias": (True,), "final_norm": (True,),
    "pool_include_prefix": (False,), "dynamic_img_pad": (False,), "embed_layer": (None,), "embed_norm_layer": (None,),
    "norm_layer": (None,), "block_fn": (None,), "mlp_layer": (None, "SwiGLUPacked"), "distilled": (False,),
    "attn_layer": (None, "", "eager"), "strict_img_size": (True,), "use_naflex": (False, None),
}  # fmt: skip
_EVA_READ = {
    "img_size", "patch_size", "global_pool", "embed_dim", "depth", "num_heads", "num_reg_tokens", "init_values",
    "norm_eps", "use_rot_pos_emb", "rope_type", "rope_temperature", "ref_feat_shape", "rope_rotate_half",
}  # fmt: skip
_EVA_IDLE = {
    "in_chans", "num_classes", "mlp_ratio", "class_token", "no_embed_class", "use_abs_pos_emb", "swiglu_mlp",
    "scale_mlp", "swiglu_align_to", "qk_norm", "qkv_bias", "qkv_fused", "use_fc_norm", "use_pre_transformer_norm",
    "attn_pool_num_heads", "attn_pool_mlp_ratio", "attn_type", "use_post_transformer_norm", "kind",
    "dynamic_img_size", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate",
    "drop_path_rate", "head_init_scale", "rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords", "device",
    "dtype",
}  # fmt: skip
_EVA_ONLY: dict[str, tuple[Any, ...]] = {
    "scale_attn_inner": (False,), "use_post_norm": (False,), "attn_only_layer_scale": (False,), "num_kv_heads": (None,),
    "rope_grid_offset": (0,), "rope_grid_indexing": ("ij",), "rope_mrope_section": (None,), "norm_layer": (None,),
    "dynamic_img_pad": (False,),
}  # fmt: skip
_RESNET_READ = {"global_pool"}
_RESNET_IDLE = {"layers", "channels", "num_classes", "in_chans", "width_factor", "drop_rate", "drop_path_rate",
                "zero_init_last", "device", "dtype", "stem_chs"}  # fmt: skip
_RESNET_ONLY = {
    "output_stride": (32,), "stem_type": ("fixed",), "avg_down": (False,), "preact": (True,), "basic": (False,),
    "bottle_ratio": (0.25,), "act_layer": (None,), "norm_layer": (None,), "conv_layer": (None,),
}  # fmt: skip
CONFIG = Fields("config.json", _TOP_READ, _TOP_IDLE)
PRETRAINED = Fields("pretrained_cfg", _CFG_READ, _CFG_IDLE, {"label_offset": (None, 0)})
TRANSFORMER = Fields("model_args", _VIT_READ, _VIT_IDLE, _VIT_ONLY)
EVA = Fields("model_args", _EVA_READ, _EVA_IDLE, _EVA_ONLY)
RESNET = Fields("model_args", _RESNET_READ, _RESNET_IDLE, _RESNET_ONLY)


def describe(content: Mapping[str, Any], asked: str) -> Described | None:
    """Facts from `config.json`, where it is timm's. UsageError for a function that we do not have."""
    config = content.get("config.json", {})
    if "architecture" not in config and "pretrained_cfg" not in config:
        return None
    is_flat = "pretrained_cfg" not in config  # as its first years wrote it: one level, all in one
    given, cfg = config.get("model_args") or {}, config if is_flat else config["pretrained_cfg"]
    architecture = str(config.get("architecture", ""))
    chosen = _chosen().get(architecture.partition(".")[0], {})
    is_resnet, is_eva = architecture.startswith("resnetv2"), chosen.get("kind") == "eva"
    arguments = RESNET if is_resnet else EVA if is_eva else TRANSFORMER
    arguments.refuse_unknown(given, asked)
    args = {**chosen, **given}  # what its function builds it with, but for what it was told
    notes = (*PRETRAINED.check(cfg, asked), *arguments.check(args, asked))
    notes = (*(() if is_flat else CONFIG.check(config, asked)), *notes)
    side = square(given.get("img_size"), "img_size", asked) or square(
        cfg.get("input_size", [])[1:], "input_size", asked
    )
    labels, first = _labels(config, cfg, asked)
    return Described(
        heads=args.get("num_heads"),
        gelu=None if is_resnet else _gelu(args, asked),
        norm_eps=args.get("norm_eps"),
        image_px=side,
        mean=triple(cfg.get("mean") or _IMAGENET[0]),
        std=triple(cfg.get("std") or _IMAGENET[1]),
        preparation=partial(_preparation, cfg),
        labels=labels,
        first=first,
        sigmoid="probabilities: sigmoid" in (cfg.get("notes") or ()),
        pooled=_pooled(config, given, chosen, is_eva),
        registers=args.get("num_reg_tokens" if is_eva else "reg_tokens") or (0 if chosen else None),
        layer_scale=args.get("init_values"),
        rope=_rope(args, asked) if is_eva else None,
        says_rope=bool(chosen),
        position="none" if args.get("pos_embed", "learn") in ("", "none") else None,
        sizes=_sizes({"num_classes": cfg.get("num_classes"), **config}, args, asked),
        notes=notes,
    )


@functools.cache
def _chosen() -> dict[str, dict[str, Any]]:
    """What each function of timm builds its model with, by its name; a test compares it with the installed timm."""
    table: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("timm_functions.json").read_bytes())
    return table


def _gelu(args: Mapping[str, Any], asked: str) -> Gelu | None:
    """Which GELU, of a model that has one: a gated MLP has SiLU."""
    said = args.get("act_layer")
    if not said or (said == "silu" and args.get("mlp_layer") == "SwiGLUPacked"):
        return None
    return known_gelu(said, asked)


def _pooled(config: Mapping[str, Any], given: Mapping[str, Any], chosen: Mapping[str, Any], is_eva: bool) -> str | None:
    """As the model was told, else as the file says beside it, else as its function or its class does it unasked."""
    said = given.get("global_pool", config.get("global_pool", chosen.get("global_pool")))
    return said if said is not None else "avg" if is_eva else "token" if chosen else None


def _rope(args: Mapping[str, Any], asked: str) -> Rope | None:
    """Rotary positions of an Eva. UsageError for another kind than we have."""
    if not args.get("use_rot_pos_emb"):
        return None
    kind, is_half = args.get("rope_type", "cat"), bool(args.get("rope_rotate_half"))
    if (kind, is_half) not in (("cat", False), ("dinov3", True)):
        found = f"its rope_type is {kind} with rope_rotate_half {str(is_half).lower()}"
        raise UsageError(asked, found, "it would be another function: it cannot be converted")
    base = args.get("rope_temperature")
    if kind == "dinov3":
        return Rope(kind="dinov3", base=base)
    return Rope(kind="eva02", base=base, grid=square(args.get("ref_feat_shape"), "ref_feat_shape", asked))


def _labels(config: Mapping[str, Any], cfg: Mapping[str, Any], asked: str) -> tuple[tuple[str, ...], int]:
    listed = config.get("label_names") or cfg.get("label_names") or cfg.get("labels") or ()
    if isinstance(listed, list) and listed:
        return tuple(map(str, listed)), 0
    return ordered_names(config, "config.json", asked) if "id2label" in config else ((), 0)


def _sizes(config: Mapping[str, Any], args: Mapping[str, Any], asked: str) -> dict[str, int]:
    said = {"classes": config.get("num_classes"), "layers": args.get("depth"), "width": args.get("embed_dim")}
    said["patch_px"] = square(args.get("patch_size"), "patch_size", asked)
    return {name: size for name, size in said.items() if type(size) is int}


def _preparation(cfg: Mapping[str, Any], image_px: int) -> Prepared:
    """timm.data.transforms_factory.transforms_imagenet_eval, for what a config says; a note where it cannot be had."""
    interpolation, mode = cfg.get("interpolation") or "bicubic", cfg.get("crop_mode") or "center"
    crop_pct = cfg.get("crop_pct") or _CROP_PCT
    if interpolation not in get_args(Interpolation) or mode == "border" or not 0 < crop_pct <= 1:
        said = f"crop_mode {mode}, interpolation {interpolation}, crop_pct {crop_pct:g}"
        return None, f"its images are prepared by {said}, which is not done here: they are squashed"
    before = math.floor(image_px / crop_pct)
    fit: Fit = "resmall_crop" if mode != "squash" else "squash" if before == image_px else "resize_crop"
    side = None if fit == "squash" else before
    kept = cast(Interpolation, interpolation)
    return Preparation(fit=fit, resize_px=side, interpolation=kept, centre="even" if side else "down"), ""
