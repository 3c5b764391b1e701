"""The models that people have, saved by timm and transformers: taken in, proved by the library that each is from, and
as the documentation says.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from family_files import ALIKE, FAMILIES, row, table
from markdown_pages import ROOT
from safetensors.torch import load_file, save_file
from said_folders import looked, proof

from vitpipe.infra.errors import UsageError

PAGE = ROOT / "docs/how-to/weights.md"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_taken_and_is_what_its_library_computes(name: str, tmp_path: Path) -> None:
    foreign = looked(tmp_path, FAMILIES[name](tmp_path / "theirs"))
    found = proof(tmp_path, foreign)
    made = row(name, foreign.settings, found)
    assert found["error"] <= ALIKE and found["library"] and "encoded" in found["compared"]
    assert made in PAGE.read_text(), f"put this line there:\n{made}"
    assert table([]).splitlines()[0] in PAGE.read_text()


@pytest.fixture(scope="module")
def eva(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES["timm's EVA-02 Ti"](tmp_path_factory.mktemp("eva"))


@pytest.fixture(scope="module")
def dinov3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES["DINOv3"](tmp_path_factory.mktemp("dinov3"))


@pytest.mark.parametrize("wrong", [{"base": 1000.0}, {"grid": 8}, {"grid": None}])
def test_the_proof_catches_other_rotary_positions(tmp_path: Path, eva: Path, wrong: dict[str, Any]) -> None:
    """Negative control: as if the config had been misread."""
    foreign = looked(tmp_path, eva)
    assert foreign.settings.rope is not None
    rope = foreign.settings.rope.model_copy(update=wrong)
    misread = replace(foreign, settings=foreign.settings.model_copy(update={"rope": rope}))
    assert proof(tmp_path, misread)["error"] > 10 * ALIKE


def changed(folder: Path, to: Path, **said: Any) -> Path:
    to.mkdir()
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    (to / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | said))
    return to


@pytest.mark.parametrize(("said", "source", "found"), [
    ({"num_register_tokens": 8}, {}, "says 8 register tokens, its tensors have 4"),
    ({"rope_theta": 1000.0}, {"rope": {"kind": "dinov3"}}, "rope dinov3 of base 1000.*is dinov3 of base 100"),
    ({}, {"rope": {"kind": "eva02"}}, "rope dinov3 of base 100.*is eva02 of base 10000"),
    ({"use_gated_mlp": True}, {}, "gated by gelu"),
    ({"hidden_size": 64}, {}, "width 64, its tensors 32"),
])  # fmt: skip
def test_a_config_that_its_tensors_contradict_is_refused(
    tmp_path: Path, dinov3: Path, said: dict[str, Any], source: dict[str, Any], found: str
) -> None:
    with pytest.raises(UsageError, match=found):
        looked(tmp_path, changed(dinov3, tmp_path / "said", **said), **source)


def test_rotary_positions_that_nothing_says_are_asked_for(tmp_path: Path, eva: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    save_file(load_file(eva / "model.safetensors"), alone)
    with pytest.raises(UsageError, match="whose rotary positions no tensor shows") as error:
        looked(tmp_path, alone, heads=4)
    assert "config.source.rope" in error.value.do
    rope = {"kind": "eva02", "grid": 16}
    foreign = looked(tmp_path, alone, heads=4, rope=rope, mean=[0.5] * 3, std=[0.5] * 3)
    assert foreign.settings.rope is not None and "without timm's config.json" in proof(tmp_path, foreign)["unchecked"]


def test_the_same_below_a_wrappers_name(tmp_path: Path, dinov3: Path) -> None:
    folder = changed(dinov3, tmp_path / "said")
    state = load_file(dinov3 / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, folder / "model.safetensors")
    foreign = looked(tmp_path, folder)
    assert any("below 'module.'" in note for note in foreign.notes) and proof(tmp_path, foreign)["error"] <= ALIKE
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="a pickle can run code"):
        looked(tmp_path, tmp_path / "pytorch_model.bin")
