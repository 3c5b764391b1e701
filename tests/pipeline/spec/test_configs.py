"""Every file under `configs/`: it validates, plans, costs what its header says, conforms where it claims to, trains.

No image of the paper's data sets is here: plans take their sizes from the paper, training takes two steps on small
synthetic images with a shrunk model.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.plan.given_machines import gpu_kinds
from vitpipe.pipeline.spec.load import PipelineSpec, load
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.finetune.config import FinetuneConfig
from vitpipe.stages.finetune.estimate import estimate
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.paper.tables import tables
from vitpipe.stages.pretrain.config import PretrainConfig

ROOT = Path(__file__).parents[3] / "configs"
FILES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.yaml"))}
PAPER = [name for name in FILES if name.startswith("paper/")]
GIVEN = [name for name, path in FILES.items() if "${vars.file}" in path.read_text()]
"""They begin with a file of weights."""
TRAINED = [name for name in FILES if name.startswith(("paper/", "recipes/", "scaling")) and name not in GIVEN]
GUIDE = {"ImageNet": "imagenet", "ReaL": "imagenet-real", "CIFAR-10": "cifar10", "CIFAR-100": "cifar100",
         "Pets": "oxford-iiit-pet", "Flowers-102": "flowers102"}  # fmt: skip


def read(name: str) -> PipelineSpec:
    return load(FILES[name], env={})


def header(name: str) -> str:
    """The comment that the file opens with, as running text."""
    lines = FILES[name].read_text().split("\nversion:")[0].split("\nextends:")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines)


def pretrainings(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pretrain nodes by id, with their configs as written."""
    for node in read(name).graph.nodes.values():
        if isinstance(node.config, PretrainConfig):
            yield node.id, dict(node.raw)


def planned(name: str, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert cli.invoke(["plan", str(FILES[name]), "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in configs are relative to where the command is typed."""
    monkeypatch.chdir(tmp_path)


def test_the_promised_recipes_are_there() -> None:
    wanted = {"b32-i21k", "b16-i21k", "l32-i21k", "l16-i21k", "h14-i21k", "b16-i1k", "b32-i1k", "l16-i1k", "l32-i1k",
              "b32-jft", "b16-jft", "l32-jft", "l16-jft", "h14-jft", "b16-masked"}  # fmt: skip
    others = {"r50x1", "r50x2", "r101x1", "r152x1", "r152x2", "r200x3", "r50-b16", "r50-b32", "r50-l16", "r50-l32"}
    names = {f"paper/vit-{one}.yaml" for one in wanted} | {f"paper/{one}-jft.yaml" for one in others}
    assert set(PAPER) == names
    recipes = {"recipes/vit-s16-i1k-90ep.yaml", "recipes/augreg-i21k.yaml", "recipes/mae-l16-i1k.yaml"}
    assert recipes <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_config_opens_with_command_cost_numbers_and_section(name: str) -> None:
    first, *_ = FILES[name].read_text().splitlines()
    assert first == f"# vitpipe run configs/{name}"
    text = header(name)
    assert all(f"{word}:" in text for word in ("cost", "expect", "paper"))
    assert read(name).name == Path(name).stem


@pytest.mark.parametrize("name", TRAINED)
def test_a_config_plans_without_its_data_and_costs_what_it_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(name, capsys, "--gpu", "H100")
    assert found["total"]["unknown"] == []
    for node in found["nodes"]:
        assert re.match("waits for|after|not committed|Cannot ingest /", node["reason"]), node["reason"]
        assert node["stage"] == "ingest" or node["estimate"]["bytes"], "nothing but images is missing"
    hours = {
        stage: sum(node["compute_gpu_hours"] or 0 for node in found["nodes"] if node["stage"] == stage)
        for stage in ("pretrain", "finetune")
    }
    text = header(name)
    said = {"pretrain": re.search(r"([\d.]+) H100-hours of compute to pretrain", text),
            "finetune": re.search(r"([\d.]+) to fine-tune", text)}  # fmt: skip
    for stage, cost in hours.items():
        match = said[stage]
        assert (match is not None) == (cost > 0), f"{stage} costs {cost} H100-hours"
        assert match is None or float(match[1]) == pytest.approx(cost, rel=0.05)
    for stage, words in {"pretrain": "pretrain", "finetune": "fine-tune"}.items():
        whole = sum(node["gpu_hours"] or 0 for node in found["nodes"] if node["stage"] == stage)
        match = re.search(rf"in all ([\d.]+) to {words} with", text)
        assert match or whole <= 1.12 * hours[stage], (
            f"{stage} takes {whole:.1f} H100-hours in all: say so in the header"
        )
        assert match is None or float(match[1]) == pytest.approx(whole, rel=0.1), whole


@pytest.mark.parametrize("name", [name for name in GIVEN if name.startswith("recipes/")])
def test_a_fine_tuning_of_given_weights_costs_what_it_says(name: str) -> None:
    (node,) = (node for node in read(name).graph.nodes.values() if isinstance(node.config, FinetuneConfig))
    data = Estimate(splits={"train": 1_281_167, "test": 50_000}, num_classes=1000)
    model = ModelSettings(variant="B/16", image_px=224, classes=1000).model_dump(mode="json")
    given = {"data": [data], "weights": [Estimate(model=model)]}
    found = estimate(node.config, node.resources, given, Known(gpus=1))
    assert found.flops is not None
    hours = found.flops / gpu_kinds()["H100"].flops() / 3600
    said = re.search(r"([\d.]+) H100-hours of compute for a B/16", header(name))
    assert said and float(said[1]) == pytest.approx(hours, rel=0.05)


@pytest.mark.parametrize("name", [name for name in FILES if name not in TRAINED])
def test_all_others_plan_without_their_data_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert {node["action"] for node in planned(name, capsys)["nodes"]} <= {"run", "blocked"}


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_config_conforms_to_the_row_that_it_claims(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["conform", str(FILES[name]), "--json"]) == 0
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    stem = Path(name).stem
    assert all(node["claimed"] for node in nodes)
    assert [node["row"] for node in nodes if node["node"].startswith("transfer/")]
    unlike = [one["field"] for node in nodes for one in node["findings"] if one.get("as_assumed") is False]
    assert not unlike
    data = {"i21k": "ImageNet-21k", "i1k": "on ImageNet (", "jft": "JFT-300M", "masked": "B.1.2"}[stem.split("-")[-1]]
    assert data in nodes[0]["row"]


def test_the_masked_autoencoder_conforms_to_its_authors_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["conform", str(FILES["recipes/mae-l16-i1k.yaml"]), "--json"]) == 0
    (node,) = json.loads(capsys.readouterr().out)["nodes"]
    assert node["claimed"] and "He et al. 2022, Table 8" in node["row"] and "ViT-L/16" in node["row"]
    assert not [one["field"] for one in node["findings"] if one.get("as_assumed") is False]


@pytest.mark.parametrize("name", [name for name in PAPER if "masked" not in name])
def test_the_numbers_to_expect_are_the_papers(name: str) -> None:
    text = header(name).partition("expect:")[2].partition("paper:")[0]
    said = {key: float(found[1]) for word, key in GUIDE.items() if (found := re.search(rf"{word} (\d+\.\d\d)", text))}
    ((_, config),) = pretrainings(name)
    variant, data = config["model"]["variant"], read(name).vars["paper"]
    if "Table 5" in text:
        column = tables()["table5"]["columns"].index(variant)
        printed = {key: row[column] for key, row in tables()["table5"]["rows"][data].items()}
    else:
        epochs = int(config["total"].split()[0])
        row = next(r for r in tables()["table6"]["rows"] if (r["model"], r["epochs"]) == (variant, epochs))
        printed = dict(zip(tables()["table6"]["columns"][:-1], row["values"], strict=False))
    assert said == printed


@pytest.mark.parametrize("model", ["B/32", "B/16", "L/32", "L/16", "H/14", "R50x1", "R152x2", "R50+B/32", "R50+L/16"])
def test_the_planner_knows_the_compute_of_table_6(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = next(row for row in tables()["table6"]["rows"] if row["model"] == model)
    slug = model.lower().replace("/", "").replace("+", "-")
    found = planned(f"paper/{slug if model.startswith('R') else f'vit-{slug}'}-jft.yaml", capsys)
    (flops,) = (node["estimate"]["flops"] for node in found["nodes"] if node["stage"] == "pretrain")
    assert flops / 1e18 == pytest.approx(row["values"][-1], rel=0.05)
