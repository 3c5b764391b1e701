"""Which nodes a budget of hours names, and what it says would help each."""

import pytest

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.budgets import Spending
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.plan.schedule import Schedule
from vitpipe.pipeline.plan.sweep import SweptPoint
from vitpipe.stages.estimates import Costs, Estimate, WorkPhase

GANG = WorkPhase(tasks=1, seconds=108_000, gpus=1, ranks=2)
TASKS = WorkPhase(tasks=4, seconds=18_000, gpus=1)


def node(id: str, hours: float, phase: WorkPhase, gpus: float = 2) -> Planned:
    facts = {"binds": "compute", "step_seconds": {}, "images_per_s": 1, "compute_images_per_s": 1}
    sizes = {"machines": 1, "workers": 1, "cores_per_worker": 1, "gpus": gpus, "phases": (phase,)}
    estimate = Estimate(hours=hours, costs=Costs.model_validate(facts | sizes))
    return Planned(id, "pretrain", "run", "", estimate=estimate)


def schedule(plan: Plan, gpus: int) -> Schedule:
    """One behind the other; of the fan-out as many tasks at once as there are GPUs."""
    return Schedule(3600 * ((plan.nodes["net"].estimate.hours or 0) + 5 * -(-4 // gpus)), {})


def workers(id: str) -> list[SweptPoint]:
    assert id == "net", "a fan-out has no workers"
    return [SweptPoint(many, node("net", 60 / many, GANG, many)) for many in (2, 4, 8)]


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


def test_without_a_queue_the_longest_node_counts_and_that_is_said() -> None:
    made = Plan({"net": node("net", 30, GANG)})
    with pytest.raises(UsageError, match="no queue could run it, and its longest node takes 30 hours"):
        Spending(hours=9).check(made, None, 0, workers, lambda plan, gpus: Schedule(0.0, {}, problem="no room"))
