"""Classes that are only known once images are read are matched before a training that would end in nothing begins."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from official_files import official, write_cifar10, write_images
from tiny_stages import tiny_ways

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.spec.load import load

SPEC = """
version: 1
name: names
store: file://{folder}/runs
nodes:
  own: {{stage: ingest, config: {{source: {{kind: folder, root: {folder}/own}}, splits: folders}}}}
  cifar: {{stage: ingest, config: {{source: {{kind: benchmark, name: cifar10, root: {folder}/cifar}}}}}}
  tuned:
    stage: finetune
    needs: {{data: own}}
    config: {{batch_images: 4, total: 1 steps, peak_lr: 0.01, seeds: [0], precision: fp32, dev: 0.2, image_px: 16,
              model: {{variant: {{layers: 1, width: 16, mlp: 16, heads: 1, patch_px: 8}}, image_px: 16}}}}
  other: {{stage: finetune, needs: {{data: own}}, config: {{batch_images: 4, total: 1 steps, peak_lr: 0.01, seeds: [0],
           precision: fp32, dev: 0.2, model: {{variant: {{layers: 1, width: 16, mlp: 16, heads: 1, patch_px: 8}},
           image_px: 16}}}}}}
  score: {{stage: evaluate, needs: {{data: cifar, weights: tuned}}, config: {{method: classify}}}}
"""


def spec_of(folder: Path, monkeypatch: pytest.MonkeyPatch, classes: list[str]) -> Path:
    """Five images a class of its own, and CIFAR-10, whose files alone say what its classes are called."""
    for split in ("train", "test"):
        write_images(folder, *(f"own/{split}/{name}/{n}.png" for name in classes for n in range(2)))
    (folder / "cifar").mkdir()
    write_cifar10(folder / "cifar", 10)
    official(monkeypatch, "cifar10", folder / "cifar", {"train": 50, "test": 10})
    path = folder / "names.yaml"
    path.write_text(SPEC.format(folder=folder))
    return path


def go(path: Path, *overrides: str) -> Any:
    return run(load(path, overrides, env={}), (), tiny_ways())


def test_a_training_for_classes_that_do_not_match_is_never_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spec_of(tmp_path, monkeypatch, [f"Name_{n}" for n in range(10)])
    assert cli.invoke(["plan", str(path), "--json"]) == 0
    assert {one["action"] for one in json.loads(capsys.readouterr().out)["nodes"]} == {"run"}, "no plan can know it"
    with pytest.raises(UsageError, match=r"10 of 10 classes are unknown to the weights.*nearly"):
        go(path)
    left = {str(one.parent.relative_to(tmp_path / "runs/names")) for one in (tmp_path / "runs").rglob("record.json")}
    assert left == {"own", "cifar", "other"}, "what is for another end goes on"
    assert not list((tmp_path / "runs/names").glob("tuned/a*")), "not begun"
    lines = [one.read_text().splitlines() for one in (tmp_path / "runs/names/events").glob("*.jsonl")]
    events = [json.loads(line) for one in lines for line in one]
    assert [(one["node"], one["kind"]) for one in events if one["kind"] == "failed"] == [("score", "failed")]

    names = json.dumps({f"name {n}": f"Name_{n}" for n in range(10)})
    (tmp_path / "map.yaml").write_text(names)
    outcome = go(path, f"nodes.score.config.class_map={tmp_path}/map.yaml")
    assert [one.node for one in outcome.plan.due] == ["tuned", "score"] and set(outcome.committed) >= {"score"}
    assert (
        load(path, [f"nodes.score.config.class_map={names}"], env={}).text
        == (tmp_path / "runs/names/spec.yaml").read_text()
    ), "a file's content stands in the spec as if it were written there"


def test_a_training_waits_for_no_names_that_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = spec_of(tmp_path, monkeypatch, [f"name {n}" for n in range(10)])
    (tmp_path / "cifar/cifar-10-batches-py/test_batch").unlink()
    with pytest.raises(UsageError, match="official files are missing"):
        go(path)
    left = {str(one.parent.relative_to(tmp_path / "runs/names")) for one in (tmp_path / "runs").rglob("record.json")}
    assert left == {"own", "tuned", "other"}


@pytest.mark.parametrize(("text", "found"), [
    (None, "read .*map.yaml: No such file"), ("[a, b]", "should hold one mapping"),
    ("a: b\na: c\n", "duplicate key 'a'"),
    ("a: b\nc: b\n", "'b' is given twice, for 'a' and 'c'"), ("a: {b: c}\n", "names to names"), ("a: [", "expected"),
    ("{}", "maps no class"),
])  # fmt: skip
def test_a_file_that_is_no_map_is_told_by_validate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, found: str
) -> None:
    if text is not None:
        (tmp_path / "map.yaml").write_text(text)
    (tmp_path / "names.yaml").write_text(SPEC.format(folder=tmp_path))
    asked = ["validate", str(tmp_path / "names.yaml"), f"nodes.score.config.class_map={tmp_path}/map.yaml"]
    assert cli.invoke(asked) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(found, told), told
