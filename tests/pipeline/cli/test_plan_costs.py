"""What `plan` says a recipe costs, on which GPU, for whose data, and how far it is from the paper's."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from photos import photo_folder
from test_conform_verb import SPEC

from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.plan import given_machines

Plan = Callable[..., dict[str, Any]]
ON_GPUS = ("nodes.backbone.resources.gpus_per_worker=1", "nodes.backbone.resources.workers=8")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plan:
    """`plan my.yaml --json` in a folder without any image; its object."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(SPEC)

    def run(*args: str) -> dict[str, Any]:
        code = cli.invoke(["plan", "my.yaml", "--json", *args])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert code == 0, found
        return {**found, "by_id": {node["node"]: node for node in found.get("nodes", ())}}

    return run


@pytest.mark.parametrize(("gpu", "hours"), [("H100", 331), ("a100", 934)])
def test_hours_of_the_papers_l16_on_imagenet_21k(gpu: str, hours: float, plan: Plan) -> None:
    """472 exaFLOPs at 40 % of 989 TFLOP/s, and at 45 % of 312; within one machine little comes on top."""
    found = plan(*ON_GPUS, "--gpu", gpu)
    node = found["by_id"]["backbone"]
    assert hours <= node["gpu_hours"] < 1.015 * hours and node["binds"] == "compute"
    assert node["estimate"]["hours"] == pytest.approx(node["gpu_hours"] / 8)
    assert f"8 x {gpu.upper()}" in found["assumes"] and "TFLOP/s" in found["assumes"]


def test_without_gpus_hours_are_of_this_machines_cores_and_nothing_else_is_claimed(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given_machines, "core_gflops", lambda: 100.0)
    found = plan("nodes.backbone.config.precision=fp32")
    node = found["by_id"]["backbone"]
    assert node["gpu_hours"] is None and found["total"]["gpu_hours"] == 0
    model = node["estimate"]["flops"] / (100e9 * 0.95 * 1024 / 1099) / 3600
    assert model < node["estimate"]["hours"] < 1.2 * model, "a core makes its images too"
    assert found["assumes"] == "hours assume no GPU and CPU cores of 100 GFLOP/s"


def test_a_core_is_measured_once_and_a_file_says_it_instead(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("core_gflops: 40")
    assert plan("--cluster-file", "c.yaml")["assumes"].endswith("CPU cores of 40 GFLOP/s")
    assert 1 < given_machines.core_gflops() < 10_000 and given_machines.core_gflops.cache_info().misses == 1


def test_the_whole_graph_is_run_by_the_queue(plan: Plan) -> None:
    schedule = plan(*ON_GPUS)["schedule"]
    spans = schedule["nodes"]
    assert spans["backbone"]["began"] >= spans["shards"]["ended"] and not schedule["problem"]
    assert schedule["seconds"] == max(span["ended"] for span in spans.values())
    more = plan(*ON_GPUS, "--gpus", "16")["schedule"]
    assert more["seconds"] <= schedule["seconds"] < 1.5 * spans["backbone"]["ended"]


def test_a_price_is_hours_times_price(plan: Plan) -> None:
    found = plan(*ON_GPUS, "--price-per-gpu-hour", "2.5")
    node = found["by_id"]["backbone"]
    assert node["price"] == pytest.approx(2.5 * node["gpu_hours"])
    assert found["total"]["price"] == pytest.approx(2.5 * found["total"]["gpu_hours"])
    assert found["total"]["gpu_hours"] > node["gpu_hours"], "fine-tuning costs too"
    assert plan(*ON_GPUS)["total"]["price"] is None


def test_gpus_that_wait_are_priced_too_where_they_are_held(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (*ON_GPUS, "--gpus", "64", "--price-per-gpu-hour", "2")
    schedule, total = (plan(*asked)[name] for name in ("schedule", "total"))
    assert schedule["held_gpu_hours"] == pytest.approx(64 * schedule["seconds"] / 3600)
    assert schedule["held_price"] == pytest.approx(2 * schedule["held_gpu_hours"])
    assert schedule["held_price"] > 5 * total["price"]
    assert cli.invoke(["plan", "my.yaml", *asked]) == 0
    assert re.search(
        r"; held all the time: [0-9.]+k GPU-hours, price [0-9.]+k", " ".join(capsys.readouterr().out.split())
    )


def test_a_price_of_gpus_is_none_of_cores(plan: Plan, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("core_gflops: 40")
    (tmp_path / "d.yaml").write_text("{core_gflops: 40, price_per_core_hour: 0.05}")
    of_gpus = ("--price-per-gpu-hour", "2", "--cluster-file")
    assert plan(*of_gpus, "c.yaml")["total"]["price"] is None and plan(*of_gpus, "d.yaml")["total"]["price"] > 0
    assert cli.invoke(["plan", "my.yaml", *of_gpus, "c.yaml"]) == 0
    assert "no price (no GPU is needed: give price_per_core_hour" in " ".join(capsys.readouterr().out.split())
    assert cli.invoke(["plan", "my.yaml", *of_gpus, "c.yaml", "--max-price", "0"]) == 2
    assert "no core-hour has a price. Give price_per_core_hour" in " ".join(capsys.readouterr().err.split())


def test_one_is_not_many_and_a_fan_out_has_tasks(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["plan", "my.yaml", "--gpu", "H100", "--gpus", "1000", "--why"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "cores a worker, 1 worker backbone" in told and "2 cores a task, 4 tasks at once" in told
    assert "on 1,000 GPUs" in told and "1,000 x H100" in told and " 1 workers" not in told


def test_images_that_lie_elsewhere_are_the_papers(plan: Plan) -> None:
    found = plan()["by_id"]
    assert found["shards"]["action"] == "blocked" and "no such folder" in found["shards"]["reason"]
    assert found["shards"]["estimate"]["splits"] == {"train": 14_197_122}
    assert found["sets/flowers102"]["estimate"]["splits"] == {"train": 1020, "test": 6149}
    assert found["backbone"]["estimate"]["steps"] == 311_948
    assert any("taken to be ImageNet-21k" in note for note in found["shards"]["estimate"]["notes"])


def test_a_subset_of_them_is_less(plan: Plan) -> None:
    found = plan("nodes.shards.config.source.subset={fraction: 0.1}", "nodes.shards.config.source.limit=1000000")
    assert found["by_id"]["shards"]["estimate"]["splits"] == {"train": 1_000_000}
    assert found["by_id"]["backbone"]["estimate"]["steps"] == 90_000_000 // 4096


def test_without_a_claim_nothing_is_known_and_that_is_said(plan: Plan) -> None:
    found = plan("vars.paper=null")
    assert "steps" not in found["by_id"]["backbone"]["estimate"]
    assert "backbone" in found["total"]["unknown"]


def test_images_that_are_here_are_counted(plan: Plan, tmp_path: Path) -> None:
    photo_folder(tmp_path / "i21k", classes=3, per_class=1)
    photo_folder(tmp_path / "cifar10" / "train", classes=2, per_class=4)
    photo_folder(tmp_path / "cifar10" / "test", classes=2, per_class=1)
    found = plan("nodes.backbone.config.batch_images=3", "nodes.backbone.config.schedule.warmup=1 steps")["by_id"]
    assert found["shards"]["estimate"]["splits"] == {"train": 3}
    assert found["sets/cifar10"]["estimate"]["splits"] == {"train": 8, "test": 2}
    assert not found["sets/cifar10"]["estimate"]["notes"]


def test_deviations_stand_in_the_plan(plan: Plan) -> None:
    found = plan("nodes.backbone.config.optimizer.peak_lr=3e-3")["by_id"]
    assert found["backbone"]["paper"] == "1 deviation from ViT-L/16 on ImageNet-21k (Table 3)"
    assert found["backbone"]["deviations"] == ["optimizer.peak_lr 0.003, the paper has 0.001 (Table 3)"]
    assert found["transfer/cifar10"]["paper"].startswith("0 deviations from CIFAR-10")
    assert found["scratch"]["paper"] == "" and found["shards"]["deviations"] == []


def test_cores_are_priced_as_far_as_they_are_there(plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trials that ask for as many as there are, or for more, run one after the other on both of two."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    (tmp_path / "c.yaml").write_text("{core_gflops: 40, price_per_core_hour: 3}")
    for cpus in (2, 4, 8):
        fp32 = "nodes.transfer.config.precision=fp32"
        made = plan(f"nodes.transfer.resources.cpus_per_task={cpus}", fp32, "--cluster-file", "c.yaml")
        trials = made["by_id"]["transfer/cifar10"]
        assert trials["price"] == pytest.approx(3 * 2 * trials["estimate"]["hours"])


def test_cores_that_hold_no_rank_have_no_hours(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    (tmp_path / "c.yaml").write_text("core_gflops: 40")
    (tmp_path / "d.yaml").write_text("{core_gflops: 40, cores_per_machine: 16}")
    workers, fp32 = "nodes.backbone.resources.workers", ("nodes.backbone.config.precision=fp32", "--cluster-file")
    points = plan(*fp32, "c.yaml", "--sweep", "workers=1,2,8,16")["sweep"]["values"]
    one, two, eight = (point["hours"] for point in points[:3])
    assert two == pytest.approx(one / 2, rel=0.01) and two <= eight < 2 * two, "eight share two cores"
    assert "room for 8 on the only machine (4 a core)" in points[3]["problem"] and "hours" not in points[3]
    assert cli.invoke(["plan", "my.yaml", f"{workers}=16", "--max-hours", "1e9", *fp32, "c.yaml"]) == 2
    assert "16 x (1 CPU)" in " ".join(capsys.readouterr().err.split())
    on_described = plan(f"{workers}=32", *fp32, "d.yaml")
    assert on_described["by_id"]["backbone"]["estimate"]["hours"] < two / 10
    assert on_described["assumes"] == "hours assume no GPU, 2 x 16 cores and CPU cores of 40 GFLOP/s"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    told = plan(f"{workers}=32", "nodes.backbone.resources.cpus_per_worker=7", *fp32, "c.yaml")["assumes"]
    assert "no GPU, 2 x 112 cores and" in told, "not of this machine"


def test_two_gpus_for_a_task_are_no_quicker_and_that_is_said(plan: Plan) -> None:
    """All trials at once, so that a task's own time is what counts."""
    each = "nodes.transfer.resources.gpus_per_task"
    whole, twice, half = (
        plan(*ON_GPUS, "--gpu", "H100", "--gpus", "64", f"{each}={gpus}")["by_id"]["transfer/cifar10"]
        for gpus in (1, 2, 0.5)
    )
    assert twice["estimate"]["hours"] == pytest.approx(whole["estimate"]["hours"])
    assert (
        twice["gpu_hours"]
        == pytest.approx(2 * whole["gpu_hours"])
        == pytest.approx(4 * half["gpu_hours"] / 2, rel=0.01)
    )
    assert "gpus_per_task 2: a task computes on one GPU" in " ".join(twice["estimate"]["notes"])


def test_the_lines_of_a_log_say_the_same(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["plan", "my.yaml", *ON_GPUS, "--price-per-gpu-hour", "3"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert "GPU-hours of H100, price" in last and "40% of its 989 bf16 TFLOP/s" in last


def test_an_unknown_gpu_is_bad_usage(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["plan", "my.yaml", "--gpu", "V100"]) == 2
    assert "A100, H100, H200" in capsys.readouterr().err
