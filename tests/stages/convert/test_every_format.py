"""Every format from one checkpoint: what each library makes of the folder, there and back, and what parity catches."""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torchvision
import transformers
from converting import convert, fetched
from safetensors import safe_open
from timm.models.vision_transformer import _load_weights
from tiny_checkpoint import commit_checkpoint
from tiny_vit import TINY, random_images, random_model, random_state, tiny
from torch import Tensor
from torchvision.models import VisionTransformer

from infra.errors import StageError, UsageError
from stages.convert import limits, onnx_file
from stages.convert import task as task_module
from stages.convert import write as write_module
from stages.convert.config import ConvertConfig, Format
from stages.convert.described import NPZ
from stages.convert.limits import problems
from stages.convert.links import foreign_shapes
from stages.convert.names_torchvision import torchvision_links
from stages.convert.source import Tensors
from stages.convert.task import refuse
from stages.convert.timm_config import timm_architecture, timm_arguments
from stages.vit.native import parameter_shapes

FORMATS: tuple[Format, ...] = ("native", "timm", "huggingface", "torchvision", "google", "google_big_vision", "onnx")


@pytest.fixture(autouse=True)
def vit_tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torchvision function for the tiny sizes, so that its folder is tested at the price of the others."""
    build = partial(
        VisionTransformer, patch_size=TINY.patch_px, num_layers=TINY.layers, num_heads=TINY.heads,
        hidden_dim=TINY.width, mlp_dim=TINY.mlp,
    )  # fmt: skip
    monkeypatch.setattr(torchvision.models, "vit_tiny", build, raising=False)
    monkeypatch.setitem(limits.TORCHVISION, TINY, "vit_tiny")  # type: ignore[arg-type]
    yield


def wanted(*formats: Format, **changes: Any) -> ConvertConfig:
    return ConvertConfig(formats=formats, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gelu": "tanh", "norm_eps": 1e-12},
        {"pool": "gap", "position": "none"},
        {"pool": "map", "position": "sincos2d"},
        {"position": "learned2d", "representation": 7},
        {"position": "relative"},
        {"image_px": 37, "classes": 1},
        {"classes": 0},
        {"variant": {"layers": 1, "width": 24, "mlp": 31, "heads": 3, "patch_px": 8}, "gelu": "tanh"},
    ],
)
def test_each_format_that_holds_the_model_is_proved(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = tiny(**changes)
    formats = tuple(name for name in FORMATS if not problems(name, settings))
    assert formats[0] == "native" and len(formats) > 1
    weights = convert(tmp_path, commit_checkpoint(tmp_path, settings), wanted(*formats))
    proofs = weights.read_json("parity.json")
    for name in formats[1:]:
        assert proofs[name]["max_abs_difference"] < 1e-5 and proofs[name]["error"] < 1e-5, name
        assert proofs[name]["library"] and "logits" in proofs[name]["compared"]
        assert proofs[name]["dtype"] == "fp32" and proofs[name]["architecture"]


HELD_OTHERWISE = {
    "native": "", "timm": "", "huggingface": "", "google": "",
    "torchvision": " but for patch_embed.proj.weight, patch_embed.proj.bias, held in another form",
    "google_big_vision": " but for cls_token, pos_embed, held in another form",
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_there_and_back_is_bit_identical(tmp_path: Path, dtype: str) -> None:
    config = ConvertConfig.model_validate({"formats": FORMATS, "dtype": dtype})
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, tiny()), config).read_json("parity.json")
    assert {name: proofs[name]["round_trip"] for name in HELD_OTHERWISE} == {
        name: f"bit-identical{but}" for name, but in HELD_OTHERWISE.items()
    }
    rounded = dtype != "fp32"
    assert all((proofs[name]["max_abs_difference"] > 1e-5) == rounded for name in FORMATS[1:])
    assert all(proofs[name]["error"] < 1e-5 for name in FORMATS[1:])


@pytest.mark.parametrize("position", ["sincos2d", "learned2d"])
def test_computed_positions_may_be_rounded(tmp_path: Path, position: str) -> None:
    config = wanted("timm", "google", "google_big_vision", dtype="bf16")
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, tiny(position=position)), config).read_json("parity.json")
    assert all(proof["error"] < 1e-5 for proof in proofs.values())


def test_every_task_may_run_twice(tmp_path: Path) -> None:
    source = commit_checkpoint(tmp_path, tiny())
    first = convert(tmp_path, source, wanted(*FORMATS), twice=True)
    again = convert(tmp_path, first, wanted(*FORMATS), node="again")
    assert {file.path: file.sha256 for file in again.files} == {file.path: file.sha256 for file in first.files}
    assert again.lineage == first.lineage and first.lineage["step"] == "3"


def test_ti16_in_all_formats(tmp_path: Path) -> None:
    settings = tiny(variant="Ti/16", image_px=224, classes=10)
    formats = tuple(name for name in FORMATS if name != "torchvision")
    weights = convert(tmp_path, commit_checkpoint(tmp_path, settings), wanted(*formats))
    folder, proofs = fetched(weights, tmp_path / "mine"), weights.read_json("parity.json")
    assert all(proofs[name]["error"] < 2e-5 for name in formats[1:]), proofs
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    model.load_pretrained(str(folder / "google" / NPZ))
    native = random_state(settings)
    assert all(torch.equal(tensor, native[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("variant", "formats"), [
    ("R+Ti/16", ("native", "timm", "google", "google_big_vision", "onnx")),
    ("R50x1", ("native", "timm", "google")),
])  # fmt: skip
def test_hybrids_and_resnets(tmp_path: Path, variant: str, formats: tuple[Format, ...]) -> None:
    settings = tiny(variant=variant, image_px=64)
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, settings), wanted(*formats)).read_json("parity.json")
    assert all(proofs[name]["error"] < 5e-5 for name in formats[1:]), proofs
    assert all(proofs[name]["round_trip"].startswith("bit-identical") for name in formats if name != "onnx")


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
        model = getattr(torchvision.models, limits.TORCHVISION[settings.sizes])()
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


def swap_q_and_k(name: str, tensor: Tensor) -> Tensor:
    return torch.cat([tensor.chunk(3)[part] for part in (1, 0, 2)]) if name == "blocks.0.attn.qkv.weight" else tensor


def shift_a_position(name: str, tensor: Tensor) -> Tensor:
    return torch.cat([tensor[:, :1], tensor[:, 1:].roll(1, dims=1)], dim=1) if name == "pos_embed" else tensor


def transpose_a_kernel(name: str, tensor: Tensor) -> Tensor:
    return tensor.T.contiguous() if name == "blocks.1.attn.proj.weight" else tensor


def written_as(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensors], Tensors]) -> None:
    """Let the writing tasks see a changed source; the checking ones see the true one."""
    for module in (write_module, onnx_file):
        opened = module.open_source  # type: ignore[attr-defined]
        monkeypatch.setattr(module, "open_source", lambda *given, opened=opened: change(opened(*given)))


@pytest.mark.parametrize("break_it", [swap_q_and_k, shift_a_position, transpose_a_kernel])
def test_parity_catches_other_tensors_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[str, Tensor], Tensor]
) -> None:
    def broken(true: Tensors) -> Tensors:
        return Tensors(true.settings, true.shapes, lambda name: break_it(name, true.read(name)))

    written_as(monkeypatch, broken)
    with pytest.raises(StageError) as caught:
        convert(tmp_path, commit_checkpoint(tmp_path, tiny()), wanted(*FORMATS[1:]))
    for name in FORMATS[1:]:
        assert f"{name} differs by" in caught.value.found
        assert f"{name} comes back with another" in caught.value.found or name == "onnx" or break_it is shift_a_position


@pytest.mark.parametrize(("true", "catching"), [
    ({"gelu": "tanh"}, ("timm", "huggingface", "torchvision", "onnx")),
    ({"norm_eps": 1e-12}, ("timm", "huggingface", "torchvision", "google", "google_big_vision")),
])  # fmt: skip
def test_parity_catches_another_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, true: dict[str, Any], catching: tuple[Format, ...]
) -> None:
    """The files say, or their libraries compute, the exact GELU and an epsilon of 1e-6; the checkpoint's model not."""
    monkeypatch.setattr(task_module, "problems", lambda name, settings: [])
    written_as(monkeypatch, lambda source: Tensors(tiny(), source.shapes, source.read))
    with pytest.raises(StageError) as caught:
        convert(tmp_path, commit_checkpoint(tmp_path, tiny(**true)), wanted(*catching))
    assert all(f"{name} differs by" in caught.value.found for name in catching)


@pytest.mark.parametrize(("formats", "changes", "reason"), [
    (("huggingface",), {"representation": 16}, "representation layer of 16"),
    (("huggingface",), {"pool": "gap"}, "pooling by gap"),
    (("huggingface",), {"variant": "R+Ti/16"}, "the hybrid R[+]Ti/16: ViTForImageClassification is a plain ViT"),
    (("huggingface", "torchvision"), {"position": "relative"}, "relative positions.*torchvision cannot hold relative"),
    (("torchvision",), {"variant": "Ti/16"}, "Ti/16: its functions are vit_b_16"),
    (("torchvision",), {"variant": {**TINY.model_dump(), "layers": 3}}, "explicit sizes"),
    (("torchvision",), {"gelu": "tanh"}, "the tanh GELU"),
    (("torchvision",), {"norm_eps": 1e-12}, "norm_eps 1e-12"),
    (("torchvision",), {"image_px": 37}, "37 px, which patches of 8 px do not divide"),
    (("torchvision",), {"variant": "R50x1"}, "the resnet R50x1"),
    (("google",), {"pool": "map"}, "google_big_vision holds one"),
    (("google_big_vision",), {"norm_eps": 1e-12}, "norm_eps 1e-12"),
    (("google_big_vision",), {"variant": "R50x1"}, "take google"),
    (("timm",), {"variant": "R152x1"}, "the ResNet R152x1: its functions build R50x1"),
    (("onnx",), {"classes": 0}, "an encoder without a head"),
])  # fmt: skip
def test_what_a_format_cannot_hold_is_refused(
    formats: tuple[Format, ...], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=rf"cannot hold .*{reason}"):
        refuse(formats, tiny(**changes))


def test_a_refusal_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        convert(tmp_path, commit_checkpoint(tmp_path, tiny(gelu="tanh")), wanted("native", "torchvision"))
    assert not list((tmp_path / "store" / "test" / "weights" / "a1").glob("*/*"))


def test_what_a_google_file_cannot_say_is_said_beside_it(tmp_path: Path) -> None:
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, tiny()), wanted("google")).read_json("parity.json")
    assert "erf" in proofs["google"]["note"]
    assert limits.unsaid("google", tiny(gelu="tanh")) is None and limits.unsaid("timm", tiny()) is None


@pytest.mark.parametrize(("library", "formats"), [
    ("timm", ("timm", "google", "google_big_vision")), ("transformers", ("huggingface",)), ("onnxruntime", ("onnx",)),
])  # fmt: skip
def test_absent_libraries_are_said_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, formats: tuple[Format, ...]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, tiny()), wanted(*formats)).read_json("parity.json")
    assert all(f"{library} is not installed" in proofs[name]["unchecked"] for name in formats)
    assert all("round_trip" in proofs[name] for name in formats if name != "onnx")


def test_numbers_beyond_fp16_are_refused(tmp_path: Path) -> None:
    state = random_state(tiny())
    state["head.bias"][2] = -7e4
    with pytest.raises(StageError, match=r"head\.bias to fp16.*up to 70000"):
        convert(tmp_path, commit_checkpoint(tmp_path, tiny(), state), wanted("native", dtype="fp16"))
