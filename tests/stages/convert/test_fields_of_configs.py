"""Every field that the installed libraries' configs have is in a list: read, without effect, or of one value; and what
their code does where a config is silent is known.
"""

import inspect
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import timm
import torchvision
import transformers
from said_folders import looked, proof, said
from timm_functions import TABLE, chosen_by_timm

from vitpipe.stages.convert.formats import huggingface_files, huggingface_kinds, timm_files
from vitpipe.stages.convert.formats import torchvision as torchvision_format
from vitpipe.stages.convert.formats.fields import Fields


def of_class(*classes: type) -> set[str]:
    return {field.name for one in classes for field in fields(one)}


def arguments(of: Callable[..., Any]) -> set[str]:
    return {name for name in inspect.signature(of).parameters if name != "self"}


def saved_by_timm() -> set[str]:
    """Fields of the file that timm's own saving writes."""
    with tempfile.TemporaryDirectory() as folder:
        theirs = timm.create_model("test_vit")
        timm.models._hub.save_config_for_hf(theirs, f"{folder}/config.json", model_args={"depth": 2})
        return set(json.loads(Path(folder, "config.json").read_text()))


@dataclass
class Newer(transformers.ViTConfig):
    """A later version's config."""

    rope_theta: float = 1.0


LISTS: list[tuple[Fields, set[str]]] = [
    (huggingface_files.MODEL, of_class(transformers.ViTConfig, transformers.ViTMAEConfig, transformers.ViTMSNConfig)),
    (huggingface_files.MODEL, transformers.ViTConfig().to_dict().keys()),
    *((huggingface_files.IMAGES, set(getattr(transformers, f"{kind}ImageProcessor").valid_kwargs.__annotations__))
      for kind in huggingface_files.PROCESSORS),
    *((huggingface_files.IMAGES, set(getattr(transformers, f"{kind}ImageProcessor")().to_dict()))
      for kind in huggingface_files.PROCESSORS),
    (timm_files.CONFIG, saved_by_timm()),
    (timm_files.PRETRAINED, of_class(timm.models.PretrainedCfg)),
    (timm_files.TRANSFORMER, arguments(timm.models.VisionTransformer.__init__)),
    (timm_files.EVA, arguments(timm.models.Eva.__init__)),
    *((huggingface_kinds.FAMILY, of_class(getattr(transformers, kind))) for kind in (
        "Dinov2Config", "Dinov2WithRegistersConfig", "DINOv3ViTConfig", "CLIPVisionConfig", "SiglipVisionConfig",
        "IJepaConfig")),
    (timm_files.RESNET, arguments(timm.models.ResNetV2.__init__)),
    (torchvision_format.MODEL, arguments(torchvision.models.VisionTransformer.__init__)),
    (torchvision_format.IMAGES, arguments(torchvision.transforms._presets.ImageClassification.__init__)),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), LISTS)
def test_every_field_that_an_installed_library_knows_is_in_a_list(ours: Fields, theirs: set[str]) -> None:
    assert set(theirs) - ours.known == set()


@pytest.mark.parametrize("ours", [
    huggingface_files.MODEL, huggingface_files.IMAGES, huggingface_kinds.FAMILY, timm_files.PRETRAINED,
    timm_files.TRANSFORMER, timm_files.EVA, timm_files.CONFIG, timm_files.RESNET,
])  # fmt: skip
def test_no_field_is_in_two_lists(ours: Fields) -> None:
    assert len(ours.known) == len(ours.read) + len(ours.idle) + len(ours.only)


def test_a_new_field_would_be_seen() -> None:
    """Negative control."""
    with pytest.raises(AssertionError, match="rope_theta"):
        test_every_field_that_an_installed_library_knows_is_in_a_list(huggingface_files.MODEL, of_class(Newer))


def test_what_is_said_to_decide_nothing_decides_nothing(tmp_path: Path, hf: Path, timms: Path) -> None:
    """All idle fields that a model is built with, each with another value than it has."""
    of_hf = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5, "initializer_range": 9.0,
             "encoder_stride": 7, "pooler_output_size": 8, "chunk_size_feed_forward": 1, "output_attentions": True,
             "output_hidden_states": True, "dtype": "float16", "architectures": ["Other"],
             "gradient_checkpointing": True, "finetuning_task": "x"}  # fmt: skip
    of_images = {"do_convert_rgb": True, "pad_size": None, "image_seq_length": 5, "processor_class": "X"}
    of_args = {"drop_rate": 0.5, "pos_drop_rate": 0.5, "patch_drop_rate": 0.5, "proj_drop_rate": 0.5,
               "attn_drop_rate": 0.5, "drop_path_rate": 0.5, "weight_init": "skip", "fix_init": True,
               "dynamic_img_size": True}  # fmt: skip
    of_cfg = {"test_input_size": [3, 48, 48], "min_input_size": [3, 8, 8], "test_crop_pct": 0.5, "first_conv": "other",
              "pool_size": [3, 3], "url": "x", "tag": "y", "fixed_input_size": False, "description": "z"}  # fmt: skip
    assert of_hf.keys() <= huggingface_files.MODEL.idle and of_images.keys() <= huggingface_files.IMAGES.idle
    assert of_args.keys() <= timm_files.TRANSFORMER.idle and of_cfg.keys() <= timm_files.PRETRAINED.idle
    theirs = said(hf, tmp_path / "hf", of_images, **of_hf)
    ours = said(timms, tmp_path / "timm", model_args=of_args, pretrained_cfg=of_cfg)
    for folder, plain in ((theirs, said(hf, tmp_path / "plain", {})), (ours, timms)):
        foreign, usual = looked(tmp_path, folder), looked(tmp_path, plain)
        assert (foreign.settings, foreign.pixels, foreign.preparation) == (
            usual.settings, usual.pixels, usual.preparation,
        )  # fmt: skip
        assert proof(tmp_path, foreign)["error"] <= 2e-5


@pytest.mark.parametrize("kind", huggingface_files.PROCESSORS)
def test_what_a_processor_does_unasked_is_what_the_library_has(kind: str) -> None:
    theirs = getattr(transformers, f"{kind}ImageProcessor")
    for name, value in huggingface_files.PROCESSORS[kind].items():
        found = getattr(theirs, name)
        assert (tuple(found) if isinstance(found, list) else found) == value, name


def test_the_table_of_timms_functions_is_what_they_build() -> None:
    """What no tensor shows (heads, epsilon, GELU, rotary positions) is in a function's code alone."""
    assert json.loads(TABLE.read_bytes()) == chosen_by_timm() and len(chosen_by_timm()) > 200


def test_every_argument_of_timms_functions_is_known() -> None:
    for name, given in chosen_by_timm().items():
        ours = timm_files.EVA if given["kind"] == "eva" else timm_files.TRANSFORMER
        assert given.keys() - ours.known == set(), name
