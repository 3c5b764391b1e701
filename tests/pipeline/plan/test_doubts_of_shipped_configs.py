"""No shipped config and no preset is doubted: on data of the size that it is for, a plan has nothing to say of it."""

from pathlib import Path

import pytest

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli.starters import FOLDER
from vitpipe.pipeline.plan.assumed_sizes import assumed_sizes
from vitpipe.pipeline.plan.conform import claimed_data
from vitpipe.pipeline.spec.graph import Node
from vitpipe.pipeline.spec.load import PipelineSpec, load
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.finetune import estimate as finetune
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain import estimate as pretrain
from vitpipe.stages.training.doubts import Training, doubts

SHIPPED = sorted([*(Path(__file__).parents[3] / "configs").rglob("*.yaml"), *FOLDER.glob("*.yaml")])
OWN = Estimate(splits={"train": 20_000, "val": 2_000, "test": 2_000}, num_classes=10)
"""A folder, where nothing says how large a set is."""
WEIGHTS = Estimate(model=ModelSettings(variant="B/16", image_px=224, classes=10), num_classes=10)
"""What lies in another run."""
FEW = {"vtab": {"train": 1000, "test": 5000}, "small": {"train": 160, "val": 40}}
"""Sets that are known to be small, by how their node or preset begins."""
MEANT = {
    ("small-table", f"{arm}/{data}--1-label") for arm in ("scratch", "tuned") for data in ("digits", "fashion-mnist")
}
"""Ten images, one of each class, in batches of 25."""


def data_of(node: Node, path: Path, sizes: dict[str, Estimate]) -> Estimate:
    """The paper's size, the source's own, or that of what the preset is for."""
    small = next((splits for name, splits in FEW.items() if node.id.startswith(name) or path.stem == name), None)
    if small:
        return Estimate(splits=small, num_classes=4)
    if node.id in sizes:
        return sizes[node.id]
    try:
        counted = node.stage.estimate_fn()(node.config, node.resources, {}, Known())
    except UsageError:
        return OWN
    return counted if counted.splits else OWN


def planned(found: PipelineSpec, path: Path, said: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> int:
    """Estimate every node on data of its size; `said` gets the doubts. How many trainings there were."""
    now, asked = "", 0

    def recorded(training: Training) -> list[str]:
        nonlocal asked
        asked += 1
        said.setdefault(now, []).extend(doubts(training))
        return []

    for stage in (pretrain, finetune):
        monkeypatch.setattr(stage, "doubts", recorded)
    sizes, outputs = assumed_sizes(found.graph, claimed_data(found.vars)), {}
    for now, node in found.graph.nodes.items():
        if node.stage.name == "ingest":
            outputs[now] = data_of(node, path, sizes)
            continue
        given = {name: [outputs.get(ref, WEIGHTS) for ref in refs] for name, refs in node.needs.items()}
        try:
            outputs[now] = node.stage.estimate_fn()(node.config, node.resources, given, Known())
        except UsageError:  # weights that are nowhere
            outputs[now] = WEIGHTS
    return asked


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_shipped_config_is_doubted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, list[str]] = {}
    found = load(path, ["vars.head=zero"] if path.stem == "deit3-finetune" else ())  # WEIGHTS know ten classes
    trainings = sum(node.stage.name in ("pretrain", "finetune") for node in found.graph.nodes.values())
    assert planned(found, path, said, monkeypatch) == trainings, "each was looked at"
    meant = {node for stem, node in MEANT if stem == path.stem}
    assert {node: notes for node, notes in said.items() if notes and node not in meant} == {}
    assert all(said[node] for node in meant)
