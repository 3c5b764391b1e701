"""Our model and timm's with the very same random weights, in memory once: for tests that compare the two."""

from collections.abc import Iterator

import timm
import torch
from timm.models import resnetv2, vision_transformer_hybrid
from torch import Tensor, nn

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.build import Model, build_model
from vitpipe.stages.vit.shapes import parameter_shapes

_PERIOD = 999_983  # a prime: no two rows of any parameter are alike
_TIMM = {
    "Ti/16": "vit_tiny_patch16_224", "S/16": "vit_small_patch16_224", "S/32": "vit_small_patch32_224",
    "B/8": "vit_base_patch8_224", "B/16": "vit_base_patch16_224", "B/32": "vit_base_patch32_224",
    "L/16": "vit_large_patch16_224", "L/32": "vit_large_patch32_224", "H/14": "vit_huge_patch14_224",
    "g/14": "vit_giant_patch14_224", "G/14": "vit_gigantic_patch14_224",
    "R50+B/16": "vit_base_r50_s16_224", "R26+S/32": "vit_small_r26_s32_224", "R+Ti/16": "vit_tiny_r_s16_p8_224",
    "R50+L/32": "vit_large_r50_s32_224",
}  # fmt: skip


def random_everywhere(settings: ModelSettings, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a size that keeps activations near 1, norms and biases far from their start; fast for any size."""
    pool = torch.randn(_PERIOD, generator=torch.Generator().manual_seed(seed))
    starts = _steps()
    return {name: _one(name, shape, pool, next(starts)) for name, shape in parameter_shapes(settings).items()}


def ours(settings: ModelSettings, state: dict[str, Tensor]) -> Model:
    """Our model with these very tensors."""
    with torch.device("meta"):
        model = build_model(settings)
    model.load_state_dict(state, assign=True)
    return model.eval()


def theirs(settings: ModelSettings, state: dict[str, Tensor] | None = None) -> nn.Module:
    """timm's model of the variant, also where timm has it by its parts alone; without a state on the meta device."""
    with torch.device("meta"):
        model = _timm(settings)
    if state is not None:
        model.load_state_dict(as_timm(settings, state), assign=True)
    return model.eval()


def as_timm(settings: ModelSettings, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's ResNets have their head as a 1x1 convolution; all else is named and shaped alike."""
    if settings.resnet is None:
        return state
    head = {"head.fc.weight": state["head.weight"][:, :, None, None], "head.fc.bias": state["head.bias"]}
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")} | head


def _timm(settings: ModelSettings) -> nn.Module:
    classes, act = settings.classes, {"act_layer": "gelu_tanh"} if settings.gelu == "tanh" else {}
    if settings.resnet is not None:
        numbers = settings.resnet
        return resnetv2._create_resnetv2_bit(
            "resnetv2_50x1_bit", layers=list(numbers.blocks), width_factor=numbers.width_factor, num_classes=classes
        )
    if settings.variant in _TIMM:
        return timm.create_model(_TIMM[settings.variant], img_size=settings.image_px, num_classes=classes, **act)
    sizes = settings.sizes
    return vision_transformer_hybrid._create_vision_transformer_hybrid(
        "vit_base_r50_s16_224", vision_transformer_hybrid._resnetv2(settings.stem), img_size=settings.image_px,
        embed_dim=sizes.width, depth=sizes.layers, num_heads=sizes.heads, num_classes=classes,
    )  # fmt: skip


def _one(name: str, shape: tuple[int, ...], pool: Tensor, start: int) -> Tensor:
    count = torch.Size(shape).numel()
    drawn = pool.repeat(-(-(start + count) // _PERIOD))[start : start + count].reshape(shape)
    if len(shape) > 1 and name.endswith("weight"):
        return drawn / torch.Size(shape[1:]).numel() ** 0.5
    return drawn * 0.2 + (1.0 if name.endswith("weight") else 0.0)


def _steps() -> Iterator[int]:
    place = 0
    while True:
        yield place
        place = (place + 271_828) % _PERIOD
