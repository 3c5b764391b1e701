"""Runs that begin on the Hub, through the command line: exit codes, resumption at one commit, a revision that moved."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Vitpipe, typed
from hub_server import Hub, small_vit, tree
from photos import encoded, photo_folder, picture
from tiny_stages import in_process

from vitpipe.infra.errors import StorageError
from vitpipe.pipeline.drive import runner
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.ingest import run as ingest_module
from vitpipe.stages.ingest.write.shard import Shard, ShardTask
from vitpipe.stages.ingest.write.writer import write_shard
from vitpipe.stages.record import load_artifact

SPEC = """\
version: 1
name: hub
store: file://./runs
nodes:
  data: {stage: ingest, config: {source: {kind: folder, root: ROOT}, images_per_shard: 4}}
  weights: {stage: convert, config: {source: {path: PATH}, formats: [native, timm]}}
"""
DATA, NET = ("datasets", "me/set"), ("models", "me/net")


@pytest.fixture
def vitpipe(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Vitpipe]:
    """Runs a command beside `hub.yaml`, in this process, over a Hub that has both; code, output and errors."""
    photo_folder(tmp_path / "user/data", per_class=4)
    small_vit(tmp_path / "net")
    capsys.readouterr()  # transformers' bar
    hub.add(*DATA, tree(tmp_path / "user"))
    hub.add(*NET, {**tree(tmp_path / "net"), "pytorch_model.bin": b"x" * 9_999, "onnx/model.onnx": b"y" * 9_999})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    written(tmp_path)
    real = runner.run

    def here(spec: Any, replacing: Any, ways: Any) -> runner.Outcome:
        return real(spec, replacing, replace(ways, connect=in_process, metrics_at=lambda: None))

    monkeypatch.setattr(runner, "run", here)
    yield typed(capsys)


def write_one(task: ShardTask) -> Shard:
    """The first shard; then the disk is gone."""
    if Path("one-is-written").exists():
        raise StorageError("write a shard", "the disk is gone", "")
    Path("one-is-written").touch()
    return write_shard(task)


def written(tmp_path: Path, root: str = "hf://me/set/data", path: str = "hf://me/net") -> None:
    (tmp_path / "hub.yaml").write_text(SPEC.replace("ROOT", root).replace("PATH", path))


def planned(vitpipe: Vitpipe) -> dict[str, dict[str, Any]]:
    code, out, err = vitpipe("plan", "hub.yaml", "--json")
    assert (code, err) == (0, "")
    return {node["node"]: node for node in json.loads(out)["nodes"]}


def actions(vitpipe: Vitpipe) -> list[str]:
    return [node["action"] for node in planned(vitpipe).values()]


def test_from_the_hub_to_weights_and_shards_and_used_again(hub: Hub, tmp_path: Path, vitpipe: Vitpipe) -> None:
    assert actions(vitpipe) == ["run", "run"]
    assert vitpipe("run", "hub.yaml")[0] == 0
    weights = load_artifact(f"file://{tmp_path}/runs/hub/weights")
    commit = hub.repos[NET].refs["main"]
    told = weights.read_json("source.json")
    assert told["path"] == f"hf://models/me/net@{commit}"
    assert {file["path"] for file in told["files"]} == {"config.json", "model.safetensors"}
    assert {asked.rpartition("/")[2] for asked in hub.asked if "me/net/resolve" in asked} == {
        "config.json",
        "model.safetensors",
    }
    assert weights.read_json("parity.json")["source"]["max_abs_difference"] < 1e-4
    assert weights.facts()["commits"] == {"hf://models/me/net@main": commit}
    assert actions(vitpipe) == ["reuse", "reuse"] and vitpipe("run", "hub.yaml")[0] == 0


def test_each_refusal_has_its_exit_code_before_anything_is_written(
    hub: Hub, tmp_path: Path, vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes, told in (
        ({"root": "hf://me/nothing"}, "no such repository"),
        ({"path": "hf://me/nothing"}, "no such repository"),
        ({"root": "hf://me/set@v9/data"}, "no such branch"),
        ({"path": "hf://me/net/onnx"}, "no tensors there"),
        ({"path": "hf://datasets/me/set"}, "no tensors there"),
        ({"root": "hf://mnist"}, "owner"),
    ):
        written(tmp_path, **changes)
        code, _, err = vitpipe("run", "hub.yaml")
        assert code == 2 and told in err, err
    written(tmp_path)
    hub.token = "right"
    monkeypatch.setenv("HF_TOKEN", "wrong-and-secret")
    code, out, err = vitpipe("run", "hub.yaml")
    assert code == 7 and "token" in err and "secret" not in out + err
    assert not (tmp_path / "runs/hub/data").exists()
    monkeypatch.setenv("HF_TOKEN", "right")
    assert vitpipe("run", "hub.yaml")[0] == 0
    kept = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert b"Bearer" not in kept and b"wrong-and-secret" not in kept


def test_a_revision_that_moved_is_8_and_the_commit_that_was_taken_goes_on(
    hub: Hub, tmp_path: Path, vitpipe: Vitpipe
) -> None:
    assert vitpipe("run", "hub.yaml")[0] == 0
    before = (tmp_path / "runs/hub/data/record.json").read_bytes()
    first = hub.repos[DATA].refs["main"]
    second = hub.add(*DATA, {"data/class-0/000.png": encoded(picture(99), "PNG")})
    code, _, err = vitpipe("run", "hub.yaml")
    assert code == 8 and first in err and second in err and "no file that was taken" not in err
    assert planned(vitpipe)["data"]["action"] == "blocked" and planned(vitpipe)["weights"]["action"] == "reuse"
    written(tmp_path, root=f"hf://me/set@{second}/data")  # asked for by name: another recipe
    assert vitpipe("run", "hub.yaml")[0] == 3
    written(tmp_path, root=f"hf://me/set@{first}/data")  # the remedy
    assert vitpipe("run", "hub.yaml")[0] == 0
    assert (tmp_path / "runs/hub/data/record.json").read_bytes() == before
    written(tmp_path)
    assert vitpipe("run", "hub.yaml", "--replace", "data")[0] == 0  # the other one
    shards = load_artifact(f"file://{tmp_path}/runs/hub/data")
    assert isinstance(shards, ShardSet) and shards.commits == {"hf://datasets/me/set@main": second}
    assert list((tmp_path / "runs/hub/data").glob("record.*.json"))


def test_a_moved_revision_of_weights_is_8_too(hub: Hub, tmp_path: Path, vitpipe: Vitpipe) -> None:
    assert vitpipe("run", "hub.yaml")[0] == 0
    hub.add(*NET, {"README.md": b"a word more"})
    code, _, err = vitpipe("run", "hub.yaml")
    assert code == 8 and "hf://models/me/net@main" in err and "no file that was taken differs" in err
    hub.add(*NET, {"config.json": tree(tmp_path / "net")["config.json"] + b" "})
    code, _, err = vitpipe("run", "hub.yaml")
    assert code == 8 and "no file that was taken" not in err


def test_an_unfinished_ingest_goes_on_at_its_commit_and_a_moved_revision_is_8(
    hub: Hub, tmp_path: Path, vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "write_shard", write_one)
    assert vitpipe("run", "hub.yaml")[0] == 7
    monkeypatch.setattr(ingest_module, "write_shard", write_shard)
    assert actions(vitpipe) == ["resume", "reuse"]
    first = hub.repos[DATA].refs["main"]
    second = hub.add(*DATA, {"data/class-0/000.png": encoded(picture(99), "PNG")})
    code, _, err = vitpipe("run", "hub.yaml")
    assert code == 8 and first in err and second in err
    written(tmp_path, root=f"hf://me/set@{first}/data")
    assert vitpipe("run", "hub.yaml")[0] == 0
    shards = load_artifact(f"file://{tmp_path}/runs/hub/data")
    assert isinstance(shards, ShardSet) and shards.commits == {f"hf://datasets/me/set@{first}": first}
    assert any(file.at.startswith("a1/") for file in shards.files)
