"""`plan --sweep`, budgets, and tables of GPUs and machines that a user gives."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from counted import asked
from test_conform_verb import SPEC
from test_goodput_verb import SPEC as ON_I21K

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.cli.sweep_drawing import LOOKS
from vitpipe.pipeline.plan.sweep_fields import field_meant
from vitpipe.pipeline.plan.sweep_values import read, written
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.costs.training import Binds

Run = Callable[..., tuple[int, str, str]]
OF = "nodes.backbone.resources"
ON_GPUS = (f"{OF}.gpus_per_worker=1", f"{OF}.cpus_per_worker=14", f"{OF}.workers=8", "--gpu", "H100")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(SPEC)

    def run(*args: str) -> tuple[int, str, str]:
        code = cli.invoke(["plan", "my.yaml", *args])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def swept(plan: Run, text: str, *args: str) -> list[dict[str, Any]]:
    code, out, err = plan(*ON_GPUS, "--sweep", text, "--json", *args)
    assert code == 0, err
    values: list[dict[str, Any]] = json.loads(out)["sweep"]["values"]
    return values


def test_workers_by_doublings_up_to_the_last(plan: Run) -> None:
    found = swept(plan, "workers=8,16,...,512")
    assert [one["value"] for one in found] == [8, 16, 32, 64, 128, 256, 512]
    hours = [one["hours"] for one in found]
    assert hours == sorted(hours, reverse=True) and found[-1]["gpu_hours"] > found[0]["gpu_hours"]
    assert found[0]["binds"] == "compute" and found[-1]["binds"] == "network"
    assert found[-1]["also"] == "micro_batch 8", "4,096 images are too few for 512 workers of 64"
    assert all(one["node"] == "backbone" and one["energy_kwh"] > 0 and one["price"] is None for one in found)


TWO = (
    ON_I21K.replace("total: 9 epochs", "total: 900 steps")
    + """\
  small:
    stage: pretrain
    needs: {shards: shards}
    config: {model: {variant: Ti/16, image_px: 224}, batch_images: 4096, total: 3000 steps}
    resources: {workers: 8}
"""
)


def test_a_sweep_of_the_machines_follows_one_node(plan: Run, tmp_path: Path) -> None:
    """Few cores make the small model's training the longest, many the large one's: one table is of one of them."""
    (tmp_path / "my.yaml").write_text(TWO)
    (tmp_path / "i21k").mkdir()
    for cores, node in (("8,112", "small"), ("112,8", "backbone")):
        code, out, err = plan("--gpu", "H100", "--gpus", "8", "--sweep", f"cores_per_machine={cores}", "--json")
        assert code == 0, err
        assert [one["node"] for one in json.loads(out)["sweep"]["values"]] == [node] * 2


def test_a_sweep_is_a_table_with_bars_and_a_drawing(plan: Run, tmp_path: Path) -> None:
    code, out, _ = plan(*ON_GPUS, "--sweep", "backbone.workers=8,64", "--svg", "x.svg", "--price-per-gpu-hour", "2")
    assert code == 0
    head, eight, many, drawn, *_ = out.splitlines()
    assert head == "nodes.backbone.resources.workers, backbone:" and drawn == "drawn: x.svg"
    again = plan(*ON_GPUS, "--sweep", "workers=8,64", "--svg", "x.svg")[1]
    assert "drawn: x.svg, in place of what was there" in again
    assert eight.count("#") < many.count("#") == 30 and "bound by compute" in eight and "price" in many
    assert ET.parse(tmp_path / "x.svg").getroot().tag.endswith("svg")
    found = words_in(tmp_path / "x.svg")
    assert {"8", "64", "resources.workers of backbone", "images/s of backbone"} < set(found)
    assert found[-2:] == ["bound by compute", "in proportion"], "what does not bind has no place in the legend"


def words_in(svg: Path) -> list[str]:
    """What is written in a drawing of matplotlib's, which draws letters as outlines."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text())


def test_a_drawing_knows_all_that_binds() -> None:
    assert set(LOOKS) == set(get_args(Binds)) and len(set(LOOKS.values())) == len(LOOKS)


def test_a_drawing_is_the_same_in_any_order_and_marks_what_cannot_be_planned(plan: Run, tmp_path: Path) -> None:
    for name, values in (("a", "64,100,8,512"), ("b", "8,64,100,512")):
        assert plan(*ON_GPUS, "--sweep", f"workers={values}", "--svg", f"{name}.svg")[0] == 0
    assert (tmp_path / "a.svg").read_text() == (tmp_path / "b.svg").read_text()
    told = words_in(tmp_path / "a.svg")
    assert {"100", "cannot be planned", "open: with a smaller micro_batch", "bound by network"} < set(told)


def test_a_drawing_has_an_ideal_line_for_what_is_counted_alone_and_labels_that_have_room(
    plan: Run, tmp_path: Path
) -> None:
    assert plan(*ON_GPUS, "--sweep", "image_px=64,128,224", "--svg", "x.svg")[0] == 0
    assert "in proportion" not in words_in(tmp_path / "x.svg") and "224" in words_in(tmp_path / "x.svg")
    asked = "network_gbit_per_s=1,1.7,...,20000"
    assert plan(*ON_GPUS, f"{OF}.workers=64", "--sweep", asked, "--svg", "x.svg")[0] == 0
    labels = words_in(tmp_path / "x.svg")[: words_in(tmp_path / "x.svg").index("network_gbit_per_s")]
    assert "in proportion" not in words_in(tmp_path / "x.svg")
    assert labels[0] == "1" and labels[-1] == "20000" and 6 <= len(labels) < 19 and max(map(len, labels)) <= 7


def test_machines_are_swept_too(plan: Run) -> None:
    many = "nodes.backbone.resources.workers=64"
    slow, fast = swept(plan, "network_gbit_per_s=100,3200", many)
    assert slow["binds"] == "network" and fast["binds"] == "compute" and slow["hours"] > 2 * fast["hours"]


def test_a_value_that_cannot_be_is_said_and_the_others_stand(plan: Run) -> None:
    good, bad = swept(plan, "batch_images=4096,100")
    assert good["hours"] and "micro_batch" in bad["problem"] and "hours" not in bad


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers=8,x", "'x' is no number"), ("workers=nan", "'nan' is no number"), ("workers", "are needed"),
        ("workers=...,8", "between two values"), ("workers=16,8,...,1", "`...` goes up"),
        ("workers=8,8,...,16", "`...` goes up"), ("workers=0,1,...,16", "`...` goes up"),
        ("total=1 epochs,2 steps", "epochs and steps are no one unit"), ("total=1 epoch,x epochs", "'x' is no number"),
        ("workers=1,2,...,1e30", "more than 64 values"), ("seed=" + ",".join(map(str, range(65))), "more than 64"),
    ],
)  # fmt: skip
def test_values_are_looked_at_before_anything_is_read(text: str, words: str, plan: Run, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").unlink()
    code, _, err = plan("--sweep", text)
    assert code == 2 and words in " ".join(err.split()), err


def test_values_between_whole_numbers_are_whole() -> None:
    asked = read("a.workers=8,9,...,100")
    found = asked.values
    assert (asked.name, asked.unit) == ("a.workers", "")
    assert found[:4] == (8, 9, 10, 11) and all(one.is_integer() for one in found)
    assert read("lr=0.1,0.2,...,0.8").values == (0.1, 0.2, 0.4, 0.8)
    assert read("lr=1,1.7,...,5").values == (1, 1.7, 2.89, 4.913, 5) and read("w=1,1,2").values == (1, 2)
    assert [written(one) for one in (8.0, 1234567.0, 0.1, 1e-4)] == ["8", "1234567", "0.1", "0.0001"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("worker=8", "Did you mean 'workers'"), ("nodes.back.config.seed=1", "Did you mean 'backbone'"),
        ("foo=1", "Name one such as workers, micro_batch"), ("name=1", "Name one such as"),
        ("zero_stage=1", "Did you mean 'zero'?"), ("batch=1", "mean 'batch_images' or 'micro_batch'?"),
        ("gpus=8", "Sweep workers, each with one GPU"), ("vars.papers=1", "mean 'paper'"),
        ("vars.x=1", "no such entry of `vars`. Name one of paper"), ("utilisation=1", "a field of GPUs"),
        ("limit=1", "fields end so"), ("workers=0,-1", "none of its values can be planned: 0: should be greater"),
        ("zero=7", "none of its values"), ("checkpoint_every=9", "it is a length of training. Give it a unit, such as"),
        ("workers=8 steps", "it is a number, and has no steps. Write workers=8,16,32"),
        ("foos=8 steps", "no node has such a field in steps. Name one of checkpoint_every"),
    ],
)  # fmt: skip
def test_a_sweep_over_no_field(text: str, words: str, plan: Run) -> None:
    code, _, err = plan(*ON_GPUS, "--sweep", text)
    assert code == 2 and words in " ".join(err.split()), err


def test_lengths_of_training_are_swept_with_a_unit(plan: Run, tmp_path: Path) -> None:
    seldom, often = swept(plan, "checkpoint_every=10k,1 step", "--svg", "x.svg")
    assert (seldom["value"], often["value"]) == (10_000, 1) and often["hours"] > seldom["hours"]
    assert {"hours of backbone", "resources.checkpoint_every of backbone, steps"} < set(words_in(tmp_path / "x.svg"))
    one, two = swept(plan, "total=7,14 epochs")
    assert two["hours"] == pytest.approx(2 * one["hours"], rel=1e-3)
    assert plan(*ON_GPUS, "--sweep", "total=7,14 epochs")[1].startswith(
        "nodes.backbone.config.total in epochs, backbone:"
    )


def test_why_a_value_cannot_be_is_told_once(plan: Run) -> None:
    out = plan(*ON_GPUS, "--sweep", "workers=0,1.5,8,100")[1]
    assert "  0  should be greater than or equal to 1, not 0\n1.5  should be a valid integer, not 1.5\n" in out
    assert "100  100 workers would share 64 micro-batches: " in out


def test_fields_are_found_by_their_end_however_deep() -> None:
    spec, of = load(SPEC), "nodes.backbone.config.model"
    for name, path in (
        ("image_px", f"{of}.image_px"), ("model.dropout", f"{of}.dropout"), ("backbone.image_px", f"{of}.image_px"),
        ("zero", f"{OF}.zero"), ("sets.limit", "nodes.sets.config.source.limit"), ("vars.paper", "vars.paper"),
    ):  # fmt: skip
        assert field_meant(name, spec)[1] == path
    with pytest.raises(UsageError, match=r"nodes\.sets\.config\.source\.limit"):
        field_meant("limit", spec)


def test_what_goes_with_no_sweep_or_with_one_alone(plan: Run, tmp_path: Path) -> None:
    for words, told in (
        (("--sweep", "workers=8", "--sweep", "zero=1,2"), "--sweep is given 2 times"),
        (("--sweep", "workers=8", "--max-hours", "3", "--max-price", "4"), "--max-hours and --max-price would limit"),
        (("--sweep", "workers=8", "--why"), "--why would print every term of one plan"),
        (("--svg", "x.svg"), "--svg draws a sweep"), (("--gpu", ""), "plan for the GPU: known are A100"),
    ):  # fmt: skip
        code, _, err = plan(*words)
        assert code == 2 and told in " ".join(err.split()), err
    assert not (tmp_path / "x.svg").exists()


def test_memory_is_written_where_it_changes(plan: Run) -> None:
    _, out, _ = plan(*ON_GPUS, "--sweep", "micro_batch=8,64")
    eight, many = out.splitlines()[1:3]
    assert "memory" in eight and "memory" in many
    assert "memory" not in plan(*ON_GPUS, "--sweep", "network_gbit_per_s=100,3200")[1]


def test_a_sweep_asks_the_store_no_more_than_a_plan(plan: Run, tmp_path: Path) -> None:
    counts = []
    for more in ((), ("--sweep", "workers=8,16,...,256")):
        with asked(tmp_path) as found:
            assert plan(*ON_GPUS, *more)[0] == 0
        counts.append(sum(found.values()))
    assert 0 < counts[1] <= counts[0]


def test_a_budget_that_is_not_met_says_what_would(plan: Run) -> None:
    assert plan(*ON_GPUS, "--max-hours", "100")[0] == 0
    code, _, err = plan(*ON_GPUS, "--max-hours", "10")
    assert code == 2 and "Take 64 workers for backbone" in " ".join(err.split())
    code, _, err = plan(*ON_GPUS, "--max-hours", "0.1")
    assert code == 2 and "the least is with" in " ".join(err.split())
    code, _, err = plan(*ON_GPUS, "--price-per-gpu-hour", "2", "--max-price", "10")
    assert code == 2 and "the least is with 1 worker for backbone" in " ".join(err.split())
    code, _, err = plan(*ON_GPUS, "--max-price", "10")
    assert code == 2 and "price_per_hour" in err and "--price-per-gpu-hour" in err


def test_what_never_fits_has_no_time_and_no_price(plan: Run, tmp_path: Path) -> None:
    for cores, options, words in (
        (112, ("--gpus", "3"), "Cannot plan backbone on 3 GPUs: it asks for 8 x (14 CPU, 1 GPU), room for 3"),
        (112, ("--gpus", "3"), "Give --gpus 8 or set resources.workers to 3"),
        (28, (), "Set resources.cpus_per_worker of backbone to 3 or less or give --gpus 32"),
        (1, (), "Describe larger machines by --cluster-file"),
    ):
        (tmp_path / "c.yaml").write_text(f"cores_per_machine: {cores}")
        code, out, err = plan(*ON_GPUS, "--cluster-file", "c.yaml", *options)
        assert code == 2 and not out and words in " ".join(err.split()), err


def test_the_last_line_is_true_of_every_row(plan: Run, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("H100: {utilisation: {default: 0.4, L/16: 0.48}}")
    ends = [plan(*ON_GPUS, "--gpus-file", "g.yaml", "--sweep", text)[1] for text in ("workers=8,16", "zero=1,2")]
    assert "as many H100 as each row asks for at 40% (L/16 48%) of its 989" in " ".join(ends[0].split())
    assert "assume 8 x H100" in " ".join(ends[1].split())
    told = " ".join(plan(*ON_GPUS, "--sweep", "network_gbit_per_s=100,3200")[1].split())
    assert "network_gbit_per_s as in each row between machines of 8" in told and "3200 Gbit" not in told


def test_a_table_of_gpus_adds_kinds_and_replaces_fields(plan: Run, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(
        "H100: {price_per_hour: 3, utilisation: {L/16: 0.8}}\n"
        "B9: {peak_flops: 1e15, memory_bytes: 1e11, memory_bandwidth: 1e12, nvlink_bytes_per_s: 1e11, watts: 1000}\n"
    )
    plain, priced = (json.loads(plan(*ON_GPUS, "--json", *more)[1]) for more in ((), ("--gpus-file", "g.yaml")))
    assert plain["total"]["price"] is None and priced["total"]["price"] == pytest.approx(
        3 * priced["total"]["gpu_hours"]
    )
    hours = [next(one for one in found["nodes"] if one["node"] == "backbone")["gpu_hours"] for found in (plain, priced)]
    assert hours[0] == pytest.approx(2 * hours[1], rel=0.05)
    assert plan(*ON_GPUS[:3], "--gpu", "b9", "--gpus-file", "g.yaml")[0] == 0
    code, _, err = plan("--gpu", "b8", "--gpus-file", "g.yaml")
    assert code == 2 and "B9" in err


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--gpus-file", "H100: {watts: -1}", "t.yaml:1:15: H100.watts: should be greater than or equal to"),
        ("--gpus-file", "H100: 3", "H100 is 3, no fields. Write such as H100: {peak_flops"),
        ("--gpus-file", "X1: {watts: 3}", "X1 is no kind that is known, and lacks peak_flops, memory_bytes"),
        ("--gpus-file", "H100: {utilisation: {L/61: 0.5}}", "there is no variant 'L/61'; did you mean 'L/16'?"),
        ("--gpus-file", "H100: {peak_flop: 3}", "unknown key 'peak_flop'; did you mean 'peak_flops'?"),
        ("--gpus-file", "- a", "it maps no names to values. Write such as H100: {"),
        ("--gpus-file", "", "it is empty. Write such as H100: {"), ("--gpus-file", None, "no such file"),
        ("--cluster-file", "", "it is empty. Write such as network_gbit_per_s: 400"),
        ("--cluster-file", "word", "it maps no names to values. Write such as network_gbit_per_s: 400"),
        ("--cluster-file", "cores: 3", "unknown key 'cores'"), ("--cluster-file", "a: [", "not valid YAML"),
        ("--cluster-file", "store_gbit_per_s: 1\nstore_gbit_per_s: 2", "duplicate key 'store_gbit_per_s'"),
        ("--cluster-file", "store_gbit_per_s: true", "store_gbit_per_s: should be a valid number, not true"),
        ("--cluster-file", "gpus_per_machine: '8'", "gpus_per_machine: should be a valid integer, not '8'"),
        ("--cluster-file", None, "no such file"),
    ],
)  # fmt: skip
def test_a_table_that_says_nothing_is_bad_usage(
    option: str, text: str | None, words: str, plan: Run, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "t.yaml").write_text(text)
    code, _, err = plan(*ON_GPUS, option, "t.yaml")
    assert code == 2 and words.lower() in " ".join(err.split()).lower(), err
