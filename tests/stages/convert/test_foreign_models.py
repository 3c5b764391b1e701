"""Foreign files of every dialect come in as the model that their own library makes of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from foreign_files import (
    as_bf16,
    google_arrays,
    huggingface_folder,
    prefixed,
    rounded_to_bf16,
    scanned,
    write_npz,
)
from inprocess import make_context
from safetensors.torch import load_file, save_file
from tiny_vit import random_images, random_state, tiny
from torch import Tensor

from vitpipe.stages.convert import parity
from vitpipe.stages.convert.config import ConvertResources, ForeignSource
from vitpipe.stages.convert.foreign.to_native import native_reader
from vitpipe.stages.convert.foreign.weights import ForeignWeights, look, reopen
from vitpipe.stages.convert.parity import prove
from vitpipe.stages.convert.task import ProveTask
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.build import Model, build_model

GOOGLE = tiny(gelu="tanh")


def looked(tmp_path: Path, path: Path, **fields: Any) -> ForeignWeights:
    return look(ForeignSource.model_validate({"path": str(path), **fields}), tmp_path / "scratch")


def tensors(tmp_path: Path, foreign: ForeignWeights) -> dict[str, Tensor]:
    named, _ = reopen(foreign, tmp_path / "scratch")
    shapes, read = native_reader(named, foreign)
    return {name: torch.from_numpy(read(name)) for name in shapes}


def model_of(tmp_path: Path, foreign: ForeignWeights) -> Model:
    model = build_model(foreign.settings)
    model.load_state_dict(tensors(tmp_path, foreign))
    return model.eval()


def proof(tmp_path: Path, foreign: ForeignWeights) -> dict[str, Any]:
    return prove(ProveTask(foreign, make_context(tmp_path, "proof", ConvertResources()).task))


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


BIG_VISION_PREFIXES = ["", "params/", "params/img/", "opt/target/"]


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
@pytest.mark.parametrize("representation", ["none", "width", 7])
def test_original_npz_is_read_bit_by_bit_and_as_timm_reads_it(
    tmp_path: Path, prefix: str, representation: str | int
) -> None:
    settings = tiny(gelu="tanh", representation=representation)
    path = write_npz(tmp_path / "m.npz", prefixed(google_arrays(settings, random_state(settings)), prefix))
    foreign = looked(tmp_path, path)
    assert (foreign.format, foreign.settings) == ("google", settings)
    assert_same(tensors(tmp_path, foreign), random_state(settings))
    found = proof(tmp_path, foreign)
    assert found["error"] <= 1e-5 < found["tolerance"] and found["library"] == f"timm {timm.__version__}"


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("prefix", BIG_VISION_PREFIXES)
@pytest.mark.parametrize("pool", ["gap", "map"])
def test_big_vision_npz_of_every_dialect(tmp_path: Path, prefix: str, scan: bool, pool: str) -> None:
    settings = tiny(gelu="tanh", pool=pool)
    arrays = google_arrays(settings, random_state(settings), big_vision=True)
    arrays = prefixed(scanned(arrays) if scan else arrays, prefix)
    if prefix == "params/img/":
        arrays["params/t"] = np.ones((), np.float32)
        arrays["params/txt/embedding"] = np.ones((3, 4), np.float32)
    foreign = looked(tmp_path, write_npz(tmp_path / "m.npz", arrays, compressed=scan))
    assert (foreign.format, foreign.settings) == ("google_big_vision", settings)
    assert_same(tensors(tmp_path, foreign), random_state(settings))
    assert any("2 arrays outside params/img/" in note for note in foreign.notes) == (prefix == "params/img/")


def test_big_vision_class_token_holds_its_position(tmp_path: Path) -> None:
    state = random_state(GOOGLE)
    state["pos_embed"][:, :1] = 0
    path = write_npz(tmp_path / "m.npz", prefixed(google_arrays(GOOGLE, state, big_vision=True), "params/"))
    foreign = looked(tmp_path, path)
    assert foreign.settings == GOOGLE
    assert_same(tensors(tmp_path, foreign), state)
    assert proof(tmp_path, foreign)["error"] <= 1e-5


@pytest.mark.parametrize("raw", ["V2", "uint16"])
def test_bf16_is_widened_exactly(tmp_path: Path, raw: str) -> None:
    settings = tiny(gelu="tanh", pool="map")
    state = rounded_to_bf16(random_state(settings))
    arrays = as_bf16(prefixed(scanned(google_arrays(settings, state, big_vision=True)), "params/"), raw)
    foreign = looked(tmp_path, write_npz(tmp_path / "m.npz", arrays))
    assert_same(tensors(tmp_path, foreign), state)
    found = proof(tmp_path, foreign)
    assert found.get("error", 0) <= 1e-5 and ("error" in found or "bf16" in found["unchecked"])


def test_other_number_types_and_orders(tmp_path: Path) -> None:
    state = {name: tensor.half().float() for name, tensor in random_state(GOOGLE).items()}
    arrays = google_arrays(GOOGLE, state)
    kinds = [">f4", "<f8", "<f2"]
    arrays = {
        name: np.asfortranarray(array.astype(kinds[place % 3])) for place, (name, array) in enumerate(arrays.items())
    }
    assert_same(tensors(tmp_path, looked(tmp_path, write_npz(tmp_path / "m.npz", arrays))), state)


@pytest.mark.parametrize("max_shard_size", ["20KB", "1GB"])
def test_huggingface_folder(tmp_path: Path, max_shard_size: str) -> None:
    theirs = huggingface_folder(tmp_path / "hf", max_shard_size=max_shard_size)
    foreign = looked(tmp_path, tmp_path / "hf")
    assert foreign.format == "huggingface" and foreign.settings == tiny(norm_eps=1e-12)
    assert foreign.labels[4] == "class 4" and (foreign.located.index is not None) == (max_shard_size == "20KB")
    images = random_images(foreign.settings)
    with torch.inference_mode():
        ours = model_of(tmp_path, foreign)(images)
        torch.testing.assert_close(ours, theirs(images / 127.5 - 1).logits, atol=1e-5, rtol=0)
    found = proof(tmp_path, foreign)
    assert found["error"] <= 1e-5 and found["library"].startswith("transformers ")


def test_huggingface_preprocessing_is_folded(tmp_path: Path) -> None:
    theirs = huggingface_folder(tmp_path / "hf", hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
    (tmp_path / "hf" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_rescale": true}'
    )
    foreign = looked(tmp_path, tmp_path / "hf")
    assert foreign.settings == GOOGLE and any("folded" in note for note in foreign.notes)
    images = random_images(foreign.settings)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        wanted = theirs((images / 255 - mean[:, None, None]) / std[:, None, None]).logits
        torch.testing.assert_close(model_of(tmp_path, foreign)(images), wanted, atol=2e-5, rtol=0)
    assert proof(tmp_path, foreign)["error"] <= 2e-5


@pytest.mark.parametrize("pooler", [False, True])
def test_a_bare_vit_model_has_no_head_and_its_pooler_is_the_representation(tmp_path: Path, pooler: bool) -> None:
    huggingface_folder(tmp_path / "hf", classes=None, pooler=pooler)
    foreign = looked(tmp_path, tmp_path / "hf")
    assert foreign.settings == tiny(norm_eps=1e-12, classes=0, representation="width" if pooler else "none")
    assert any("no head" in note for note in foreign.notes) and foreign.labels == ()
    assert proof(tmp_path, foreign)["error"] <= 1e-5


@pytest.mark.parametrize("legacy", [False, True])
def test_torchvision_state_dict(tmp_path: Path, legacy: bool) -> None:
    torch.manual_seed(5)
    theirs = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=5).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    state = theirs.state_dict()
    if legacy:
        state = {
            name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): t for name, t in state.items()
        }
    save_file(dict(state), tmp_path / "vit.safetensors")
    foreign = looked(tmp_path, tmp_path / "vit.safetensors", heads=4)
    assert foreign.format == "torchvision" and foreign.settings == tiny()
    found = proof(tmp_path, foreign)
    assert found["error"] <= 2e-5 and found["library"].startswith("torchvision")


def test_timm_folder_of_timm_itself(tmp_path: Path) -> None:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5}
    theirs = timm.create_model("vit_base_patch16_224", num_classes=5, act_layer="gelu_tanh", **arguments)
    timm.models.save_for_hf(
        theirs, tmp_path / "timm", model_args=arguments | {"act_layer": "gelu_tanh"}, safe_serialization=True
    )
    foreign = looked(tmp_path, tmp_path / "timm")
    assert foreign.format == "timm" and foreign.settings == GOOGLE
    assert proof(tmp_path, foreign)["error"] <= 1e-5


def test_a_bare_timm_file_of_a_named_variant_says_all(tmp_path: Path) -> None:
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32)
    save_file(theirs.state_dict(), tmp_path / "any-name.safetensors")
    foreign = looked(tmp_path, tmp_path / "any-name.safetensors")
    assert foreign.settings == ModelSettings(variant="Ti/16", image_px=32, classes=3)
    assert proof(tmp_path, foreign)["error"] <= 1e-5


def test_the_config_overrules_what_a_family_usually_is(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "m.npz", google_arrays(GOOGLE, random_state(GOOGLE)))
    foreign = looked(tmp_path, path, gelu="erf", norm_eps=1e-5, mean=[0, 0, 0], std=[1, 1, 1])
    assert foreign.settings == tiny(norm_eps=1e-5) and foreign.is_folded
    assert proof(tmp_path, foreign)["error"] <= 2e-5


@pytest.mark.parametrize("wrong", [{"gelu": "tanh"}, {"norm_eps": 1e-6}])
def test_the_proof_catches_another_function(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Negative control: as if the config had been misread."""
    huggingface_folder(tmp_path / "hf", spread=0.3)
    foreign = looked(tmp_path, tmp_path / "hf")
    misread = replace(foreign, settings=foreign.settings.model_copy(update=wrong))
    found = proof(tmp_path, misread)
    assert found["error"] > found["tolerance"]


def test_the_proof_catches_tensors_in_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: as if the table of names had queries and keys the wrong way round, or rows of positions."""
    huggingface_folder(tmp_path / "hf")
    foreign = looked(tmp_path, tmp_path / "hf")

    def mistaken(name: str, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        def reader(named: Any, foreign: ForeignWeights) -> Any:
            shapes, read = native_reader(named, foreign)
            return shapes, lambda each: change(torch.from_numpy(read(each))).numpy() if each == name else read(each)

        monkeypatch.setattr(parity, "native_reader", reader)
        return proof(tmp_path, foreign)

    assert mistaken("norm.bias", lambda x: x)["error"] < 1e-5
    for name, change in {
        "blocks.0.attn.qkv.weight": lambda x: torch.cat([x[32:64], x[:32], x[64:]]),
        "pos_embed": lambda x: x.roll(1, dims=1),
        "patch_embed.proj.weight": lambda x: x.transpose(2, 3).contiguous(),
    }.items():
        found = mistaken(name, change)
        assert found["error"] > 10 * found["tolerance"], name


def test_a_recipe_that_overrules_the_config_is_not_compared_with_it(tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "hf")
    foreign = looked(tmp_path, tmp_path / "hf", gelu="tanh")
    assert foreign.settings.gelu == "tanh" and any("overrules" in note for note in foreign.notes)
    assert "another GELU" in proof(tmp_path, foreign)["unchecked"]


def test_a_pooler_beside_a_classifier_is_no_part_of_the_model(tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    save_file(
        load_file(path) | {"vit.pooler.dense.weight": torch.ones(32, 32), "vit.pooler.dense.bias": torch.ones(32)}, path
    )
    foreign = looked(tmp_path, tmp_path / "hf")
    assert foreign.settings.representation == "none" and "a pooler" in foreign.notes[0]
    assert proof(tmp_path, foreign)["error"] <= 1e-5
