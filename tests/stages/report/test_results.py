"""What the page concludes from scores, and its small parts."""

import csv
import dataclasses
import io

import pytest

from vitpipe.stages.artifacts import Origin, Score
from vitpipe.stages.record import Record
from vitpipe.stages.report.card import results_csv
from vitpipe.stages.report.charts import MAX_POINTS, Curve, axis, score_axis
from vitpipe.stages.report.headline import beside_strongest, headline
from vitpipe.stages.report.lead import lead
from vitpipe.stages.report.model_card import model_card
from vitpipe.stages.report.page import score_charts
from vitpipe.stages.report.paper_comparison import grids
from vitpipe.stages.report.record_lineage import LineageNode
from vitpipe.stages.report.resolution import resolutions
from vitpipe.stages.report.results import Gain, ScoreRow, gains, rows
from vitpipe.stages.report.wording import count, duration, flops, size

ARM = ScoreRow(
    node="transfer", benchmark="digits", arm="fine-tuned", kind="pretrained", value=0.75, std=0.01,
    per_seed=(0.74, 0.76), chosen={}, dev_scores={}, num_test=100, protocol={"steps": 10, "seeds": [0, 1]},
    model=None, uri="", record_sha256="",
)  # fmt: skip


def arm(kind, per_seed, **changes) -> ScoreRow:
    mean = sum(per_seed) / len(per_seed)
    std = abs(per_seed[0] - per_seed[-1]) / 2**0.5 if len(per_seed) == 2 else None
    name = "from scratch" if kind == "scratch" else "fine-tuned"
    return dataclasses.replace(ARM, kind=kind, arm=name, node=kind, per_seed=per_seed, value=mean, std=std, **changes)


@pytest.mark.parametrize(
    ("pretrained", "scratch", "sentence"),
    [
        (
            (0.74, 0.76), (0.50, 0.54),
            "Pretraining lifts digits from 52.0 ± 2.8 % to 75.0 ± 1.4 %: +23.0 points over 2 seeds",
        ),
        (
            (0.50, 0.54), (0.51, 0.52),
            "No clear gain from pretraining on digits: 52.0 ± 2.8 % fine-tuned, 51.5 ± 0.7 % from scratch over 2 seeds",
        ),
        (
            (0.50, 0.51), (0.70, 0.72),
            "Pretraining lowers digits from 71.0 ± 1.4 % to 50.5 ± 0.7 %: -20.5 points over 2 seeds",
        ),
        (
            (0.75,), (0.52,),
            "digits: 75.0 % fine-tuned, 52.0 % from scratch; with one seed the spread is unknown",
        ),
    ],
    ids=["lifts", "no clear gain", "lowers", "one seed"],
)  # fmt: skip
def test_the_headline_is_honest(pretrained, scratch, sentence):
    table = [arm("pretrained", pretrained), arm("scratch", scratch)]
    assert headline(table, gains(table)) == sentence


def test_a_score_on_val_says_so_and_is_compared_with_none_on_test():
    score = Score(benchmark="digits", metric="top1", value=0.5, per_seed=(0.5,), num_test=40,
                  protocol={"method": "finetune", "pretrained": True, "split": "val"})  # fmt: skip
    plain = score.model_copy(update={"protocol": {"method": "finetune", "pretrained": False}})
    on_val, on_test = rows([score, plain])
    assert on_val.arm == "fine-tuned, scored on val" and (on_val.split, on_test.split) == ("val", "test")
    assert on_test.arm == "from scratch" and not gains([on_val, on_test])
    assert [chart["rows"] for chart in score_charts([on_val, on_test], {})] == [[on_val], [on_test]]
    card = model_card("m", "s", [on_val, on_test], "file:///run").decode()
    assert "split: val" in card and "split: test" in card and "| fine-tuned, scored on val |" in card
    assert "40 val images" in lead([on_val], [], {}) and "40 test images" in lead([on_test], [], {})
    beside = [dataclasses.replace(on_val, benchmark="imagenet", protocol=of) for of in (on_val.protocol, {})]
    assert not grids(beside[:1], {}) and grids(beside[1:], {}), "the paper's numbers are of test splits"


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        ((0.64, 0.66), "fine-tuned is 10.0 points above, beyond the seeds’ spread"),
        ((0.84, 0.86), "fine-tuned is 10.0 points below, beyond the seeds’ spread"),
        ((0.73, 0.75), "fine-tuned is 1.0 points above, within the seeds’ spread"),
        ((0.65,), "fine-tuned is 10.0 points above, with one seed the spread is unknown"),
    ],
    ids=["above", "below", "within", "one seed"],
)
def test_the_strongest_baseline_is_named_with_its_side(pixels, said):
    strong = dataclasses.replace(arm("baseline", pixels), arm="few-shot ridge on raw pixels")
    weak = dataclasses.replace(arm("baseline", (0.3, 0.3)), arm="few-shot ridge on untrained features", node="weak")
    table = [arm("pretrained", (0.74, 0.76)), arm("scratch", (0.50, 0.54)), weak, strong]
    end = f". Strongest baseline: few-shot ridge on raw pixels; {said}"
    assert headline(table, gains(table)).endswith(end)
    assert beside_strongest(table) == {"baseline": said}
    probe = dataclasses.replace(arm("frozen", (0.9, 0.92)), arm="few-shot ridge on frozen features", node="probe")
    assert beside_strongest([*table, probe]) == {"baseline": said}, "another reading of the same pretraining"
    assert headline([*table, probe], gains(table)).endswith(end)
    on_val = dataclasses.replace(strong, protocol={**strong.protocol, "split": "val"})
    assert beside_strongest([table[0], weak, on_val]).keys() == {"weak"}, "a score on other images is no baseline"


def test_only_arms_that_are_otherwise_alike_are_compared():
    other = arm("scratch", (0.5, 0.5), protocol={"steps": 20, "seeds": [0, 1]})
    assert gains([arm("pretrained", (0.7, 0.7)), other]) == []
    assert headline([other], []) == "digits: 50.0 ± 0.0 % from scratch over 2 seeds"


def test_gains_are_paired_by_seed():
    gain = Gain(arm("pretrained", (0.6, 0.8)), arm("scratch", (0.5, 0.7)))
    assert gain.points == pytest.approx(10) and gain.std == pytest.approx(0, abs=1e-9)
    assert not gain.clear, "the seeds' own spread is wider than the gain"


def test_several_gains_are_counted():
    table = [arm(kind, seeds, benchmark=name) for name in ("a", "b")
             for kind, seeds in (("pretrained", (0.7, 0.72)), ("scratch", (0.5, 0.52)))]  # fmt: skip
    assert headline(table, gains(table)) == "Pretraining clearly helps in 2 of 2 comparisons: +20.0 points on average"


def test_axes_enclose_and_are_round():
    scale = axis([0.13, 5.9], 4)
    assert (scale.low, scale.high) == (0, 6) and scale.place(3) == 50
    assert axis([2.0, 2.0]).low <= 2 <= axis([2.0, 2.0]).high and axis([0.0, 0.0]).low == 0
    assert (axis([100.0] * 3, 4).low, axis([100.0] * 3, 4).high) == (75, 100), "no percentage goes beyond 100"
    assert score_axis([ARM, dataclasses.replace(ARM, value=0.5, per_seed=(0.5,))]).low == 0
    assert score_axis([dataclasses.replace(ARM, value=0.99, per_seed=(0.988, 0.992), std=0.002)]).low > 90


def test_curves_are_thinned_but_keep_their_peaks():
    values = [1.0] * 10_000
    values[6_543] = 9.0
    curve = Curve.draw("Loss", "", range(10_000), values, smooth=False)
    assert curve.svg.count("L") < 2 * MAX_POINTS and curve.y.high >= 9
    assert f"{200 * (1 - 9 / curve.y.high):.1f}" in curve.svg


def test_numbers_as_words():
    assert [duration(seconds) for seconds in (None, 4.25, 59, 276, 7_380, 200_000)] == [
        "–", "4.2 s", "59 s", "4 min 36 s", "2 h 3 min", "2 d 7 h",
    ]  # fmt: skip
    assert [size(number) for number in (None, 12, 3_500_000)] == ["–", "12 B", "3.3 MiB"]
    assert [count(number) for number in (None, 40_000, 86_567_656)] == ["–", "40,000", "86.6 M"]
    assert [flops(number) for number in (None, 1.27e15, 4.7e20)] == ["–", "1.27 PFLOP", "470 EFLOP"]


def test_another_resolution_is_told_whether_it_gains_or_not():
    small = arm("pretrained", (0.70, 0.72), protocol={"image_px": 32, "steps": 10, "weights": "w", "seeds": [0, 1]})
    large = dataclasses.replace(small, per_seed=(0.60, 0.62), value=0.61, protocol=small.protocol | {"image_px": 48})
    (found,) = resolutions([large, small])
    assert (found.small, found.large) == (small, large) and found.gain.points == pytest.approx(-10)
    assert found.verdict == "loses, beyond the seeds’ spread"
    near = dataclasses.replace(large, per_seed=(0.71, 0.72), value=0.715)
    assert resolutions([small, near])[0].verdict == "no clear gain: within the seeds’ spread"
    other = dataclasses.replace(large, protocol=large.protocol | {"steps": 20})
    assert resolutions([small, other]) == [], "not alike in all else"


def test_a_line_of_the_csv_says_which_run_it_is_of_and_what_was_set_behind_it():
    def node(name, sha256, config, seconds, takes=()):
        origins = {"data": tuple(Origin(uri="", fingerprint="", record_sha256=one) for one in takes)}
        record = Record(
            node=name, stage="make", fingerprint="", recipe={"config": config}, config={}, inputs=origins, files=(),
            output={}, code="", versions={}, started="2026-01-01T00:00:00Z", seconds=seconds, attempt="a1",
        )  # fmt: skip
        return LineageNode(name, record, sha256, replaced=False)

    lineage = [
        node("photos", "1", {"source": {"kind": "folder"}}, 7.0),
        node("other", "2", {"value": 3}, 100.0),
        node("backbone", "3", {"optimizer": {"peak_lr": 0.003}}, 50.0, "1"),
        node("transfer", "4", {"crop": "resize"}, 5.0, "3"),
    ]
    row = arm("pretrained", (0.5, 0.6), record_sha256="4")
    written = results_csv([dataclasses.replace(row, node="transfer")], "s3://b/r", lineage).decode()
    (line,) = csv.DictReader(io.StringIO(written))
    assert (line["run"], line["node"]) == ("s3://b/r", "transfer")
    assert (line["seconds"], line["upstream_seconds"]) == ("5.0", "57.0")
    settings = "photos.source.kind=folder; backbone.optimizer.peak_lr=0.003; transfer.crop=resize"
    assert line["settings"] == settings
