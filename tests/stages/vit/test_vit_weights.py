"""Initial weights, native files and adaptation to another image size or head."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vit import KINDS, TINY, random_images, random_state, tiny
from torch import Tensor

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.adapt import adapt_state
from vitpipe.stages.vit.init import init_weights, initial_value
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.native import load_native, save_native
from vitpipe.stages.vit.settings_file import SETTINGS, TENSORS

WIDE = ModelSettings(
    variant=Sizes(layers=2, width=256, mlp=512, heads=4, patch_px=8), image_px=64, classes=9, representation=128
)


@pytest.fixture(scope="module")
def fresh() -> dict[str, Tensor]:
    model = ViT(WIDE)
    init_weights(model, seed=1, head_bias=-10.0)
    return model.state_dict()


def uniform_std(fan_in: int, fan_out: int) -> float:
    """Of Xavier's uniform distribution."""
    return math.sqrt(2 / (fan_in + fan_out))


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("blocks.0.attn.proj.weight", uniform_std(256, 256)),
        ("blocks.1.mlp.fc1.weight", uniform_std(256, 512)),
        ("blocks.1.mlp.fc2.weight", uniform_std(256, 512)),
        ("blocks.1.mlp.fc1.bias", 1e-6),
        ("pos_embed", 0.02),
        ("patch_embed.proj.weight", 1 / math.sqrt(3 * 8 * 8)),  # LeCun: Flax's default for convolutions
        ("pre_logits.weight", 1 / math.sqrt(256)),
    ],
)
def test_initial_spread(fresh: dict[str, Tensor], name: str, std: float) -> None:
    tensor = fresh[name].double()
    four_errors = 4 * std / math.sqrt(2 * tensor.numel())
    assert tensor.std().item() == pytest.approx(std, abs=four_errors)
    assert tensor.mean().item() == pytest.approx(0, abs=4 * std / math.sqrt(tensor.numel()))


def test_q_k_and_v_have_each_their_own_fan(fresh: dict[str, Tensor]) -> None:
    fused = fresh["blocks.0.attn.qkv.weight"]
    bound = math.sqrt(6 / (256 + 256))
    for third in fused.chunk(3):
        assert bound * 0.999 < third.abs().max() <= bound
    as_one = math.sqrt(6 / (256 + 3 * 256))  # what a fused 3D projection would get, and timm's code avoids too
    assert fused.abs().max() > as_one * 1.3


def test_constants(fresh: dict[str, Tensor]) -> None:
    assert fresh["head.weight"].abs().max() == 0 and set(fresh["head.bias"].tolist()) == {-10.0}
    assert fresh["cls_token"].abs().max() == 0 and fresh["blocks.0.attn.qkv.bias"].abs().max() == 0
    assert set(fresh["blocks.1.norm2.weight"].tolist()) == {1.0} and fresh["norm.bias"].abs().max() == 0


def test_a_seed_and_a_name_decide_a_parameter() -> None:
    one, same, other = (initial_value("blocks.0.mlp.fc1.weight", (8, 4), seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert not torch.equal(one, initial_value("blocks.1.mlp.fc1.weight", (8, 4), 1))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_every_kind_initialises_and_survives_a_file(tmp_path: Path, kind: dict[str, Any]) -> None:
    settings = tiny(**kind)
    model = ViT(settings)
    init_weights(model, seed=0)
    assert model(random_images(settings)).abs().max() == 0  # a zero head
    save_native(tmp_path, model.state_dict(), settings)
    read, state = load_native(tmp_path)
    assert read == settings and all(torch.equal(state[name], one) for name, one in model.state_dict().items())
    ViT(read).load_state_dict(state)


def damage_settings(folder: Path) -> None:
    (folder / SETTINGS).write_text('{"schema": 1, "mod')


def newer_schema(folder: Path) -> None:
    content = json.loads((folder / SETTINGS).read_bytes())
    (folder / SETTINGS).write_text(json.dumps(content | {"schema": 3}))


def truncate(folder: Path) -> None:
    (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-5])


def pickle_under_its_name(folder: Path) -> None:
    torch.save({"x": torch.ones(1)}, folder / TENSORS)


def only_a_pickle(folder: Path) -> None:
    (folder / TENSORS).rename(folder / "pytorch_model.bin")


def other_sizes(folder: Path) -> None:
    content = json.loads((folder / SETTINGS).read_bytes())
    content["model"]["variant"]["mlp"] = 47
    (folder / SETTINGS).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("harm", "kind", "reason"),
    [
        (damage_settings, IntegrityError, "damaged"),
        (newer_schema, UsageError, "newer vitpipe"),
        (truncate, IntegrityError, "damaged"),
        (pickle_under_its_name, UsageError, "is a pickle"),
        (only_a_pickle, UsageError, r"pytorch_model.bin.*only safetensors"),
        (other_sizes, UsageError, r"! blocks.0.mlp.fc1.weight is \(48, 32\), the model has \(47, 32\)"),
    ],
)
def test_files_that_are_not_native_weights_are_refused(
    tmp_path: Path, harm: Any, kind: type[Exception], reason: str
) -> None:
    save_native(tmp_path, random_state(tiny()), tiny())
    harm(tmp_path)
    with pytest.raises(kind, match=f"(?i){reason}"):
        load_native(tmp_path)


def test_saving_another_models_state_names_the_difference(tmp_path: Path) -> None:
    state = random_state(tiny())
    state["blocks.0.norm_1.weight"] = state.pop("blocks.0.norm1.weight")
    with pytest.raises(UsageError, match=r"- blocks.0.norm1.weight \(32\) \(found instead: blocks.0.norm_1.weight\)"):
        save_native(tmp_path, state, tiny())


def test_a_new_head_is_zero_and_the_representation_goes() -> None:
    old, new = tiny(representation=16), tiny(image_px=48, classes=3)
    state = adapt_state(random_state(old), old, new, seed=0)
    model = ViT(new)
    model.load_state_dict(state)
    assert model(random_images(new)).abs().max() == 0
    assert state["pos_embed"].shape == (1, 37, 32)
    assert torch.equal(state["blocks.1.mlp.fc2.weight"], random_state(old)["blocks.1.mlp.fc2.weight"])


def test_the_same_settings_change_nothing_when_the_head_stays() -> None:
    settings = tiny(representation=16)
    state = random_state(settings)
    adapted = adapt_state(state, settings, settings, seed=0, new_head=False)
    assert all(torch.equal(adapted[name], state[name]) for name in state)


@pytest.mark.parametrize("position", ["learned1d", "learned2d", "sincos2d", "none"])
def test_positions_follow_the_image_size(position: str) -> None:
    old, new = tiny(position=position), tiny(position=position, image_px=72)
    model = ViT(new)
    model.load_state_dict(adapt_state(random_state(old), old, new, seed=0, new_head=False))
    assert model(random_images(new)).shape == (3, 5)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({}, {"pool": "gap"}, "pool cls -> gap"),
        ({}, {"gelu": "tanh"}, "gelu erf -> tanh"),
        ({}, {"variant": TINY.model_copy(update={"layers": 3})}, "variant layers=2"),
        ({"position": "relative"}, {"position": "relative", "image_px": 64}, "relative positions are offsets"),
    ],
)
def test_what_cannot_be_adapted_is_named(old: dict[str, Any], new: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=f"(?i){reason}"):
        adapt_state(random_state(tiny(**old)), tiny(**old), tiny(**new), seed=0)


def test_another_number_of_classes_needs_a_new_head() -> None:
    with pytest.raises(UsageError, match=r"ead.weight is \(5, 32\), the new model has \(4, 32\)"):
        adapt_state(random_state(tiny()), tiny(), tiny(classes=4), seed=0, new_head=False)
