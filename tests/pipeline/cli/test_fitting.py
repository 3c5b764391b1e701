"""Tables on a terminal of any width: nothing is cut, and reasons move below what they are of."""

import io
from typing import Any

import pytest
from rich.console import Console

from vitpipe.pipeline.cli.display import plan_table, status_table
from vitpipe.pipeline.cli.run_listing import listing
from vitpipe.pipeline.cli.score_lines import score_lines, score_table
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.store.node_status import NodeStatus, RunStatus
from vitpipe.pipeline.store.scores import CommittedScore
from vitpipe.stages.estimates import Estimate

COST = Estimate(steps=900, images=230_400, flops=2.95e13, memory_bytes=74_000_000, hours=0.1, bytes=40_000_000)


def drawn(what: Any, width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(what)
    return out.getvalue()


def a_status(node: str) -> RunStatus:
    running = NodeStatus("backbone", "running", "steps 30 of 90", 30, 90, (), {"loss": 1.2345}, 185)
    return RunStatus("file:///runs/x", "running", (running, NodeStatus(node, "failed", LONG)))


ROWS = [
    CommittedScore("tuned", "digits", "top1", 0.9071, 0.027, 3, 360, 0.1),
    CommittedScore("probe", "digits", "top1", 0.825, None, 1, 1, None),
    CommittedScore("loss", "digits", "mse", 1.25, None, 1, 360),
    CommittedScore("held", "digits", "top1", 0.5, None, 1, 40, split="val"),
]


def test_scores_have_their_spread_basis_and_chance() -> None:
    assert list(score_lines(ROWS)) == [
        "tuned: digits top1 90.7 % +- 2.7 % over 3 seeds, 360 images, chance 10.0 %",
        "probe: digits top1 82.5 %, 1 image",
        "loss: digits mse 1.25, 360 images",
        "held: digits top1 50.0 %, 40 val images",
    ]
    table = drawn(score_table(ROWS), 80)
    for words in ("mean", "spread", "seeds", "images", "chance", "90.7 %", "2.7 %", "10.0 %", "1.25", "40 val"):
        assert words in table


def test_a_table_without_reasons_fits_a_terminal_that_is_just_as_wide() -> None:
    for width in range(40, 110):
        assert "90.7 %" in drawn(score_table(ROWS), width), width


@pytest.mark.parametrize("uri", ["file:///data/[old]/runs/x", "file:///d[/b]/runs"])
def test_a_place_with_brackets_is_no_markup(uri: str) -> None:
    assert uri in drawn(plan_table(a_plan("backbone"), uri)) and uri in drawn(listing(uri, [], None))


LONG = "2 finished pieces of a1; the source was not looked at since it lies elsewhere; 14 fields deviate from the paper"


def a_plan(node: str, reason: str = LONG) -> Plan:
    return Plan({node: Planned(node, "pretrain", "resume", reason, estimate=COST, gpu_hours=0.1, price=12.5)})


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("node", ["backbone", "transfer/oxford-flowers-102-from-imagenet-21k"])
def test_nothing_is_cut_whatever_the_width(width: int, node: str) -> None:
    """Every cell and each word of the reasons is there, and no line is longer than the terminal."""
    plan, status = a_plan(node), a_status(node)
    for table in (drawn(plan_table(plan, "file:///runs/x"), width), drawn(status_table(status), width)):
        assert all(len(line) <= width for line in table.splitlines()) and "\u2026" not in table
        assert node in table.replace("\n", "") and all(word in table for word in LONG.split())
    shown = drawn(plan_table(plan, "file:///runs/x"), width)
    assert all(words in shown for words in ("resume", "230k", "29.5T", "74MB", "6:00", "40MB", "12.5"))


def test_a_wide_terminal_has_reasons_beside_the_costs_and_a_narrow_one_below() -> None:
    heads = [drawn(plan_table(a_plan("backbone"), "file:///runs/x"), width).splitlines()[1] for width in (160, 80)]
    assert "because" in heads[0] and "because" not in heads[1]
