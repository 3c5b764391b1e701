"""Parity with wrong files and without the libraries that it asks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from converting import FORMATS, convert, wanted
from tiny_checkpoint import commit_checkpoint
from tiny_vit import tiny
from torch import Tensor

from vitpipe.infra.errors import StageError
from vitpipe.stages.convert import onnx_file
from vitpipe.stages.convert import run as run_module
from vitpipe.stages.convert import write as write_module
from vitpipe.stages.convert.config import Format
from vitpipe.stages.convert.tensors import Tensors

pytestmark = pytest.mark.usefixtures("vit_tiny")


def swap_q_and_k(name: str, tensor: Tensor) -> Tensor:
    return torch.cat([tensor.chunk(3)[part] for part in (1, 0, 2)]) if name == "blocks.0.attn.qkv.weight" else tensor


def shift_a_position(name: str, tensor: Tensor) -> Tensor:
    return torch.cat([tensor[:, :1], tensor[:, 1:].roll(1, dims=1)], dim=1) if name == "pos_embed" else tensor


def transpose_a_kernel(name: str, tensor: Tensor) -> Tensor:
    return tensor.T.contiguous() if name == "blocks.1.attn.proj.weight" else tensor


def written_as(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensors], Tensors]) -> None:
    """Let the writing tasks see a changed source; the checking ones see the true one."""
    for module in (write_module, onnx_file):
        opened = module.open_source  # type: ignore[attr-defined]
        monkeypatch.setattr(module, "open_source", lambda *given, opened=opened: change(opened(*given)))


@pytest.mark.parametrize(("break_it", "formats"), [
    (swap_q_and_k, FORMATS[1:]), (shift_a_position, FORMATS[1:-1]), (transpose_a_kernel, FORMATS[1:-1]),
])  # fmt: skip
def test_parity_catches_other_tensors_in_every_format(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[str, Tensor], Tensor],
    formats: tuple[Format, ...],
) -> None:
    def broken(true: Tensors) -> Tensors:
        return Tensors(
            true.settings, true.shapes, lambda name: break_it(name, torch.from_numpy(true.read(name))).numpy()
        )

    written_as(monkeypatch, broken)
    with pytest.raises(StageError) as caught:
        convert(tmp_path, commit_checkpoint(tmp_path, tiny()), wanted(*formats))
    for name in formats:
        assert f"{name} differs by" in caught.value.found
        read_back = name != "onnx" and (name, break_it) != ("google_big_vision", shift_a_position)
        assert (f"{name} comes back with another" in caught.value.found) == read_back


@pytest.mark.parametrize(("true", "catching"), [
    ({"gelu": "tanh"}, ("timm", "huggingface", "torchvision", "onnx")),
    ({"norm_eps": 1e-12}, ("timm", "huggingface", "torchvision", "google", "google_big_vision")),
])  # fmt: skip
def test_parity_catches_another_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, true: dict[str, Any], catching: tuple[Format, ...]
) -> None:
    """The files say, or their libraries compute, the exact GELU and an epsilon of 1e-6; the checkpoint's model not."""
    monkeypatch.setattr(run_module, "refuse", lambda formats, settings: None)
    written_as(monkeypatch, lambda source: Tensors(tiny(), source.shapes, source.read))
    with pytest.raises(StageError) as caught:
        convert(tmp_path, commit_checkpoint(tmp_path, tiny(**true)), wanted(*catching))
    assert all(f"{name} differs by" in caught.value.found for name in catching)


@pytest.mark.parametrize(("library", "formats"), [
    ("timm", ("timm", "google", "google_big_vision")), ("transformers", ("huggingface",)), ("onnxruntime", ("onnx",)),
])  # fmt: skip
def test_absent_libraries_are_said_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, formats: tuple[Format, ...]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, tiny()), wanted(*formats)).read_json("parity.json")
    assert all(f"{library} is not installed" in proofs[name]["unchecked"] for name in formats)
    assert all("round_trip" in proofs[name] for name in formats if name != "onnx")
