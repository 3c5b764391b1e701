"""Layer-wise decay of the learning rate: which share each parameter has, beside timm's own, and in groups."""

import pytest
import timm
import torch
from optimizers import optimizer as settings
from timm.optim import param_groups_layer_decay

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.optim.layer_decay import layer_scales
from vitpipe.stages.training.optim.torch_optimizer import SCALE, build_optimizer, decay_groups, set_rate
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.build import build_model

SMALL = Sizes(layers=3, width=32, mlp=64, heads=2, patch_px=8)


def shares(model: torch.nn.Module, decay: float) -> dict[str, float]:
    return layer_scales([name for name, _ in model.named_parameters()], decay)


def test_shares_and_decay_are_timms_of_the_same_model_but_for_the_last_norm() -> None:
    model = build_model(ModelSettings(variant=SMALL, image_px=16, classes=3))
    theirs = timm.create_model("vit_tiny_patch16_224", depth=3, embed_dim=32, num_heads=2, patch_size=8, img_size=16,
                               num_classes=3)  # fmt: skip
    names = {id(parameter): name for name, parameter in theirs.named_parameters()}
    wanted = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(theirs, 0.05, theirs.no_weight_decay(), layer_decay=0.75)
        for parameter in group["params"]
    }
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        own[id(parameter)]: (group[SCALE], group["weight_decay"])
        for group in decay_groups(model, 0.05, layer_decay=0.75)
        for parameter in group["params"]
    }
    unlike = {name for name, (scale, _) in found.items() if scale != pytest.approx(wanted[name][0])}
    assert unlike == {"norm.weight", "norm.bias"}, "with the last block for timm, with the head for BEiT and MAE"
    assert {name: decay for name, (_, decay) in found.items()} == {name: decay for name, (_, decay) in wanted.items()}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"pool": "map", "representation": "width"}, {"attn_pool.latent": 4, "pre_logits.weight": 4, "norm.weight": 4}),
        ({"position": "learned2d"}, {"pos_embed_x": 0, "pos_embed_y": 0, "blocks.2.mlp.fc2.bias": 3}),
        ({"position": "relative"}, {"blocks.0.attn.relative": 1, "cls_token": 0}),
    ],
)
def test_every_head_and_position_has_its_layer(fields: dict[str, str], wanted: dict[str, int]) -> None:
    model = build_model(ModelSettings.model_validate({"variant": SMALL, "image_px": 16, "classes": 3} | fields))
    found = shares(model, 0.5)
    assert {name: found[name] for name in wanted} == {name: 0.5 ** (4 - layer) for name, layer in wanted.items()}
    assert found["head.weight"] == found["head.bias"] == 1.0 and found["patch_embed.proj.weight"] == 0.5**4


def test_a_hybrids_stem_is_one_layer_and_a_resnets_units_are_its_blocks() -> None:
    with torch.device("meta"):
        hybrid = build_model(ModelSettings(variant="R26+S/32", image_px=64, classes=3))
        resnet = build_model(ModelSettings(variant="R50x1", image_px=64, classes=3))
    found = shares(hybrid, 0.5)
    stem = {scale for name, scale in found.items() if name.startswith("patch_embed.backbone.")}
    assert stem == {0.5**13} and found["blocks.0.norm1.weight"] == 0.5**12 and found["blocks.11.norm1.weight"] == 0.5
    found = shares(resnet, 0.5)
    assert found["stem.conv.weight"] == 0.5**17 and found["norm.weight"] == found["head.weight"] == 1.0
    assert found["stages.0.blocks.0.conv1.weight"] == 0.5**16 and found["stages.3.blocks.2.conv1.weight"] == 0.5


def test_tokens_that_join_later_learn_as_the_patches_do() -> None:
    names = ["cls_token", "mask_token", "reg_token", "norm_pre.weight", "blocks.0.ls1.gamma", "norm.weight"]
    assert list(layer_scales(names, 0.5).values()) == [0.25] * 4 + [0.5, 1.0]


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lion"])
def test_a_rate_is_shared_out_at_every_step_and_one_is_no_decay(kind: str) -> None:
    model = build_model(ModelSettings(variant=SMALL, image_px=16, classes=3))
    made = build_optimizer(model, settings(kind=kind), 0.5)
    set_rate(made, 0.1)
    assert sorted({group["lr"] for group in made.param_groups}) == pytest.approx(
        [0.1 * 0.5**n for n in (4, 3, 2, 1, 0)]
    )
    alone = decay_groups(model, 0.1, layer_decay=1.0)
    assert [len(group["params"]) for group in alone] == [len(group["params"]) for group in decay_groups(model, 0.1)]
    everything = decay_groups(model, 0.1, "all")
    assert len(everything) == 1 and everything[0]["weight_decay"] == 0.1
