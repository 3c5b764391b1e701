"""Our models against the authors' structure in Flax: its attention, its norms, its tanh GELU, its SAME padding."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from same_weights import ours, random_everywhere
from torch import Tensor

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit import convolutions

pytestmark = pytest.mark.skipif(find_spec("flax") is None, reason="flax is not installed")
ROOT = Path(__file__).parents[3]
PLAIN, HYBRID = (
    ModelSettings(variant=variant, image_px=48, classes=7, gelu="tanh", representation=representation)
    for variant, representation in (("B/16", "width"), ("R26+S/32", "none"))
)


@pytest.fixture(scope="module")
def flax(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The logits of each in Flax, by variant."""
    out, models = tmp_path_factory.mktemp("flax") / "logits.npz", (PLAIN, HYBRID)
    command = [sys.executable, "-m", "flax_vit", str(out), *(model.model_dump_json() for model in models)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"})
    with np.load(out) as found:
        return {str(model.variant): found[str(number)] for number, model in enumerate(models)}


def largest_difference(settings: ModelSettings, wanted: np.ndarray) -> float:
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(5)) * 2 - 1  # flax_vit.random_images
    assert np.abs(wanted).max() > 0.3
    with torch.inference_mode():
        found = float(np.abs(ours(settings, random_everywhere(settings))(images).numpy() - wanted).max())
    print(f"{settings.variant}: {found:.1e}")
    return found


def test_b16_with_tanh_gelu_equals_flax(flax: dict[str, np.ndarray]) -> None:
    assert largest_difference(PLAIN, flax["B/16"]) <= 1e-4


def test_exact_gelu_does_not(flax: dict[str, np.ndarray]) -> None:
    assert largest_difference(PLAIN.model_copy(update={"gelu": "erf"}), flax["B/16"]) > 1e-4


def flax_kernels(kernel_OIHW: Tensor) -> Tensor:
    """vision_transformer models_resnet.weight_standardize."""
    std, mean = torch.std_mean(kernel_OIHW, dim=(1, 2, 3), correction=0, keepdim=True)
    return (kernel_OIHW - mean) / (std + 1e-5)


def test_hybrids_equal_flax_but_for_an_epsilon(flax: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and timm's kernels have 1e-8 under the root where Flax adds 1e-5 to it; with Flax's the rest agrees."""
    assert 1e-4 < largest_difference(HYBRID, flax["R26+S/32"]) <= 1e-3
    monkeypatch.setattr(convolutions, "standardised", flax_kernels)
    monkeypatch.setattr(convolutions, "NORM_EPS", 1e-6)
    assert largest_difference(HYBRID, flax["R26+S/32"]) <= 1e-4
