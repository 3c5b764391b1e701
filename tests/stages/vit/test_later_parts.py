"""Parts that a plain ViT does not have: what they compute, what they cost, and that a plain one has nothing of them."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from timm.layers import apply_rot_embed_cat, create_rope_embed
from tiny_vit import random_images, random_state, tiny
from torch.utils.flop_counter import FlopCounterMode

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.fingerprint import canonical
from vitpipe.stages.model_settings import LATER_PARTS, ModelSettings, Rope, other_function
from vitpipe.stages.vit.adapt import adapt_state
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.flops import activation_bytes, forward_macs
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.inspect import attention_distance, rollout
from vitpipe.stages.vit.rope import rope_table, turned
from vitpipe.stages.vit.settings_file import read_settings, settings_json

EVERY = tiny(registers=3, layer_scale=0.1, no_embed_class=True, qk_norm=True, mlp_kind="swiglu", mlp_norm=True,
             pre_norm=True, pool_norm=True, rope={"kind": "dinov3"})  # fmt: skip


def test_a_plain_model_is_said_as_ever_and_has_no_module_of_theirs() -> None:
    plain = tiny()
    assert plain.model_dump().keys().isdisjoint(LATER_PARTS) and json.loads(settings_json(plain))["schema"] == 1
    assert json.loads(settings_json(EVERY))["schema"] == 2
    kinds = {type(module).__name__ for module in build_model(plain).modules()}
    assert not kinds & {"LayerScale", "GatedMlp", "QuickGelu"}
    assert [name for name, _ in build_model(plain).named_buffers()] == []


def test_a_fingerprint_knows_each_part_that_is_there_and_none_that_is_not() -> None:
    assert canonical(tiny(registers=0, rope=None, mlp_kind="gelu")) == canonical(tiny())
    known = canonical(EVERY)
    assert known["registers"] == 3 and known["rope"] == {"kind": "dinov3"} and known["mlp_kind"] == "swiglu"


def test_settings_with_all_of_them_come_back(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(settings_json(EVERY))
    assert read_settings(tmp_path / "model.json") == EVERY
    assert ModelSettings.model_validate(EVERY.model_dump(mode="json")) == EVERY


@pytest.mark.parametrize(("rope", "timms"), [
    (Rope(kind="eva02"), {"rope_type": "cat", "in_pixels": False}),
    (Rope(kind="eva02", base=500, grid=16), {"rope_type": "cat", "in_pixels": False, "ref_feat_shape": (16, 16),
                                             "temperature": 500.0}),
    (Rope(kind="dinov3"), {"rope_type": "dinov3", "temperature": 100.0, "rotate_half": True}),
    (Rope(kind="dinov3", base=30), {"rope_type": "dinov3", "temperature": 30.0, "rotate_half": True}),
])  # fmt: skip
def test_places_are_turned_as_timm_turns_them(rope: Rope, timms: dict[str, object]) -> None:
    theirs = create_rope_embed(dim=64, num_heads=4, feat_shape=(5, 5), **timms).get_embed()
    x_BHTE = torch.randn(2, 4, 27, 16, generator=torch.Generator().manual_seed(0))
    wanted = apply_rot_embed_cat(x_BHTE[:, :, 2:], theirs, half=rope.kind == "dinov3")
    found = turned(x_BHTE, rope_table(rope, 5, 16), rope.kind)
    assert torch.equal(found[:, :, :2], x_BHTE[:, :, :2])
    torch.testing.assert_close(found[:, :, 2:], wanted, atol=2e-6, rtol=0)


def test_a_scale_starts_at_its_value_and_all_of_it_learns() -> None:
    model = build_model(EVERY)
    init_weights(model, seed=1)
    assert all((model.get_parameter(f"blocks.1.ls{one}.gamma") == 0.1).all() for one in (1, 2))
    model.load_state_dict(random_state(EVERY))
    model(random_images(EVERY)).square().sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mlp_kind": "swiglu"},
        {"registers": 5, "pool": "gap", "class_token": True},
        {"registers": 5, "pool": "map", "class_token": True},
    ],
)
def test_multiply_adds_are_those_that_torch_counts(changes: dict[str, object]) -> None:
    settings = tiny(**changes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_model(settings).eval().requires_grad_(False)(random_images(settings, 1))
    assert 2 * forward_macs(settings) == counter.get_total_flops()
    assert activation_bytes(EVERY) > activation_bytes(tiny())


@pytest.mark.parametrize(("changes", "found"), [
    ({"rope": {"kind": "eva02"}, "variant": {"layers": 1, "width": 30, "mlp": 8, "heads": 5, "patch_px": 8}},
     "multiple of 4: 30 / 5 = 6"),
    ({"class_token": False}, "pool cls takes the class token"),
    ({"no_embed_class": True, "pool": "gap"}, "no_embed_class is of a class token"),
    ({"no_embed_class": True, "position": "none"}, "no_embed_class is of a class token beside position learned1d"),
    ({"pool_norm": True, "pool": "map"}, "a norm of its own"),
    ({"registers": 2, "position": "relative"}, "registers have no place"),
    ({"rope": {"kind": "dinov3", "grid": 16}}, "grid is of rope kind eva02"),
    ({"rope": {"kind": "dinov3", "base": 1.0}}, "greater than 1"),
    ({"registers": -1}, "greater than or equal to 0"),
    ({"variant": "R50x1", "registers": 4}, "R50x1 is a ResNet.*registers 4"),
])  # fmt: skip
def test_what_means_nothing_is_refused(changes: dict[str, object], found: str) -> None:
    with pytest.raises(ValidationError, match=found):
        tiny(**changes)


def test_another_part_would_be_another_function() -> None:
    state = random_state(EVERY)
    with pytest.raises(UsageError, match=r"registers 3 -> 4"):
        adapt_state(state, EVERY, EVERY.model_copy(update={"registers": 4}), 0)


def test_the_inside_is_looked_at_as_it_is() -> None:
    model = build_model(EVERY)
    model.load_state_dict(random_state(EVERY))
    images = random_images(EVERY)
    maps = rollout(model.eval(), images)
    assert maps.shape == (3, 4, 4) and (maps.flatten(1).sum(1) < 1).all()
    assert attention_distance(model, images).shape == (2, 4)


def test_where_a_scale_started_and_who_said_a_base_make_no_other_function() -> None:
    own = tiny(layer_scale=0.1, rope={"kind": "eva02"})
    assert other_function(own, tiny(layer_scale=1e-5, rope={"kind": "eva02", "base": 10_000})) == ""
    assert "rope eva02 of base 10000 -> eva02 of base 100" in other_function(
        own, tiny(layer_scale=0.1, rope={"kind": "eva02", "base": 100})
    )
    assert "layer_scale 0.1 -> None" in other_function(own, tiny(rope={"kind": "eva02"}))
