"""What convert writes in every format comes back in by `config.source`, bit by bit where the format holds all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import google_arrays, write_npz
from inprocess import commit, make_context
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tiny_checkpoint import commit_checkpoint
from tiny_vit import random_arrays, random_state, tiny
from torch import Tensor

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.artifacts import Weights
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert import parity
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources, ForeignFormat, ForeignSource, Format
from vitpipe.stages.convert.foreign.to_native import links_of, native_reader
from vitpipe.stages.convert.foreign.weights import look, reopen
from vitpipe.stages.convert.formats.torchvision import fold, torchvision_links
from vitpipe.stages.convert.links import Link, outward
from vitpipe.stages.convert.parity import prove
from vitpipe.stages.convert.run import run
from vitpipe.stages.convert.task import ProveTask
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.native import load_weights


def exported(tmp_path: Path, settings: ModelSettings, formats: tuple[Format, ...], **fields: Any) -> Path:
    """The folder of all formats, as `artifacts get` leaves it."""
    ctx = make_context(tmp_path, "out", ConvertResources())
    config = ConvertConfig.model_validate({"formats": formats, **fields})
    made = commit(ctx, run(config, Inputs({"checkpoint": (commit_checkpoint(tmp_path, settings),)}), ctx))
    for file in made.files:
        made.fetch(file.path, tmp_path / "got")
    return tmp_path / "got"


def imported(tmp_path: Path, path: Path, node: str, **fields: Any) -> tuple[ModelSettings, dict[str, Tensor], Weights]:
    ctx = make_context(tmp_path, node, ConvertResources())
    config = ConvertConfig.model_validate({"source": {"path": str(path), **fields}})
    weights = commit(ctx, run(config, Inputs({}), ctx))
    assert isinstance(weights, Weights)
    return *load_weights(weights, tmp_path / node), weights


@pytest.mark.parametrize(
    ("settings", "formats"),
    [
        (tiny(gelu="tanh"), ("native", "timm", "google")),
        (tiny(norm_eps=1e-12), ("native", "huggingface")),
        (tiny(gelu="tanh", pool="gap"), ("timm", "google", "google_big_vision")),
        (tiny(gelu="tanh", pool="map", representation=7), ("google_big_vision",)),
        (tiny(gelu="tanh", representation="width"), ("google",)),
        (tiny(gelu="tanh", image_px=37), ("native", "timm")),
        (tiny(gelu="tanh", classes=0), ("native", "google")),
        (tiny(gelu="tanh", position="learned2d", pool="map"), ("native",)),
        (ModelSettings(variant="Ti/16", image_px=32, classes=3), ("huggingface",)),
    ],
    ids=str,
)
def test_native_there_and_back(tmp_path: Path, settings: ModelSettings, formats: tuple[Format, ...]) -> None:
    got, wanted = exported(tmp_path, settings, formats), random_state(settings)
    for name in formats:
        fields = {"gelu": settings.gelu} if name == "huggingface" else {}
        read, state, weights = imported(tmp_path, got / name, f"back-{name.replace('_', '-')}", **fields)
        assert read == settings and state.keys() == wanted.keys(), name
        assert [key for key in wanted if not torch.equal(state[key], wanted[key])] == [], name
        proof = weights.read_json("parity.json")["source"]
        assert ("unchecked" in proof) == (name == "native") and proof["format"] == name


def written(path: Path, settings: ModelSettings, name: ForeignFormat) -> Path:
    """A file of the tensors alone, without a stage around it and a proof behind."""
    arrays = made_by(links_of(name, settings), settings)
    if name.startswith("google"):
        return write_npz(path / "m.npz", arrays)
    save_file(arrays, path / "m.safetensors")
    return path / "m.safetensors"


def made_by(links: list[Link], settings: ModelSettings) -> dict[str, NDArray[np.float32]]:
    state = random_arrays(settings)
    made = {one.name: one.make(*(state[source] for source in one.sources)) for one in outward(links)}
    return {name: np.ascontiguousarray(array) for name, array in made.items()}


def read_back(tmp_path: Path, path: Path, **fields: Any) -> tuple[ModelSettings, dict[str, Tensor]]:
    foreign = look(ForeignSource.model_validate({"path": str(path), **fields}), tmp_path / "scratch")
    shapes, read = native_reader(reopen(foreign, tmp_path / "scratch")[0], foreign)
    return foreign.settings, {name: torch.from_numpy(read(name)) for name in shapes}


def test_torchvision_comes_back_but_for_the_folded_projection(tmp_path: Path) -> None:
    settings = tiny()
    arrays, wanted = random_arrays(settings), random_state(settings)
    folded = fold(arrays["patch_embed.proj.weight"], arrays["patch_embed.proj.bias"])
    made = made_by(torchvision_links(settings), settings)
    assert np.array_equal(made["conv_proj.weight"], folded[0]) and np.array_equal(made["conv_proj.bias"], folded[1])
    save_file(made, tmp_path / "m.safetensors")
    read, state = read_back(tmp_path, tmp_path / "m.safetensors", heads=4)
    differing = {name for name in wanted if not torch.equal(state[name], wanted[name])}
    assert read == settings and differing <= {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    weight, bias = wanted["patch_embed.proj.weight"], wanted["patch_embed.proj.bias"]
    # there and back round a weight twice, by half a unit in the last place each; the bias sums 3 * 8 * 8 of those
    rounding = weight.abs().max() * 2**-23
    assert (state["patch_embed.proj.weight"] - weight).abs().max() <= rounding
    assert (state["patch_embed.proj.bias"] - bias).abs().max() <= 192 * rounding + bias.abs().max() * 2**-22


def test_big_vision_keeps_the_function_of_a_class_token(tmp_path: Path) -> None:
    """Its token holds the position's row, so tensors differ and outputs do not."""
    settings = tiny(gelu="tanh")
    read, state, weights = imported(
        tmp_path, exported(tmp_path, settings, ("google_big_vision",)) / "google_big_vision", "back"
    )
    wanted = random_state(settings)
    assert read == settings and not state["pos_embed"][:, 0].any()
    assert torch.equal(state["cls_token"], wanted["cls_token"] + wanted["pos_embed"][:, :1])
    assert weights.read_json("parity.json")["source"]["error"] <= 1e-5


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_rounded_files_come_back_as_they_were_rounded(tmp_path: Path, dtype: str) -> None:
    settings = tiny(gelu="tanh")
    got = exported(tmp_path, settings, ("native", "timm", "google"), dtype=dtype)
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    for name in ("native", "timm", "google"):
        _, state, _ = imported(tmp_path, got / name, f"back-{name}")
        assert all(torch.equal(state[key], value.to(kind).float()) for key, value in random_state(settings).items()), (
            name
        )


@pytest.mark.parametrize(
    ("variant", "name"),
    [("R+Ti/16", "timm"), ("R+Ti/16", "google_big_vision"), ("R26+S/32", "timm"), ("R26+S/32", "google")],
)
def test_hybrids_are_recognised_by_their_units(tmp_path: Path, variant: str, name: ForeignFormat) -> None:
    settings = ModelSettings(variant=variant, image_px=64, classes=3, gelu="erf" if name == "timm" else "tanh")
    read, state = read_back(tmp_path, written(tmp_path, settings, name))
    wanted = random_state(settings)
    differing = {key for key in wanted if not torch.equal(state[key], wanted[key])}
    assert read == settings and differing == ({"cls_token", "pos_embed"} if name == "google_big_vision" else set())


@pytest.mark.parametrize("name", ["timm", "google"])
def test_resnets_are_recognised_and_say_no_image_size(tmp_path: Path, name: ForeignFormat) -> None:
    settings = ModelSettings(variant="R50x1", image_px=64, classes=3)
    path, wanted = written(tmp_path, settings, name), random_state(settings)
    with pytest.raises(UsageError, match=r"config\.source\.image_px"):
        read_back(tmp_path, path)
    read, state = read_back(tmp_path, path, image_px=64)
    assert read == settings and all(torch.equal(state[key], wanted[key]) for key in wanted)
    proof = prove(ProveTask(look(ForeignSource(path=str(path), image_px=64), tmp_path / "scratch"),
                            make_context(tmp_path, "proof", ConvertResources()).task))  # fmt: skip
    assert proof["error"] <= proof["tolerance"]


def test_a_hybrid_cannot_take_in_another_normalisation(tmp_path: Path) -> None:
    path = written(tmp_path, ModelSettings(variant="R+Ti/16", image_px=64, classes=3), "timm")
    with pytest.raises(UsageError, match="is standardised and cannot take it in"):
        read_back(tmp_path, path, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def test_a_failed_proof_of_the_source_fails_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = exported(tmp_path, tiny(gelu="tanh"), ("google",))
    monkeypatch.setattr(parity, "TOLERANCE", 1e-12)
    with pytest.raises(StageError, match="source differs by"):
        imported(tmp_path, got / "google", "back")


def test_what_was_recognised_is_an_event(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "m.npz", google_arrays(tiny(classes=0), random_state(tiny(classes=0))))
    imported(tmp_path, path, "back")
    told = make_context(tmp_path, "back", ConvertResources(), attempt="a2").events.of("note")  # type: ignore[attr-defined]
    assert "patch_px 8, by google's names" in told[0] and told[1] == "it has no head: fine-tuning gives it one"


def test_numbers_that_are_not_finite_fail_the_stage(tmp_path: Path) -> None:
    settings = tiny(gelu="tanh")
    arrays = google_arrays(settings, random_state(settings))
    arrays["cls"] = np.full_like(arrays["cls"], np.nan)
    with pytest.raises(StageError, match=r"become cls_token are not finite"):
        imported(tmp_path, write_npz(tmp_path / "m.npz", arrays), "back")
    assert not any(entry.path.endswith("record.json") for entry in open_store(f"file://{tmp_path}/store").list())
