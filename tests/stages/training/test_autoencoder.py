"""The masked autoencoder against He et al.'s formulas, written again in plain torch from models_mae.py alone."""

import math
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from vitpipe.stages.images.batch import Batch
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.config import OF_PRETRAINING_ALONE, ObjectiveSettings
from vitpipe.stages.training.objective import autoencoder
from vitpipe.stages.training.objective.autoencoder import MaskedAutoencoder, begin
from vitpipe.stages.training.objective.hidden_patches import draw, hidden
from vitpipe.stages.training.objective.losses import loss_fn
from vitpipe.stages.training.objective_costs import activation_bytes, num_trained, train_flops
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.shapes import parameter_shapes
from vitpipe.stages.vit.visible import fixed_table

PATCH, SIDE, WIDTH, HEADS = 4, 24, 16, 2  # 6 x 6 patches
INNER = {"layers": 2, "width": 8, "heads": 4}


def objective(**changes: object) -> ObjectiveSettings:
    return ObjectiveSettings.model_validate({"kind": "mae", "decoder": INNER} | changes)


def settings(**changes: object) -> ModelSettings:
    sizes = Sizes(layers=2, width=WIDTH, mlp=24, heads=HEADS, patch_px=PATCH)
    return ModelSettings.model_validate({"variant": sizes, "image_px": SIDE, "classes": 0} | changes)


def batch(count: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.zeros(count, dtype=torch.int64), torch.ones(count), torch.arange(count))


def moved(seed: int = 1, asked: ObjectiveSettings | None = None, **changes: object) -> MaskedAutoencoder:
    """A model whose biases and norms are no longer zeros and ones."""
    model = MaskedAutoencoder(settings(**changes), asked or objective())
    begin(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "pos_embed":
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def table(width: int, grid: int) -> np.ndarray:
    """get_2d_sincos_pos_embed, place by place: the column first, then the row; sines before cosines."""
    rows = [np.zeros(width)]
    for y in range(grid):
        for x in range(grid):
            halves = [
                [f(at / 10000 ** (i / (width / 4))) for f in (math.sin, math.cos) for i in range(width // 4)]
                for at in (x, y)
            ]
            rows.append(np.concatenate(halves))
    return np.stack(rows).astype(np.float32)


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def dense(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block(x: Tensor, state: dict[str, Tensor], name: str, heads: int) -> Tensor:
    y = dense(norm(x, state, f"{name}.norm1"), state, f"{name}.attn.qkv")
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in y.chunk(3, dim=-1))
    attention = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    x = x + dense((attention @ v).transpose(0, 1).flatten(1), state, f"{name}.attn.proj")
    y = dense(norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    return x + dense(y * 0.5 * (1 + torch.erf(y / math.sqrt(2))), state, f"{name}.mlp.fc2")


def published(state: dict[str, Tensor], image: Tensor, mask: Tensor, normed: bool) -> Tensor:
    """The loss of one image (3, S, S) of bytes with a mask (N,), 1 where a patch is removed: whole, then picked."""
    grid = SIDE // PATCH
    tiles = [
        image[:, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH].double()
        for y in range(grid)
        for x in range(grid)
    ]
    seen = torch.stack([(tile / 127.5 - 1).flatten() for tile in tiles])
    kernel = {"w.weight": state["patch_embed.proj.weight"].flatten(1), "w.bias": state["patch_embed.proj.bias"]}
    outer, inner = (torch.from_numpy(table(width, grid)).double() for width in (WIDTH, 8))
    x = (dense(seen, kernel, "w") + outer[1:])[mask == 0]
    x = torch.cat([state["cls_token"][0] + outer[:1], x])
    for layer in range(2):
        x = block(x, state, f"blocks.{layer}", HEADS)
    y = dense(norm(x, state, "norm"), state, "decoder_embed")
    full, turn = [], iter(y[1:])
    for removed in mask:
        full.append(state["mask_token"][0, 0] if removed else next(turn))
    y = torch.cat([y[:1], torch.stack(full)]) + inner
    for layer in range(2):
        y = block(y, state, f"decoder_blocks.{layer}", 4)
    predicted = dense(norm(y, state, "decoder_norm"), state, "decoder_pred")[1:]
    mean, std = (torch.tensor(one)[:, None, None].double() for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    target = torch.stack([((tile / 255 - mean) / std).flatten() for tile in tiles])
    if normed:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    each = (predicted - target).square().mean(-1)
    return (each * mask).sum() / mask.sum()


def both(model: MaskedAutoencoder, asked: ObjectiveSettings) -> tuple[float, float, float]:
    """Our loss, the published one, and the largest difference of a gradient, relative to its tensor's largest."""
    given = hidden(batch(), PATCH, asked.visible(36), seed=5)
    ours = loss_fn(asked)(model(given.images_BCHW, *given.hints), given.labels).mean()
    ours.backward()
    state = {name: one.detach().double().requires_grad_() for name, one in model.named_parameters()}
    mask = torch.ones(3, 36).scatter(1, given.hints[0], 0.0)
    pairs = zip(given.images_BCHW, mask, strict=True)
    theirs = torch.stack([published(state, image, one, asked.norm_pixels) for image, one in pairs]).mean()
    theirs.backward()
    apart = 0.0
    for name, parameter in model.named_parameters():
        wanted = state[name].grad
        if name == "pos_embed":
            assert wanted is None and parameter.grad is not None and not parameter.grad.any(), "it stays as it is"
        else:
            assert wanted is not None and parameter.grad is not None and wanted.any()
            apart = max(apart, float((parameter.grad - wanted).abs().max() / wanted.abs().max()))
    return ours.item(), theirs.item(), apart


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("ratio", [0.75, 0.5])
def test_loss_and_gradients_are_the_published_ones(normed: bool, ratio: float) -> None:
    asked = objective(norm_pixels=normed, mask_ratio=ratio)
    ours, theirs, apart = both(moved(asked=asked), asked)
    assert ours == pytest.approx(theirs, rel=1e-5) and apart < 1e-4


def test_a_planted_error_is_found() -> None:
    """Another image's patches asked for, a biased variance, and the decoder's places shifted by one."""
    asked, right = objective(), autoencoder.rows

    def mixed_up(x: Tensor, numbers: Tensor) -> Tensor:
        return right(x, numbers.flip(1))

    with mock.patch.object(autoencoder, "rows", mixed_up):
        ours, theirs, apart = both(moved(), asked)
    assert abs(ours / theirs - 1) > 1e-3 and apart > 1e-2
    with mock.patch.object(torch, "var_mean", partial(torch.var_mean, correction=0)):
        ours, theirs, _ = both(moved(), asked)
    assert abs(ours / theirs - 1) > 1e-3
    model = moved()
    model.decoder_table = model.decoder_table.roll(1, dims=1)
    ours, theirs, _ = both(model, asked)
    assert abs(ours / theirs - 1) > 1e-4


def test_the_tables_are_the_authors() -> None:
    assert np.abs(fixed_table(6, WIDTH, class_token=True)[0] - table(WIDTH, 6)).max() < 1e-6
    assert fixed_table(6, WIDTH, class_token=False).shape == (1, 36, WIDTH)
    model = moved()
    assert torch.equal(model.pos_embed, torch.from_numpy(fixed_table(6, WIDTH, class_token=True)))


def test_it_begins_as_the_authors_does() -> None:
    """Spreads within five deviations of so many draws; three projections are one matrix here."""
    sizes = Sizes(layers=1, width=64, mlp=256, heads=2, patch_px=PATCH)
    model = MaskedAutoencoder(settings(variant=sizes), objective())
    begin(model, seed=7)
    state = dict(model.named_parameters())
    for name, inside, out in (
        ("patch_embed.proj.weight", 3 * PATCH**2, 64), ("blocks.0.attn.qkv.weight", 64, 192),
        ("blocks.0.mlp.fc1.weight", 64, 256), ("decoder_pred.weight", 8, 48),
    ):  # fmt: skip
        bound = math.sqrt(6 / (inside + out))
        assert state[name].abs().max() <= bound
        deviation = bound / math.sqrt(3)
        assert abs(state[name].std() / deviation - 1) < 5 / math.sqrt(2 * state[name].numel())
    assert 0.01 < state["cls_token"].std() < 0.03 and state["mask_token"].any()
    assert not state["blocks.0.mlp.fc1.bias"].any() and (state["decoder_norm.weight"] == 1).all()
    assert 0 < state["patch_embed.proj.bias"].abs().max() <= 1 / math.sqrt(3 * PATCH**2)
    again = MaskedAutoencoder(model.settings, objective())
    begin(again, seed=7)
    assert all(torch.equal(one, state[name]) for name, one in again.named_parameters())


def test_three_quarters_are_hidden_and_every_patch_as_often() -> None:
    kept, gone = draw(np.arange(2000), 36, objective().visible(36), seed=7)
    assert kept.shape == (2000, 9) and gone.shape == (2000, 27)
    assert (np.sort(np.concatenate([kept, gone], axis=1), axis=1) == np.arange(36)).all()
    assert (np.diff(kept) > 0).all() and (np.diff(gone) > 0).all()
    each = np.bincount(kept.ravel(), minlength=36)
    assert np.abs(each - 500).max() < 5 * math.sqrt(2000 * 0.25 * 0.75)
    alone, _ = draw(np.array([4]), 36, 9, seed=7)
    assert np.array_equal(alone[0], kept[4]) and not np.array_equal(kept, draw(np.arange(2000), 36, 9, seed=8)[0])
    assert [objective(mask_ratio=ratio).visible(196) for ratio in (0.75, 0.9, 0.4)] == [49, 19, 117]


def test_the_encoder_never_sees_what_is_hidden() -> None:
    model, given = moved(), hidden(batch(), PATCH, 9, seed=5)
    answer = model(given.images_BCHW, *given.hints)
    changed = given.images_BCHW.clone()
    for image, gone in zip(changed, given.hints[1], strict=True):
        for number in gone.tolist():
            top, left = number // 6 * PATCH, number % 6 * PATCH
            image[:, top : top + PATCH, left : left + PATCH] ^= 255
    assert torch.equal(model(changed, *given.hints), answer)
    top, left = (int(given.hints[0][0, 0]) // 6 * PATCH, int(given.hints[0][0, 0]) % 6 * PATCH)
    changed[0, :, top : top + PATCH, left : left + PATCH] ^= 255
    assert not torch.equal(model(changed, *given.hints)[0], answer[0])


@pytest.mark.parametrize("changes", [{}, {"pool": "gap"}, {"position": "sincos2d"}])
def test_every_parameter_is_used_without_hints_and_the_encoder_keeps_its_names(changes: dict[str, str]) -> None:
    """A padding pass meets the collectives of every other one; blocks of the decoder can be recomputed too."""
    model = moved(**changes).train()
    model.checkpoint_blocks = True
    model(batch().images_BCHW).sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None] == []
    shapes = {name: tuple(one.shape) for name, one in model.named_parameters()}
    plain = {name: shape for name, shape in shapes.items() if not name.startswith(OF_PRETRAINING_ALONE)}
    assert plain == parameter_shapes(model.settings) and len(plain) < len(shapes)


def test_no_device_is_asked_and_no_shape_depends_on_data() -> None:
    """On torch's meta device there are no numbers to read: a pass, its loss and its gradients need none."""
    model, given = moved().to("meta"), hidden(batch(), PATCH, 9, seed=5)
    outputs = model(given.images_BCHW.to("meta"), *(hint.to("meta") for hint in given.hints))
    loss_fn(objective())(outputs, given.labels.to("meta")).sum().backward()
    assert outputs.shape == (3, 27, 48) and all(one.grad is not None for one in model.parameters())


def test_recomputed_blocks_give_the_same_gradients() -> None:
    found = []
    for recompute in (False, True):
        model, given = moved().train(), hidden(batch(), PATCH, 9, seed=5)
        model.checkpoint_blocks = recompute
        loss_fn(objective())(model(given.images_BCHW, *given.hints), given.labels).sum().backward()
        found.append([one.grad for one in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_what_is_counted_is_what_is_computed() -> None:
    """Parameters exactly; multiply-adds of every matrix product of a real pass, seen by torch's own counter."""
    # an import of a second, and only this needs it
    from torch.utils.flop_counter import FlopCounterMode

    for changes in ({}, {"pool": "gap"}):
        model, given = moved(**changes).eval(), hidden(batch(1), PATCH, 9, seed=5)
        assert num_trained(objective(), model.settings) == sum(one.numel() for one in model.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(given.images_BCHW, *given.hints)
        assert train_flops(objective(), model.settings) == 3 * counter.get_total_flops()


def test_the_saving_is_the_papers() -> None:
    """Table 1c: an L/16 whose encoder sees mask tokens too takes 3.3 times the operations."""
    large = ModelSettings.model_validate({"variant": "L/16", "image_px": 224, "classes": 0})
    asked = ObjectiveSettings(kind="mae")
    everything = ObjectiveSettings(kind="mae", mask_ratio=1e-9)
    assert everything.visible(196) == 195
    ratio = train_flops(everything, large) / train_flops(asked, large)
    assert ratio == pytest.approx(3.3, rel=0.03)
    assert activation_bytes(everything, large, False) > 2.5 * activation_bytes(asked, large, False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "softmax", "mask_ratio": 0.5}, "mask_ratio belongs to mae, the kind is softmax"),
        ({"kind": "masked_patch", "norm_pixels": False}, "norm_pixels belongs to mae"),
        ({"kind": "sigmoid", "decoder": {"layers": 1}}, "decoder belongs to mae"),
        ({"kind": "mae", "target": "l2"}, "target l2 belongs to masked_patch"),
        ({"kind": "mae", "label_smoothing": 0.1}, "mae has no labels"),
        ({"kind": "mae", "head_bias": 0.0}, "mae has no labels and no head"),
        ({"kind": "mae", "mask_ratio": 0}, "greater than 0"),
        ({"kind": "mae", "mask_ratio": 1}, "less than 1"),
        ({"kind": "mae", "decoder": {"width": 100}}, r"decoder.width 100 is not a multiple of decoder.heads 16: 100"),
        ({"kind": "mae", "decoder": {"width": 6, "heads": 3}}, "not a multiple of 4"),
        ({"kind": "mae", "decoder": {"depth": 8}}, "depth"),
    ],
)
def test_objectives_that_mean_nothing_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveSettings.model_validate(fields)


def test_a_recipe_in_a_record_is_read_again() -> None:
    """Records state defaults too, those of other kinds among them."""
    for kind in ("softmax", "masked_patch", "mae"):
        made = ObjectiveSettings.model_validate({"kind": kind})
        assert ObjectiveSettings.model_validate(made.model_dump(mode="json")) == made
