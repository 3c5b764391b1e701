"""A torchvision function for the tiny sizes, so that its folder is tested at the price of the others."""

from functools import partial

import pytest
import torchvision
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
