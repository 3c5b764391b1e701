"""`vitpipe goodput`: a paper's recipe on machines that fail, and what is asked wrongly."""

import json
from pathlib import Path

import pytest
from command_line import Vitpipe, typed
from synthetic import shards

from vitpipe.infra.simulation.policies import Fared
from vitpipe.pipeline.cli.goodput_lines import line

SPEC = """\
version: 1
name: run
store: file://./runs
vars: {paper: ImageNet-21k}
nodes:
  shards: {stage: ingest, config: {source: {kind: folder, root: ./i21k}}}
  backbone:
    stage: pretrain
    needs: {shards: shards}
    config: {model: {variant: L/16, image_px: 224}, batch_images: 4096, total: 9 epochs}
    resources: {workers: 8, checkpoint_every: 500 steps}
"""


@pytest.fixture
def goodput(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vitpipe:
    (tmp_path / "run.yaml").write_text(SPEC)
    (tmp_path / "i21k").mkdir()
    monkeypatch.chdir(tmp_path)
    return typed(capsys, "goodput", "run.yaml")


def test_machines_that_fail_cost_something_and_a_person_more(goodput: Vitpipe) -> None:
    asked = ("--gpus", "64", "--machine-days", "0.5", "--repair-hours", "0.2", "--seeds", "2", "--policies", "--json")
    code, out, _ = goodput(*asked)
    assert code == 0
    found = {one["policy"]: one for one in json.loads(out)["simulated"]}
    as_set, by_hand = found["as set"], found["no restart: each loss waits for a person"]
    assert 0.05 < by_hand["goodput"] < as_set["goodput"] < 1
    assert by_hand["commands"] > as_set["commands"] and as_set["starts"] > 1
    assert sum(as_set["shares"].values()) == pytest.approx(1)
    assert goodput(*asked)[1] == out, "the same seeds are the same runs"


def test_where_nothing_fails_starts_and_saves_are_all_that_is_lost(goodput: Vitpipe) -> None:
    code, out, _ = goodput("--gpus", "8", "--machine-days", "1000000", "--seeds", "1")
    told, assumed = out.splitlines()
    assert code == 0 and told.startswith("8 GPUs, as set: goodput 99.") and ", 1 start; " in told
    assert "saves 0.0" in told and "nothing lost" not in told, "beside 99.9 % the rest is named"
    assert assumed.startswith("one run each, on machines of 8 GPUs, 2% of them spare; eight GPUs interrupted")


def test_images_of_another_run_count_as_well(goodput: Vitpipe, tmp_path: Path) -> None:
    """24 committed images, eight epochs of three batches, wherever they were ingested."""
    made = shards(tmp_path / "elsewhere", counts={"train": 24, "test": 3})
    (tmp_path / "run.yaml").write_text(
        SPEC.replace("needs: {shards: shards}", f"needs: {{shards: '{made.uri}'}}")
        .replace("batch_images: 4096, total: 9 epochs", "batch_images: 8, total: 8 epochs, schedule: {warmup: 2 steps}")
        .replace("every: 500 steps", "every: 5 steps, micro_batch: 1")
    )
    code, out, err = goodput("--gpus", "8", "--machine-days", "1000000", "--seeds", "1", "--json")
    assert code == 0, err
    (found,) = json.loads(out)["simulated"]
    assert 0 < found["goodput"] < 1


def test_ranks_without_gpus_are_refused(goodput: Vitpipe, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(SPEC.replace("workers: 8,", "workers: 8, gpus_per_worker: 0,"))
    code, _, err = goodput("--gpus", "8", "--seeds", "1")
    assert code == 2 and "its ranks train on cores (gpus_per_worker: 0). Give each of them a GPU" in err


def test_what_never_ends_is_told(goodput: Vitpipe) -> None:
    code, out, _ = goodput("--gpus", "64", "--machine-days", "0.01", "--repair-hours", "2400", "--seeds", "1")
    assert code == 4 and out.startswith("64 GPUs, as set: never ends, step ")


def test_sizes_that_do_not_fit_are_rows_and_all_of_it_is_json(goodput: Vitpipe) -> None:
    code, out, _ = goodput("--gpus", "8,4097", "--seeds", "1", "--json")
    told = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert code == 0 and told["assumes"]["preempt_days"] is None
    fits, too_many = told["simulated"]
    assert fits["goodput"] > 0.9 and too_many["does_not_fit"].startswith("4097 workers would share 64 micro-batches")
    assert "4097 GPUs, as set: does not fit, 4097 workers" in goodput("--gpus", "8,4097", "--seeds", "1")[1]


def test_machines_are_those_of_the_files_of_a_plan(goodput: Vitpipe, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{gpus_per_machine: 4, gpu_hours_between_failures: 19200, network_gbit_per_s: 1}")
    (tmp_path / "g.yaml").write_text("H100: {utilisation: {default: 0.1}}")
    asked = ("--gpus", "8", "--seeds", "1", "--json")
    cluster, gpus = ("--cluster-file", "c.yaml"), ("--gpus-file", "g.yaml")
    plain, slow, linked, set_otherwise = (
        json.loads(goodput(*asked, *more)[1])
        for more in ((), gpus, cluster, (*cluster, "--gpus-per-machine", "8", "--machine-days", "264.0625"))
    )
    assert (plain["assumes"]["gpus_per_machine"], plain["assumes"]["machine_days"]) == (8, 50_700 / 24 / 8)
    assert (linked["assumes"]["gpus_per_machine"], linked["assumes"]["machine_days"]) == (4, 100)
    days = [one["simulated"][0]["days"] for one in (plain, slow, linked, set_otherwise)]
    assert days[1] > 3 * days[0] and days[2] > 2 * days[0]
    assert days[3] == days[0], "one machine of eight has no link to another"


def test_store_copies_and_restarts_are_those_of_a_plan(
    goodput: Vitpipe, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = {"store_gbit_per_s": 0.05, "copy_bytes_per_s": 1e6, "restart_s": 36000, "store_total_gbit_per_s": 0.2}
    (tmp_path / "c.yaml").write_text(json.dumps(said))
    asked = ("--gpus", "64", "--seeds", "2", "--json")
    plain, slow = (json.loads(goodput(*asked, *more)[1]) for more in ((), ("--cluster-file", "c.yaml")))
    assert {name: slow["assumes"][name] for name in said} == said and plain["assumes"]["restart_s"] == 180
    one, other = (told["simulated"][0] for told in (plain, slow))
    assert one["goodput"] > 0.99 and other["goodput"] < 0.95
    saved = 3.92e9  # 326.7 million parameters: fp32 weights and two moments
    found = other["takes"]
    assert found["stall_s"] == pytest.approx(saved / 64 / 1e6, rel=0.01)
    assert found["commit_s"] == pytest.approx(saved / 8 / (0.025e9 / 8), rel=0.01), "an eighth of 0.2 Gbit/s"
    assert found["start_s"] + found["loss_seen_s"] == pytest.approx(36000, abs=2) and found["first_start_s"] == 15
    plan = typed(capsys, "plan", "run.yaml")
    cost = json.loads(
        plan("nodes.backbone.resources.workers=64", "--gpu", "H100", "--json", "--cluster-file", "c.yaml")[1]
    )
    stalls = next(node for node in cost["nodes"] if node["node"] == "backbone")["estimate"]["costs"]["stalls_seconds"]
    told = "31,195 steps, saved each 500, the last waited for"
    assert stalls == pytest.approx(63 * found["stall_s"] + found["commit_s"]), told


def test_a_machine_that_is_taken_away_is_missed_for_as_long_as_is_said(goodput: Vitpipe) -> None:
    asked = ("--gpus", "64", "--seeds", "2", "--preempt-days", "5", "--spares", "0", "--json")
    usual, short = (json.loads(goodput(*asked, *more)[1]) for more in ((), ("--away-hours", "0.1")))
    assert (usual["assumes"]["away_hours"], short["assumes"]["away_hours"]) == (4, 0.1)
    assert usual["simulated"][0]["goodput"] < 0.7 < short["simulated"][0]["goodput"]


def test_how_it_fared_is_told_in_fitting_units() -> None:
    shares = {"steps": 0.9, "person": 0.05, "start": 0.0004}
    told = line(Fared(0.85, 0.0, 0.5 / 24, 1.5, 6.0, shares))
    assert told == (
        "goodput 85.0%, 30.0 minutes, 1.5 starts, the command typed 6 times, some while machines were missing; "
        "fewer or slower machines 5.0%, nobody there 5.0%, starts 0.04%"
    )
    assert line(Fared(1.0, 0.0, 1e-4, 1, 1, {"steps": 1.0})) == "goodput 100.00%, 8.6 seconds, 1 start; nothing lost"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--gpus", "8,many"), "'many' is no number from 1 to 65536"),
        (("--gpus", "0"), "'0' is no number from 1 to 65536"),
        (("--node", "shards"), "its pretrainings are backbone"),
        (("--cluster-file", "often.yaml"), "gpu_hours_between_failures 1e-06 is less than 1.92"),
        (("--gpus", "4097,5000"), "simulate 4097,5000 GPUs: 4097 workers would share 64 micro-batches"),
    ],
)
def test_what_cannot_be_simulated_is_told(asked: tuple[str, ...], told: str, goodput: Vitpipe, tmp_path: Path) -> None:
    (tmp_path / "often.yaml").write_text("gpu_hours_between_failures: 1e-6")
    code, _, errors = goodput(*asked)
    assert code == 2 and told in errors
