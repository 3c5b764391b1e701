"""What the users of each library find in their folder."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torchvision
import transformers
from converting import convert, fetched, wanted
from safetensors import safe_open
from timm.models.vision_transformer import _load_weights
from tiny_checkpoint import commit_checkpoint
from tiny_vit import TINY, random_images, random_model, random_state, tiny

from vitpipe.stages.convert.formats.common import NPZ, About, format_of
from vitpipe.stages.convert.formats.timm import timm_architecture, timm_arguments
from vitpipe.stages.convert.formats.torchvision import FUNCTIONS, torchvision_links
from vitpipe.stages.convert.links import foreign_shapes
from vitpipe.stages.vit.shapes import parameter_shapes

pytestmark = pytest.mark.usefixtures("vit_tiny")


def test_transformers_folder_works_unedited(tmp_path: Path) -> None:
    settings = tiny(gelu="tanh", norm_eps=1e-9)
    config = wanted("huggingface", license="apache-2.0")
    weights = convert(tmp_path, commit_checkpoint(tmp_path, settings), config)
    folder = fetched(weights, tmp_path / "mine") / "huggingface"
    model, told = transformers.ViTForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert model.config.id2label[4] == "class 4" and model.config.label2id["class 4"] == 4
    assert (model.config.layer_norm_eps, model.config.hidden_act) == (1e-9, "gelu_pytorch_tanh")
    images = random_images(settings)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=list(images), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(pixels).logits, random_model(settings)(images), atol=1e-5, rtol=0)
    card = (folder / "README.md").read_text()
    assert 'license: "apache-2.0"' in card and "step: 3" in card


def test_a_checkpoint_of_sigmoids_becomes_a_multi_label_folder(tmp_path: Path) -> None:
    source = commit_checkpoint(tmp_path, tiny(), objective="sigmoid")
    folder = fetched(convert(tmp_path, source, wanted("huggingface")), tmp_path / "mine")
    config = transformers.ViTConfig.from_pretrained(folder / "huggingface")
    assert config.problem_type == "multi_label_classification"


def test_a_sigmoid_head_is_said_to_be_one() -> None:
    for sigmoid, kind in ((True, "multi_label_classification"), (False, None)):
        about = About(tiny(), sigmoid=sigmoid)
        assert json.loads(format_of("huggingface").companions(about)["config.json"]).get("problem_type") == kind
        said = "sigmoid" if sigmoid else "softmax"
        assert all(format_of(name).header(about)["probabilities"] == said for name in ("onnx", "torchvision"))
        assert (
            f"probabilities: {said}"
            in json.loads(format_of("timm").companions(about)["config.json"])["pretrained_cfg"]["notes"]
        )


def test_torchvision_takes_the_state_dict_and_its_own_normalisation(tmp_path: Path) -> None:
    settings = tiny(representation=7)
    weights = convert(tmp_path, commit_checkpoint(tmp_path, settings), wanted("torchvision", license="mit"))
    folder = fetched(weights, tmp_path / "mine") / "torchvision"
    with safe_open(folder / "model.safetensors", "pt") as file:
        said, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = torchvision.models.vit_tiny(num_classes=5, image_size=32, representation_size=7).eval()
    model.load_state_dict(state)
    images = random_images(settings)
    preset = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        torch.testing.assert_close(model(preset(images / 255)), random_model(settings)(images), atol=1e-5, rtol=0)
    assert "folded" in said["normalisation"] and "vit_tiny(num_classes=5, image_size=32" in said["load"]
    assert said["license"] == "mit" and json.loads(said["id2label"])["4"] == "class 4"


@pytest.mark.parametrize("name", ["B/16", "B/32", "L/16", "L/32", "H/14"])
def test_torchvision_functions_have_these_tensors(name: str) -> None:
    settings = tiny(variant=name, image_px=224, classes=1000)
    with torch.device("meta"):
        model = getattr(torchvision.models, FUNCTIONS[settings.sizes])()
    shapes = foreign_shapes(torchvision_links(settings), parameter_shapes(settings))
    assert shapes == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def test_google_names_are_those_of_vision_transformer_and_big_vision(tmp_path: Path) -> None:
    settings = tiny(variant={**TINY.model_dump(), "layers": 1}, representation="width")
    weights = convert(tmp_path, commit_checkpoint(tmp_path, settings), wanted("google", "google_big_vision"))
    folder = fetched(weights, tmp_path / "mine")
    with np.load(folder / "google" / NPZ) as original, np.load(folder / "google_big_vision" / NPZ) as big_vision:
        shapes = {name: original[name].shape for name in original.files}
        assert shapes["cls"] == (1, 1, 32) and shapes["Transformer/posembed_input/pos_embedding"] == (1, 17, 32)
        block = "Transformer/encoderblock_0"
        assert shapes[f"{block}/MultiHeadDotProductAttention_1/query/kernel"] == (32, 4, 8)
        assert shapes[f"{block}/MultiHeadDotProductAttention_1/query/bias"] == (4, 8)
        assert shapes[f"{block}/MultiHeadDotProductAttention_1/out/kernel"] == (4, 8, 32)
        assert shapes[f"{block}/MlpBlock_3/Dense_0/kernel"] == (32, 48) and f"{block}/LayerNorm_2/scale" in shapes
        assert shapes["embedding/kernel"] == (8, 8, 3, 32) and shapes["pre_logits/kernel"] == (32, 32)
        assert big_vision["params/pos_embedding"].shape == (1, 16, 32)
        block = "params/Transformer/encoderblock_0"
        assert {f"{block}/MultiHeadDotProductAttention_0/key/bias", f"{block}/LayerNorm_1/bias"} < set(big_vision.files)
        token = original["cls"] + original["Transformer/posembed_input/pos_embedding"][:, :1]
        assert np.array_equal(big_vision["params/cls"], token)


def test_timm_reads_bf16_arrays_itself(tmp_path: Path) -> None:
    """timm's own bf16 path goes through jax, as in its SigLIP models."""
    settings = tiny(pool="map")
    config = wanted("google_big_vision", dtype="bf16")
    folder = fetched(convert(tmp_path, commit_checkpoint(tmp_path, settings), config), tmp_path / "mine")
    model = timm.create_model(timm_architecture(settings), num_classes=5, **timm_arguments(settings))
    _load_weights(model, str(folder / "google_big_vision" / NPZ), load_bfloat16=True)
    native = random_state(settings)
    assert all(torch.equal(tensor, native[name].bfloat16().float()) for name, tensor in model.state_dict().items())


def test_onnx_says_what_it_takes(tmp_path: Path) -> None:
    config = wanted("onnx", license="mit")
    folder = fetched(convert(tmp_path, commit_checkpoint(tmp_path, tiny()), config), tmp_path / "mine")
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape, images.type) == ("images", ["batch", 3, 32, 32], "tensor(float)")
    assert (logits.name, logits.shape) == ("logits", ["batch", 5])
    said = session.get_modelmeta().custom_metadata_map
    assert said["license"] == "mit" and json.loads(said["id2label"])["0"] == "class 0"
    assert json.loads(said["lineage"])["samples seen"] == "12" and "[-1, 1]" in said["input"]
    assert b"/work" not in (folder / "onnx" / "model.onnx").read_bytes() and str(Path.cwd()) not in str(said)


def test_onnx_beyond_two_gigabytes_has_its_numbers_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1000)
    weights = convert(tmp_path, commit_checkpoint(tmp_path, tiny()), wanted("onnx"))
    assert weights.has("onnx/model.onnx") and weights.has("onnx/model.onnx.data")
    assert weights.read_json("parity.json")["onnx"]["error"] < 1e-5
