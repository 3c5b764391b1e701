"""torchvision's format: the state dict of its functions' VisionTransformer.

Its users normalise images by ImageNet's mean and deviation, ours map them to [-1, 1]: the patch projection there
holds the difference, and holds it rounded, so that it alone does not come back bit by bit.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitpipe.stages.convert.formats import common
from vitpipe.stages.convert.formats.fields import Fields
from vitpipe.stages.convert.formats.landmarks import Landmarks
from vitpipe.stages.convert.links import PATCHES, Link, position_link, same, weight_and_bias
from vitpipe.stages.convert.numbers import Array, Arrays
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import Sizes, find_variant

FUNCTIONS: Mapping[Sizes | None, str] = {
    find_variant("B/16").sizes: "vit_b_16",
    find_variant("B/32").sizes: "vit_b_32",
    find_variant("L/16").sizes: "vit_l_16",
    find_variant("L/32").sizes: "vit_l_32",
    find_variant("H/14").sizes: "vit_h_14",
}
"""torchvision's functions by the encoder they build."""
_EPS = 1e-6  # torchvision.models.VisionTransformer
_SHOWN = {"image_size", "patch_size", "num_layers", "hidden_dim", "mlp_dim", "num_classes", "representation_size",
          "conv_stem_configs"}  # fmt: skip
_ASKED = {"num_heads", "norm_layer"}
_TRAINED = {"dropout", "attention_dropout"}
MODEL = Fields("VisionTransformer", _SHOWN | _ASKED, _TRAINED)
"""Its arguments: tensors show most, the recipe says the others (`heads`, `norm_eps`); no file stands beside them."""
IMAGES = Fields("ImageClassification", {"mean", "std"}, {"crop_size", "resize_size", "interpolation", "antialias"})
"""The preset's: a bare file says none, its constants are the library's; sizes are fields of finetune and evaluate."""
_LANDMARKS = Landmarks(
    patch="conv_proj.weight",
    patch_axes=(0, 2),
    token="class_token",
    positions="encoder.pos_embedding",
    block="encoder.layers.encoder_layer_{}.",
    hidden="mlp.0.bias",
    head="heads.head.bias",
    representation="heads.pre_logits.bias",
)
_BLOCK = {
    "norm1": "ln_1",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}


def torchvision_links(settings: ModelSettings) -> list[Link]:
    """All tensors of a plain ViT with a class token."""
    folded = Link(PATCHES, ("conv_proj.weight", "conv_proj.bias"), fold, unfold, exact=False)
    return [folded if link.native == PATCHES[:1] else link for link in _plain(settings) if link.native != PATCHES[1:]]


def _plain(settings: ModelSettings) -> list[Link]:
    """The same with the patch projection as it stands: how a foreign file's images are normalised is known, and folded
    in by `stages.convert.foreign.to_native`."""
    links = [
        same("cls_token", "class_token"),
        position_link(settings, "encoder.pos_embedding"),
        *weight_and_bias("patch_embed.proj", "conv_proj"),
    ]
    for layer in range(settings.sizes.layers):
        ours, theirs = f"blocks.{layer}", f"encoder.layers.encoder_layer_{layer}"
        for part in ("weight", "bias"):
            links.append(same(f"{ours}.attn.qkv.{part}", f"{theirs}.self_attention.in_proj_{part}"))
        for native, foreign in _BLOCK.items():
            links += weight_and_bias(f"{ours}.{native}", f"{theirs}.{foreign}")
    links += weight_and_bias("norm", "encoder.ln")
    if settings.representation != "none":
        links += weight_and_bias("pre_logits", "heads.pre_logits")
    return [*links, *weight_and_bias("head", "heads.head")]


def fold(weight_D3PP: Array, bias_D: Array) -> tuple[Array, Array]:
    """A projection of images in [-1, 1] as one of normalised images t: of x = 2 (t std + mean) - 1."""
    scale_311, shift_3 = _affine()
    weight = weight_D3PP.astype(np.float64)
    return _rounded(weight * scale_311, bias_D + weight.sum((2, 3)) @ shift_3)


def unfold(weight_D3PP: Array, bias_D: Array, pixels: common.Pixels = common.IMAGENET) -> tuple[Array, Array]:
    """The way back, of images normalised by any mean and deviation."""
    scale_311, shift_3 = _affine(pixels)
    weight = weight_D3PP.astype(np.float64) / scale_311
    return _rounded(weight, bias_D - weight.sum((2, 3)) @ shift_3)


def _affine(pixels: common.Pixels = common.IMAGENET) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return 2 * np.array(pixels.std)[:, None, None], 2 * np.array(pixels.mean) - 1


def _rounded(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[Array, Array]:
    return weight.astype(np.float32), bias.astype(np.float32)


def _limits(settings: ModelSettings) -> list[str]:
    if settings.family != "vit":
        return [common.only_plain(settings, "VisionTransformer")]
    found = [*common.relative_positions(settings), *common.other_pooling(settings), *common.headless(settings)]
    found += [*common.other_epsilon(settings, _EPS), *common.later_parts(settings)]
    if settings.sizes not in FUNCTIONS:
        found.append(f"{common.name_of(settings)}: its functions are {', '.join(FUNCTIONS.values())}")
    if settings.gelu == "tanh":
        found.append("the tanh GELU: it computes the exact one")
    if settings.image_px % settings.sizes.patch_px:
        found.append(f"images of {settings.image_px} px, which patches of {settings.sizes.patch_px} px do not divide")
    return found


def _header(about: common.About) -> dict[str, str]:
    settings = about.settings
    function = FUNCTIONS.get(settings.sizes, "VisionTransformer")
    args: dict[str, Any] = {"num_classes": settings.classes, "image_size": settings.image_px}
    if settings.representation != "none":
        args["representation_size"] = settings.feature_width
    call = ", ".join(f"{key}={value}" for key, value in args.items())
    said = {
        "format": "pt",
        "architecture": function,
        "load": f"torchvision.models.{function}({call}).load_state_dict(safetensors.torch.load_file(...))",
        "normalisation": "ImageNet's mean and std, folded into conv_proj: feed what torchvision's own presets give",
    }
    return about.signed(said | about.id2label() | {"probabilities": about.activation})


def _claim(arrays: Arrays, beside: Collection[str], asked: str) -> common.Named | None:
    if _LANDMARKS.patch not in arrays.shapes:
        return None
    first = {re.sub(r"\.mlp\.linear_1\.", ".mlp.0.", name): name for name in arrays.shapes}  # before 0.13
    today = {re.sub(r"\.mlp\.linear_2\.", ".mlp.3.", new): name for new, name in first.items()}
    return common.Named("torchvision", common.renamed(arrays, today))


FORMAT = common.WeightsFormat(
    name="torchvision",
    file=common.SAFETENSORS,
    contents=torchvision_links,
    limits=_limits,
    unsaid=lambda settings: None,
    header=_header,
    companions=lambda about: {},
    pixels=common.IMAGENET,
    consumer="vitpipe.stages.convert.consumers:torchvision_file",
    reading=common.Reading(
        claim=_claim,
        links=_plain,
        landmarks=_LANDMARKS,
        gelu="erf",
        norm_eps=_EPS,
        untabled=(),
        is_pixels_certain=True,
        companions=(),
        describe=lambda content, asked: None,
    ),
)
