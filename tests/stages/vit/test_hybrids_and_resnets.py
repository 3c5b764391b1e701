"""Hybrids and ResNets apart from their logits: starts, gradients, depth, memory, sizes, decay and refusals."""

import copy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from pydantic import ValidationError
from same_weights import as_timm, random_everywhere, theirs
from torch import Tensor

from vitpipe.infra.errors import UsageError
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.optim.torch_optimizer import decay_groups
from vitpipe.stages.variants import HYBRIDS, RESNETS, ResNet
from vitpipe.stages.vit.adapt import adapt_state
from vitpipe.stages.vit.build import Model, blocks_of, build_model, checkpoint_blocks
from vitpipe.stages.vit.convolutions import standardised
from vitpipe.stages.vit.hybrid import StemRoot
from vitpipe.stages.vit.init import init_weights, initial_value
from vitpipe.stages.vit.native import load_native, save_native
from vitpipe.stages.vit.positions import resize_positions
from vitpipe.stages.vit.resnet import BiTResNet
from vitpipe.stages.vit.shapes import parameter_shapes

BOTH = ["R26+S/32", "R50x1"]


def settings_of(variant: str, image_px: int = 40, **fields: object) -> ModelSettings:
    return ModelSettings.model_validate({"variant": variant, "image_px": image_px, "classes": 5, **fields})


def model_of(settings: ModelSettings) -> Model:
    model = build_model(settings)
    model.load_state_dict(random_everywhere(settings))
    return model


def images_of(settings: ModelSettings) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, 3, settings.image_px, settings.image_px), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("variant", BOTH)
def test_gradients_equal_timms(variant: str) -> None:
    """In fp64: in fp32 a rounding turns a ReLU or a maximum over, and with it whole gradients."""
    settings = settings_of(variant)
    state = {name: tensor.double() for name, tensor in random_everywhere(settings).items()}
    images = images_of(settings).double() / 127.5 - 1
    model, reference = build_model(settings).double(), theirs(settings, state)
    model.load_state_dict(state)
    for one in (model, reference):
        one(images).square().sum().backward()
    wanted = {name: one.grad for name, one in reference.named_parameters()}
    found = as_timm(settings, {name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert set(found) == set(wanted)
    for name, gradient in found.items():
        assert (gradient - wanted[name]).abs().max() <= 1e-8 * wanted[name].abs().max(), name


@pytest.mark.parametrize("variant", ["R+Ti/16", "R8+Ti/8", "R8x1"])
def test_training_compiles_without_a_break(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HYBRIDS, "R8+Ti/8", ("Ti", (1, 1), 1))
    monkeypatch.setitem(RESNETS, "R8x1", ResNet((1, 1), 1))
    settings = settings_of(variant, stochastic_depth=0.1)
    model, images = model_of(settings).train(), images_of(settings)
    torch._dynamo.reset()
    torch.manual_seed(0)
    with mock.patch("torch.compiler.is_compiling", lambda: True):  # which draws the same masks
        plain = model(images)
    torch.manual_seed(0)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(images), plain)


def test_a_graph_break_would_be_seen() -> None:
    model = model_of(settings_of("R+Ti/16"))
    blocks_of(model)[5].register_forward_pre_hook(lambda module, given: torch._dynamo.graph_break())
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(model, fullgraph=True, backend="eager")(images_of(model.settings))


@pytest.mark.parametrize("variant", BOTH)
def test_recomputing_blocks_changes_no_gradient_and_does_recompute(variant: str) -> None:
    settings = settings_of(variant, stochastic_depth=0.2)
    plain = model_of(settings)
    saving = copy.deepcopy(plain)
    checkpoint_blocks(saving)
    passes = {}
    for model in (plain, saving):
        passes[model] = 0

        def count(module: object, given: object, model: Model = model) -> None:
            passes[model] += 1

        for block in blocks_of(model):
            block.register_forward_pre_hook(count)
        torch.manual_seed(3)
        model(images_of(settings)).sum().backward()
    for mine, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)  # type: ignore[arg-type]
    assert passes[saving] == 2 * passes[plain] == 2 * len(blocks_of(plain))


def test_stochastic_depth_grows_over_a_resnets_units_and_a_hybrids_encoder() -> None:
    resnet = build_model(settings_of("R50x1", stochastic_depth=0.3))
    found = [getattr(block.drop_path, "rate", 0.0) for block in blocks_of(resnet)]
    assert found == pytest.approx([0.3 * number / 15 for number in range(16)])
    hybrid = build_model(settings_of("R26+S/32", stochastic_depth=0.3))
    rates = [getattr(getattr(block, "drop_path", None), "rate", 0.0) for block in blocks_of(hybrid)]
    assert rates == pytest.approx([0.0] * 8 + [0.3 * number / 11 for number in range(12)])


def test_bytes_are_normalised_inside_and_other_shapes_refused() -> None:
    for variant in BOTH:
        settings = settings_of(variant)
        model, images = model_of(settings).eval(), images_of(settings)
        assert torch.equal(model(images), model(images / 127.5 - 1))
        with pytest.raises(UsageError, match=r"takes \(B, 3, 40, 40\)"):
            model(images[..., :-1])


def test_a_low_precision_stays_near() -> None:
    """Kernels are standardised in fp32: the error is that of bf16, 2^-8, over some fifty layers."""
    for variant in BOTH:
        settings = settings_of(variant)
        model, images = model_of(settings).eval(), images_of(settings)
        with torch.inference_mode():
            wanted = model(images)
            with torch.autocast("cpu", torch.bfloat16):
                mixed = model(images)
            half = model.bfloat16()(images)
        assert mixed.dtype == half.dtype == torch.bfloat16
        for found in (mixed, half):
            assert (found.float() - wanted).norm() <= 0.15 * wanted.norm()


def test_standard_kernels_are_standard_and_same_padding_is_tensorflows() -> None:
    kernel = standardised(torch.randn(6, 5, 3, 3) * 0.01 + 7)
    assert kernel.mean(dim=(1, 2, 3)).abs().max() < 1e-4
    assert kernel.var(dim=(1, 2, 3), correction=0).sub(1).abs().max() < 1e-3
    root = StemRoot().eval()
    torch.nn.init.zeros_(root.conv.weight)
    for side, halved in ((8, 2), (9, 3), (13, 4), (14, 4)):
        assert root(torch.zeros(1, 3, side, side)).shape == (1, 64, halved, halved)


@pytest.mark.parametrize("variant", BOTH)
def test_initial_weights_are_the_authors(variant: str) -> None:
    settings = settings_of(variant)
    model = build_model(settings)
    init_weights(model, seed=7, head_bias=-10.0)
    values = dict(model.named_parameters())
    kernels = {name: one for name, one in values.items() if one.ndim == 4}
    for name, one in kernels.items():  # LeCun normal: variance 1 / fan-in; four standard errors of a variance
        fan_in = one[0].numel()
        assert one.var().item() * fan_in == pytest.approx(1, abs=4 * (2 / one.numel()) ** 0.5 + 0.002), name
    zero = variant == "R26+S/32"
    for name, one in values.items():
        if name.endswith("norm3.weight"):
            assert one.eq(0 if zero else 1).all(), name
        elif "norm" in name:
            assert one.eq(1 if name.endswith("weight") else 0).all(), name
    assert values["head.weight"].eq(0).all() and values["head.bias"].eq(-10).all()
    name, one = next(iter(kernels.items()))
    assert torch.equal(one, initial_value(name, tuple(one.shape), 7))
    assert not torch.equal(one, initial_value(name, tuple(one.shape), 8))


def test_a_hybrids_unit_begins_as_its_way_around() -> None:
    model = build_model(settings_of("R26+S/32"))
    init_weights(model, seed=0)
    unit = blocks_of(model)[1]
    x_BCHW = torch.rand(1, 256, 5, 5)
    assert torch.equal(unit(x_BCHW), x_BCHW)


def test_a_hybrids_positions_follow_its_feature_map() -> None:
    old, new = settings_of("R26+S/32", 64), settings_of("R26+S/32", 90, classes=3)
    assert (old.grid, new.grid) == (2, 3)
    state = random_everywhere(old)
    adapted = adapt_state(state, old, new, seed=0)
    assert torch.equal(adapted["pos_embed"], resize_positions(state["pos_embed"], 2, 3, "vit_paper"))
    model = build_model(new)
    model.load_state_dict(adapted)
    assert model(images_of(new)).abs().max() == 0  # the new head


def test_what_means_nothing_for_a_resnet_is_named() -> None:
    later = {"registers": 4, "rope": {"kind": "eva02"}, "mlp_kind": "swiglu"}
    with pytest.raises(
        ValueError,
        match="map: registers 4, mlp_kind swiglu, rope eva02 of base 10000 has no meaning for it; leave it out",
    ):
        ModelSettings.model_validate({"variant": "R50x1", "image_px": 64} | later)


def test_a_resnet_takes_images_of_any_size() -> None:
    old, new = settings_of("R50x1", 64), settings_of("R50x1", 33)
    state = random_everywhere(old)
    adapted = adapt_state(state, old, new, seed=0, new_head=False)
    assert all(torch.equal(adapted[name], state[name]) for name in state)
    with pytest.raises(UsageError, match="variant R50x1 -> R50x2"):
        adapt_state(state, old, settings_of("R50x2", 33), seed=0)


@pytest.mark.parametrize("variant", BOTH)
def test_only_kernels_decay(variant: str) -> None:
    model = build_model(settings_of(variant))
    names = {id(one): name for name, one in model.named_parameters()}
    groups = decay_groups(model, 0.1)
    decaying = {names[id(one)] for group in groups if group["weight_decay"] for one in group["params"]}
    wanted = {name for name, shape in parameter_shapes(model.settings).items() if len(shape) in (2, 4)}
    assert decaying == wanted and not any("norm" in name for name in decaying)
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_native_weights_come_back(tmp_path: Path) -> None:
    settings = settings_of("R50x1", stochastic_depth=0.1)
    state = random_everywhere(settings)
    save_native(tmp_path, state, settings)
    read, found = load_native(tmp_path)
    assert read == settings and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"variant": "R50+B16"}, r"did you mean 'R50\+B/16'\?.*known: Ti/16.*R\+Ti/16.*R200x3, or explicit sizes"),
        ({"variant": "R51x1"}, "did you mean 'R50x1'"),
        ({"variant": "R50x1", "gelu": "tanh", "dropout": 0.1}, "R50x1 is a ResNet.*dropout 0.1, gelu tanh has no mean"),
        ({"variant": "R50x1", "pool": "gap"}, "always averages.*pool gap"),
        ({"variant": "R50x1", "position": "none"}, "position none"),
        ({"variant": "R50x1", "representation": "width"}, "representation width"),
        ({"variant": "R+Ti/16", "image_px": 28}, "smaller than one patch of 8 px on its feature map of 7 px"),
    ],
)
def test_settings_without_a_meaning_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ModelSettings.model_validate({"image_px": 40, "classes": 5, **fields})


def test_what_a_name_stands_for() -> None:
    hybrid, resnet = settings_of("R50+B/16", 224), settings_of("R152x2", 224)
    assert (hybrid.family, hybrid.stem, hybrid.sizes.patch_px) == ("hybrid", (3, 4, 9), 1)
    assert (hybrid.grid, hybrid.tokens, hybrid.feature_width) == (14, 197, 768)
    assert (resnet.family, resnet.grid, resnet.tokens, resnet.feature_width) == ("resnet", 7, 49, 4096)
    assert settings_of("R+Ti/16", 224).grid == 7 and settings_of("L/16", 224).family == "vit"
    with pytest.raises(ValueError, match="R152x2 is a ResNet and has no encoder"):
        _ = resnet.sizes
    with pytest.raises(UsageError, match=r"model\.classes"):
        BiTResNet(settings_of("R50x1", classes=None))
