"""Files that hold more than a model, or hold it below other names: taken where one way is, else one true sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from foreign_files import google_arrays, huggingface_folder, write_npz
from inprocess import make_context
from safetensors.torch import load_file, save_file
from tiny_vit import random_images, random_state, tiny
from torch import Tensor

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources, ForeignSource
from vitpipe.stages.convert.foreign.to_native import native_reader
from vitpipe.stages.convert.foreign.weights import ForeignWeights, glance, look, reopen
from vitpipe.stages.convert.parity import prove
from vitpipe.stages.convert.run import run
from vitpipe.stages.convert.task import ProveTask
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.sincos import sincos_2d

TINY = tiny()
ARGUMENTS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5}
State = dict[str, Tensor]


def look_at(tmp_path: Path, path: Path, **given: Any) -> ForeignWeights:
    return look(ForeignSource.model_validate({"path": str(path), "heads": 4, **given}), tmp_path / "scratch")


def tensors(tmp_path: Path, foreign: ForeignWeights) -> State:
    named, _ = reopen(foreign, tmp_path / "scratch")
    shapes, read = native_reader(named, foreign)
    return {name: torch.from_numpy(read(name)) for name in shapes}


def proof(tmp_path: Path, foreign: ForeignWeights) -> dict[str, Any]:
    return prove(ProveTask(foreign, make_context(tmp_path, "proof", ConvertResources()).task))


def below(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def saved(path: Path, *states: State) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone() for state in states for name, tensor in state.items()}, path)
    return path


def same(found: State, wanted: State) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


WRAPPED = (
    "module.", "model.", "_orig_mod.", "backbone.", "encoder.", "vit.", "model._orig_mod.", "module.model.",
    "ema_model.",
)  # fmt: skip


@pytest.mark.parametrize("prefix", WRAPPED)
def test_a_wrappers_name_is_taken_off_and_said(tmp_path: Path, prefix: str) -> None:
    foreign = look_at(tmp_path, saved(tmp_path / "m.safetensors", below(prefix, random_state(TINY))))
    assert foreign.settings == TINY and f"its tensors stand below {prefix!r}" in foreign.notes
    assert same(tensors(tmp_path, foreign), random_state(TINY))
    assert proof(tmp_path, foreign)["error"] <= 1e-5


def test_a_wrapped_folder_of_transformers(tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "hf")
    plain = tensors(tmp_path, look_at(tmp_path, tmp_path / "hf"))
    path = tmp_path / "hf" / "model.safetensors"
    saved(path, below("module.", load_file(path)), {"module.n_averaged": torch.ones((), dtype=torch.int64)})
    foreign = look_at(tmp_path, tmp_path / "hf")
    assert foreign.format == "huggingface" and same(tensors(tmp_path, foreign), plain)
    assert proof(tmp_path, foreign)["error"] <= 1e-5


def test_what_stands_beside_a_wrapped_model_is_left_out_by_name(tmp_path: Path) -> None:
    others = {"projector.weight": torch.ones(3, 3), "queue": torch.ones(4)}
    headless = {name: t for name, t in random_state(TINY).items() if not name.startswith("head.")}
    foreign = look_at(tmp_path, saved(tmp_path / "m.safetensors", below("backbone.", headless), others))
    assert "2 tensors were left out, outside 'backbone.': projector.weight, queue" in foreign.notes
    assert foreign.settings.classes == 0


def test_a_counter_beside_plain_names_is_left_aside(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors", random_state(TINY), {"step": torch.tensor(7)})
    foreign = look_at(tmp_path, path)
    assert "1 tensor was left out, one whole number each: step" in foreign.notes
    assert same(tensors(tmp_path, foreign), random_state(TINY)) and proof(tmp_path, foreign)["error"] <= 1e-5
    whole = {name: t.to(torch.int8) for name, t in random_state(TINY).items()}
    with pytest.raises(UsageError, match=r"holds I8, not floating point numbers. Dequantise it"):
        look_at(tmp_path, saved(tmp_path / "int8.safetensors", whole))


def test_of_two_copies_the_recipe_says_which(tmp_path: Path) -> None:
    mine, average = random_state(TINY), random_state(TINY, seed=1)
    path = saved(tmp_path / "m.safetensors", below("model.", mine), below("model_ema.module.", average))
    with pytest.raises(UsageError, match=r"it holds 2 models, below 'model.', 'model_ema.module.'") as caught:
        look_at(tmp_path, path)
    assert "config.source.prefix" in caught.value.do
    assert same(tensors(tmp_path, look_at(tmp_path, path, prefix="model.")), mine)
    chosen = look_at(tmp_path, path, prefix="model_ema.module.")
    assert same(tensors(tmp_path, chosen), average) and proof(tmp_path, chosen)["error"] <= 1e-5
    with pytest.raises(UsageError, match=r"none of its 64 tensors begins with 'emma.'; models stand below 'model.'"):
        look_at(tmp_path, path, prefix="emma.")


def test_an_average_beside_plain_names(tmp_path: Path) -> None:
    mine, average = random_state(TINY), random_state(TINY, seed=1)
    path = saved(tmp_path / "m.safetensors", mine, below("ema.", average))
    with pytest.raises(UsageError, match=r"it holds 2 models, below '', 'ema.'"):
        look_at(tmp_path, path)
    assert same(tensors(tmp_path, look_at(tmp_path, path, prefix="")), mine)
    assert same(tensors(tmp_path, look_at(tmp_path, path, prefix="ema.")), average)


def test_an_average_in_a_file_beside_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "both" / "model.safetensors", random_state(TINY))
    saved(tmp_path / "both" / "model_ema.safetensors", random_state(TINY, seed=1))
    foreign = look_at(tmp_path, tmp_path / "both")
    assert "model_ema.safetensors beside it was not taken: config.source.path may name a file" in foreign.notes
    assert same(tensors(tmp_path, foreign), random_state(TINY))
    (tmp_path / "both" / "model.safetensors").rename(tmp_path / "both" / "best.safetensors")
    with pytest.raises(UsageError, match=r"2 files of tensors stand there: best.safetensors, model_ema.safetensors"):
        look_at(tmp_path, tmp_path / "both")


def test_an_unknown_prefix_has_to_be_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors", below("visual.trunk.", random_state(TINY)))
    with pytest.raises(UsageError, match=r"one below 'visual.trunk.'.*config.source.prefix: 'visual.trunk.'"):
        look_at(tmp_path, path)
    assert same(tensors(tmp_path, look_at(tmp_path, path, prefix="visual.trunk.")), random_state(TINY))


def test_a_prefix_in_an_npz(tmp_path: Path) -> None:
    settings = tiny(gelu="tanh")
    arrays = {f"{copy}/{name}": array for copy, seed in (("params", 0), ("ema", 1))
              for name, array in google_arrays(settings, random_state(settings, seed)).items()}  # fmt: skip
    path = write_npz(tmp_path / "m.npz", arrays | {"opt/step": np.array(7)})
    with pytest.raises(UsageError, match="2 Vision Transformers in it"):
        look_at(tmp_path, path)
    foreign = look_at(tmp_path, path, prefix="ema/")
    assert same(tensors(tmp_path, foreign), random_state(settings, 1)) and proof(tmp_path, foreign)["error"] <= 1e-5


@pytest.mark.parametrize("name", ["wrapped.npz", "timm.npz", "google.safetensors"])
def test_a_container_or_a_prefix_that_its_library_does_not_know_is_no_matter(tmp_path: Path, name: str) -> None:
    settings = tiny(gelu="erf" if name == "timm.npz" else "tanh")
    state = random_state(settings)
    arrays = google_arrays(settings, state)
    if name == "google.safetensors":
        path = saved(tmp_path / name, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    elif name == "timm.npz":
        path = write_npz(tmp_path / name, {name: tensor.numpy() for name, tensor in state.items()})
    else:
        path = write_npz(tmp_path / name, {f"module/{name}": array for name, array in arrays.items()})
    foreign = look_at(tmp_path, path)
    assert same(tensors(tmp_path, foreign), state) and proof(tmp_path, foreign)["error"] <= 1e-5


def test_the_decoder_of_masked_pretraining_is_left_out(tmp_path: Path) -> None:
    """In the names of MAE's own code, and of transformers, whose model saves itself."""
    decoder = {"mask_token": torch.ones(1, 1, 16), "decoder_pos_embed": torch.ones(1, 17, 16),
               "decoder_blocks.0.norm1.weight": torch.ones(16), "decoder_pred.bias": torch.ones(192)}  # fmt: skip
    headless = {name: t for name, t in random_state(TINY).items() if not name.startswith("head.")}
    foreign = look_at(tmp_path, saved(tmp_path / "mae.safetensors", headless, decoder))
    assert any("4 tensors were left out, of its masked pretraining" in note for note in foreign.notes)
    assert same(tensors(tmp_path, foreign), headless) and proof(tmp_path, foreign)["error"] <= 1e-5
    config = transformers.ViTMAEConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8,
        decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )  # fmt: skip
    transformers.ViTMAEForPreTraining(config).save_pretrained(tmp_path / "hf")
    foreign = look_at(tmp_path, tmp_path / "hf")
    assert foreign.settings.classes == 0 and any("masked pretraining" in note for note in foreign.notes)
    assert proof(tmp_path, foreign)["error"] <= 1e-5


def test_grey_images_are_taken_where_that_is_allowed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("vit_base_patch16_224", num_classes=5, in_chans=1, **ARGUMENTS).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    path = saved(tmp_path / "m.safetensors", dict(theirs.state_dict()))
    with pytest.raises(UsageError, match=r"1 channel, ours have three colours.*in_chans_ok: true"):
        look_at(tmp_path, path)
    foreign = look_at(tmp_path, path, in_chans_ok=True, mean=[0.3] * 3, std=[0.6] * 3)
    model = build_model(foreign.settings)
    model.load_state_dict(tensors(tmp_path, foreign))
    grey = random_images(TINY)[:, :1]
    with torch.inference_mode():
        wanted = theirs((grey / 255 - 0.3) / 0.6)
        torch.testing.assert_close(model.eval()(grey.expand(-1, 3, -1, -1)), wanted, atol=2e-5, rtol=0)
    found = proof(tmp_path, foreign)
    assert found["error"] <= 2e-5 and "logits" in found["compared"]
    with pytest.raises(UsageError, match=r"grey, and normalised by the three numbers"):
        look_at(tmp_path, path, in_chans_ok=True, mean=[0.1, 0.2, 0.3], std=[0.5] * 3)
    four = random_state(TINY) | {"patch_embed.proj.weight": torch.zeros(32, 4, 8, 8)}
    with pytest.raises(UsageError, match="4 channels"):
        look_at(tmp_path, saved(tmp_path / "four.safetensors", four), in_chans_ok=True)


def test_positions_that_no_tensor_shows_are_asked_for(tmp_path: Path) -> None:
    settings = tiny(pool="gap", gelu="tanh")
    state = random_state(settings)
    state["pos_embed"] = torch.from_numpy(sincos_2d(4, 32)[None]).float()
    arrays = google_arrays(settings, state, big_vision=True)
    del arrays["pos_embedding"]
    path = write_npz(tmp_path / "m.npz", arrays)
    with pytest.raises(UsageError, match=r"no table of positions.*from sines.*config.source.position: sincos2d"):
        look_at(tmp_path, path, image_px=32)
    foreign = look_at(tmp_path, path, image_px=32, position="sincos2d")
    whole, computed = build_model(settings), build_model(foreign.settings)
    whole.load_state_dict(state)
    computed.load_state_dict(tensors(tmp_path, foreign))
    images = random_images(settings)
    with torch.inference_mode():
        torch.testing.assert_close(computed.eval()(images), whole.eval()(images), atol=1e-5, rtol=0)
    assert proof(tmp_path, foreign)["error"] <= 1e-5
    with pytest.raises(UsageError, match="it has a table of positions"):
        look_at(tmp_path, saved(tmp_path / "m.safetensors", random_state(TINY)), position="sincos2d")


@pytest.mark.parametrize(("format", "position", "found"), [
    ("google_big_vision", "none", "google_big_vision has no model of none positions.*are sincos2d"),
    ("google", "sincos2d", "google has no model of sincos2d positions.*are none"),
    ("timm", "sincos2d", "timm has no model of sincos2d positions.*are none"),
    ("huggingface", "none", "every model of huggingface has one"),
])  # fmt: skip
def test_positions_that_no_model_of_the_format_has_are_refused(
    tmp_path: Path, format: str, position: str, found: str
) -> None:
    """Positions as another kind would be another function, which no library could tell from the file."""
    settings = tiny(pool="cls" if format == "huggingface" else "gap", gelu="tanh")
    state = random_state(settings)
    if format.startswith("google"):
        arrays = google_arrays(settings, state, big_vision=format == "google_big_vision")
        path = write_npz(tmp_path / "m.npz", {name: one for name, one in arrays.items() if "pos_emb" not in name})
    elif format == "timm":
        del state["pos_embed"]
        path = saved(tmp_path / "m.safetensors", state)
    else:
        huggingface_folder(tmp_path / "hf")
        path = tmp_path / "hf/model.safetensors"
        whole = load_file(path)
        save_file({name: one for name, one in whole.items() if "position" not in name}, path)
    with pytest.raises(UsageError, match=found) as error:
        look_at(tmp_path, path, image_px=32, heads=4, position=position)
    assert "config.source.position" in error.value.do or format == "huggingface"


def test_a_number_that_is_none_is_told_before_anything_is_written(tmp_path: Path) -> None:
    state = random_state(TINY)
    state["blocks.1.mlp.fc1.weight"][3, 4] = torch.nan
    path = saved(tmp_path / "m.safetensors", state)
    ctx = make_context(tmp_path, "weights", ConvertResources())
    config = ConvertConfig.model_validate({"source": {"path": str(path), "heads": 4}})
    with pytest.raises(StageError, match=r"1 of the 1536 numbers.*blocks.1.mlp.fc1.weight are not finite") as caught:
        run(config, Inputs({}), ctx)
    assert "publisher" in caught.value.do and "rain again" not in str(caught.value)
    assert [entry.path for entry in ctx.out.node.list()] == ["a1/attempt.json"]


@pytest.mark.parametrize(
    ("extra", "missing", "said"),
    [
        ({"dist_token": (1, 1, 32)}, (), "it has a distillation token"),
        ({"fc_norm.weight": (32,)}, (), r"its norm behind the pooling \(fc_norm\)|not those of the model"),
        ({}, ("blocks.0.attn.qkv.bias",), "it has no biases of queries, keys and values"),
        ({}, ("norm.bias",), "all of one plain Vision Transformer"),
    ],
)
def test_what_makes_it_another_model_is_named(
    tmp_path: Path, extra: dict[str, tuple[int, ...]], missing: tuple[str, ...], said: str
) -> None:
    state = {name: tensor for name, tensor in random_state(TINY).items() if name not in missing}
    path = saved(tmp_path / "m.safetensors", state, {name: torch.ones(shape) for name, shape in extra.items()})
    with pytest.raises(UsageError, match=said) as caught:
        tensors(tmp_path, look_at(tmp_path, path))
    assert "whole" not in caught.value.do


def test_one_of_several_shards_is_told(tmp_path: Path) -> None:
    state = random_state(TINY)
    del state["head.weight"], state["blocks.1.norm1.bias"]
    path = saved(tmp_path / "model-00001-of-00002.safetensors", state)
    with pytest.raises(UsageError, match=r"It is file 1 of 2: name the folder"):
        tensors(tmp_path, look_at(tmp_path, path))


def test_a_file_called_otherwise_than_its_library_looks_for_is_the_one_that_is_proved(tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "hf")
    (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "hf" / "best.safetensors")
    assert proof(tmp_path, look_at(tmp_path, tmp_path / "hf" / "best.safetensors"))["error"] <= 1e-5


def test_a_file_that_its_own_library_refuses_is_bad_input(tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "hf")
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_channels": 4}))
    with pytest.raises(UsageError, match="the library that the file is for refuses it"):
        proof(tmp_path, glance_of(tmp_path))


def glance_of(tmp_path: Path) -> ForeignWeights:
    assert glance(ForeignSource(path=str(tmp_path / "hf"))).settings.classes == 5
    return look_at(tmp_path, tmp_path / "hf")
