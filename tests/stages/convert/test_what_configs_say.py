"""Every field of the configs beside foreign weights: read, without effect, or refused by name; and proved by the
library that the config is for, from bytes to its last layer.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from said_folders import TIMM, looked, proof, said

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.convert.config import ForeignSource
from vitpipe.stages.convert.foreign.weights import glance
from vitpipe.stages.convert.formats.common import Pixels
from vitpipe.stages.preparation import Preparation


@pytest.mark.parametrize(
    ("images", "mean", "std"),
    [
        ({}, 0.5, 0.5),
        ({"rescale_factor": 0.00392156862745098}, 0.5, 0.5),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, 0.5, 0.5),
        ({"rescale_factor": 0.01}, 0.5 / 2.55, 0.5 / 2.55),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5}, 0.0, 0.5),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [63.75] * 3}, 0.5, 0.25),
        ({"image_mean": 0.25, "image_std": 0.75}, 0.25, 0.75),
        (
            {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32},
            0.48145466,
            0.26862954,
        ),
        ({"feature_extractor_type": "DeiTFeatureExtractor", "crop_size": 32, "size": 36}, 0.5, 0.5),
    ],
)
def test_what_becomes_of_bytes_is_read_and_proved(
    tmp_path: Path, hf: Path, images: dict[str, Any], mean: float, std: float
) -> None:
    foreign = looked(tmp_path, said(hf, tmp_path / "said", images))
    assert (foreign.pixels.mean[0], foreign.pixels.std[0]) == pytest.approx((mean, std), rel=1e-6)
    found = proof(tmp_path, foreign)
    assert found["error"] <= 2e-5 and {"logits", "encoded"} <= set(found["compared"])


@pytest.mark.parametrize("images", [{"rescale_factor": 0.01}, {"do_normalize": False}])
def test_a_field_that_was_not_read_fails_its_proof(tmp_path: Path, hf: Path, images: dict[str, Any]) -> None:
    """Negative control: as if the field were ignored, on the way in and nowhere else."""
    foreign = looked(tmp_path, said(hf, tmp_path / "said", images))
    found = proof(tmp_path, replace(foreign, pixels=Pixels((0.5,) * 3, (0.5,) * 3)))
    assert found["error"] > 100 * found["tolerance"]


def test_the_activation_behind_the_pooler_is_read_and_proved(tmp_path: Path, hf: Path, bare: Path) -> None:
    assert "features" in proof(tmp_path, looked(tmp_path, bare))["compared"]
    other = said(bare, tmp_path / "other", pooler_act="relu")
    with pytest.raises(UsageError, match=r"pooler_act relu, behind that layer models here have tanh"):
        looked(tmp_path, other)
    # negative control: as if it had not been read
    foreign = looked(tmp_path, bare)
    located = replace(foreign.located, folder=str(other))
    digests = tuple((name, located.fetch(name, tmp_path)[1]) for name in located.names)
    found = proof(tmp_path, replace(foreign, located=located, digests=digests))
    assert found["error"] > 100 * found["tolerance"]
    # a classifier sees no pooler: whatever stands behind it decides nothing
    assert proof(tmp_path, looked(tmp_path, said(hf, tmp_path / "idle", pooler_act="relu")))["error"] <= 2e-5


@pytest.mark.parametrize(
    ("config", "images", "found"),
    [
        ({"head_dim": 16}, None, "head_dim 16"),
        ({"num_hidden_layers": 1}, None, "layers 1, its tensors 2"),
        ({"image_size": [16, 64]}, None, "image_size is 16 x 64"),
        ({"pruned_heads": {"0": [1]}}, None, "pruned_heads"),
        ({"layer_norm_eps": 0.0}, None, "norm_eps 0.0: Input should be greater"),
        ({}, {"do_rescale": False, "do_normalize": False}, "not divided by 255"),
        ({}, {"rescale_factor": None}, "rescale_factor null"),
        ({"image_processor_type": "BeitImageProcessor"}, {}, "of BeitImageProcessor"),
        ({}, {"do_pad": True}, "do_pad true"),
        ({}, {"rescale_offset": True}, "rescale_offset true"),
        ({}, {"do_flip_channel_order": True}, "do_flip_channel_order true"),
    ],
)
def test_another_function_of_transformers_is_refused_by_name(
    tmp_path: Path, hf: Path, config: dict[str, Any], images: dict[str, Any] | None, found: str
) -> None:
    with pytest.raises(UsageError, match=found) as caught:
        looked(tmp_path, said(hf, tmp_path / "said", images, **config))
    assert caught.value.do


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ({"rescale_factor": 0}, "rescale_factor 0 leaves nothing"),
        ({"image_std": [0, 0, 0]}, "cannot be divided by"),
        ({"image_mean": [0.5, 0.5]}, "neither one number nor three"),
        ({"image_std": [float("nan")] * 3}, "no numbers that pixels"),
    ],
)
def test_numbers_that_no_pixel_survives_are_told(tmp_path: Path, hf: Path, images: dict[str, Any], found: str) -> None:
    with pytest.raises(IntegrityError, match=found) as caught:
        looked(tmp_path, said(hf, tmp_path / "said", images))
    assert "correct them" in caught.value.do


@pytest.mark.parametrize("images", [{"do_rescale": False}, {"image_processor_type": "ConvNextImageProcessor"}])
def test_what_could_be_two_things_is_taken_as_the_recipe_says(tmp_path: Path, hf: Path, images: dict[str, Any]) -> None:
    foreign = looked(tmp_path, said(hf, tmp_path / "said", images), mean=[0.2] * 3, std=[0.4] * 3)
    assert foreign.pixels == ((0.2,) * 3, (0.4,) * 3) and proof(tmp_path, foreign)["error"] <= 2e-5


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"model_args": {"act_layer": "relu"}}, "activation is relu"),
        ({"model_args": {"reg_tokens": 4}}, "4 register tokens, its tensors have 0"),
        ({"model_args": {"norm_layer": "rmsnorm"}}, 'norm_layer "rmsnorm"'),
        ({"model_args": {"something_new": 1}}, "something_new 1, which is not known here"),
        ({"model_args": {"depth": 3}}, "layers 3, its tensors 2"),
        ({"model_args": {"img_size": [16, 64]}}, "img_size is 16 x 64"),
        ({"model_args": {"img_size": 48}}, "48 px are 6 x 6 patches"),
        ({"model_args": {"global_pool": ""}}, "pools by ''"),
    ],
)
def test_another_function_of_timm_is_refused_by_name(
    tmp_path: Path, timms: Path, config: dict[str, Any], found: str
) -> None:
    with pytest.raises(UsageError, match=found):
        looked(tmp_path, said(timms, tmp_path / "said", **config))


def test_an_architectures_own_gelu_is_read_and_proved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name, args = "vit_base_patch32_siglip_gap_256", {**TIMM, "patch_size": 8}
    theirs = timm.create_model(name, num_classes=5, **args)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    timm.models.save_for_hf(theirs, tmp_path / "timm", model_args=args, safe_serialization=True)
    foreign = looked(tmp_path, tmp_path / "timm")
    assert (foreign.settings.gelu, foreign.settings.pool) == ("tanh", "gap") and proof(tmp_path, foreign)[
        "error"
    ] <= 2e-5
    wrong = replace(foreign, settings=foreign.settings.model_copy(update={"gelu": "erf"}))
    assert proof(tmp_path, wrong)["error"] > proof(tmp_path, wrong)["tolerance"]


def test_timms_normalisation_is_its_own_where_a_config_is_silent(tmp_path: Path, timms: Path) -> None:
    folder = said(timms, tmp_path / "said")
    config = json.loads((folder / "config.json").read_text())
    del config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]
    (folder / "config.json").write_text(json.dumps(config))
    foreign = looked(tmp_path, folder)
    assert foreign.pixels.mean == (0.485, 0.456, 0.406) and proof(tmp_path, foreign)["error"] <= 2e-5


def test_fields_that_no_library_has_are_noted(tmp_path: Path, hf: Path) -> None:
    foreign = looked(tmp_path, said(hf, tmp_path / "said", my_field=3))
    assert "fields of its config.json that its library does not have were not looked at: my_field" in foreign.notes


def test_the_file_of_all_processors_goes_before_that_of_images(tmp_path: Path, hf: Path) -> None:
    folder = said(hf, tmp_path / "said", {"image_mean": [0.1] * 3})
    (folder / "processor_config.json").write_text('{"processor_class": "ViTProcessor"}')
    assert looked(tmp_path, folder).pixels.mean == (0.1,) * 3
    nested = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.2] * 3, "size": {"shortest_edge": 36},
              "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}  # fmt: skip
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    foreign = looked(tmp_path, folder)
    assert foreign.pixels.mean == (0.2,) * 3 and foreign.preparation == Preparation(fit="resmall_crop", resize_px=36)
    found = proof(tmp_path, foreign)
    assert found["error"] <= 2e-5 and found["prepared"]["levels"] <= found["prepared"]["allowed"]


SQUASHED = {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}


@pytest.mark.parametrize(
    ("cfg", "way"),
    [
        (SQUASHED, Preparation()),
        ({"crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic"},
         Preparation(fit="resmall_crop", resize_px=35, interpolation="bicubic", centre="even")),
        ({"crop_pct": 0.875, "crop_mode": "squash", "interpolation": "lanczos"},
         Preparation(fit="resize_crop", resize_px=36, interpolation="lanczos", centre="even")),
        (SQUASHED | {"crop_mode": "border"}, None),
        (SQUASHED | {"crop_pct": 1.2}, None),
        (SQUASHED | {"interpolation": "random"}, None),
    ],
)  # fmt: skip
def test_timms_way_of_an_image_is_carried_and_is_timms(
    tmp_path: Path, timms: Path, cfg: dict[str, Any], way: Preparation | None
) -> None:
    foreign = looked(tmp_path, said(timms, tmp_path / "said", pretrained_cfg=cfg))
    assert foreign.preparation == way and (way is None) == any("they are squashed" in note for note in foreign.notes)
    found = proof(tmp_path, foreign)
    assert found["error"] <= 2e-5 and ("prepared" in found) == (way is not None)
    assert way is None or found["prepared"]["levels"] <= found["prepared"]["allowed"]


@pytest.mark.parametrize(
    ("images", "way"),
    [
        ({"size": {"height": 32, "width": 32}, "resample": 3}, Preparation(interpolation="bicubic")),
        ({"size": 32, "resample": 2}, Preparation()),
        ({"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
         Preparation(fit="resmall_crop", resize_px=36)),
        ({"size": 36, "do_center_crop": True, "crop_size": 32, "feature_extractor_type": "DeiTFeatureExtractor"},
         Preparation(fit="resize_crop", resize_px=36, interpolation="bicubic")),
        ({"size": {"shortest_edge": 32}}, None),
        ({"size": 64}, None),
        ({"do_resize": False}, None),
        ({"do_resize": None}, None),
        ({"resample": 4}, None),
        ({"size": {"shortest_edge": 24}, "do_center_crop": True, "crop_size": 32}, None),
        ({"size": 36, "do_center_crop": True}, None),
    ],
)  # fmt: skip
def test_transformers_way_of_an_image_is_carried_and_is_theirs(
    tmp_path: Path, hf: Path, images: dict[str, Any], way: Preparation | None
) -> None:
    foreign = looked(tmp_path, said(hf, tmp_path / "said", images))
    assert foreign.preparation == way and (way is None) == any("are squashed" in note for note in foreign.notes)
    found = proof(tmp_path, foreign)
    assert found["error"] <= 2e-5 and ("prepared" in found) == (way is not None)
    assert way is None or found["prepared"]["levels"] <= found["prepared"]["allowed"]


@pytest.mark.parametrize("wrong", [{"interpolation": "bicubic"}, {"resize_px": 40}, {"fit": "resize_crop"}])
def test_another_way_of_an_image_is_told(tmp_path: Path, hf: Path, wrong: dict[str, Any]) -> None:
    """Negative control: as if the file had been misread."""
    images = {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 32}
    foreign = looked(tmp_path, said(hf, tmp_path / "said", images))
    assert foreign.preparation is not None
    found = proof(tmp_path, replace(foreign, preparation=foreign.preparation.model_copy(update=wrong)))
    assert found["prepared"]["levels"] > 2 * found["prepared"]["allowed"]


@pytest.mark.parametrize("kind", ["vit_mae", "vit_msn"])
def test_kinds_whose_encoder_is_vits(tmp_path: Path, hf: Path, kind: str) -> None:
    folder = said(hf, tmp_path / "said", model_type=kind)
    assert proof(tmp_path, looked(tmp_path, folder))["error"] <= 2e-5
    config = json.loads((folder / "config.json").read_text())
    del config["layer_norm_eps"]
    (folder / "config.json").write_text(json.dumps(config))
    assert glance(ForeignSource(path=str(folder))).settings.norm_eps == {"vit_mae": 1e-12, "vit_msn": 1e-6}[kind]
