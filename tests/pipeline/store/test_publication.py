"""`artifacts push`: what stands on the Hub afterwards is what the records say, and nothing of others is overwritten."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from command_line import Vitpipe, typed
from hub_server import Files, Hub, running_hub, small_vit
from huggingface_hub import DatasetCard, ModelCard
from inprocess import commit, make_context
from photos import contents, ingest, picture
from tiny_checkpoint import commit_checkpoint
from tiny_stages import tiny_ways
from tiny_vit import tiny

import vitpipe
from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage import hub_push
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.spec import load as spec
from vitpipe.pipeline.store import publication
from vitpipe.stages.artifacts import ShardSet, Weights
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.run import run as convert
from vitpipe.stages.record import load_artifact

SPEC = """\
version: 1
name: shared
store: file://./runs
nodes:
  data:
    stage: ingest
    config: {source: {kind: digits, limit: 90}, images_per_shard: 40}
  weights:
    stage: convert
    config: {source: {path: hf://me/net}, formats: [native, timm, huggingface], license: apache-2.0}
  probe:
    stage: evaluate
    needs: {data: data, weights: weights}
    config: {method: fewshot, shots: [2]}
  tuned:
    stage: finetune
    needs: {data: data, weights: weights}
    config: {batch_images: 12, total: 2 steps, peak_lr: 0.01, seeds: [0], train_per_class: 4, dev: 3, precision: fp32,
             crop: none}
"""
TO = "hf://me/shared"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run's store: data, weights that came from the Hub, and a score."""
    folder = tmp_path_factory.mktemp("a-private-place")
    small_vit(folder / "net")
    with running_hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.uri)
        hub.add("models", "me/net", {path.name: path.read_bytes() for path in (folder / "net").iterdir()})
        run(spec.load(SPEC, env={}, folder=folder), (), tiny_ways())
    return folder


@pytest.fixture
def push(
    hub: Hub, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Vitpipe]:
    """`vitpipe artifacts push` with a right token."""
    hub.token = "right"
    monkeypatch.setenv("HF_TOKEN", "right")
    yield typed(capsys, "artifacts", "push")


def run_of(made: Path) -> str:
    return f"file://{made}/runs/shared"


def pushed(hub: Hub, kind: str = "models", branch: str = "main") -> Files:
    return hub.repos[kind, "me/shared"].files(branch)


def weights(made: Path) -> Weights:
    found = load_artifact(f"{run_of(made)}/weights")
    assert isinstance(found, Weights)
    return found


def test_weights_card_and_results_arrive_as_the_records_have_them(
    hub: Hub, made: Path, push: Vitpipe, tmp_path: Path
) -> None:
    code, out, err = push(run_of(made), "weights", TO, "--json")
    assert (code, err) == (0, "")
    told, there, ours = json.loads(out), pushed(hub), weights(made)
    assert told["commit"] == hub.repos["models", "me/shared"].refs["main"] and told["url"] == f"{hub.uri}/me/shared"
    assert len(hub.repos["models", "me/shared"].commits) == 2  # the empty one with which the Hub begins, and ours
    for file in ours.files:
        path = file.path.removeprefix("huggingface/")
        if path not in ("source.json", "README.md"):
            assert hashlib.sha256(there[path]).hexdigest() == file.sha256
    beside = {"README.md", "results.csv", "results.json", "vitpipe.json", ".gitattributes"}
    assert there.keys() - beside == {file.path.removeprefix("huggingface/") for file in ours.files} - {
        "source.json",
        "README.md",
    }
    assert not any(b"a-private-place" in data for data in there.values())
    for path, data in there.items():
        (tmp_path / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / path).write_bytes(data)
    theirs = transformers.ViTForImageClassification.from_pretrained(tmp_path / "repo").eval()
    first = transformers.ViTForImageClassification.from_pretrained(made / "net").eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(theirs(images).logits, first(images).logits, atol=1e-5)


def test_the_card_is_what_the_hub_shows(hub: Hub, made: Path, push: Vitpipe) -> None:
    assert push(run_of(made), "weights", TO)[0] == 0
    card = ModelCard(pushed(hub)["README.md"].decode())
    assert (card.data.library_name, card.data.license, card.data.base_model) == (
        "transformers",
        "apache-2.0",
        ["me/net"],
    )
    result, tuned = card.data.eval_results
    assert tuned.metric_name == "top-1, fine-tuned"
    score = load_artifact(f"{run_of(made)}/probe")
    assert result.metric_value == round(100 * score.facts()["value"], 3) and result.dataset_type == "data"
    assert 'from_pretrained("me/shared")' in card.text and "hf://me/shared/native" in card.text
    assert json.loads(pushed(hub)["results.json"])["results"][0]["node"] == "probe"
    assert pushed(hub)["results.csv"].startswith(b"model,img_size,top1")


def test_a_fine_tuning_is_a_model_of_its_own(hub: Hub, made: Path, push: Vitpipe) -> None:
    assert push(run_of(made), "tuned", TO)[0] == 0
    there, score = pushed(hub), load_artifact(f"{run_of(made)}/tuned")
    assert hashlib.sha256(there["model.safetensors"]).hexdigest() == score.file("native/model.safetensors").sha256
    card = ModelCard(there["README.md"].decode())
    assert card.data.library_name == "vitpipe" and card.data.license == "apache-2.0"
    assert len(card.data.eval_results) == 1 and 'vitpipe.load("hf://me/shared")' in card.text
    assert not any(b"a-private-place" in data for data in there.values())


def test_a_training_names_what_can_be_pushed(hub: Hub, push: Vitpipe, tmp_path: Path) -> None:
    checkpoint = commit_checkpoint(tmp_path, tiny())
    (tmp_path / "store/test/spec.yaml").touch()
    code, _, err = push(f"file://{tmp_path}/store/test", "backbone", TO)
    assert code == 2 and "a training's state" in err and "Add a `convert` node" in err
    ctx = make_context(tmp_path, "written", ConvertResources())
    config = ConvertConfig(formats=("native",))
    commit(ctx, convert(config, Inputs({"checkpoint": (checkpoint,)}), ctx), inputs={"checkpoint": [checkpoint]})
    code, _, err = push(f"file://{tmp_path}/store/test", "backbone", TO)
    assert code == 2 and "Push written" in err and not hub.repos
    assert push(f"file://{tmp_path}/store/test", "written", TO)[0] == 0
    assert "model-index" not in pushed(hub)["README.md"].decode()


def test_a_second_push_changes_nothing_and_says_so(hub: Hub, made: Path, push: Vitpipe) -> None:
    assert push(run_of(made), "weights", TO, "--private")[0] == 0
    assert hub.repos["models", "me/shared"].private
    before = hub.repos["models", "me/shared"].refs["main"]
    hub.asked.clear()
    code, out, _ = push(run_of(made), "weights", TO)
    assert code == 0 and "nothing to push" in out and before in out
    assert hub.repos["models", "me/shared"].refs["main"] == before
    assert not any(asked.startswith(("PUT", "POST")) for asked in hub.asked)


def test_what_others_wrote_there_is_not_overwritten(hub: Hub, made: Path, push: Vitpipe) -> None:
    hub.add("models", "me/shared", {"README.md": b"mine", "model.safetensors": b"mine too", "notes.txt": b"x"})
    before = hub.repos["models", "me/shared"].refs["main"]
    code, _, err = push(run_of(made), "weights", TO)
    assert code == 2 and "notes.txt" in err and "--replace" in err
    assert hub.repos["models", "me/shared"].refs["main"] == before
    assert push(run_of(made), "weights", TO, "--replace")[0] == 0
    there = pushed(hub)
    assert there["notes.txt"] == b"x" and there["README.md"] != b"mine"
    assert hub.repos["models", "me/shared"].commits[before]["README.md"] == b"mine"  # the remedy lost nothing


def test_what_was_edited_there_since(hub: Hub, made: Path, push: Vitpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert push(run_of(made), "weights", TO)[0] == 0
    hub.add("models", "me/shared", {"README.md": b"edited in the browser", "labels.json": None, "more.txt": b"x"})
    code, out, _ = push(run_of(made), "weights", TO)
    there = pushed(hub)
    assert code == 0 and "1 files written" in out and "left as edited there: README.md" in out
    assert there["README.md"] == b"edited in the browser" and "labels.json" in there and there["more.txt"] == b"x"
    monkeypatch.setattr(publication, "FIRST", ("timm",))  # another layout: files go elsewhere, and the card is another
    before = hub.repos["models", "me/shared"].refs["main"]
    code, _, err = push(run_of(made), "weights", TO)
    assert code == 2 and "1 files were changed there" in err and hub.repos["models", "me/shared"].refs["main"] == before
    code, out, _ = push(run_of(made), "weights", TO, "--replace")
    assert code == 0 and "removed" in out
    assert "huggingface/model.safetensors" in pushed(hub) and "timm/config.json" not in pushed(hub)
    assert pushed(hub)["more.txt"] == b"x" and "preprocessor_config.json" not in pushed(hub)


def test_private_is_not_taken_for_granted(hub: Hub, made: Path, push: Vitpipe) -> None:
    hub.add("models", "me/shared", {".gitattributes": b""})
    code, _, err = push(run_of(made), "weights", TO, "--private")
    assert code == 2 and "everybody may read it" in err and pushed(hub).keys() == {".gitattributes"}
    hub.repos["models", "me/shared"].private = True
    assert push(run_of(made), "weights", TO, "--private")[0] == 0


def test_what_is_sent_is_told_as_it_goes(hub: Hub, made: Path, push: Vitpipe) -> None:
    heard: list[tuple[int, int]] = []
    publication.publish(run_of(made), "weights", TO, lambda done, total, _: heard.append((done, total)))
    (total,) = {total for _, total in heard}
    assert sorted(heard) == heard and heard[-1][0] == total and len({done for done, _ in heard}) > 5


def test_large_files_go_there_in_parts(hub: Hub, made: Path, push: Vitpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "SMALL_BYTES", 1_000)
    hub.part_bytes = 20_000
    assert push(run_of(made), "weights", TO)[0] == 0
    ours = weights(made).file("native/model.safetensors")
    assert ours.bytes > 2 * hub.part_bytes
    assert hashlib.sha256(pushed(hub)["native/model.safetensors"]).hexdigest() == ours.sha256
    assert sum(f"/lfs/{ours.sha256}/" in asked for asked in hub.asked) == -(-ours.bytes // hub.part_bytes)


@pytest.mark.s3
def test_a_run_in_a_bucket_is_pushed_as_one_on_a_disk(
    s3_uri: str, hub: Hub, made: Path, push: Vitpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (one for one in (made / "runs/shared").rglob("*") if one.is_file()):
        open_store(s3_uri).upload(path, f"shared/{path.relative_to(made / 'runs/shared').as_posix()}")
    monkeypatch.setattr(publication, "SMALL_BYTES", 1_000)
    assert push(f"{s3_uri}/shared", "weights", TO)[0] == 0
    for file in weights(made).files:
        if file.path.startswith("native/") and file.path.endswith(".safetensors"):
            assert hashlib.sha256(pushed(hub)[file.path]).hexdigest() == file.sha256
    assert not any(s3_uri.encode() in data for data in pushed(hub).values())


def test_a_repository_without_any_commit(hub: Hub, made: Path, push: Vitpipe) -> None:
    hub.begins = False
    assert push(run_of(made), "weights", TO)[0] == 0
    assert len(hub.repos["models", "me/shared"].commits) == 1 and "config.json" in pushed(hub)


def test_two_pushes_at_once_do_not_overwrite_each_other(
    hub: Hub, made: Path, push: Vitpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push(run_of(made), "weights", f"{TO}@a-branch")[0] == 0
    real = hub_push.commit

    def late(*args: Any) -> Any:
        hub.add("models", "me/shared", {"labels.json": b"another's"})
        return real(*args)

    monkeypatch.setattr(hub_push, "commit", late)
    code, _, err = push(run_of(made), "weights", TO)
    assert code == 7 and "somebody else changed it" in err and pushed(hub)["labels.json"] == b"another's"


def test_refusals(hub: Hub, made: Path, push: Vitpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    for node, to, code, told in (
        ("probe", TO, 2, "no weights"),
        ("nothing", TO, 2, "no node of that name"),
        ("weights", "hf://shared", 2, "hf://owner/name"),
        ("weights", "s3://bucket/x", 2, "hf://owner/name"),
        ("weights", "hf://datasets/me/shared", 2, "it makes a model"),
        ("data", "hf://models/me/shared", 2, "it makes a dataset"),
        ("weights", "hf://me/shared/folder", 2, "branch of a repository"),
    ):
        found, _, err = push(run_of(made), node, to)
        assert found == code and told in err, err
    assert not hub.repos
    monkeypatch.setenv("HF_TOKEN", "wrong-and-secret")
    code, out, err = push(run_of(made), "weights", TO)
    assert code == 7 and "token" in err and "secret" not in out + err
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = push(run_of(made), "weights", TO)
    assert code == 7 and "HF_TOKEN" in err and not hub.repos


def test_a_damaged_file_is_not_pushed(
    hub: Hub, made: Path, push: Vitpipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = weights(made).file("timm/model.safetensors")
    path = made / "runs/shared/weights" / file.at
    sound = path.read_bytes()
    try:
        path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        for small in (publication.SMALL_BYTES, 1_000):  # given as bytes, and read while it is sent
            monkeypatch.setattr(publication, "SMALL_BYTES", small)
            code, _, err = push(run_of(made), "weights", TO)
            assert code == 8 and "model.safetensors" in err
    finally:
        path.write_bytes(sound)
    assert push(run_of(made), "weights", f"{TO}@a-branch")[0] == 0
    assert "model.safetensors" in pushed(hub, branch="a-branch") and "model.safetensors" not in pushed(hub)


def test_a_data_set_goes_there_and_comes_back(hub: Hub, made: Path, push: Vitpipe, tmp_path: Path) -> None:
    assert push(run_of(made), "data", TO)[0] == 0
    there, shards = pushed(hub, "datasets"), load_artifact(f"{run_of(made)}/data")
    assert isinstance(shards, ShardSet)
    for file in shards.files:
        if file.path.endswith((".tar", ".index")) or file.path == "manifest.json":
            assert hashlib.sha256(there[file.path]).hexdigest() == file.sha256
    card = DatasetCard(there["README.md"].decode())
    assert {"split": "test", "path": "test-*.tar"} in card.data.configs[0]["data_files"]
    source: dict[str, Any] = {"kind": "webdataset", "classes": 10}
    config = {"images_per_shard": 40, "splits": {"train": 1.0}}
    back = ingest(tmp_path, {"source": {**source, "urls": "hf://me/shared/train-*.tar"}, **config}, node="back")
    tars = f"{made}/runs/shared/data/a1/train-*.tar"
    here = ingest(tmp_path, {"source": {**source, "urls": tars}, **config}, node="here")
    assert contents(back) == contents(here) and back.splits["train"] == shards.splits["train"]


def test_pushed_weights_predict_from_there(
    hub: Hub, made: Path, push: Vitpipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert push(run_of(made), "weights", TO)[0] == 0
    here = vitpipe.load(f"{run_of(made)}/weights").predict(picture(1)).classes
    for place in (TO, f"{TO}/native", f"{TO}@main"):
        there = vitpipe.load(place)
        assert there.labels == ("ant", "bee", "cat") and there.predict(picture(1)).classes == here
    before = hub.sent_bytes
    vitpipe.load(TO)
    assert hub.sent_bytes == before  # each commit's files are fetched once
    out = vitpipe.convert(f"{TO}@main", "timm", tmp_path / "out").folder
    ours = weights(made).file("timm/model.safetensors")
    assert (out / "timm/model.safetensors").read_bytes()[-9_000:] == weights(made).read(ours.path)[-9_000:]
    hub.add("models", "me/net", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(
        UsageError, match=r"no native weights stand there, but config.json, pytorch_model.bin\. .*convert"
    ):
        vitpipe.load("hf://me/net")


def test_pushed_weights_come_back_as_they_were(hub: Hub, made: Path, push: Vitpipe, tmp_path: Path) -> None:
    assert push(run_of(made), "weights", TO)[0] == 0
    text = f"version: 1\nname: back\nstore: file://{tmp_path}/runs\nnodes:\n  weights: {{stage: convert, config: "
    run(spec.load(text + f"{{source: {{path: {TO}}}}}}}\n", env={}, folder=tmp_path), (), tiny_ways())
    back = load_artifact(f"file://{tmp_path}/runs/back/weights")
    assert back.read("native/model.safetensors")[-9_000:] == weights(made).read("native/model.safetensors")[-9_000:]
    assert back.read_json("labels.json") == weights(made).read_json("labels.json")
