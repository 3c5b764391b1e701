"""A torchvision function for the tiny sizes, so that its folder is tested at the price of the others; tiny folders of
other libraries."""

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from foreign_files import huggingface_folder
from said_folders import TIMM
from tiny_vit import TINY
from torchvision.models import VisionTransformer

from vitpipe.stages.convert.formats.torchvision import FUNCTIONS


@pytest.fixture
def vit_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    build = partial(
        VisionTransformer, patch_size=TINY.patch_px, num_layers=TINY.layers, num_heads=TINY.heads,
        hidden_dim=TINY.width, mlp_dim=TINY.mlp,
    )  # fmt: skip
    monkeypatch.setattr(torchvision.models, "vit_tiny", build, raising=False)
    monkeypatch.setitem(FUNCTIONS, TINY, "vit_tiny")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hf")
    huggingface_folder(path, spread=0.3)
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bare")
    huggingface_folder(path, classes=None, pooler=True, spread=0.3)
    return path


@pytest.fixture(scope="module")
def timms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("vit_base_patch16_224", num_classes=5, **TIMM)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    timm.models.save_for_hf(theirs, path, model_args=TIMM, safe_serialization=True)
    return path
