"""The convert stage from a committed checkpoint to files that others load, and the bad inputs it refuses."""

from pathlib import Path
from typing import Any

import converting
import pytest
import timm
import torch
from converting import fetched, given
from inprocess import make_context
from safetensors.torch import load_file
from tiny_checkpoint import STATE_FILE, commit_checkpoint
from tiny_vit import random_state, tiny

from vitpipe.infra.errors import IntegrityError, StageError, Stopped, StorageError, UsageError
from vitpipe.stages.artifacts import Artifact, File, Weights
from vitpipe.stages.convert import run as run_module
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.containers import hashed_file
from vitpipe.stages.convert.run import run
from vitpipe.stages.vit.model import ViT
from vitpipe.stages.vit.native import load_native, load_weights

BOTH = ConvertConfig(formats=("native", "timm"))


def convert(tmp_path: Path, source: Artifact, config: ConvertConfig = BOTH, node: str = "weights") -> Weights:
    return converting.convert(tmp_path, source, config, node, twice=True)


def test_native_files_hold_the_checkpoint_and_say_so(tmp_path: Path) -> None:
    settings = tiny()
    weights = convert(tmp_path, commit_checkpoint(tmp_path, settings))
    read, state = load_weights(weights, tmp_path / "mine")
    wanted = random_state(settings)
    assert read == settings and set(state) == set(wanted)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    parity = weights.read_json("parity.json")
    assert parity["native"]["round_trip"] == "bit-identical"
    assert parity["timm"]["max_abs_difference"] < 1e-5 and parity["timm"]["library"] == f"timm {timm.__version__}"
    assert weights.formats == ("native", "timm") and len(weights.pretrained_on) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"gelu": "tanh"},
        {"pool": "gap"},
        {"pool": "map"},
        {"position": "learned2d"},
        {"position": "sincos2d", "pool": "gap"},
        {"position": "none"},
        {"image_px": 37},
        {"variant": {"layers": 1, "width": 24, "mlp": 31, "heads": 3, "patch_px": 8}},
    ],
)
def test_timm_folder_loads_in_timm(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = tiny(**changes)
    weights = convert(tmp_path, commit_checkpoint(tmp_path, settings))
    folder = fetched(weights, tmp_path / "mine")
    theirs = timm.create_model(f"local-dir:{folder}/timm", pretrained=True).eval()
    ours = ViT(settings).eval()
    ours.load_state_dict(random_state(settings))
    images = torch.rand(3, 3, settings.image_px, settings.image_px) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(theirs(images), ours(images), atol=1e-5, rtol=0)
    assert theirs.pretrained_cfg["label_names"][4] == "class 4" and theirs.pretrained_cfg["mean"] == [0.5, 0.5, 0.5]


def test_named_variant_loads_by_checkpoint_path(tmp_path: Path) -> None:
    settings = tiny(variant="Ti/16", image_px=32)
    folder = fetched(convert(tmp_path, commit_checkpoint(tmp_path, settings)), tmp_path / "mine")
    path = str(folder / "timm" / "model.safetensors")
    theirs = timm.create_model("vit_tiny_patch16_224", checkpoint_path=path, num_classes=5, img_size=32)
    assert torch.equal(theirs.head.weight, random_state(settings)["head.weight"])


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_dtype_is_what_is_written_and_only_rounding_differs(tmp_path: Path, dtype: str, kind: torch.dtype) -> None:
    weights = convert(
        tmp_path, commit_checkpoint(tmp_path, tiny()), ConvertConfig(formats=("native", "timm"), dtype=dtype)
    )
    folder = fetched(weights, tmp_path / "mine")
    assert {tensor.dtype for tensor in load_file(folder / "timm" / "model.safetensors").values()} == {kind}
    proof = weights.read_json("parity.json")["timm"]
    assert proof["error"] <= 1e-5 < proof["max_abs_difference"]


def test_weights_convert_again_to_the_same_bytes(tmp_path: Path) -> None:
    first = convert(tmp_path, commit_checkpoint(tmp_path, tiny()))
    again = convert(tmp_path, first, node="again")
    assert {file.path: file.sha256 for file in again.files} == {file.path: file.sha256 for file in first.files}
    assert again.pretrained_on == first.pretrained_on


def test_what_timm_cannot_hold_is_said_before_writing(tmp_path: Path) -> None:
    source = commit_checkpoint(tmp_path, tiny(representation=16, norm_eps=1e-12))
    with pytest.raises(UsageError, match=r"representation layer of 16.*norm_eps 1e-12"):
        convert(tmp_path, source)
    assert not list((tmp_path / "store" / "test" / "weights" / "a1").glob("*/*"))
    assert convert(tmp_path, source, ConvertConfig(), node="native-only").formats == ("native",)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = random_state(tiny())
    state["blocks.1.mlp.fc1.weight"][3, 4] = float("nan")
    with pytest.raises(StageError, match=r"blocks\.1\.mlp\.fc1\.weight.*not finite"):
        convert(tmp_path, commit_checkpoint(tmp_path, tiny(), state))


def test_a_checkpoint_of_another_architecture_is_named(tmp_path: Path) -> None:
    state = random_state(tiny())
    state["blocks.0.attn.qvk.weight"] = state.pop("blocks.0.attn.qkv.weight")
    with pytest.raises(IntegrityError, match=r"- blocks.0.attn.qkv.weight .*found instead: blocks.0.attn.qvk.weight"):
        convert(tmp_path, commit_checkpoint(tmp_path, tiny(), state))


def test_a_flipped_byte_is_found_before_the_file_is_opened(tmp_path: Path) -> None:
    source = commit_checkpoint(tmp_path, tiny())
    path = tmp_path / "store" / "test" / "backbone" / source.file(STATE_FILE).at
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        convert(tmp_path, source)


def test_a_manifest_that_names_another_file_is_refused(tmp_path: Path) -> None:
    source = commit_checkpoint(tmp_path, tiny())
    changed = tuple(
        file.model_copy(update={"sha256": "0" * 64}) if file.path == STATE_FILE else file for file in source.files
    )
    with pytest.raises(IntegrityError, match="the step's manifest"):
        convert(tmp_path, source.model_copy(update={"files": changed}))


def test_a_written_file_that_the_store_holds_otherwise_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is moved there by the digest of its writing, unread: the checks read it back."""
    write = run_module._write

    def damaged(*given: Any) -> tuple[File, ...]:
        files = write(*given)
        at = next(file.at for file in files if file.path == "timm/model.safetensors")
        path = tmp_path / "store" / "test" / "weights" / at
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        return files

    monkeypatch.setattr(run_module, "_write", damaged)
    with pytest.raises(IntegrityError, match=r"timm/model\.safetensors"):
        convert(tmp_path, commit_checkpoint(tmp_path, tiny()))


def test_a_full_disk_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(hashed_file.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="Make room"):
        convert(tmp_path, commit_checkpoint(tmp_path, tiny()))


def test_stop_ends_it(tmp_path: Path) -> None:
    source = commit_checkpoint(tmp_path, tiny())
    ctx = make_context(tmp_path, "weights", ConvertResources())
    ctx.fence.stop("preempted")  # type: ignore[attr-defined]
    with pytest.raises(Stopped, match="preempted"):
        run(BOTH, given(source), ctx)


def test_native_folder_is_what_load_native_reads(tmp_path: Path) -> None:
    folder = fetched(convert(tmp_path, commit_checkpoint(tmp_path, tiny())), tmp_path / "mine")
    settings, state = load_native(folder / "native")
    ViT(settings).load_state_dict(state)
