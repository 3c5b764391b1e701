"""The page compared with the paper: its tables with our column, scaling, cost, mistakes, overlaps, and failures."""

import json
import re

import numpy as np
import pytest
from inprocess import commit, make_context
from synthetic import TINY, checkpoint, shards, weights

from vitpipe.infra.events import StoreEvents
from vitpipe.stages.artifacts import Score, ShardSet, Weights
from vitpipe.stages.contract import Inputs
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.run import run as evaluate
from vitpipe.stages.paper.tables import tables
from vitpipe.stages.report.caveats import shared_penalties
from vitpipe.stages.report.config import ReportConfig, ReportResources
from vitpipe.stages.report.lines import Lines, Point, Series
from vitpipe.stages.report.overlap import overlaps
from vitpipe.stages.report.paper_comparison import grids
from vitpipe.stages.report.record_lineage import walk
from vitpipe.stages.report.results import rows
from vitpipe.stages.report.run import run
from vitpipe.stages.report.scaling import Pretraining, over_labels, over_pretraining, pretrainings
from vitpipe.stages.training.config import ObjectiveSettings
from vitpipe.stages.training.objective_costs import train_flops

TUNED = {"method": "finetune", "pretrained": True, "image_px": 384, "seeds": [0, 1, 2], "eval_resize": "squash"}


def score(path, node, benchmark, per_seed, protocol, inputs=None, content=None, num_test=100, **facts) -> Score:
    ctx = make_context(path, node, None)
    files = tuple(ctx.out.put(name, json.dumps(each).encode()) for name, each in (content or {}).items())
    made = Score(benchmark=benchmark, metric="top1", value=float(np.mean(per_seed)), per_seed=tuple(per_seed),
                 protocol=protocol, num_test=num_test, files=files, **facts)  # fmt: skip
    return commit(ctx, made, stage=protocol["method"], inputs=inputs)


def pretrained(path, name: str, of_each: int, steps: int) -> tuple[ShardSet, Weights]:
    """Weights whose lineage reaches a data set."""
    data = shards(path, f"{name}-data", counts={"train": of_each, "test": 3})
    backbone = checkpoint(path, f"{name}-backbone", steps, {"shards": [data]})
    return data, weights(path, name, classes=3, inputs={"checkpoint": [backbone]})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("compared")
    (_, few), (_, many) = (pretrained(path, name, images, steps) for name, images, steps in
                           (("few", 30, 50), ("many", 120, 200)))  # fmt: skip
    found = []
    for given, base in ((few, 0.80), (many, 0.90)):
        name, tuned = given.uri.rsplit("/", 1)[-1], TUNED | {"weights": given.uri}
        inputs = {"weights": [given]}
        found.append(score(path, f"{name}-cifar10", "cifar10", (base, base + 0.01), tuned, inputs, num_test=10_000))
        for task in list(tables()["table9"]["tasks"])[:7]:
            found.append(score(path, f"{name}-{task}", task, (base,), tuned, inputs))
        probe = {"method": "fewshot", "features": "weights", "shots": 5, "weights": given.uri, "image_px": 16}
        by_l2 = {"5": [{"1.0": base - 0.2, "1024.0": base - 0.3}], "1": [{"1.0": base - 0.5, "1024.0": base - 0.4}]}
        dev = {"5": [{"1.0": 0.7, "1024.0": 0.6}], "1": [{"1.0": 0.3, "1024.0": 0.4}]}
        content = {"score.json": {"by_shots": {"5": [base - 0.3], "1": [base - 0.4]}, "by_l2": by_l2, "dev_by_l2": dev},
                   "choice.json": {}}  # fmt: skip
        found.append(score(path, f"{name}-probe", "cifar10", (base - 0.3,), probe, inputs, content))
    real = {"method": "real", "weights": found[0].uri, "image_px": 384}
    found.append(score(path, "real", "imagenet-real", (0.88,), real, {"weights": [found[0]]}))
    return path, found


def grid_of(found, name):
    table = rows(found)
    return next(grid for grid in grids(table, pretrainings(walk(found))) if grid.title == name)


def cells(grid, row):
    return dict(
        zip([name for name, _ in grid.head], next(each for name, each in grid.rows if name == row), strict=True)
    )


def test_our_column_stands_in_each_of_the_papers_tables(world):
    _, found = world
    second = cells(grid_of(found, "Table 2"), "CIFAR-10")
    assert second["few, 384 px"].text == "80.50 ± 0.71" and second["ViT-H/14"].text == "99.50 ± 0.06"
    assert cells(grid_of(found, "Table 2"), "ImageNet ReaL")["few, 384 px"].text == "88.00", (
        "the column it was tuned in"
    )
    fifth = cells(grid_of(found, "Table 5"), "CIFAR-10 after ImageNet-21k")
    assert fifth["many, 384 px"].ours and fifth["ViT-L/16"].text == "99.16"
    authors = grid_of(found, tables()["authors"]["title"])
    assert [cell.text for cell in dict(authors.rows)["CIFAR-10"]][2] == "98.55"
    sixth = dict(grid_of(found, "Table 6").rows)
    assert sixth["ViT-H/14, 14 epochs of JFT-300M"][-1].text == "4262"
    assert float(sixth["few, 384 px"][-1].text) > 0, "compute from the lineage"


def test_table_9_has_the_means_that_the_paper_prints_and_says_when_ours_lacks_tasks(world):
    _, found = world
    last = cells(grid_of(found, "Table 9"), "mean of all 19")
    columns = grid_of(found, "Table 9").rows[-1][1]
    assert [cell.text for cell in columns[-3:]] == ["77.63", "76.29", "72.71"]
    assert (last["few, 384 px"].text, last["few, 384 px"].note) == ("80.00", "of 7 tasks")
    assert cells(grid_of(found, "Table 9"), "mean of natural tasks")["few, 384 px"].note == ""


def test_fewer_test_images_than_the_benchmark_has_are_said(world):
    path, _ = world
    short = score(path, "short", "cifar10", (0.9,), TUNED | {"weights": "file:///w/short"}, num_test=1_000)
    (cell, *_) = dict(grid_of([short], "Table 2").rows)["CIFAR-10"]
    assert cell.note == "on 1,000 of 10,000 test images"


def test_a_run_without_the_papers_benchmarks_has_none_of_its_tables(world):
    path, _ = world
    assert grids(rows([score(path, "own", "my-data", (0.9,), TUNED)]), {}) == []


def test_accuracy_grows_with_what_the_lineage_says(world):
    _, found = world
    known = pretrainings(walk(found))
    charts = {(chart.title, chart.x_name): chart for chart in over_pretraining(rows(found), known)}
    data = charts["CIFAR-10, fine-tuned", "pretraining images"]
    assert data.xs == [30.0, 120.0] and [point.y for point in data.series[0].points] == pytest.approx([80.5, 90.5])
    compute = charts["CIFAR-10, fine-tuned", "pretraining compute"]
    assert compute.xs[1] == pytest.approx(4 * compute.xs[0]) and len(compute.series[0].points) == 2
    (labels,) = over_labels(rows(found))
    assert labels.xs == [1.0, 5.0] and len(labels.series) == 2 and "few" in labels.series[0].name


def test_compute_is_of_what_the_objective_ran(tmp_path):
    """A masked autoencoder's encoder sees a quarter of the patches, and its decoder counts too; as the plan says."""
    mae = ObjectiveSettings.model_validate({"kind": "mae", "decoder": {"layers": 2, "width": 64, "heads": 4}})
    plain = checkpoint(tmp_path, "plain", 3)
    hiding = checkpoint(tmp_path, "hiding", 3, config={"objective": mae.model_dump(mode="json")})
    given = [weights(tmp_path, f"w-{one.step}-{number}", inputs={"checkpoint": [one]})
             for number, one in enumerate((plain, hiding))]  # fmt: skip
    spent = {made.node: made.flops for made in pretrainings(walk(given)).values()}
    assert spent["plain"] == 768 * train_flops(ObjectiveSettings(), plain.model)
    assert spent["hiding"] == 768 * train_flops(mae, hiding.model) != spent["plain"]


def test_two_pretrainings_behind_one_score_are_no_point(world):
    path, found = world
    both = score(path, "both", "cifar10", (0.9,), TUNED, {"weights": [found[0]], "init": [found[9]]})
    assert both.origin.record_sha256 not in pretrainings(walk([both]))


def test_one_penalty_for_all_data_sets_is_chosen_on_dev_images(world):
    _, found = world
    told = {(one.weights, one.shots): one for one in shared_penalties(found)}
    assert (told["few", "5"].l2, told["few", "1"].l2) == (1.0, 1024.0)
    assert told["few", "5"].scores[0][2:] == pytest.approx((50.0, 60.0)), "fixed beside shared"


def test_a_chart_keeps_its_points_inside_and_has_its_numbers_behind_it():
    chart = Lines.draw("t", "", "x", [Series("a", (Point(1, 0.0, 5.0), Point(100, 100.0, 5.0)))], "{:g}".format)
    assert chart.y.low == 0 and chart.y.high == 100
    places = [float(value) for value in re.findall(r'c[xy]="([\d.]+)%"', chart.svg)]
    assert places and all(0 <= place <= 100 for place in places)
    assert chart.at(chart.series[0], 1) == "0.0 ± 5.0" and chart.at(chart.series[0], 2) == "–"
    assert [place for place, _ in chart.x_ticks] == [5, 95], "logarithmic where the values span much"


def test_an_overlap_is_a_training_image_that_is_like_a_test_image_of_another_set(world):
    path, _ = world
    data = shards(path, "cifar10", ("a", "b"), {"test": 4})
    ctx = make_context(path, "cleaned", None)
    lines = [{"source": "a", "of": f"{data.uri}#test-1", "equal": "bytes", "same_labels": True},
             {"source": "b", "of": f"{data.uri}#test-2", "equal": "near", "same_labels": True},
             {"source": "c", "of": "d", "equal": "bytes", "same_labels": True}]  # fmt: skip
    file = ctx.out.put("duplicates.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    facts = {"manifest_sha256": "0", "num_classes": 2, "splits": {"train": 1}, "files": (file,)}
    cleaned = commit(ctx, ShardSet(**facts), stage="ingest", inputs={"exclude": [data]})
    itself, found = overlaps(walk([cleaned])).rows
    assert (itself.other, itself.equal_bytes, itself.published) == ("", 1, "")
    assert (found.name, found.other, found.equal_bytes, found.near) == ("cleaned", data.uri, 1, 1)
    assert found.published == "JFT-300M 435, ImageNet-21k 687, ImageNet 82", "BiT's counts"


def test_the_page_tells_of_mistakes_and_trouble(world):
    path, found = world
    data = shards(path, "named", ("class 4", "class 1"), {"test": 20})
    given = weights(path, "head")
    ctx = make_context(path, "matrix", EvaluateResources())
    inputs = Inputs({"data": [data], "weights": [given]})
    matrix = commit(ctx, evaluate(EvaluateConfig(method="classify"), inputs, ctx), stage="evaluate",
                    inputs={"data": [data], "weights": [given]})  # fmt: skip
    StoreEvents(ctx.out.node.__class__(path / "store" / "test"), 1, "backbone").emit("rank_lost", "the machine burned")
    ctx = make_context(path, "page", ReportResources())
    config = ReportConfig(attention_images=0)
    report = run(config, Inputs({"scores": [*found, matrix]}), ctx)
    page = ctx.out.node.read(report.file("index.html").at).decode()
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "expected calibration error" in words and "class 4" in words
    assert "the machine burned" in words and "Table 9" in words and "exaFLOPs" in words
    assert page.count("<svg") > 10 and page.count('class="behind"') >= 4, "a table behind each chart"
    assert set(re.findall(r'href="#([\w-]+)"', page)) <= set(re.findall(r'id="([\w-]+)"', page))


def test_costs_name_the_papers_rows_of_the_same_model(world):
    made = Pretraining("backbone", "ViT-L/16", 1, 1e18, "own")
    from vitpipe.stages.report.costs import _published

    published = {(one.data, one.exaflops) for one in _published({made.model})}
    assert ("JFT-300M, 7 epochs", 783.0) in published and ("JFT-300M, 14 epochs", 1567.0) in published
    assert TINY.image_px == 16
