"""The tensors of torchvision's VisionTransformer beside ours.

Its users normalise images by ImageNet's mean and deviation, ours map them to [-1, 1]: the patch projection there
holds the difference, and holds it rounded, so that it alone does not come back bit by bit.
"""

import numpy as np
from numpy.typing import NDArray

from vitpipe.stages.convert.links import Link, same, weight_and_bias
from vitpipe.stages.convert.numbers import Array
from vitpipe.stages.convert.positions_out import position_link
from vitpipe.stages.vit.config import ModelSettings

Three = tuple[float, float, float]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""torchvision.transforms._presets.ImageClassification."""
_BLOCK = {
    "norm1": "ln_1",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}


def torchvision_links(settings: ModelSettings) -> list[Link]:
    """All tensors of a plain ViT with a class token."""
    proj = ("patch_embed.proj.weight", "patch_embed.proj.bias")
    links = [
        same("cls_token", "class_token"),
        position_link(settings, "encoder.pos_embedding"),
        Link(proj, ("conv_proj.weight", "conv_proj.bias"), fold, unfold, exact=False),
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


def unfold(weight_D3PP: Array, bias_D: Array, mean: Three = MEAN, std: Three = STD) -> tuple[Array, Array]:
    """The way back, of images normalised by any mean and deviation."""
    scale_311, shift_3 = _affine(mean, std)
    weight = weight_D3PP.astype(np.float64) / scale_311
    return _rounded(weight, bias_D - weight.sum((2, 3)) @ shift_3)


def _affine(mean: Three = MEAN, std: Three = STD) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return 2 * np.array(std)[:, None, None], 2 * np.array(mean) - 1


def _rounded(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[Array, Array]:
    return weight.astype(np.float32), bias.astype(np.float32)
