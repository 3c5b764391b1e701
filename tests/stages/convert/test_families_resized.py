"""At another image size than they were trained at, models that people have compute what their own libraries do."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from family_files import ALIKE, FAMILIES
from said_folders import looked

from vitpipe.stages.convert.foreign.to_native import native_reader
from vitpipe.stages.convert.foreign.weights import reopen
from vitpipe.stages.vit.adapt import adapt_state
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.positions import ResizeMode

OTHER_PX = 56
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}


def features(tmp_path: Path, folder: Path, mode: ResizeMode, images: torch.Tensor) -> torch.Tensor:
    """Of our model, adapted to the images' size."""
    foreign = looked(tmp_path, folder, **HALF)
    shapes, read = native_reader(reopen(foreign, tmp_path / "scratch")[0], foreign)
    new = foreign.settings.at(OTHER_PX).model_copy(update={"classes": 0})
    state = adapt_state({name: torch.from_numpy(read(name)) for name in shapes}, foreign.settings, new, 0, mode)
    model = build_model(new)
    model.load_state_dict(state)
    with torch.inference_mode():
        return model.eval().features(images)


def of_transformers(folder: Path, images: torch.Tensor) -> torch.Tensor:
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    given: dict[str, Any] = {} if "DINO" in kind.upper() else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        return model(images, **given).pooler_output


def of_timm(folder: Path, images: torch.Tensor) -> torch.Tensor:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, img_size=OTHER_PX, num_classes=0).eval()
    with torch.inference_mode():
        return model(images)


@pytest.mark.parametrize(("family", "mode", "library"), [
    ("DINOv2 (`Dinov2Model`)", "huggingface", of_transformers),
    ("DINOv2 with registers", "timm", of_transformers),
    ("DINOv3", "huggingface", of_transformers),
    ("CLIP's vision tower", "huggingface", of_transformers),
    ("SigLIP's and SigLIP 2's vision tower", "huggingface", of_transformers),
    ("timm's DINOv2 with registers, SwiGLU", "timm", of_timm),
    ("timm's DeiT-III", "timm", of_timm),
    ("timm's EVA-02 Ti", "timm", of_timm),
    ("timm's DINOv3", "timm", of_timm),
])  # fmt: skip
def test_another_size_is_what_its_library_makes_of_it(
    tmp_path: Path, family: str, mode: ResizeMode, library: Any
) -> None:
    folder = FAMILIES[family](tmp_path / "theirs")
    images = torch.rand(2, 3, OTHER_PX, OTHER_PX, generator=torch.Generator().manual_seed(1)) * 2 - 1
    theirs = library(folder, images)
    scale = max(1.0, float(theirs.abs().max()))
    assert float((features(tmp_path, folder, mode, images) - theirs).abs().max()) <= ALIKE * scale
    if "DINOv3" not in family:  # which has no table, so that no kernel makes a difference
        assert float((features(tmp_path, folder, "vit_paper", images) - theirs).abs().max()) > 10 * ALIKE * scale
