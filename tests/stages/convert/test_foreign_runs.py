"""Foreign weights through whole runs by YAML: convert, then fine-tune and evaluate from them, here and by URI."""

from pathlib import Path

import pytest
import timm
import torch
from foreign_files import google_arrays, huggingface_folder, write_npz
from tiny_stages import tiny_ways
from tiny_vit import random_images, random_state, tiny

from infra.errors import UsageError, VitpipeError
from infra.lease_state import Timing
from pipeline import spec
from pipeline.fingerprint import fingerprints
from pipeline.runner import Outcome, run
from stages.artifacts import Artifact
from stages.record import load_artifact
from stages.vit.build import build_model
from stages.vit.native import load_weights

QUICK = Timing(renew_s=0.02, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)
DIGITS = "{stage: ingest, config: {source: {kind: digits, limit: 150}}}"
PROBE = "{method: fewshot, shots: [2]}"
FINETUNE = (
    "{batch_images: 12, total: 2 steps, peak_lr: 0.01, seeds: [0], train_per_class: 4, dev: 3, precision: fp32, "
    "crop: none}"
)


def text(tmp_path: Path, nodes: str, name: str = "foreign") -> str:
    return f"version: 1\nname: {name}\nstore: file://{tmp_path}/runs\nnodes:\n{nodes}"


def go(tmp_path: Path, nodes: str, name: str = "foreign") -> Outcome:
    return run(spec.load(text(tmp_path, nodes, name), env={}, folder=tmp_path), (), tiny_ways(timing=QUICK))


def artifact(tmp_path: Path, node: str, name: str = "foreign") -> Artifact:
    return load_artifact(f"file://{tmp_path}/runs/{name}/{node}")


def test_finetune_and_evaluate_from_a_huggingface_folder_by_yaml_and_again_by_uri(tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "hf")
    go(
        tmp_path,
        f"""
  data: {DIGITS}
  weights: {{stage: convert, config: {{source: {{path: ./hf}}, formats: [native]}}}}
  transfer: {{stage: finetune, needs: {{data: data, weights: weights}}, config: {FINETUNE}}}
  probe: {{stage: evaluate, needs: {{data: data, weights: weights}}, config: {PROBE}}}
""",
    )
    weights, transfer = artifact(tmp_path, "weights"), artifact(tmp_path, "transfer")
    data = artifact(tmp_path, "data").uri
    told = weights.read_json("source.json")
    assert told["format"] == "huggingface" and {file["path"] for file in told["files"]} == {
        "config.json", "model.safetensors",
    }  # fmt: skip
    assert weights.facts()["source_sha256"] == told["sha256"]
    assert weights.read_json("labels.json")["id2label"]["4"] == "class 4"
    assert weights.read_json("parity.json")["source"]["error"] <= 1e-5
    assert transfer.facts()["model"]["norm_eps"] == 1e-12 and transfer.facts()["protocol"]["pretrained"]
    go(
        tmp_path,
        f"""
  transfer: {{stage: finetune, needs: {{data: "{data}", weights: "{weights.uri}"}}, config: {FINETUNE}}}
  probe: {{stage: evaluate, needs: {{data: "{data}", weights: "{transfer.uri}"}}, config: {PROBE}}}
""",
        name="by-uri",
    )
    again = artifact(tmp_path, "transfer", "by-uri")
    assert again.facts()["per_seed"] == transfer.facts()["per_seed"]
    files = {file.path: file.sha256 for file in transfer.files}
    assert {file.path: file.sha256 for file in again.files}["native/model.safetensors"] == files[
        "native/model.safetensors"
    ]


def test_finetune_from_a_google_npz_by_yaml_as_timm_reads_it(tmp_path: Path) -> None:
    settings = tiny(gelu="tanh")
    path = write_npz(tmp_path / "augreg.npz", google_arrays(settings, random_state(settings)))
    go(
        tmp_path,
        f"""
  data: {DIGITS}
  weights: {{stage: convert, config: {{source: {{path: {path}, format: google}}, formats: [native, timm]}}}}
  transfer: {{stage: finetune, needs: {{data: data, weights: weights}}, config: {FINETUNE}}}
""",
    )
    weights = artifact(tmp_path, "weights")
    read, state = load_weights(weights, tmp_path / "mine")  # type: ignore[arg-type]
    ours = build_model(read)
    ours.load_state_dict(state)
    theirs = timm.create_model(
        "vit_base_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_ratio=1.5,
        num_classes=5, act_layer="gelu_tanh",
    ).eval()  # fmt: skip
    theirs.load_pretrained(str(path))
    images = random_images(settings)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), theirs(images / 127.5 - 1), atol=1e-4, rtol=0)
    assert artifact(tmp_path, "transfer").facts()["model"]["gelu"] == "tanh"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("missing.npz", "no such file"),
        ("nothing", "no such folder"),
        ("empty.npz", "file is empty"),
        ("bare", "no tensors there"),
    ],
)
def test_what_is_missing_or_empty_is_refused_before_anything_starts(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "empty.npz").touch()
    with pytest.raises(UsageError, match=f"(?i){said}"):
        go(tmp_path, f"\n  weights: {{stage: convert, config: {{source: {{path: ./{given}}}}}}}\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("{stage: convert, config: {source: {path: ./m.pt}}}", "can run code"),
        ("{stage: convert, needs: {checkpoint: 'file:///x/y'}, config: {source: {path: ./m.npz}}}", "needs one source"),
        ("{stage: convert}", "convert needs a source"),
        ("{stage: convert, config: {source: {path: ./m.npz, mean: [0, 0, 0]}}}", "give mean and std, or neither"),
        ("{stage: convert, config: {source: {path: ./m.npz, format: keras}}}", "google_big_vision"),
    ],
)
def test_validate_says_what_a_source_cannot_be(tmp_path: Path, node: str, said: str) -> None:
    with pytest.raises(VitpipeError, match=said):
        spec.load(text(tmp_path, f"\n  weights: {node}\n"), env={}, folder=tmp_path)


def test_a_local_file_may_move_without_drift_and_an_address_may_not() -> None:
    def fingerprint(path: str) -> str:
        loaded = spec.load(
            text(Path("/s"), f"\n  weights: {{stage: convert, config: {{source: {{path: '{path}'}}}}}}\n"), env={}
        )
        return fingerprints(loaded.graph, {})["weights"].sha256

    assert fingerprint("/here/m.npz") == fingerprint("/there/m.npz")
    assert fingerprint("s3://bucket/a.npz") != fingerprint("s3://bucket/b.npz")
