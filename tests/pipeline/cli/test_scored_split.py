"""A node whose data has no such split is blocked before anything runs; with the split named it is planned."""

import json
from pathlib import Path

import pytest
from photos import photo_folder

from vitpipe.pipeline.cli import main as cli

SPEC = """\
version: 1
name: mine
store: file://./runs
nodes:
  photos: {stage: ingest, config: {source: {kind: folder, root: ./photos}, splits: folders}}
  net:
    stage: pretrain
    needs: {shards: photos}
    config: {model: {variant: Ti/16, image_px: 32}, batch_images: 8, total: 3 epochs}
  weights: {stage: convert, needs: {checkpoint: net}}
  own: {stage: evaluate, needs: {data: photos, weights: weights}, config: {method: classify}}
  probe: {stage: evaluate, needs: {data: photos}, config: {method: knn, features: raw_pixels, image_px: 32}}
  tuned:
    stage: finetune
    needs: {data: photos, weights: weights}
    config: {batch_images: 8, total: 3 epochs, peak_lr: [0.01, 0.03]}
"""
SCORED = ("own", "probe", "tuned")


def test_the_plan_says_which_splits_there_are_and_the_remedy_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(SPEC)
    for split, per_class in (("train", 8), ("val", 4)):
        photo_folder(tmp_path / "photos" / split, per_class=per_class)

    def plan(*args: str) -> dict[str, tuple[str, str]]:
        assert cli.invoke(["plan", "my.yaml", "--json", *args]) == 0
        return {one["node"]: (one["action"], one["reason"]) for one in json.loads(capsys.readouterr().out)["nodes"]}

    found = plan()
    assert [found[node][0] for node in SCORED] == ["blocked"] * 3 and found["net"][0] == "run"
    for node in SCORED:
        assert "no split test, only train (24), val (12)" in found[node][1] and "Set `split: val`" in found[node][1]
    assert cli.invoke(["run", "my.yaml", "--json"]) == 2
    assert "set `split: val`" in capsys.readouterr().out
    assert not list((tmp_path / "runs").rglob("record.json")), "nothing was trained first"
    remedied = plan(*(f"nodes.{node}.config.split=val" for node in SCORED))
    assert {action for action, _ in remedied.values()} == {"run"}
    assert plan("nodes.own.config.split=train")["own"][0] == "run", "a head may be scored on what it was trained on"
    assert cli.invoke(["validate", "my.yaml", "nodes.tuned.config.split=train"]) == 2
