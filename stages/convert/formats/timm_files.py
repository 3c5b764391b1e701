"""timm's `config.json` as somebody else wrote it: which of its fields decide the model, and what they say. No torch."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, cast, get_args

from vitpipe.stages.convert.formats.described import (
    Described,
    Prepared,
    known_gelu,
    ordered_names,
    square,
    triple,
)
from vitpipe.stages.convert.formats.fields import Fields
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
}  # fmt: skip
_VIT_IDLE = {
    # shown by the tensors, or refused by them
    "in_chans", "num_classes", "mlp_ratio", "class_token", "fc_norm",
    # of training, of the first values, of how it is computed
    "dynamic_img_size", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate",
    "drop_path_rate", "weight_init", "fix_init", "device", "dtype",
}  # fmt: skip
_VIT_ONLY = {
    "qkv_bias": (True,), "qk_norm": (False, None), "scale_attn_norm": (False,), "scale_mlp_norm": (False,),
    "proj_bias": (True,), "init_values": (None,), "no_embed_class": (False,), "reg_tokens": (0, None),
    "pre_norm": (False,), "final_norm": (True,), "pool_include_prefix": (False,), "dynamic_img_pad": (False,),
    "embed_layer": (None,), "embed_norm_layer": (None,), "norm_layer": (None,), "block_fn": (None,),
    "mlp_layer": (None,), "attn_layer": (None, "", "eager"), "strict_img_size": (True,), "use_naflex": (False, None),
}  # fmt: skip
_RESNET_READ = {"global_pool"}
_RESNET_IDLE = {"layers", "channels", "num_classes", "in_chans", "width_factor", "drop_rate", "drop_path_rate",
                "zero_init_last", "device", "dtype", "stem_chs"}  # fmt: skip
_RESNET_ONLY = {
    "output_stride": (32,), "stem_type": ("fixed",), "avg_down": (False,), "preact": (True,), "basic": (False,),
    "bottle_ratio": (0.25,), "act_layer": (None,), "norm_layer": (None,), "conv_layer": (None,),
}  # fmt: skip
_TANH = {
    "vit_base_patch32_siglip_256", "vit_base_patch32_siglip_gap_256", "vit_large_patch16_siglip_512",
    "vit_large_patch16_siglip_gap_512", "vit_so400m_patch16_siglip_256", "vit_so400m_patch16_siglip_384",
    "vit_so400m_patch16_siglip_512", "vit_so400m_patch16_siglip_gap_256", "vit_so400m_patch16_siglip_gap_384",
    "vit_so400m_patch16_siglip_gap_512", "vit_giantopt_patch16_siglip_256", "vit_giantopt_patch16_siglip_384",
    "vit_giantopt_patch16_siglip_gap_256", "vit_giantopt_patch16_siglip_gap_384",
}  # fmt: skip
"""Architectures whose function chooses the tanh GELU, which no tensor shows."""
CONFIG = Fields("config.json", _TOP_READ, _TOP_IDLE)
PRETRAINED = Fields("pretrained_cfg", _CFG_READ, _CFG_IDLE, {"label_offset": (None, 0)})
TRANSFORMER = Fields("model_args", _VIT_READ, _VIT_IDLE, _VIT_ONLY)
RESNET = Fields("model_args", _RESNET_READ, _RESNET_IDLE, _RESNET_ONLY)


def describe(content: Mapping[str, Any], asked: str) -> Described | None:
    """Facts from `config.json`, where it is timm's. UsageError for a function that we do not have."""
    config = content.get("config.json", {})
    if "architecture" not in config and "pretrained_cfg" not in config:
        return None
    is_flat = "pretrained_cfg" not in config  # as its first years wrote it: one level, all in one
    args, cfg = config.get("model_args") or {}, config if is_flat else config["pretrained_cfg"]
    is_resnet = str(config.get("architecture", "")).startswith("resnetv2")
    arguments = RESNET if is_resnet else TRANSFORMER
    arguments.refuse_unknown(args, asked)
    notes = (*PRETRAINED.check(cfg, asked), *arguments.check(args, asked))
    notes = (*(() if is_flat else CONFIG.check(config, asked)), *notes)
    side = square(args.get("img_size"), "img_size", asked) or square(cfg.get("input_size", [])[1:], "input_size", asked)
    labels, first = _labels(config, cfg, asked)
    return Described(
        heads=args.get("num_heads"),
        gelu=None if is_resnet else _gelu(config, args, asked),
        image_px=side,
        mean=triple(cfg.get("mean") or _IMAGENET[0]),
        std=triple(cfg.get("std") or _IMAGENET[1]),
        preparation=partial(_preparation, cfg),
        labels=labels,
        first=first,
        sigmoid="probabilities: sigmoid" in (cfg.get("notes") or ()),
        pooled=args.get("global_pool", config.get("global_pool")),
        position="none" if args.get("pos_embed", "learn") in ("", "none") else None,
        sizes=_sizes({"num_classes": cfg.get("num_classes"), **config}, args, asked),
        notes=notes,
    )


def _gelu(config: Mapping[str, Any], args: Mapping[str, Any], asked: str) -> Literal["tanh", "erf"] | None:
    """What `model_args` say, else what the architecture's function chooses, which shows in its name alone."""
    architecture = str(config.get("architecture", "")).partition(".")[0]
    chosen = "quick_gelu" if "quickgelu" in architecture else "gelu_tanh" if architecture in _TANH else None
    said = args.get("act_layer") or chosen
    return known_gelu(said, asked) if said else None


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
