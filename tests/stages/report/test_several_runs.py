"""Curves of several trainings in one another."""

import re

from vitpipe.stages.report.several_runs import overlaid

SLOW = [{"step": step, "loss": 2.0 - step / 100, "lr": 0.1} for step in range(1, 51)]
FAST = [{"step": step, "loss": 2.0 - step / 50, "lr": 0.3} for step in range(1, 41)]


def test_each_run_has_its_colour_and_last_value_on_one_scale() -> None:
    ((node, drawn),) = overlaid([("backbone", "slow", SLOW, []), ("backbone", "fast", FAST, [])])
    loss, rate = drawn
    assert (node, loss.title, rate.title) == ("backbone", "Training loss", "Learning rate")
    assert [(name, colour, step, round(value, 3)) for name, colour, step, value, _ in loss.series] == [
        ("slow", "s0", 50, 1.5),
        ("fast", "s1", 40, 1.2),
    ]
    assert (loss.x.low, loss.x.high) == (1, 50) and loss.y.low < 1.21 and loss.y.high >= 1.99
    ends = [float(path.split("L")[-1].split()[0]) for path in re.findall(r' d="M([^"]+)"', loss.svg)]
    assert ends[0] == 1000 and 790 < ends[1] < 800, "a shorter training ends where its steps do"


def test_a_run_keeps_its_colour_where_another_lacks_a_curve() -> None:
    measured = [{"step": step, "validation": {"loss": 1.0}} for step in (10, 20)]
    found = overlaid([("a", "one", SLOW, []), ("a", "two", FAST, measured), ("b", "two", FAST, [])])
    assert [node for node, _ in found] == ["a", "b"]
    assert [series[:2] for series in found[1][1][0].series] == [("two", "s1")]


def test_what_is_not_finite_or_a_single_point_is_left_out() -> None:
    torn = [SLOW[0] | {"loss": float("nan")}, *SLOW[1:5]]
    ((_, drawn),) = overlaid([("a", "one", torn, []), ("a", "two", SLOW[:1], [])])
    assert [name for name, *_ in drawn[0].series] == ["one"] and overlaid([("a", "one", SLOW[:1], [])]) == []
