"""Initial weights as the authors' JAX code draws them, each parameter from (seed, its name) alone.

The values therefore do not depend on the order of modules, the device or the number of ranks.
"""

import hashlib
import math

import torch
from torch import Tensor, nn

FUSED = {"attn.qkv.weight": 3, "attn_pool.kv.weight": 2}
"""Projections stacked in one tensor but drawn one by one, each with its own fan-in and fan-out."""
SCALES = (".ls1.gamma", ".ls2.gamma")
"""Endings of parameters that start at the settings' `layer_scale`, which no name tells."""
_TRUNCATED_STD = 0.87962566103423978  # of a standard normal cut at two sigma, as jax.nn.initializers divides by


@torch.no_grad()
def init_weights(model: nn.Module, seed: int, head_bias: float = 0.0) -> None:
    """Fill all parameters of a model in place, drawn on the CPU in fp32 (as vision_transformer's models_vit.py)."""
    scale = getattr(getattr(model, "settings", None), "layer_scale", None) or 1.0
    for name, parameter in model.named_parameters():
        if name.endswith(SCALES):
            parameter.fill_(scale)
        else:
            parameter.copy_(initial_value(name, tuple(parameter.shape), seed, head_bias))


def initial_value(name: str, shape: tuple[int, ...], seed: int, head_bias: float = 0.0) -> Tensor:
    """Draw one parameter by its native name: fp32 on the CPU."""
    generator = torch.Generator().manual_seed(_key(seed, name))
    if name == "head.bias":
        return torch.full(shape, head_bias)
    if name in ("head.weight", "cls_token", "predictor.weight", "mask_token"):
        return torch.zeros(shape)
    if name.startswith("pos_embed") or name.endswith("attn.relative"):
        return torch.randn(shape, generator=generator) * 0.02
    if len(shape) == 4 or name == "pre_logits.weight":  # Flax's default for Conv and Dense: LeCun normal
        return _lecun_normal(shape, generator)
    if name == "reg_token":
        return torch.randn(shape, generator=generator) * 1e-6  # as timm's and DINOv2's
    if name.endswith(SCALES):
        return torch.ones(shape)
    if name.endswith(".bias"):
        return torch.randn(shape, generator=generator) * 1e-6 if ".mlp.fc" in name else torch.zeros(shape)
    if name.startswith("patch_embed.backbone.") and name.endswith(".norm3.weight"):
        return torch.zeros(shape)  # a unit of a hybrid's stem starts as its shortcut alone: models_resnet.py
    if "norm" in name:
        return torch.ones(shape)
    parts = next((count for ending, count in FUSED.items() if name.endswith(ending)), 1)
    rows, columns = shape[-2] // parts, shape[-1]
    return torch.cat([_xavier_uniform((*shape[:-2], rows, columns), generator) for _ in range(parts)], dim=-2)


def _xavier_uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    bound = math.sqrt(6 / (shape[-2] + shape[-1]))
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def _lecun_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    std = 1 / math.sqrt(math.prod(shape[1:])) / _TRUNCATED_STD
    return nn.init.trunc_normal_(torch.empty(shape), std=std, a=-2 * std, b=2 * std, generator=generator)


def _key(seed: int, name: str) -> int:
    """A seed of 63 bits, as many as torch generators take on every platform."""
    return int.from_bytes(hashlib.sha256(f"init/{seed}/{name}".encode()).digest()[:8], "big") >> 1
