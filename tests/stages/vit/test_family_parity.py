"""Every variant against timm: the same random weights in every parameter, norms too, and each known mistake caught.

The second image is a hundredth as bright, so that the epsilons of the norms are seen. g/14, G/14 and H/14 are compared
by names and shapes, and H/14's numbers in a single block; their sizes would only take longer.
"""

from collections.abc import Callable

import pytest
import torch
from same_weights import as_timm, ours, random_everywhere, theirs
from torch import Tensor, nn

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import VARIANTS, find_variant
from vitpipe.stages.vit import convolutions, resnet
from vitpipe.stages.vit.build import Model
from vitpipe.stages.vit.convolutions import GroupNorm, StdConv
from vitpipe.stages.vit.flops import num_parameters
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.shapes import parameter_shapes

TOLERANCE = 1e-4
"""Of logits in fp32, as a share of the largest above 1. Rounding alone is up to 6e-5 in the deepest ResNets."""
SMALL = ("Ti/16", "S/16", "S/32", "B/16", "R26+S/32", "R+Ti/16", "R50+B/16", "R50+B/32", "R50x1", "R101x1", "R152x1")
LARGE = ("L/16", "R50+L/16", "R50+L/32", "R50x2", "R152x2", "R200x3")


def settings_of(variant: str, image_px: int = 64, **fields: object) -> ModelSettings:
    return ModelSettings.model_validate({"variant": variant, "image_px": image_px, "classes": 7, **fields})


def images_of(settings: ModelSettings, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(count, 3, settings.image_px, settings.image_px, generator=generator) * 2 - 1
    return images * torch.tensor([1.0, 0.01])[:count, None, None, None]


@torch.inference_mode()
def largest_difference(model: Model, reference: nn.Module, images: Tensor) -> float:
    """Of the logits, as a share of the largest where that is above 1."""
    wanted = reference(images)
    assert wanted.isfinite().all() and wanted.std() > 0.1  # it says something
    return float((model(images) - wanted).abs().max() / max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize(
    ("variant", "count", "image_px"), [*((name, 2, 64) for name in SMALL), *((name, 1, 32) for name in LARGE)]
)
def test_logits_equal_timms(variant: str, count: int, image_px: int) -> None:
    settings = settings_of(variant, image_px, gelu="tanh" if variant in ("B/16", "L/16") else "erf")
    state = random_everywhere(settings)
    found = largest_difference(ours(settings, state), theirs(settings, state), images_of(settings, count))
    print(f"{variant}: {found:.1e}")
    assert found <= TOLERANCE


@pytest.mark.parametrize("variant", ["R26+S/32", "R50x1"])
def test_feature_maps_of_odd_sides_are_rounded_up(variant: str) -> None:
    settings = settings_of(variant, 75)
    state = random_everywhere(settings)
    assert settings.grid == 3
    assert largest_difference(ours(settings, state), theirs(settings, state), images_of(settings)) <= TOLERANCE


def test_a_block_of_the_largest_widths_equals_timms() -> None:
    """H/14 but for its depth: heads of 80, patches of 14."""
    sizes = find_variant("H/14").sizes
    assert sizes is not None
    one = settings_of("H/14", 28).model_copy(update={"variant": sizes.model_copy(update={"layers": 1})})
    state = random_everywhere(one)
    whole = theirs(settings_of("H/14", 28))
    whole.blocks = whole.blocks[:1]  # type: ignore[index]
    whole.load_state_dict(state, assign=True)
    assert largest_difference(ours(one, state), whole, images_of(one)) <= TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_shapes_and_counts_equal_timms(variant: str) -> None:
    settings = settings_of(variant, 224, classes=1000)
    wanted = {name: tuple(tensor.shape) for name, tensor in theirs(settings).state_dict().items()}
    shapes = {name: torch.empty(shape, device="meta") for name, shape in parameter_shapes(settings).items()}
    assert {name: tuple(tensor.shape) for name, tensor in as_timm(settings, shapes).items()} == wanted
    assert num_parameters(settings) == sum(torch.Size(shape).numel() for shape in wanted.values())


def test_another_epsilon_shows_in_quiet_tokens() -> None:
    settings = settings_of("Ti/16", 32)
    state = random_everywhere(settings)
    reference, tokens = theirs(settings, state), torch.randn(1, settings.tokens, 192) * 1e-3
    found = []
    for eps in (1e-6, 1e-12):
        model = ours(settings.model_copy(update={"norm_eps": eps}), state)
        assert isinstance(model, ViT)
        with torch.inference_mode():
            found.append(float((model.encode(tokens) - reference.norm(reference.blocks(tokens))).abs().max()))  # type: ignore[operator]
    assert found[0] <= TOLERANCE < found[1]


def swap_queries_and_keys(state: dict[str, Tensor]) -> None:
    query, key, value = state["blocks.0.attn.qkv.weight"].chunk(3)
    state["blocks.0.attn.qkv.weight"] = torch.cat([key, query, value])


def shift_positions(state: dict[str, Tensor]) -> None:
    state["pos_embed"] = state["pos_embed"].roll(1, dims=1)


def transpose(name: str) -> Callable[[dict[str, Tensor]], None]:
    def harm(state: dict[str, Tensor]) -> None:
        state[name] = state[name].transpose(-1, -2).contiguous()

    return harm


@pytest.mark.parametrize(
    ("variant", "harm"),
    [
        ("Ti/16", swap_queries_and_keys),
        ("Ti/16", shift_positions),
        ("Ti/16", transpose("patch_embed.proj.weight")),
        ("Ti/16", transpose("blocks.3.attn.proj.weight")),
        ("R26+S/32", shift_positions),
        ("R26+S/32", transpose("patch_embed.backbone.stages.1.blocks.0.conv2.weight")),
        ("R50x1", transpose("stem.conv.weight")),
    ],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
def test_tensors_in_another_order_are_caught(variant: str, harm: Callable[[dict[str, Tensor]], None]) -> None:
    settings = settings_of(variant)
    state = random_everywhere(settings)
    reference, harmed = theirs(settings, state), dict(state)
    harm(harmed)
    assert largest_difference(ours(settings, harmed), reference, images_of(settings)) > TOLERANCE


def symmetric_padding(model: Model, patch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, StdConv) and module.same:
            module.same, module.padding = False, (module.kernel_size[0] // 2,) * 2


def padding_as_tensorflow(model: Model, patch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, StdConv):
            module.same, module.padding = True, (0, 0)


def pooling_over_minus_infinity(model: Model, patch: pytest.MonkeyPatch) -> None:
    pad = nn.functional.pad
    patch.setattr(resnet.F, "pad", lambda x, sides: pad(x, sides, value=-torch.inf))


def flax_norm_epsilon(model: Model, patch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, GroupNorm):
            module.eps = 1e-6


def plain_kernels(model: Model, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(convolutions, "standardised", lambda kernel: kernel)


def relu_before_the_sum(model: Model, patch: pytest.MonkeyPatch) -> None:
    list(module for module in model.modules() if isinstance(module, GroupNorm))[-1].relu = True


@pytest.mark.parametrize(
    ("variant", "mistake"),
    [
        ("R26+S/32", symmetric_padding),
        ("R26+S/32", flax_norm_epsilon),
        ("R26+S/32", plain_kernels),
        ("R26+S/32", relu_before_the_sum),
        ("R50x1", padding_as_tensorflow),
        ("R50x1", pooling_over_minus_infinity),
        ("R50x1", flax_norm_epsilon),
        ("R50x1", plain_kernels),
    ],
)
def test_mistakes_in_a_convolution_are_caught(
    variant: str, mistake: Callable[[Model, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(variant)
    state = random_everywhere(settings)
    model, reference, images = ours(settings, state), theirs(settings, state), images_of(settings)
    with torch.inference_mode():
        wanted = reference(images)
    mistake(model, monkeypatch)
    with torch.inference_mode():
        assert (model(images) - wanted).abs().max() > TOLERANCE * max(1.0, float(wanted.abs().max()))
