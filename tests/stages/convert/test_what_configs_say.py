"""Every field of the configs beside foreign weights: read, without effect, or refused by name; and proved by the
library that the config is for, from bytes to its last layer.
"""

import inspect
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from foreign_files import huggingface_folder
from inprocess import make_context
from torch import Tensor

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.convert.config import ConvertResources, ForeignSource
from vitpipe.stages.convert.foreign.to_native import native_reader
from vitpipe.stages.convert.foreign.weights import ForeignWeights, glance, look, reopen
from vitpipe.stages.convert.formats import huggingface_files, timm_files
from vitpipe.stages.convert.formats import torchvision as torchvision_format
from vitpipe.stages.convert.formats.common import Pixels
from vitpipe.stages.convert.formats.fields import Fields
from vitpipe.stages.convert.parity import prove
from vitpipe.stages.convert.task import ProveTask
from vitpipe.stages.preparation import Preparation
from vitpipe.stages.vit.build import build_model

TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5}


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


def said(folder: Path, to: Path, images: dict[str, Any] | None = None, **config: Any) -> Path:
    """A copy of the folder, by links, whose configs say something else."""
    to.mkdir()
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    given = json.loads((folder / "config.json").read_text())
    for name, value in config.items():
        inner = given[name] if isinstance(value, dict) and name in ("model_args", "pretrained_cfg") else None
        given[name] = {**inner, **value} if inner is not None else value
    (to / "config.json").write_text(json.dumps(given))
    if images is not None:
        (to / "preprocessor_config.json").write_text(json.dumps(images))
    return to


def looked(tmp_path: Path, path: Path, **given: Any) -> ForeignWeights:
    return look(ForeignSource.model_validate({"path": str(path), **given}), tmp_path / "scratch")


def proof(tmp_path: Path, foreign: ForeignWeights) -> dict[str, Any]:
    return prove(ProveTask(foreign, make_context(tmp_path, "proof", ConvertResources()).task))


def logits(tmp_path: Path, foreign: ForeignWeights, images: Tensor) -> Tensor:
    named, _ = reopen(foreign, tmp_path / "scratch")
    shapes, read = native_reader(named, foreign)
    model = build_model(foreign.settings)
    model.load_state_dict({name: torch.from_numpy(read(name)) for name in shapes})
    with torch.inference_mode():
        return model.eval()(images)


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
    (timm_files.RESNET, arguments(timm.models.ResNetV2.__init__)),
    (torchvision_format.MODEL, arguments(torchvision.models.VisionTransformer.__init__)),
    (torchvision_format.IMAGES, arguments(torchvision.transforms._presets.ImageClassification.__init__)),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), LISTS)
def test_every_field_that_an_installed_library_knows_is_in_a_list(ours: Fields, theirs: set[str]) -> None:
    assert set(theirs) - ours.known == set()


@pytest.mark.parametrize("ours", [huggingface_files.MODEL, huggingface_files.IMAGES, timm_files.PRETRAINED,
                                  timm_files.TRANSFORMER, timm_files.CONFIG, timm_files.RESNET])  # fmt: skip
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
        ({"model_args": {"init_values": 1e-5}}, "init_values 1e-05"),
        ({"model_args": {"scale_mlp_norm": True}}, "scale_mlp_norm true"),
        ({"model_args": {"act_layer": "quick_gelu"}}, "activation is quick_gelu"),
        ({"architecture": "vit_base_patch16_clip_quickgelu_224"}, "activation is quick_gelu"),
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


def chosen_by_timm(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What each function of timm's plain transformers builds its model with, without building one."""
    chosen: dict[str, dict[str, Any]] = {}
    for module in (timm.models.vision_transformer, timm.models.deit):
        for maker in ("_create_vision_transformer", "_create_deit"):
            monkeypatch.setattr(module, maker, lambda name, **given: chosen.update({name: given}), raising=False)
        for name in timm.list_models(module=module.__name__.rpartition(".")[2]):
            timm.models.model_entrypoint(name)()
    return chosen


def test_what_timms_functions_choose_is_known_or_shows_in_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "class_token", "global_pool",
             "fc_norm", "pos_embed", "dynamic_img_size", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
             "cache_dir"}  # fmt: skip
    another = {
        "pre_norm",
        "init_values",
        "reg_tokens",
        "no_embed_class",
        "scale_attn_norm",
        "distilled",
        "mlp_layer",
        "qkv_bias",
    }
    chosen = chosen_by_timm(monkeypatch)
    assert len(chosen) > 100
    for name, given in chosen.items():
        if given.keys() & another:  # other tensors: refused by their names or shapes
            continue
        assert given.keys() - shown <= {"act_layer"}, name
        described = timm_files.describe({"config.json": {"architecture": name, "pretrained_cfg": {}}}, "ask")
        assert described is not None
        assert described.gelu == ("tanh" if given.get("act_layer") == "gelu_tanh" else None), name


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
