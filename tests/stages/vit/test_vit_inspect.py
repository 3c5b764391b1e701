"""What is seen inside a model, against values worked out by hand and against the model's own fused attention."""

import math

import pytest
import torch
from tiny_vit import KINDS, random_images, random_model, tiny
from torch import Tensor

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit import inspect
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.inspect import (
    attention_distance,
    mean_distance,
    no_attention,
    no_filters,
    no_positions,
    observed_attention,
    patch_distances,
    patch_filters,
    pitch_px,
    position_similarity,
    roll,
    rollout,
)

UNIFORM_2X2 = 8 * (0 + 1 + 1 + math.sqrt(2)) / 4
"""Mean distance in a grid of 2 x 2 patches of 8 px when each attends to all alike."""


def own_attention(model, images, kept):
    """What each layer's fused attention gave, which the projection takes, and what `observed_attention` makes of it."""

    def of_projection(layer):
        return lambda module, given: kept.setdefault(("taken", layer), given[0])

    def of_qkv(layer):
        return lambda module, given, output: kept.setdefault(("qkv", layer), output)

    handles = []
    for layer, block in enumerate(model.blocks):
        handles.append(block.attn.proj.register_forward_pre_hook(of_projection(layer)))
        handles.append(block.attn.qkv.register_forward_hook(of_qkv(layer)))
    with torch.inference_mode(), observed_attention(model, lambda layer, attn: kept.setdefault(("seen", layer), attn)):
        output = model(images)
    for handle in handles:
        handle.remove()
    return output


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_weights_seen_are_those_the_model_used(kind):
    settings = tiny(**kind)
    model, images, kept = random_model(settings).eval(), random_images(settings), {}
    with torch.inference_mode():
        alone = model(images)
    assert torch.equal(own_attention(model, images, kept), alone), "looking changes nothing"
    for layer in range(2):
        attn_BHTT, qkv = kept["seen", layer], kept["qkv", layer]
        v_BHTE = qkv.reshape(*qkv.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)[2]
        mine = (attn_BHTT @ v_BHTE).transpose(1, 2).reshape(kept["taken", layer].shape)
        torch.testing.assert_close(mine, kept["taken", layer], atol=1e-5, rtol=0)  # fp32, weights of order 1
        swapped = (attn_BHTT.roll(1, dims=-1) @ v_BHTE).transpose(1, 2).reshape(mine.shape)
        assert (swapped - kept["taken", layer]).abs().max() > 1e-3, "keys shifted by one would be caught"
    assert not any(block.attn.qkv._forward_hooks for block in model.blocks), "nothing stays behind"


def test_relative_positions_are_in_the_weights():
    settings = tiny(position="relative")
    model, images = random_model(settings).eval(), random_images(settings)
    torch.nn.init.normal_(model.blocks[0].attn.relative)
    with_bias, without = {}, {}
    with torch.inference_mode(), observed_attention(model, with_bias.setdefault):
        model(images)
    torch.nn.init.zeros_(model.blocks[0].attn.relative)
    with torch.inference_mode(), observed_attention(model, without.setdefault):
        model(images)
    assert (with_bias[0] - without[0]).abs().max() > 0.05


def patches_2x2(**changes: object) -> ModelSettings:
    return tiny(image_px=16, **changes)


@pytest.mark.parametrize("pool", ["cls", "gap", "map"])
def test_uniform_attention_has_the_mean_distance_of_all_pairs(pool):
    model = random_model(patches_2x2(pool=pool)).eval()
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
        torch.nn.init.zeros_(block.attn.qkv.bias)
    found = attention_distance(model, random_images(model.settings))
    assert found.shape == (2, 4)
    torch.testing.assert_close(found, torch.full((2, 4), UNIFORM_2X2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_distances_worked_out_by_hand():
    distances = patch_distances(2, 8)
    rows = [[0, 8, 8, 8 * math.sqrt(2)], [8, 0, 8 * math.sqrt(2), 8], [8, 8 * math.sqrt(2), 0, 8]]
    torch.testing.assert_close(distances[:3], torch.tensor(rows, dtype=torch.float64), atol=1e-12, rtol=0)
    identity = torch.eye(4).expand(1, 1, 4, 4)
    assert mean_distance(identity, distances).item() == 0, "each patch attends to itself"
    beside = torch.eye(4)[[1, 0, 3, 2]].expand(1, 1, 4, 4)
    assert mean_distance(beside, distances).item() == 8, "to its neighbour in the row"
    across = torch.eye(4)[[3, 2, 1, 0]].expand(1, 1, 4, 4)
    assert mean_distance(across, distances).item() == pytest.approx(8 * math.sqrt(2), abs=1e-12)
    assert mean_distance(torch.cat([identity, beside], dim=1), distances).tolist() == [0, 8], "head by head"
    assert mean_distance(torch.cat([identity, beside]), distances).tolist() == [4], "averaged over images"


def test_a_class_token_has_no_place():
    """Half of each query's attention goes to the class token: the other half counts as one."""
    attn = torch.zeros(1, 1, 5, 5)
    attn[..., 0], attn[0, 0, 1:, 1:] = 0.5, torch.eye(4)[[1, 0, 3, 2]] / 2
    assert mean_distance(attn, patch_distances(2, 8)).item() == 8


def test_images_are_seen_in_parts_without_a_difference(monkeypatch):
    settings = tiny(pool="map")
    model, images = random_model(settings).eval(), random_images(settings, 5)
    whole = attention_distance(model, images), rollout(model, images)
    monkeypatch.setattr(inspect, "_WEIGHTS_AT_ONCE", 2 * 4 * settings.tokens**2)
    parts = attention_distance(model, images), rollout(model, images)
    for mine, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    assert (attention_distance(model, images[:2]) - whole[0]).abs().max() > 1e-4, "each image counts"


def stochastic(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)


@pytest.mark.parametrize("residual", [True, False])
def test_rollout_rows_sum_to_one(residual):
    layers, rolled = stochastic(6, 2, 5, 5), None
    for layer in layers:
        rolled = roll(layer, rolled, residual)
    torch.testing.assert_close(rolled.sum(dim=-1), torch.ones(2, 5, dtype=torch.float64), atol=1e-12, rtol=0)


def test_rollout_worked_out_by_hand():
    first = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    second = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    plain = roll(second, roll(first, None, residual=False), residual=False)
    assert plain.tolist() == [[[0.5, 0.5], [1.0, 0.0]]]
    halved = roll(second, roll(first, None, residual=True), residual=True)
    assert halved.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    other_order = roll(first, roll(second, None, residual=False), residual=False)
    assert other_order.tolist() == [[[0.0, 1.0], [0.5, 0.5]]] != plain.tolist()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("pool", ["cls", "gap", "map"])
def test_rollout_of_a_model_is_the_product_of_its_layers(pool, registers, residual):
    settings = tiny(pool=pool, registers=registers)
    prefix = settings.prefix
    model, images, seen = random_model(settings).eval(), random_images(settings), {}
    found = rollout(model, images, residual)
    with torch.no_grad(), observed_attention(model, seen.setdefault):
        final = model.encode(model.embed(images))
    means = [seen[layer].double().mean(dim=1) for layer in range(2)]
    if residual:
        means = [(one + torch.eye(settings.tokens)) / 2 for one in means]
    product = means[1] @ means[0]
    if pool == "cls":
        wanted = product[:, 0]
    elif pool == "gap":
        wanted = product[:, prefix:].mean(dim=1)
    else:
        probe = model.attn_pool
        q, k = probe.q(probe.latent).reshape(4, 8), probe.kv(final[:, prefix:])[..., :32].reshape(3, -1, 4, 8)
        scores = torch.einsum("he,bthe->bht", q, k) / math.sqrt(8)
        wanted = (scores.softmax(dim=-1).mean(dim=1).double()[:, None] @ product[:, prefix:])[:, 0]
    torch.testing.assert_close(found, wanted[:, prefix:].reshape(3, 4, 4), atol=1e-6, rtol=0)
    total = found.sum(dim=(1, 2))
    assert ((total < 1) if prefix else (total - 1).abs() < 1e-6).all(), "what is missing went to tokens of no patch"


def test_the_pooling_decides_where_the_rollout_begins():
    model = random_model(tiny()).eval()
    by_class = rollout(model, random_images(model.settings))
    model.settings = model.settings.model_copy(update={"pool": "gap"})
    assert (rollout(model, random_images(model.settings)) - by_class).abs().max() > 1e-4


def test_filters_of_one_pattern_are_that_pattern_whatever_its_sign():
    pattern = torch.linspace(-0.5, 1, 3 * 4 * 4).reshape(3, 4, 4)
    weight = torch.linspace(-2, 3, 40)[:, None, None, None] * pattern
    tiles, share = patch_filters(weight)
    assert tiles.shape == (28, 4, 4, 3) and share[0].item() == pytest.approx(1)
    torch.testing.assert_close(tiles[0], pattern.permute(1, 2, 0).double(), atol=1e-5, rtol=0)
    turned, _ = patch_filters(-weight)
    torch.testing.assert_close(turned[0], tiles[0], atol=1e-9, rtol=0)


def test_filters_are_the_principal_components():
    weight = torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    tiles, share = patch_filters(weight)
    assert len(tiles) == 12 and tiles.abs().amax(dim=(1, 2, 3)).tolist() == [1.0] * 12, "fewer than 28: all there are"
    flat = weight.flatten(1).double()
    centred = flat - flat.mean(dim=0)
    components = tiles.permute(0, 3, 1, 2).flatten(1)
    components = components / components.norm(dim=1, keepdim=True)
    variance = (centred @ components.T).square().sum(dim=0) / centred.square().sum()
    torch.testing.assert_close(variance[:11], share[:11], atol=1e-9, rtol=0)
    assert torch.equal(tiles, patch_filters(weight.clone())[0])


def test_position_similarity_leaves_the_class_token_out():
    table = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [-1.0, 0.0]]])
    similar = position_similarity(table, 2)
    assert similar.tolist() == [
        [[1, 0], [1, -1]], [[0, 1], [0, 0]], [[1, 0], [1, -1]], [[-1, 0], [-1, 1]],
    ]  # fmt: skip


def test_what_has_no_meaning_is_said():
    plain = tiny()
    assert (no_attention(plain), no_positions(plain), no_filters(plain)) == (None, None, None)
    assert "offsets" in (no_positions(tiny(position="relative")) or "")
    assert "no position" in (no_positions(tiny(position="none")) or "")
    assert "single patch" in (no_attention(tiny(image_px=8)) or "")


def test_a_hybrid_shows_attention_but_no_colour_filters():
    hybrid = ModelSettings(variant="R26+S/32", image_px=64, classes=2)
    assert no_attention(hybrid) is None and "features" in (no_filters(hybrid) or "") and pitch_px(hybrid) == 32
    model = random_model(hybrid).eval()
    assert attention_distance(model, random_images(hybrid, 1)).shape == (12, 6)


def test_a_resnet_has_nothing_to_show():
    settings = ModelSettings(variant="R50x1", image_px=32, classes=2)
    assert all("ResNet" in (why(settings) or "") for why in (no_attention, no_positions, no_filters))
    with torch.device("meta"):
        model = build_model(settings)
    with pytest.raises(ValueError, match="a ResNet has no attention"):
        rollout(model, torch.zeros(1, 3, 32, 32))
