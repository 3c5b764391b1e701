"""What a model costs, counted from its settings alone: operations, parameters, activations. No torch.

`train_flops_per_image` times 303M images times epochs gives the paper's exaFLOPs (Table 6), which a test checks.
"""

import math
import re
from collections.abc import Iterator

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.shapes import Shape, parameter_shapes

BLOCK_ACTIVATION_BYTES = 34
"""Bytes of one encoder block per token and unit of width, in bf16 with fused attention (Korthikanti et al. 2022)."""
CONVOLUTION_ACTIVATION_BYTES = 6
"""Bytes of one convolution with its norm and ReLU per output, in bf16: the input of each is kept."""


_UNIT = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(\w+)\.")


def forward_macs(settings: ModelSettings, tokens: int | None = None) -> int:
    """Count one image's multiply-adds: matrix products and convolutions of the forward pass alone, as in Table 6.

    With `tokens` the encoder runs on so many, though all patches are embedded.
    """
    convolutions = sum(macs for macs, _, _ in _convolutions(settings))
    encoder = 0 if settings.resnet is not None else _encoder_macs(settings, tokens or settings.tokens)
    return convolutions + encoder + _head_weights(settings)


def train_flops_per_image(settings: ModelSettings) -> int:
    """Count the FLOPs of one image's forward and backward pass: 2 a multiply-add, the backward twice the forward."""
    return 6 * forward_macs(settings)


def recomputed_flops_per_image(settings: ModelSettings, tokens: int | None = None, partitioned: bool = False) -> int:
    """Count the FLOPs of all blocks' and units' forward passes once more, as recomputing takes for one image.

    torch ends a recomputation with the last tensor that the backward pass needs: the last product of a block, or of a
    unit of a ResNet, is not made again unless dropout, stochastic depth or a layer scale stands behind it. Where
    parameters are `partitioned` (ZeRO 3), a linear layer is DeepSpeed's own, which notes what it needs only when its
    product is made (deepspeed/runtime/zero/linear.py): a block is made again to its end. `tokens` as in
    `forward_macs`.
    """
    convolutions = list(_convolutions(settings))[1:]  # the root is no unit
    macs = sum(macs for macs, _, _ in convolutions)
    if settings.resnet is not None:
        last = [macs for macs, _, ends in convolutions if ends]
        return 2 * (macs - sum(last[:1] if settings.stochastic_depth else last))
    seen, sizes = tokens or settings.tokens, settings.sizes
    bare = 1 if settings.stochastic_depth else sizes.layers  # the first block drops nothing
    if partitioned or settings.dropout or settings.layer_scale is not None:
        bare = 0
    return 2 * (macs + sizes.layers * block_macs(settings, seen) - bare * seen * sizes.width * sizes.mlp)


def num_parameters(settings: ModelSettings) -> int:
    """Count the trained parameters of the whole model, head included where `classes` is set."""
    return sum(map(math.prod, _shapes(settings).values()))


def activation_bytes(settings: ModelSettings, recompute: bool = False, tokens: int | None = None) -> int:
    """Count bytes kept for one image's backward pass, in bf16; with `recompute` each block's input and one block.

    `tokens` as in `forward_macs`.
    """
    units = _unit_outputs(settings)
    kept = CONVOLUTION_ACTIVATION_BYTES * sum(map(sum, units))
    if recompute:
        kept = 2 * sum(unit[-1] for unit in units) + CONVOLUTION_ACTIVATION_BYTES * max(map(sum, units), default=0)
    if settings.resnet is not None:
        return kept
    unit, layers = (tokens or settings.tokens) * settings.sizes.width, settings.sizes.layers
    block = BLOCK_ACTIVATION_BYTES * unit + _later_activations(settings, tokens or settings.tokens)
    if recompute:
        return kept + 2 * unit * layers + block
    return kept + block * layers


def backward_bytes(settings: ModelSettings) -> int:
    """Count bytes of the gradients that pass in one block's backward pass, of one image, in bf16; a ResNet has none.

    Those of the hidden layer before and behind its GELU, of what the MLP takes, and of the residual stream.
    """
    if settings.resnet is not None:
        return 0
    return 2 * settings.tokens * (2 * settings.sizes.mlp + 2 * settings.sizes.width)


def _later_activations(settings: ModelSettings, tokens: int) -> int:
    """Bytes that one block of later parts keeps beside a plain one's, of one image, in bf16.

    What a plain block's 34 count for a hidden layer of 4 widths (16: before and behind GELU) is, for a gated one, the
    two halves, SiLU of one, and the product.
    """
    width, mlp = settings.sizes.width, settings.sizes.mlp
    kept = 2 * tokens * width * (2 * (settings.layer_scale is not None) + 2 * settings.qk_norm)
    if settings.rope is not None:
        kept += 4 * tokens * width * 2  # queries and keys, in the table's fp32
    if settings.mlp_kind == "swiglu":
        kept += max(0, 2 * tokens * (4 * mlp - 8 * width))
    return kept + (2 * tokens * mlp if settings.mlp_norm else 0)


def _shapes(settings: ModelSettings) -> dict[str, Shape]:
    return parameter_shapes(settings.model_copy(update={"classes": settings.classes or 0}))


def _convolutions(settings: ModelSettings) -> Iterator[tuple[int, int, bool]]:
    """Multiply-adds and outputs of each convolution of one image in order, and whether it ends a unit.

    All but the patch embedding's; none for a plain ViT.
    """
    for name, shape in _shapes(settings).items() if settings.family != "vit" else ():
        if len(shape) == 4 and name != "patch_embed.proj.weight":
            out, channels, kernel, _ = shape
            unit = _UNIT.search(name)
            stage, part = (int(unit[1]), unit[3]) if unit else (-1, "conv3")  # the root halves once before its pooling
            before_stride = unit is not None and unit[2] == "0" and part == "conv1" and stage > 0
            side = -(-settings.image_px >> 2 + stage - before_stride)
            outputs = out * side**2
            yield kernel**2 * channels * outputs, outputs, part == "conv3"


def num_blocks(settings: ModelSettings) -> int:
    """Count the blocks of the encoder and the units of convolutions before it, or instead of it."""
    units = max(0, len(_unit_outputs(settings)) - 1)  # the root is none
    return units + (0 if settings.resnet is not None else settings.sizes.layers)


def _unit_outputs(settings: ModelSettings) -> list[list[int]]:
    """Outputs of each convolution, unit by unit; a root counts as one."""
    units: list[list[int]] = [[]]
    for _, outputs, ends_unit in _convolutions(settings):
        units[-1].append(outputs)
        if ends_unit:
            units.append([])
    return units[:-1]


def block_macs(settings: ModelSettings, tokens: int) -> int:
    """Count the multiply-adds of one encoder block on so many tokens.

    3DF where the MLP is gated; norms, scales and turning are no matrix products, and not counted.
    """
    width, mlp = settings.sizes.width, settings.sizes.mlp
    dense = 3 if settings.mlp_kind == "swiglu" else 2
    block = (4 * width**2 + dense * width * mlp) * tokens + 2 * tokens**2 * width
    return block + (tokens * (2 * tokens - 1) * width if settings.position == "relative" else 0)


def _encoder_macs(settings: ModelSettings, tokens: int) -> int:
    """L(4D^2 + 2DF)T + 2LT^2D + N C P^2 D: T tokens, D width, F MLP size, L layers, N patches of side P, C channels."""
    sizes = settings.sizes
    width, mlp = sizes.width, sizes.mlp
    patches = settings.grid**2 * settings.numbers.patch_channels * sizes.patch_px**2 * width
    pool = 0
    if settings.pool == "map":
        seen = tokens - settings.prefix
        pool = 2 * seen * width**2 + 2 * width**2 + 2 * seen * width + 2 * width * mlp
    return sizes.layers * block_macs(settings, tokens) + patches + pool


def _head_weights(settings: ModelSettings) -> int:
    hidden = settings.sizes.width * settings.feature_width if settings.representation != "none" else 0
    return hidden + settings.feature_width * (settings.classes or 0)
