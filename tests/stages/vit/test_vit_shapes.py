"""The table of parameters, made without torch, compared with the modules themselves."""

import warnings

import pytest
import torch
from tiny_vit import KINDS, tiny

from vitpipe.infra.errors import UsageError
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import VARIANTS
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.shapes import parameter_shapes

LATER: list[dict[str, object]] = [
    {"registers": 3, "layer_scale": 1e-5, "no_embed_class": True, "qk_norm": True, "mlp_norm": True},
    {"mlp_kind": "swiglu", "registers": 2, "pool": "gap", "class_token": True, "pool_norm": True},
    {"rope": {"kind": "dinov3"}, "position": "none", "registers": 2, "mlp_kind": "swiglu", "mlp_norm": True},
    {"pre_norm": True, "pool": "map", "rope": {"kind": "eva02", "grid": 16}, "gelu": "quick"},
]
NAMED = [ModelSettings(variant=variant, image_px=64, classes=10) for variant in VARIANTS if variant != "B/8"]
OTHERS = [tiny(**kind) for kind in (*KINDS, *LATER)] + [tiny(classes=0), tiny(variant="R50x1", image_px=64, classes=0)]


@pytest.mark.parametrize("settings", [*NAMED, *OTHERS], ids=lambda one: str(one.variant))
def test_names_and_shapes_are_the_modules_in_their_order(settings: ModelSettings) -> None:
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # torch warns of a head without rows
        model = build_model(settings)
    wanted = [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]
    assert list(parameter_shapes(settings).items()) == wanted


def test_a_model_without_a_number_of_classes_has_no_such_list() -> None:
    with pytest.raises(UsageError, match=r"Set model\.classes"):
        parameter_shapes(tiny(classes=None))
