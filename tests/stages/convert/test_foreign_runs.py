"""Foreign weights through whole runs by YAML: convert, then fine-tune and evaluate from them, here and by URI."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from converting import Earlier
from foreign_files import google_arrays, huggingface_folder, write_npz
from inprocess import commit, make_context
from tiny_stages import tiny_ways
from tiny_vit import random_images, random_state, tiny

from vitpipe.infra.errors import DriftError, IntegrityError, UsageError, VitpipeError
from vitpipe.infra.lease_state import Timing
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.drive.runner import Outcome, run
from vitpipe.pipeline.plan.fingerprint import fingerprints
from vitpipe.pipeline.spec import load as spec
from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources, ForeignSource
from vitpipe.stages.convert.estimate import estimate
from vitpipe.stages.convert.foreign.changes import look as look_again
from vitpipe.stages.convert.foreign.weights import look
from vitpipe.stages.convert.run import run as convert
from vitpipe.stages.estimates import Known
from vitpipe.stages.record import load_artifact
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.flops import num_parameters
from vitpipe.stages.vit.native import load_weights

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


def test_from_a_huggingface_folder_to_the_table_by_yaml_and_again_by_uri(tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "hf")
    go(
        tmp_path,
        f"""
  data: {DIGITS}
  weights: {{stage: convert, config: {{source: {{path: ./hf}}, formats: [native]}}}}
  transfer: {{stage: finetune, needs: {{data: data, weights: weights}}, config: {FINETUNE}}}
  probe: {{stage: evaluate, needs: {{data: data, weights: weights}}, config: {PROBE}}}
  table: {{stage: report, needs: {{scores: [transfer, probe]}}, config: {{attention_images: 0}}}}
""",
    )
    page = artifact(tmp_path, "table").read("index.html").decode()
    assert "Fine-tuned" in page and "Few-shot ridge" in page and artifact(tmp_path, "weights").uri in page
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


def test_finetune_from_a_google_npz_and_from_a_headless_folder_by_yaml(tmp_path: Path) -> None:
    settings = tiny(gelu="tanh")
    huggingface_folder(tmp_path / "hf", classes=None, pooler=True)
    path = write_npz(tmp_path / "augreg.npz", google_arrays(settings, random_state(settings)))
    go(
        tmp_path,
        f"""
  data: {DIGITS}
  weights: {{stage: convert, config: {{source: {{path: {path}, format: google}}, formats: [native, timm]}}}}
  bare: {{stage: convert, config: {{source: {{path: ./hf}}}}}}
  from-bare: {{stage: finetune, needs: {{data: data, weights: bare}}, config: {FINETUNE}}}
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
    assert artifact(tmp_path, "bare").facts()["model"]["classes"] == 0
    tuned = artifact(tmp_path, "from-bare").facts()["model"]
    assert (tuned["classes"], tuned["representation"]) == (10, "none")


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


def test_a_plan_recognises_a_local_file_by_its_headers(tmp_path: Path) -> None:
    settings = tiny(gelu="tanh")
    path = write_npz(tmp_path / "m.npz", google_arrays(settings, random_state(settings)))
    config = ConvertConfig.model_validate({"source": {"path": str(path)}, "formats": ["native", "timm"]})
    planned = estimate(config, ConvertResources(), {}, Known())
    assert planned.model == settings and planned.num_classes == 5
    assert planned.bytes == 2 * 4 * num_parameters(settings)
    with pytest.raises(UsageError, match=r"orchvision cannot hold.*tanh GELU"):
        estimate(config.model_copy(update={"formats": ("torchvision",)}), ConvertResources(), {}, Known())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(IntegrityError, match="damaged"):
        estimate(config, ConvertResources(), {}, Known())


def test_a_run_tells_other_weights_than_it_converted(tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "hf")
    nodes = "\n  weights: {stage: convert, config: {source: {path: ./hf}, formats: [native]}}\n"
    go(tmp_path, nodes)
    assert not go(tmp_path, nodes).plan.due
    text = (tmp_path / "hf/config.json").read_text()
    (tmp_path / "hf/config.json").write_text(f"{text} ")
    with pytest.raises(DriftError, match="0 added, 0 gone, 1 changed of 2 files") as caught:
        go(tmp_path, nodes)
    assert caught.value.code == 3 and "--replace weights" in caught.value.do
    assert not go(tmp_path, nodes.replace("]}}", "]}, resources: {trust_source: true}}")).plan.due
    (tmp_path / "hf").rename(tmp_path / "away")
    found = go(tmp_path, nodes).plan
    assert not found.due and "not looked at" in found.to_json()["nodes"][0]["source"]


def test_a_plan_says_that_a_file_elsewhere_is_not_known_yet() -> None:
    config = ConvertConfig.model_validate({"source": {"path": "s3://bucket/m.npz"}})
    planned = estimate(config, ConvertResources(), {}, Known())
    assert planned.model is None and planned.notes == ("the model is recognised once s3://bucket/m.npz is fetched",)


def test_a_damaged_file_blocks_its_node_with_the_code_of_damage(tmp_path: Path) -> None:
    (tmp_path / "m.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(IntegrityError, match="damaged") as caught:
        go(tmp_path, "\n  weights: {stage: convert, config: {source: {path: ./m.npz}}}\n")
    assert caught.value.code == 8 and not (tmp_path / "runs").exists()


@pytest.mark.s3
@pytest.mark.parametrize("name", ["m.npz", "folder"])
def test_weights_on_s3_are_copied_and_verified(s3_uri: str, tmp_path: Path, name: str) -> None:
    store = open_store(f"{s3_uri}/weights")
    if name == "folder":
        huggingface_folder(tmp_path / "hf", max_shard_size="20KB")
        for path in sorted((tmp_path / "hf").iterdir()):
            store.upload(path, f"folder/{path.name}")
    else:
        settings = tiny(gelu="tanh")
        store.upload(write_npz(tmp_path / "m.npz", google_arrays(settings, random_state(settings))), "m.npz")
    ctx = make_context(tmp_path, "weights", ConvertResources())
    config = ConvertConfig.model_validate({"source": {"path": f"{s3_uri}/weights/{name}"}})
    weights = commit(ctx, convert(config, Inputs({}), ctx))
    assert weights.read_json("parity.json")["source"]["error"] <= 1e-5
    told = weights.read_json("source.json")
    assert told["path"] == f"{s3_uri}/weights/{name}" and len(told["files"]) == (7 if name == "folder" else 1)
    for digests in (False, True):
        assert "is as it was converted" in look_again(config, ConvertResources(), weights, {}, digests).note
    earlier: Any = Earlier(weights)  # which did not read how images are prepared: not read again from there, but told
    seen = look_again(config, ConvertResources(), earlier, {}, False)
    assert not seen.changes and seen.is_same == (name != "folder")
    assert ("did not read all that its configs say" in seen.note) == (name == "folder")
    changed = "m.npz" if name == "m.npz" else "folder/config.json"
    data = bytearray(store.read(changed))
    data[-1] ^= 1
    store.write(changed, bytes(data))
    assert look_again(config, ConvertResources(), weights, {}, False).is_loud
    assert "1 changed" in look_again(config, ConvertResources(), weights, {}, True).changes[0]
    with pytest.raises(UsageError, match="no such file"):
        look(ForeignSource(path=f"{s3_uri}/weights/other.npz"), tmp_path / "scratch")
    with pytest.raises(UsageError, match="no tensors there, but nothing"):
        look(ForeignSource(path=f"{s3_uri}/nowhere"), tmp_path / "scratch")
