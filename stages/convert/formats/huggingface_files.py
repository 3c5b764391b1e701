"""transformers' `config.json` and the files of its image processors as somebody else wrote them: which of their fields
decide the model, and what they say. No torch.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from vitpipe.infra.errors import UsageError
from vitpipe.stages.convert.formats.described import (
    Described,
    Prepared,
    Triple,
    known_gelu,
    ordered_names,
    square,
    triple,
)
from vitpipe.stages.convert.formats.fields import Fields
from vitpipe.stages.convert.formats.huggingface_kinds import KINDS, described_kind
from vitpipe.stages.preparation import Fit, Interpolation, Preparation

EPS = 1e-12  # transformers.ViTConfig
MODELS: Mapping[str, float] = {"vit": EPS, "vit_mae": EPS, "vit_msn": 1e-6}
"""Kinds of model whose encoder is ViT's, with the epsilon of a config that says none."""
_HALF, _CLIP = (0.5, 0.5, 0.5), ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BILINEAR, _BICUBIC = 2, 3
PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "ViT": {"size": {"height": 224, "width": 224}, "resample": _BILINEAR, "image_mean": _HALF, "image_std": _HALF},
    "DeiT": {"size": {"height": 256, "width": 256}, "resample": _BICUBIC, "image_mean": _HALF, "image_std": _HALF,
             "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
    "CLIP": {"size": {"shortest_edge": 224}, "resample": _BICUBIC, "image_mean": _CLIP[0], "image_std": _CLIP[1],
             "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "default_to_square": False},
    "Bit": {"size": {"shortest_edge": 224}, "resample": _BICUBIC, "image_mean": _CLIP[0], "image_std": _CLIP[1],
            "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "default_to_square": False},
    "Siglip": {"size": {"height": 224, "width": 224}, "resample": _BICUBIC, "image_mean": _HALF, "image_std": _HALF},
    "DINOv3ViT": {"size": {"height": 224, "width": 224}, "resample": _BILINEAR, "image_mean": _IMAGENET[0],
                  "image_std": _IMAGENET[1]},
}  # fmt: skip
"""What each kind of image processor does where its file says nothing."""
_OWN = "ViTImageProcessor"
_SAME = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
"""Likewise, of all kinds."""
_NORMALISED = ("image_mean", "image_std")
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's numbers."""
_TAKEN = 4
"""The first of them; the others transformers takes only where torchvision is not installed."""

_MODEL_READ = {
    "model_type", "image_processor_type", "id2label", "label2id", "problem_type", "hidden_size", "num_hidden_layers",
    "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps", "image_size", "patch_size",
    "pooler_act",
}  # fmt: skip
_MODEL_IDLE = {
    # shown by the tensors, or refused by them
    "num_channels", "pooler_output_size", "num_labels",
    # of training and of the first values; of the decoder of masked patches
    "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "encoder_stride",
    "decoder_num_attention_heads", "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_intermediate_size",
    "mask_ratio", "norm_pix_loss",
    # of how a library computes it, and where it is from
    "transformers_version", "architectures", "output_hidden_states", "output_attentions", "return_dict", "dtype",
    "torch_dtype", "chunk_size_feed_forward", "_name_or_path", "_commit_hash", "auto_map", "finetuning_task",
    "attn_implementation", "_attn_implementation", "gradient_checkpointing", "torchscript", "license",
}  # fmt: skip
_MODEL_ONLY: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,), "is_decoder": (False,), "add_cross_attention": (False,), "pruned_heads": ({}, None),
    "quantization_config": (None,), "qkv_bias": (True,), "head_dim": (None,), "layer_types": (None,),
}  # fmt: skip
_IMAGE_READ = {
    "image_processor_type", "feature_extractor_type", "do_resize", "size", "default_to_square", "crop_size", "resample",
    "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_center_crop",
}  # fmt: skip
_IMAGE_IDLE = {
    "do_convert_rgb", "pad_size", "input_data_format", "device", "return_tensors", "disable_grouping",
    "image_seq_length", "processor_class", "_processor_class", "_valid_processor_keys", "auto_map", "do_reduce_labels",
    "reduce_labels",
}  # fmt: skip
_IMAGE_ONLY = {
    "do_pad": (None, False), "data_format": (None, "channels_first"), "rescale_offset": (None, False),
    "crop_pct": (None,), "do_thumbnail": (None, False), "do_align_long_axis": (None, False),
    "do_flip_channel_order": (None, False), "size_divisor": (None,), "do_grayscale": (None, False),
}  # fmt: skip
MODEL = Fields("config.json", _MODEL_READ, _MODEL_IDLE, _MODEL_ONLY)
IMAGES = Fields("preprocessor_config.json", _IMAGE_READ, _IMAGE_IDLE, _IMAGE_ONLY)
PROCESSOR, NESTED = "processor_config.json", "image_processor"
"""The file that later versions write for all processors of a model, and its section for images, which goes before the
file of images alone."""
FILES = ("config.json", "preprocessor_config.json", PROCESSOR)


def describe(content: Mapping[str, Any], asked: str) -> Described | None:
    """Facts from these files, which no other format has taken for its own. UsageError for a function we do not have."""
    if not content.keys() & {*FILES}:
        return None
    config, images = content.get("config.json", {}), content.get("preprocessor_config.json")
    images = content.get(PROCESSOR, {}).get(NESTED) or images
    kind = config.get("model_type", "vit")
    if kind not in (*MODELS, *KINDS):
        found = f"its config.json says model_type {kind}, read are {', '.join((*MODELS, *KINDS))}"
        raise UsageError(asked, found, "name a model of these kinds")
    if config.get("problem_type") == "regression":
        found = "its config.json says problem_type regression: it names no classes"
        raise UsageError(asked, found, "name a classifier")
    seen = _images(images, config.get("image_processor_type"), asked) if images is not None else Described()
    labels, first = ordered_names(config, "config.json", asked)
    placeholders = all(label == f"LABEL_{number}" for number, label in enumerate(labels))
    encoder = described_kind(config, asked) if kind in KINDS else _of_vit(config, kind, asked)
    return replace(
        encoder,
        mean=seen.mean,
        std=seen.std,
        unclear=seen.unclear,
        preparation=seen.preparation,
        labels=() if placeholders else labels,
        first=first,
        sigmoid=config.get("problem_type") == "multi_label_classification",
        notes=(*encoder.notes, *seen.notes, *_contradicted(labels, first, config.get("label2id") or {})),
    )


def _of_vit(config: Mapping[str, Any], kind: str, asked: str) -> Described:
    """What the config says of a ViT's encoder."""
    pooler_act = config.get("pooler_act") or "tanh"
    return Described(
        heads=config.get("num_attention_heads"),
        gelu=known_gelu(config.get("hidden_act", "gelu"), asked) if config else None,
        norm_eps=config.get("layer_norm_eps", MODELS[kind]) if config else None,
        image_px=square(config.get("image_size"), "image_size", asked),
        sizes=_sizes(config, asked),
        representation_act=None if pooler_act == "tanh" else f"pooler_act {pooler_act}",
        notes=MODEL.check(_without_head_dim(config), asked) if config else (),
    )


def _without_head_dim(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave a `head_dim` out that says what follows from width and heads: any other is another attention."""
    width, heads = config.get("hidden_size", 768), config.get("num_attention_heads", 12)
    if "head_dim" in config and config["head_dim"] == width / heads:
        return {name: value for name, value in config.items() if name != "head_dim"}
    return config


def _sizes(config: Mapping[str, Any], asked: str) -> dict[str, int]:
    said = {"layers": "num_hidden_layers", "width": "hidden_size", "mlp": "intermediate_size"}
    sizes = {name: config.get(field) for name, field in said.items()}
    sizes["patch_px"] = square(config.get("patch_size"), "patch_size", asked)
    return {name: size for name, size in sizes.items() if type(size) is int}


def _images(file: Mapping[str, Any], models: str | None, asked: str) -> Described:
    """What becomes of an image, as the processor that the file names would have it, else the model's."""
    written = str(file.get("image_processor_type") or file.get("feature_extractor_type") or models or _OWN)
    kind = re.sub(r"(ImageProcessor(Pil|Fast)?|FeatureExtractor)$", "", written)
    if kind not in PROCESSORS:
        known = ", ".join(f"{one}ImageProcessor" for one in PROCESSORS)
        found = f"its preprocessor_config.json is of {written}, read are {known}"
        return Described(unclear=found, notes=(f"{found}: here its images are squashed",))
    notes = IMAGES.check(file, asked)
    said = {**_SAME, **PROCESSORS[kind], **file}
    mean, std, unclear = _affine(said)
    preparation = partial(_preparation, said, asked)
    return Described(mean=mean, std=std, unclear=unclear, preparation=preparation, notes=notes)


def _affine(said: Mapping[str, Any]) -> tuple[Triple | None, Triple | None, str | None]:
    """Mean and deviation, of pixels in [0, 1], that do what rescaling and normalising do to bytes: with r the factor,
    (255 r p - mean) / std. Without rescaling the file says what bytes become, or is for images that somebody else has
    scaled before: its own numbers tell, where they are those of bytes.
    """
    used = [*(["rescale_factor"] if said["do_rescale"] else []), *(_NORMALISED if said["do_normalize"] else [])]
    if nulls := [name for name in used if said[name] is None]:
        why = f"its images are prepared with {nulls[0]} null, which versions of transformers take in different ways"
        return None, None, why
    scale = 255 * float(said["rescale_factor"]) if said["do_rescale"] else 255.0
    if math.isclose(scale, 1, rel_tol=1e-6):
        scale = 1.0
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"rescale_factor {said['rescale_factor']} leaves nothing of an image")
    mean = (triple(said["image_mean"]) if said["do_normalize"] else None) or (0.0, 0.0, 0.0)
    std = (triple(said["image_std"]) if said["do_normalize"] else None) or (1.0, 1.0, 1.0)
    if not said["do_rescale"] and not (said["do_normalize"] and min(std) > 1):
        why = "its images are not divided by 255 (do_rescale false): it may be for bytes, or for images already scaled"
        return None, None, why
    if not min(std) > 0:
        raise ValueError(f"image_std {said['image_std']} cannot be divided by")
    by = cast(Triple, tuple(one / scale for one in mean)), cast(Triple, tuple(one / scale for one in std))
    return *by, None


def _preparation(said: Mapping[str, Any], asked: str, image_px: int) -> Prepared:
    """How an image gets to the model's size; a note where it is not how we can take it."""
    size = _size(said["size"], said.get("default_to_square", True), asked)
    crop = _size(said.get("crop_size"), True, asked) if said.get("do_center_crop") else None
    interpolation = FILTERS[said["resample"]] if said["resample"] in range(_TAKEN) else None
    given = f"do_resize {_word(said['do_resize'])}, size {said['size']}, resample {said['resample']}"
    given += f", crop_size {said.get('crop_size')}" if crop else ""
    final = crop[1] if crop else size[1] if size and size[0] == "square" else None
    uncropped = said.get("do_center_crop") and crop is None
    if not said["do_resize"] or size is None or final is None or interpolation is None or uncropped:
        return None, f"its images are prepared by {given}: here they are squashed"
    if final != image_px:
        return None, f"its images are prepared by {given}, its model takes {image_px} px: here they are squashed to it"
    if size[1] < final:
        return None, f"its images are prepared by {given}, with a border: here they are squashed"
    kept = cast(Interpolation, interpolation)
    if size[0] == "square" and size[1] == final:
        return Preparation(interpolation=kept), ""
    fit: Fit = "resize_crop" if size[0] == "square" else "resmall_crop"
    return Preparation(fit=fit, resize_px=size[1], interpolation=kept), ""


def _size(value: Any, is_square: bool, asked: str) -> tuple[str, int] | None:
    """`square` or `short` and a side, of the ways that a size is written in; None for others."""
    if type(value) is int:
        return ("square" if is_square else "short"), value
    if isinstance(value, Mapping):
        if set(value) == {"height", "width"}:
            side = square([value["height"], value["width"]], "size of images", asked)
            return ("square", side) if side else None
        short = value.get("shortest_edge")
        return ("short", short) if set(value) == {"shortest_edge"} and type(short) is int else None
    side = square(value, "size of images", asked)
    return ("square", side) if side else None


def _word(value: Any) -> str:
    return str(value).lower()


def _contradicted(names: tuple[str, ...], first: int, label2id: Mapping[str, Any]) -> tuple[str, ...]:
    """Where `label2id` gives a name another number, in words; of a name that stands twice it can have one."""
    numbers = {name: number for number, name in enumerate(names, first)}
    for name, number in label2id.items():
        place = int(number) - first
        if name in numbers and (place < 0 or names[place : place + 1] != (name,)):
            found = f"label2id says {name!r} is class {number}, id2label {numbers[name]}"
            return (f"config.json contradicts itself: {found}, which stands, as it does for transformers",)
    return ()
