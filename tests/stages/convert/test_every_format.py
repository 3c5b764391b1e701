"""Every format from one checkpoint, proved by its own library, and back again."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from converting import FORMATS, convert, fetched, wanted
from tiny_checkpoint import commit_checkpoint
from tiny_vit import random_state, tiny

from vitpipe.stages.convert.config import Format
from vitpipe.stages.convert.formats.common import NPZ, format_of

pytestmark = pytest.mark.usefixtures("vit_tiny")


@pytest.mark.parametrize(("changes", "with_onnx"), [
    ({}, True),
    ({"gelu": "tanh", "norm_eps": 1e-12}, False),
    ({"pool": "gap", "position": "none"}, False),
    ({"pool": "map", "position": "sincos2d", "gelu": "tanh"}, True),
    ({"position": "learned2d", "representation": 7}, False),
    ({"position": "relative"}, True),
    ({"image_px": 37, "classes": 1}, False),
    ({"classes": 0}, False),
    ({"variant": {"layers": 1, "width": 24, "mlp": 31, "heads": 3, "patch_px": 8}, "gelu": "tanh"}, False),
])  # fmt: skip
def test_each_format_that_holds_the_model_is_proved(tmp_path: Path, changes: dict[str, Any], with_onnx: bool) -> None:
    settings = tiny(**changes)
    formats = tuple(name for name in FORMATS if not format_of(name).limits(settings) and (name != "onnx" or with_onnx))
    assert formats[0] == "native"
    weights = convert(tmp_path, commit_checkpoint(tmp_path, settings), wanted(*formats))
    proofs = weights.read_json("parity.json")
    for name in formats[1:]:
        assert proofs[name]["max_abs_difference"] < 1e-5 and proofs[name]["error"] < 1e-5, name
        assert proofs[name]["library"] and "logits" in proofs[name]["compared"]
        assert proofs[name]["dtype"] == "fp32" and proofs[name]["architecture"]


HELD_OTHERWISE = {
    "native": "", "timm": "", "huggingface": "", "google": "",
    "torchvision": " but for patch_embed.proj.weight, patch_embed.proj.bias, held in another form",
    "google_big_vision": " but for cls_token, pos_embed, held in another form",
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "formats"), [("fp32", FORMATS[:-1]), ("bf16", FORMATS), ("fp16", FORMATS[:-1])])
def test_there_and_back_is_bit_identical(tmp_path: Path, dtype: str, formats: tuple[Format, ...]) -> None:
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, tiny()), wanted(*formats, dtype=dtype)).read_json(
        "parity.json"
    )
    assert {name: proofs[name]["round_trip"] for name in HELD_OTHERWISE} == {
        name: f"bit-identical{but}" for name, but in HELD_OTHERWISE.items()
    }
    rounded = dtype != "fp32"
    assert all((proofs[name]["max_abs_difference"] > 1e-5) == rounded for name in formats[1:])
    assert all(proofs[name]["error"] < 1e-5 for name in formats[1:])


@pytest.mark.parametrize("position", ["sincos2d", "learned2d"])
def test_computed_positions_may_be_rounded(tmp_path: Path, position: str) -> None:
    config = wanted("timm", "google", "google_big_vision", dtype="bf16")
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, tiny(position=position)), config).read_json("parity.json")
    assert all(proof["error"] < 1e-5 for proof in proofs.values())


def test_every_task_may_run_twice(tmp_path: Path) -> None:
    source = commit_checkpoint(tmp_path, tiny())
    first = convert(tmp_path, source, wanted(*FORMATS), twice=True)
    again = convert(tmp_path, first, wanted(*FORMATS[:-1]), node="again")
    before = {file.path: file.sha256 for file in first.files if file.path != "parity.json"}
    after = {file.path: file.sha256 for file in again.files if file.path != "parity.json"}
    assert after == {path: sha256 for path, sha256 in before.items() if not path.startswith("onnx/")}
    assert again.lineage == first.lineage and first.lineage["step"] == "3"


def test_ti16_in_all_formats(tmp_path: Path) -> None:
    settings = tiny(variant="Ti/16", image_px=224, classes=10)
    formats = tuple(name for name in FORMATS if name != "torchvision")
    weights = convert(tmp_path, commit_checkpoint(tmp_path, settings), wanted(*formats))
    folder, proofs = fetched(weights, tmp_path / "mine"), weights.read_json("parity.json")
    assert all(proofs[name]["error"] < 2e-5 for name in formats[1:]), proofs
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    model.load_pretrained(str(folder / "google" / NPZ))
    native = random_state(settings)
    assert all(torch.equal(tensor, native[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("variant", "formats"), [
    ("R+Ti/16", ("native", "timm", "google", "google_big_vision", "onnx")),
    ("R50x1", ("native", "timm", "google")),
])  # fmt: skip
def test_hybrids_and_resnets(tmp_path: Path, variant: str, formats: tuple[Format, ...]) -> None:
    settings = tiny(variant=variant, image_px=64)
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, settings), wanted(*formats)).read_json("parity.json")
    assert all(proofs[name]["error"] < 5e-5 for name in formats[1:]), proofs
    assert all(proofs[name]["round_trip"].startswith("bit-identical") for name in formats if name != "onnx")
