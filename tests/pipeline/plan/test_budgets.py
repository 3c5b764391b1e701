"""Which nodes a budget of hours names, and what it says would help each."""

import re
from dataclasses import replace

import pytest

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.budgets import Spending
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.plan.schedule import Schedule
from vitpipe.pipeline.plan.sweep import SweptPoint
from vitpipe.stages.estimates import Costs, Estimate, WorkPhase

GANG = WorkPhase(tasks=1, seconds=108_000, gpus=1, ranks=2)
TASKS = WorkPhase(tasks=4, seconds=18_000, gpus=1)


def node(id: str, hours: float, phase: WorkPhase, gpus: float = 2, price: float = 10) -> Planned:
    facts = {"binds": "compute", "step_seconds": {}, "images_per_s": 1, "compute_images_per_s": 1}
    sizes = {"machines": 1, "workers": 1, "cores_per_worker": 1, "gpus": gpus, "phases": (phase,)}
    estimate = Estimate(hours=hours, costs=Costs.model_validate(facts | sizes))
    return Planned(id, "pretrain", "run", "", estimate=estimate, price=price)


def schedule(plan: Plan, gpus: int) -> Schedule:
    """One behind the other; of the fan-out as many tasks at once as there are GPUs."""
    return Schedule(3600 * ((plan.nodes["net"].estimate.hours or 0) + 5 * -(-4 // gpus)), {})


def workers(id: str) -> list[SweptPoint]:
    assert id == "net", "a fan-out has no workers"
    return [SweptPoint(many, node("net", 60 / many, GANG, many, 8 + many), num_gpus=many) for many in (2, 4, 8)]


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (35, "takes 40 hours, no node alone takes more; the longest are net 30 and tune 10"),
        (35, "Take 4 workers for net, 20 hours for the whole graph"),
        (25, "of them net 30. Take 4 workers for net, 15 hours; the whole graph then takes 20 hours on 4 GPUs"),
        (9, "of them net 30 and tune 10. Take 8 workers for net, 7.5 hours"),
        (9, "the whole graph still takes 12.5 hours on 8 GPUs (--gpus 8): raise it, or shorten the run"),
        (4, "shorten net: the least is with 8 workers for net, 7.5 hours"),
        (4, "shorten tune: with all tasks of a phase at once it takes 5 hours"),
        (1, "plan for at most 1 hour: the whole"),
    ],
)
def test_every_node_that_is_too_long_is_named_with_what_helps_it(hours: float, words: str) -> None:
    """A gang of 30 hours, then four tasks of 5 hours on one GPU each, two at a time."""
    made = Plan({"net": node("net", 30, GANG), "tune": node("tune", 10, TASKS)})
    Spending(hours=40).check(made, None, 2, workers, schedule)
    with pytest.raises(UsageError) as error:
        Spending(hours=hours).check(made, None, 2, workers, schedule)
    assert words.lower() in str(error.value).lower()


def test_a_fan_out_alone_is_helped_by_gpus() -> None:
    made = Plan({"net": node("net", 3, GANG), "tune": node("tune", 10, TASKS)})
    with pytest.raises(UsageError, match="Take 4 GPUs for 4 tasks of tune at once, 5 hours; the whole graph then"):
        Spending(hours=9).check(made, None, 2, workers, schedule)


@pytest.mark.parametrize(
    ("gpus", "binds", "words"),
    [
        (
            0.25,
            "compute",
            "hours, each on 0.25 of a GPU: a larger part (resources.gpus_per_task) may take less; the whole",
        ),
        (0.25, "images", "5 hours, bound by images: more cores for each (resources.cpus_per_task) may take less; the"),
    ],
)
def test_what_gives_each_task_more_is_not_denied(gpus: float, binds: str, words: str) -> None:
    tune = node("tune", 5, TASKS.model_copy(update={"gpus": gpus}))
    assert tune.estimate.costs
    costs = tune.estimate.costs.model_copy(update={"binds": binds})
    tune = replace(tune, estimate=tune.estimate.model_copy(update={"costs": costs}))
    with pytest.raises(UsageError) as error:
        Spending(hours=4).check(Plan({"net": node("net", 3, GANG), "tune": tune}), None, 2, workers, schedule)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("hours", "price", "words"),
    [
        (None, 22, "It costs 30. Take 4 workers for net, 20 hours for the whole graph and a price of 22"),
        (50, 20.5, "It costs 30. Take 2 workers for net, 40 hours for the whole graph and a price of 20"),
        (15, 100, "takes 40 hours, of them net 30. Take 8 workers for net, 12.5 hours for the whole graph and a pri"),
        (25, 23, "and it costs 30. Take 4 workers for net, 20 hours for the whole graph and a price of 22"),
        (
            15,
            22,
            "the quickest that costs no more is 4 workers for net, 20 hours for the whole graph and a price of 22",
        ),
        (15, 10, "raise it, or shorten the run: the least is with 2 workers for net, 40 hours for the whole graph"),
    ],
)
def test_the_quickest_way_that_keeps_to_every_budget(hours: float | None, price: float, words: str) -> None:
    """With 2, 4, 8 workers it is 30 + 10, 15 + 5, 7.5 + 5 hours, and a price of 20, 22, 26."""
    made = Plan({"net": node("net", 30, GANG, price=20), "tune": node("tune", 10, TASKS)})
    Spending(50, 30).check(made, 30, 2, workers, schedule)
    with pytest.raises(UsageError) as error:
        Spending(hours, price).check(made, 30, 2, workers, schedule)
    assert words.lower() in str(error.value).lower()


def test_fewer_workers_may_leave_gpus_to_the_fan_out() -> None:
    """With 2 workers 30 hours, and behind them 5 on 8 GPUs, 10 on 2."""
    made = Plan({"net": node("net", 7.5, GANG, 8, price=16), "tune": node("tune", 5, TASKS)})
    said = "Take 2 workers for net on 8 GPUs (--gpus 8), 35 hours for the whole graph and a price of 20"
    with pytest.raises(UsageError, match=re.escape(said)):
        Spending(36, 21).check(made, 26, 8, workers, schedule)


def test_many_nodes_that_are_too_long_are_counted() -> None:
    made = Plan({"net": node("net", 3, GANG), **{f"t{one}": node(f"t{one}", 10, TASKS) for one in range(24)}})
    with pytest.raises(UsageError) as error:
        Spending(hours=2).check(made, None, 4, workers, lambda plan, gpus: Schedule(3600 * 250, {}))
    said = str(error.value)
    assert "of them t0 10, t1 10, t2 10 and 22 more. Shorten t0" in said and "; 22 more nodes are too long as" in said
    assert len(said) < 600


@pytest.mark.parametrize("limit", [Spending(hours=1e9), Spending(price=1e9), Spending(1e9, 1e9)])
def test_no_budget_is_kept_by_not_knowing(limit: Spending) -> None:
    """Neither of a training whose GPU's speed is unknown nor of one whose images are; other nodes may be untimed."""
    known = Plan({"net": node("net", 3, GANG), "page": Planned("page", "report", "run", "")})
    limit.check(known, 10.0, 2, workers, schedule)
    Spending().check(Plan({"net": Planned("net", "pretrain", "run", "")}), None, 2, workers, schedule)
    for estimate in (Estimate(flops=1e18), Estimate()):
        made = Plan(dict(known.nodes) | {"tune": Planned("tune", "finetune", "run", "", estimate=estimate)})
        with pytest.raises(UsageError, match=r"nobody knows yet how long tune will take\. Plan without a limit"):
            limit.check(made, 10.0, 2, workers, schedule)


def test_more_workers_are_advised_with_the_micro_batch_that_they_need() -> None:
    def smaller(id: str) -> list[SweptPoint]:
        return [replace(one, also="micro_batch 16") if one.value == 8 else one for one in workers(id)]

    made = Plan({"net": node("net", 30, GANG), "tune": node("tune", 10, TASKS)})
    with pytest.raises(UsageError, match=r"Take 8 workers with micro_batch 16 for net, 7.5 hours"):
        Spending(hours=9).check(made, None, 2, smaller, schedule)
    with pytest.raises(UsageError, match=r"8 workers with micro_batch 16 for net, "):
        Spending(hours=14, price=60).check(made, 50.0, 2, smaller, schedule)
