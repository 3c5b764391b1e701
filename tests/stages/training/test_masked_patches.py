"""Masked patch prediction: what is corrupted and asked, against the paper's words and slow references."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vitpipe.stages.images.batch import Batch
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.config import OF_PRETRAINING_ALONE, ObjectiveSettings
from vitpipe.stages.training.objective.corruption import colours, corrupted, draw, patches
from vitpipe.stages.training.objective.losses import loss_fn
from vitpipe.stages.training.objective.masked_patches import MaskedPatchViT
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.shapes import parameter_shapes

TARGETS = ("mean_rgb_3bit", "rgb_4x4_3bit", "l2")
PATCH, SIDE = 8, 34  # 4 x 4 patches, and two pixels that belong to none


def batch(count: int = 3, start: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(start)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.zeros(count, dtype=torch.int64), torch.ones(count), torch.arange(start, start + count))


def masked_vit(target: str, pool: str = "cls") -> MaskedPatchViT:
    settings = ModelSettings.model_validate(
        {"variant": Sizes(layers=1, width=16, mlp=24, heads=2, patch_px=PATCH), "image_px": SIDE, "classes": 0,
         "pool": pool}
    )  # fmt: skip
    model = MaskedPatchViT(settings, objective(target).outputs_of_patch(PATCH))
    init_weights(model, seed=1)
    torch.manual_seed(2)
    torch.nn.init.normal_(model.predictor.weight)
    torch.nn.init.normal_(model.mask_token)
    return model


def objective(target: str) -> ObjectiveSettings:
    return ObjectiveSettings.model_validate({"kind": "masked_patch", "target": target})


def losses(model: MaskedPatchViT, asked: Batch, target: str) -> Tensor:
    return loss_fn(objective(target))(model(asked.images_BCHW, *asked.hints), asked.labels)


def test_shares_are_those_of_the_paper() -> None:
    """Half of every image exactly; of these 80, 10 and 10 %, within five standard deviations of so many draws."""
    images, num = 2000, 50
    source_BN, corrupted_BC = draw(np.arange(images), num, seed=7)
    assert corrupted_BC.shape == (images, num // 2)
    assert (np.diff(corrupted_BC) > 0).all()
    own_BC = np.take_along_axis(source_BN, corrupted_BC, axis=1)
    draws = own_BC.size
    for count, share in (
        ((own_BC == num).sum(), 0.8),
        (((own_BC != num) & (own_BC != corrupted_BC)).sum(), 0.1),
        ((own_BC == corrupted_BC).sum(), 0.1),
    ):
        assert abs(count - share * draws) < 5 * math.sqrt(draws * share * (1 - share))
    untouched = np.ones_like(source_BN, dtype=bool)
    np.put_along_axis(untouched, corrupted_BC, False, axis=1)
    assert (source_BN == np.arange(num))[untouched].all()
    each = np.bincount(corrupted_BC.ravel(), minlength=num)  # every place is as likely as any other
    assert np.abs(each - images / 2).max() < 5 * math.sqrt(images / 4)


def test_another_patch_is_any_of_the_others() -> None:
    source_BN, corrupted_BC = draw(np.arange(4000), 5, seed=0)
    own_BC = np.take_along_axis(source_BN, corrupted_BC, axis=1)
    pairs = {(int(at), int(of)) for at, of in zip(corrupted_BC.ravel(), own_BC.ravel(), strict=True) if of < 5}
    assert pairs == {(at, of) for at in range(5) for of in range(5)}


def test_draws_follow_seed_and_position_alone() -> None:
    whole, part = draw(np.arange(6), 16, seed=3), draw(np.array([4]), 16, seed=3)
    assert all(np.array_equal(one[4:5], other) for one, other in zip(whole, part, strict=True))
    assert not np.array_equal(whole[0], draw(np.arange(6), 16, seed=4)[0])
    assert not np.array_equal(whole[0][0], whole[0][1])


@pytest.mark.parametrize("target", TARGETS)
def test_targets_are_those_of_a_slow_reference(target: str) -> None:
    given = batch()
    asked = corrupted(given, PATCH, target, seed=5)  # type: ignore[arg-type]
    for image, numbers, labels in zip(
        given.images_BCHW.numpy(), asked.hints[1].numpy(), asked.labels.numpy(), strict=True
    ):
        for number, label in zip(numbers, labels, strict=True):
            top, left = number // 4 * PATCH, number % 4 * PATCH
            patch = image[:, top : top + PATCH, left : left + PATCH]
            assert label.tolist() == slow(patch, target)


def slow(patch: np.ndarray, target: str) -> list[int]:
    if target == "l2":
        return patch.ravel().tolist()
    cells = 4 if target == "rgb_4x4_3bit" else 1
    side = PATCH // cells
    found = []
    for row in range(cells):
        for column in range(cells):
            cell = patch[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
            red, green, blue = (int(channel.astype(float).mean() / 256 * 8) for channel in cell)
            found.append(64 * red + 8 * green + blue)
    return found


def test_a_mean_on_an_edge_belongs_to_the_upper_level() -> None:
    grey = torch.full((1, 1, 3, 2, 2), 32, dtype=torch.uint8)
    assert colours(grey, 1).item() == 64 + 8 + 1
    grey[..., 0, 0] = 31
    assert colours(grey, 1).item() == 0
    assert colours(torch.full((1, 1, 3, 2, 2), 255, dtype=torch.uint8), 1).item() == 511


def test_patches_are_numbered_as_the_model_embeds_them() -> None:
    model, given = masked_vit("l2"), batch()
    whole = model.patch_embed(given.images_BCHW)
    for number in range(16):
        changed = given.images_BCHW.clone()
        top, left = number // 4 * PATCH, number % 4 * PATCH
        changed[:, :, top : top + PATCH, left : left + PATCH] ^= 255
        moved = (model.patch_embed(changed) != whole).any(dim=2).all(dim=0)
        assert moved.nonzero().flatten().tolist() == [number]
        assert (patches(changed, PATCH) != patches(given.images_BCHW, PATCH)).flatten(2).any(2).all(0)[number]


@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_a_patch_is_shown_as_its_source_says(pool: str) -> None:
    """Against the plain encoder with embeddings put together by hand."""
    model, given = masked_vit("mean_rgb_3bit", pool).eval(), batch(1)
    source, told = torch.arange(16)[None].clone(), torch.tensor([[0, 2, 9]])
    source[0, 2], source[0, 9] = 16, 4
    embedded = model.patch_embed(given.images_BCHW)
    shown = embedded.clone()
    shown[0, 2], shown[0, 9] = model.mask_token[0, 0], embedded[0, 4]
    first = 1 if pool == "cls" else 0
    wanted = model.predictor(model.encode(model.place(shown))[:, first:][:, [0, 2, 9]])
    torch.testing.assert_close(model(given.images_BCHW, source, told), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("target", TARGETS)
def test_losses_are_the_mean_over_corrupted_patches(target: str) -> None:
    model, asked = masked_vit(target), corrupted(batch(), PATCH, target, seed=5)  # type: ignore[arg-type]
    outputs = model(asked.images_BCHW, *asked.hints).detach().double()
    wanted = []
    for image, labels in zip(outputs, asked.labels, strict=True):
        if target == "l2":
            each = [(one - (label / 127.5 - 1)).square().mean() for one, label in zip(image, labels, strict=True)]
        else:
            each = [
                -logits.log_softmax(0)[label]
                for one, label_M in zip(image, labels, strict=True)
                for logits, label in zip(one.split(512), label_M, strict=True)
            ]
        wanted.append(torch.stack(each).mean())
    torch.testing.assert_close(losses(model, asked, target).double(), torch.stack(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_only_corrupted_patches_are_asked(target: str) -> None:
    """The encoder's output at a patch that was left alone has no gradient; at a corrupted one it has."""
    model, asked = masked_vit(target), corrupted(batch(), PATCH, target, seed=5)  # type: ignore[arg-type]
    seen: list[Tensor] = []
    model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    loss = losses(model, asked, target).sum()
    (gradient,) = torch.autograd.grad(loss, seen[0])
    touched = gradient.abs().sum(dim=2) > 0
    wanted = torch.zeros_like(touched)
    wanted[:, 1:].scatter_(1, asked.hints[1], True)
    assert torch.equal(touched, wanted)
    everything = (asked.hints[0], torch.arange(16).expand(3, -1))  # negative control: ask all, all have one
    (gradient,) = torch.autograd.grad(model(asked.images_BCHW, *everything).sum(), seen[1])
    assert (gradient[:, 1:].abs().sum(dim=2) > 0).all()


def test_without_hints_every_parameter_is_used() -> None:
    """A padding pass meets the collectives of every other one."""
    model = masked_vit("mean_rgb_3bit")
    model(batch().images_BCHW).sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None] == []


def test_the_encoder_keeps_its_names() -> None:
    model = masked_vit("l2")
    shapes = {name: tuple(one.shape) for name, one in model.named_parameters()}
    plain = {name: shape for name, shape in shapes.items() if not name.startswith(OF_PRETRAINING_ALONE)}
    assert plain == parameter_shapes(model.settings)
    assert shapes.keys() - plain.keys() == {"mask_token", "predictor.weight", "predictor.bias"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "softmax", "target": "l2"}, "target l2 belongs to masked_patch"),
        ({"kind": "masked_patch", "label_smoothing": 0.1}, "no labels"),
        ({"kind": "masked_patch", "head_bias": 0.0}, "no head"),
        ({"kind": "masked_patch", "target": "l1"}, "mean_rgb_3bit"),
    ],
)
def test_objectives_that_mean_nothing_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveSettings.model_validate(fields)
