"""One failing benchmark of ten leaves nine committed, and the same command then runs that one alone."""

from pathlib import Path
from typing import Any

import pytest
from inprocess import InProcessCluster, Unranked
from synthetic import shards, weights
from tiny_stages import tiny_ways

from vitpipe.infra.errors import StageError
from vitpipe.infra.lease_state import Timing
from vitpipe.infra.work import Done
from vitpipe.pipeline.drive.runner import Outcome, run
from vitpipe.pipeline.spec.load import load

QUICK = Timing(renew_s=0.02, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)
SETS = [f"set-{number}" for number in range(10)]
SPEC = """
version: 1
name: transfer
store: {store}
nodes:
  tuned:
    stage: finetune
    foreach: {{data: [{sets}]}}
    needs: {{data: "{store}/test/${{each.data}}", weights: "{store}/test/weights"}}
    config: {{batch_images: 8, total: 2 steps, peak_lr: [0.01, 0.03], seeds: [0], dev: 0.2, precision: fp32}}
  probe:
    stage: evaluate
    foreach: {{data: [{sets}]}}
    needs: {{data: "{store}/test/${{each.data}}", weights: "{store}/test/weights"}}
    config: {{method: fewshot, shots: [2], seeds: [0]}}
  table: {{stage: report, needs: {{scores: [tuned, probe]}}, config: {{attention_images: 0}}}}
"""


class Broken(InProcessCluster):
    """The trials of one node end with an error."""

    def __init__(self, node: str, failing: list[str], sent: list[str]) -> None:
        super().__init__()
        self.node, self.failing, self.sent = node, failing, sent

    def fan(self, fn: Any, items: Any, **kwargs: Any) -> Any:
        if self.node in self.failing:
            yield from (Done(item, error=StageError(f"run {item}", "the GPU is broken")) for item in items)
            return
        for done in super().fan(fn, items, **kwargs):
            self.sent.append(f"{self.node} {done.item}")
            yield done


class Clusters(Unranked):
    dashboard_url = ""

    def __init__(self, failing: list[str]) -> None:
        self.failing, self.sent = failing, []

    def __enter__(self) -> "Clusters":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def named(self, node: str, **_: object) -> Broken:
        return Broken(node, self.failing, self.sent)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    for name in SETS:
        shards(tmp_path, name, counts={"train": 18, "test": 9})
    weights(tmp_path)
    path = tmp_path / "transfer.yaml"
    path.write_text(SPEC.format(store=f"file://{tmp_path}/store", sets=", ".join(SETS)))
    return path


def go(spec: Path, failing: list[str]) -> tuple[Outcome, list[str]]:
    clusters = Clusters(failing)
    outcome = run(load(spec, env={}), (), tiny_ways(timing=QUICK, connect=lambda run, cpus: clusters))
    return outcome, clusters.sent


def committed(spec: Path) -> set[str]:
    root = spec.parent / "store" / "transfer"
    return {str(path.parent.relative_to(root)) for path in root.rglob("record.json")}


def test_nine_of_ten_stay_and_a_resubmit_runs_one(spec: Path) -> None:
    with pytest.raises(StageError, match="GPU is broken"):
        go(spec, ["tuned/set-3"])
    everything = {f"{node}/{name}" for node in ("tuned", "probe") for name in SETS}
    assert committed(spec) == everything - {"tuned/set-3"}

    outcome, sent = go(spec, [])
    assert [planned.node for planned in outcome.plan.due] == ["tuned/set-3", "table"]
    assert {line.split()[0] for line in sent} == {"tuned/set-3", "table"}

    outcome, sent = go(spec, ["everything would fail", *everything])
    assert outcome.plan.due == () and sent == []
