"""The encoder against timm's, and what the paper says of it: dropout's sites, VALID patches, heads, compile."""

import copy
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from timm.layers import drop_path
from tiny_vit import KINDS, TINY, random_images, random_model, random_state, tiny
from torch import nn

from vitpipe.infra.errors import UsageError
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.depth import StochasticDepth
from vitpipe.stages.vit.model import ViT


@pytest.mark.parametrize(("variant", "gelu"), [("Ti/16", "erf"), ("Ti/16", "tanh"), ("S/32", "erf"), ("B/16", "tanh")])
def test_logits_equal_timm(variant: str, gelu: str) -> None:
    settings = ModelSettings(variant=variant, image_px=64, classes=7, gelu=gelu)
    names = {"Ti/16": "vit_tiny_patch16_224", "S/32": "vit_small_patch32_224", "B/16": "vit_base_patch16_224"}
    act = {"act_layer": "gelu_tanh"} if gelu == "tanh" else {}
    theirs = timm.create_model(names[variant], img_size=64, num_classes=7, **act).eval()
    ours = random_model(settings).eval()
    other = ViT(settings.model_copy(update={"gelu": "erf" if gelu == "tanh" else "tanh"})).eval()
    for model in (theirs, other):
        model.load_state_dict(ours.state_dict())
    images = random_images(settings)
    with torch.inference_mode():
        wanted = theirs(images / 127.5 - 1)
        assert (ours(images) - wanted).abs().max() <= 1e-4 < (other(images) - wanted).abs().max()


def test_gradients_equal_timm() -> None:
    settings = ModelSettings(variant="Ti/16", image_px=32, classes=7)
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=7)
    ours = random_model(settings)
    theirs.load_state_dict(ours.state_dict())
    images = random_images(settings)
    ours(images).square().sum().backward()
    theirs(images / 127.5 - 1).square().sum().backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None and other.grad is not None
        scale = other.grad.abs().max()
        torch.testing.assert_close(mine.grad, other.grad, atol=float(1e-4 * scale), rtol=0, msg=name)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_every_kind_trains_and_compiles_without_a_break(kind: dict[str, Any]) -> None:
    settings = tiny(**kind, dropout=0.1, stochastic_depth=0.1)
    model, images = random_model(settings), random_images(settings)
    model(images).sum().backward()
    assert all(one.grad is not None for one in model.parameters())
    model.eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), model(images))
    assert model.features(images).shape == (3, settings.feature_width)


def test_training_compiles_through_autograd() -> None:
    model, images = random_model(tiny(dropout=0.1, stochastic_depth=0.1)), random_images(tiny())
    torch._dynamo.reset()
    torch.compile(model, fullgraph=True, backend="aot_eager")(images).sum().backward()
    assert all(one.grad is not None for one in model.parameters())


def test_bytes_are_normalised_inside() -> None:
    model, images = random_model(tiny()).eval(), random_images(tiny())
    assert torch.equal(model(images), model(images / 127.5 - 1))
    half = copy.deepcopy(model).bfloat16()
    torch.testing.assert_close(half(images).float(), model(images), atol=0.1, rtol=0.1)


def test_patches_are_a_valid_convolution() -> None:
    settings = tiny(image_px=37)
    embed = random_model(settings).patch_embed
    images = torch.randn(2, 3, 37, 37)
    wanted = nn.functional.conv2d(images, embed.proj.weight, embed.proj.bias, stride=8).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(images), wanted)
    changed = images.clone()
    changed[..., 32:] = 9.0
    assert torch.equal(embed(changed), embed(images))


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(2, 3, 40, 40\).*takes \(B, 3, 32, 32\)"):
        random_model(tiny())(torch.zeros(2, 3, 40, 40))


def test_dropout_stands_where_the_paper_puts_it() -> None:
    """Section B.1: after every dense layer except qkv, and after the positions are added."""
    model = ViT(tiny(dropout=0.3))
    found = {name for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    blocks = {f"blocks.{n}.{site}" for n in range(2) for site in ("attn.proj_drop", "mlp.drop1", "mlp.drop2")}
    assert found == {"pos_drop"} | blocks
    assert not any(isinstance(module, nn.Dropout) for module in ViT(tiny()).modules())


def test_dropout_acts_at_each_site_in_training_only() -> None:
    model, images = random_model(tiny(dropout=0.5)), random_images(tiny())
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_stochastic_depth_grows_linearly() -> None:
    sizes = TINY.model_copy(update={"layers": 5})
    rates = [getattr(block.drop_path, "rate", 0.0) for block in ViT(tiny(variant=sizes, stochastic_depth=0.2)).blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    kept = StochasticDepth(0.25)(torch.ones(20_000, 2, 3))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(kept.amin((1, 2)), kept.amax((1, 2)))
    assert kept.mean().item() == pytest.approx(1, abs=4 * (0.25 / 0.75 / 20_000) ** 0.5)  # four standard errors


@pytest.mark.parametrize("kept", ["scaled", "unscaled"])
def test_kept_branches_are_timms_drop_path_with_either_scale(kept: str) -> None:
    """`scale_by_keep`; without it, what is kept stays as it is, as in big_vision's _stoch_depth_mask."""
    torch.manual_seed(0)
    ours = StochasticDepth(0.25, kept)(torch.ones(64, 2))  # type: ignore[arg-type]
    torch.manual_seed(0)
    assert torch.equal(ours, drop_path(torch.ones(64, 2), 0.25, True, scale_by_keep=kept == "scaled"))
    assert ours.max().item() == pytest.approx(1 / 0.75 if kept == "scaled" else 1)
    for settings in (
        tiny(stochastic_depth=0.25, kept_branches=kept),
        ModelSettings(variant="R50x1", image_px=32, classes=2, stochastic_depth=0.25, kept_branches=kept),
    ):
        found = [module.scaled for module in build_model(settings).modules() if isinstance(module, StochasticDepth)]
        assert found and set(found) == {kept == "scaled"}


def test_checkpointing_blocks_changes_no_gradient() -> None:
    plain = random_model(tiny(dropout=0.2, stochastic_depth=0.2))
    saving = copy.deepcopy(plain)
    saving.checkpoint_blocks = True
    images = random_images(tiny())
    for model in (plain, saving):
        torch.manual_seed(3)
        model(images).sum().backward()
    for mine, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)  # type: ignore[arg-type]


def test_relative_positions_depend_on_the_offset_alone() -> None:
    """Without absolute positions a class-token-less encoder sees a set; offsets make it see an order."""
    images = torch.randn(1, 3, 32, 32)
    swapped = torch.cat([images[..., 8:16], images[..., :8], images[..., 16:]], dim=3)
    for position, same in (("none", True), ("relative", False)):
        model = random_model(tiny(position=position, pool="gap")).eval()
        assert torch.allclose(model(images), model(swapped), atol=1e-5) is same


def test_features_are_what_the_head_sees() -> None:
    model, images = random_model(tiny(representation=7)), random_images(tiny())
    features = model.features(images)
    assert features.shape == (3, 7) and features.abs().max() <= 1
    assert torch.equal(model.head(features), model(images))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"variant": "L/15"}, "unknown variant 'L/15'; did you mean 'L/16'[?] [(]known: Ti/16"),
        ({"variant": {**TINY.model_dump(), "heads": 5}}, "32 = 6 x 5 [+] 2"),
        ({"image_px": 7}, "smaller than one patch"),
        ({"variant": {**TINY.model_dump(), "width": 30, "heads": 2}, "position": "sincos2d"}, "multiple of 4"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ViT(tiny(**changes))


def test_a_model_needs_its_number_of_classes() -> None:
    with pytest.raises(UsageError, match=r"model\.classes"):
        ViT(tiny(classes=None))


def test_names_are_timms() -> None:
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5).state_dict()
    mine = random_state(ModelSettings(variant="Ti/16", image_px=32, classes=5))
    assert {name: tensor.shape for name, tensor in mine.items()} == {name: t.shape for name, t in theirs.items()}
