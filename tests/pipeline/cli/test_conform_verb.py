"""`vitpipe conform`: which row a node means, what it prints, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Vitpipe, typed

from vitpipe.pipeline.cli import main as cli
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY

SPEC = """\
version: 1
name: run
store: file://./runs
vars: {paper: ImageNet-21k}
nodes:
  shards: {stage: ingest, config: {source: {kind: folder, root: ./i21k}}}
  sets:
    stage: ingest
    foreach: {data: [cifar10, flowers102]}
    config: {source: {kind: folder, root: "./${each.data}"}, splits: folders}
  backbone:
    stage: pretrain
    needs: {shards: shards}
    config:
      model: {variant: L/16, image_px: 224, representation: width, dropout: 0.1}
      optimizer: {peak_lr: 1e-3, weight_decay: 0.03}
      batch_images: 4096
      total: 90 epochs
  weights: {stage: convert, needs: {checkpoint: backbone}}
  transfer:
    stage: finetune
    foreach:
      data: [{id: cifar10, steps: 10k steps, dev: 0.02}, {id: flowers102, steps: 500 steps, dev: 0.1}]
    needs: {data: sets, weights: weights}
    config:
      {batch_images: 512, total: "${each.data.steps}", dev: "${each.data.dev}", peak_lr: [0.001, 0.003, 0.01, 0.03],
       image_px: 384}
  scratch:
    stage: finetune
    needs: {data: sets/cifar10}
    config: {model: {variant: B/16, image_px: 32}, batch_images: 32, total: 10 steps, peak_lr: 0.1}
"""


@pytest.fixture
def vitpipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vitpipe:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(SPEC)

    return typed(capsys)


def test_a_recipe_that_conforms_ends_with_0(vitpipe: Vitpipe) -> None:
    code, out, err = vitpipe("conform", "my.yaml")
    assert (code, err) == (0, "")
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [line.split(": ")[1] for line in heads] == [
        "ViT-L/16 on ImageNet-21k (Table 3)", "CIFAR-10 (Table 4, section B.1.1)",
        "Oxford Flowers-102 (Table 4, section B.1.1)",
    ]  # fmt: skip
    assert "  unstated objective.kind softmax, we would assume sigmoid (big_vision configs/vit_i21k.py)" in out
    assert "  equal    optimizer.peak_lr 0.001 (Table 3)" in out


def test_a_planted_deviation_ends_with_3(vitpipe: Vitpipe) -> None:
    code, out, _ = vitpipe("conform", "my.yaml", "nodes.backbone.config.optimizer.peak_lr=3e-3")
    assert code == 3 and "  differs  optimizer.peak_lr 0.003, the paper has 0.001 (Table 3)" in out


def test_json_has_both_values_and_the_section(vitpipe: Vitpipe) -> None:
    code, out, _ = vitpipe("conform", "my.yaml", "nodes.transfer.config.batch_images=256", "--json")
    found = json.loads(out)
    assert code == 3 and found["deviations"] == 2
    backbone, cifar, _ = found["nodes"]
    assert (backbone["node"], backbone["deviations"], backbone["claimed"]) == ("backbone", 0, True)
    assert {one["status"] for one in backbone["findings"]} == {"equal", "unstated"}
    (differs,) = [one for one in cifar["findings"] if one["status"] == "differs"]
    assert differs == {"field": "batch_images", "status": "differs", "config": 256, "paper": 512, "section": "Table 4"}
    gelu = next(one for one in backbone["findings"] if one["field"] == "model.gelu")
    assert (gelu["config"], gelu["assumed"], gelu["as_assumed"]) == ("erf", "tanh", False) and gelu["source"]


def test_the_claimed_data_set_decides_the_row(vitpipe: Vitpipe) -> None:
    assert vitpipe("conform", "my.yaml", "--data", "i1k")[0] == 3
    code, out, _ = vitpipe("conform", "my.yaml", "vars.paper=null")
    assert code == 0 and out.startswith("backbone: the nearest recipe, ViT-L/16 on ImageNet-21k")


def test_a_recipe_of_nobodys_is_told_apart_from_the_papers(vitpipe: Vitpipe) -> None:
    overrides = [
        "vars.paper=null",
        "nodes.backbone.config.model.variant={layers: 2, width: 32, mlp: 64, heads: 2, patch_px: 8}",
        "nodes.backbone.config.augment={randaugment: {layers: 2, magnitude: 9}}",
        "nodes.transfer.needs.data=shards",
        "nodes.transfer.foreach.data=[{id: mine, steps: 99 steps, dev: 0.2}]",
    ]
    code, out, _ = vitpipe("conform", "my.yaml", *overrides)
    assert code == 3
    assert "model.variant {layers: 2, width: 32, mlp: 64, heads: 2, patch_px: 8}, the paper has one of its own" in out
    assert "augment.randaugment {kind: torchvision, layers: 2, magnitude: 9}, the paper has none" in out
    assert "transfer/mine: what all data sets have in common (Table 4): 10 equal, 0 differs" in out


@pytest.mark.parametrize("args", [("--data", "LAION"), ("vars.paper=LAION",)])
def test_an_unknown_data_set_is_bad_usage(args: tuple[str, ...], vitpipe: Vitpipe) -> None:
    code, out, err = vitpipe("conform", "my.yaml", *args)
    assert (code, out) == (2, "") and "LAION" in err and "ImageNet-21k" in err


def test_the_claim_changes_no_fingerprint(vitpipe: Vitpipe) -> None:
    from vitpipe.pipeline.plan.fingerprint import fingerprints
    from vitpipe.pipeline.spec.load import load

    specs = [load(Path("my.yaml"), overrides) for overrides in ([], ["vars.paper=ImageNet"])]
    first, second = ({id: one.sha256 for id, one in fingerprints(spec.graph, {}).items()} for spec in specs)
    assert first == second and specs[0].text == specs[1].text


def test_a_spec_that_trains_nothing_has_nothing_to_compare(vitpipe: Vitpipe, tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(
        "version: 1\nname: d\nstore: file://./runs\nnodes: {d: {stage: ingest, config: {source: {kind: digits}}}}\n"
    )
    code, out, _ = vitpipe("conform", "data.yaml")
    assert code == 0 and "no node pretrains" in out


@pytest.mark.parametrize(
    ("args", "absent"),
    [
        (["conform", "my.yaml"], {"torch", "ray", "boto3", "deepspeed"}),
        (["plan", "my.yaml"], {"torch", "ray", "boto3", "deepspeed"}),
        (["validate", "my.yaml"], {"torch", "vitpipe.stages.paper", "vitpipe.stages.pretrain.paper_fields"}),
    ],
)
def test_looking_at_the_paper_is_cheap(args: list[str], absent: set[str], vitpipe: Vitpipe, tmp_path: Path) -> None:
    code = (
        "import sys; from vitpipe.pipeline.cli.main import invoke; invoke(sys.argv[2:]); "
        "sys.exit(', '.join(set(sys.argv[1].split(',')) & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ",".join(absent), *args], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[3])}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_starter_of_the_benchmarks_is_table_4_and_has_them_all(vitpipe: Vitpipe) -> None:
    assert vitpipe("init", "--preset", "benchmarks", "all.yaml")[0] == 0
    code, out, _ = vitpipe("conform", "all.yaml", "--json")
    nodes = json.loads(out)["nodes"]
    assert code == 0 and len(nodes) == 5 + 19
    unlike = {one["field"] for node in nodes for one in node["findings"] if not one.get("as_assumed", True)}
    assert unlike == set(), "as the authors' code where the paper is silent"
    assert all(node["claimed"] for node in nodes)
    text = Path("all.yaml").read_text()
    assert {name for name, one in REGISTRY.items() if one.group != "small" and f"name: {name}," not in text} == set()
    mirrored = text.replace("crop: none, flip: false", "crop: none, flip: true")
    assert mirrored != text, "a planted deviation"
    Path("all.yaml").write_text(mirrored)
    code, out, _ = vitpipe("conform", "all.yaml")
    assert code == 3 and out.count("  differs  ") == 1
    assert "differs  flip true, the paper has false (B.1.1, by BiT supplement F)" in out
