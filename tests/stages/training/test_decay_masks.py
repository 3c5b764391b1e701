"""Which parameters decay, and that they shrink by learning rate x decay whatever the gradient."""

import pytest
import torch
from optimizers import optimizer as settings

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.optim.torch_optimizer import build_optimizer, decay_groups
from vitpipe.stages.vit.init import init_weights
from vitpipe.stages.vit.model import ViT


def model(**fields: object) -> ViT:
    sizes = {"layers": 1, "width": 8, "mlp": 16, "heads": 2, "patch_px": 8}
    made = ViT(ModelSettings.model_validate({"variant": sizes, "image_px": 16, "classes": 3, **fields}))
    init_weights(made, 0)
    return made


def decaying(vit: ViT) -> set[str]:
    names = {id(parameter): name for name, parameter in vit.named_parameters()}
    return {names[id(one)] for group in decay_groups(vit, 0.1) if group["weight_decay"] for one in group["params"]}


def test_only_kernels_decay() -> None:
    block = {f"blocks.0.{name}.weight" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    wanted = {"patch_embed.proj.weight", "pre_logits.weight", "head.weight", *block}
    assert decaying(model(representation="width")) == wanted


@pytest.mark.parametrize("position", ["learned1d", "learned2d", "relative"])
def test_class_token_queries_and_position_tables_never_decay(position: str) -> None:
    for pool in ("cls", "map"):
        names = decaying(model(position=position, pool=pool))
        assert not [name for name in names if not name.endswith(".weight") or "norm" in name or "pos_embed" in name]


def test_no_parameter_is_left_out_or_taken_twice() -> None:
    vit = model()
    taken = [id(one) for group in decay_groups(vit, 0.1) for one in group["params"]]
    assert sorted(taken) == sorted(id(one) for one in vit.parameters())


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_decay_is_decoupled_for_adam_and_adamw_alike(kind: str) -> None:
    vit = model()
    before = {name: parameter.detach().clone() for name, parameter in vit.named_parameters()}
    optimizer = build_optimizer(vit, settings(kind=kind, peak_lr=0.5, weight_decay=0.2))
    for parameter in vit.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kernels = decaying(vit)
    for name, parameter in vit.named_parameters():
        scale = 1 - 0.5 * 0.2 if name in kernels else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * scale)
