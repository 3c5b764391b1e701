"""What a forward pass asks a GPU for, as a plan reckons it, beside what torch's dispatcher sees."""

import pytest
import torch
from launches import counting
from tiny_vit import random_images, tiny

from vitpipe.stages.costs.launches import launches_of_looks
from vitpipe.stages.variants import Sizes
from vitpipe.stages.vit.build import build_model


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layers", [2, 6])
def test_a_plan_reckons_with_what_is_counted(layers: int, precision: str) -> None:
    settings = tiny(variant=Sizes(layers=layers, width=32, mlp=48, heads=4, patch_px=8))
    model, images = build_model(settings).eval(), random_images(settings, 4)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.no_grad(), autocast, counting() as asked:  # in inference mode torch shows a linear layer as one
        model.features(images).float()
    assert abs(launches_of_looks(4, 4, layers, precision) - asked.launches) <= 2
