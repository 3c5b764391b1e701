"""A node's hours and the schedule of the whole graph are of one kind, and machines that hold no node are refused."""

import math
import random

import pytest

from vitpipe.infra.errors import UsageError
from vitpipe.infra.ray.reasons import lack
from vitpipe.infra.work import RANKS_PER_CORE
from vitpipe.pipeline.drive.runner import _cpus_wanted
from vitpipe.pipeline.plan.given_machines import gpu_kinds
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.plan.prices import Machine, priced
from vitpipe.pipeline.plan.schedule import refuse_misfits, scheduled, timed
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.costs.machines import ClusterFacts
from vitpipe.stages.costs.reading import ImageWork
from vitpipe.stages.costs.tasks import Tasks, WorkPhase
from vitpipe.stages.estimates import Costs, Estimate, tasks_costs

PHOTOS = """\
version: 1
name: run
store: file://./runs
nodes:
  photos: {stage: ingest, config: {source: {kind: folder, root: ./photos}}}
  tune:
"""
SPEC = load(
    PHOTOS
    + """\
    stage: finetune
    needs: {data: photos}
    config: {model: {variant: Ti/16, image_px: 64}, batch_images: 32, total: 10 steps, peak_lr: 0.1}
"""
)
RANKS = (
    PHOTOS
    + """\
    stage: pretrain
    needs: {shards: photos}
    config:
      {model: {variant: Ti/16, image_px: 64}, optimizer: {peak_lr: 1e-3, weight_decay: 0.1}, batch_images: 2520,
       total: 10 epochs}
"""
)
GPU = gpu_kinds()["H100"]


def on(gpus: int = 0, cores: int = 2, cluster: ClusterFacts | None = None, is_here: bool = True) -> Machine:
    return Machine("H100", GPU, gpus, None, cluster or ClusterFacts(), cores, is_here)


def tasks_on(machine: Machine, shares: tuple[tuple[int, float], ...], gpus: float, cpus: float) -> Tasks:
    known = machine.known
    work = {"flops": 1e15, "images": 1000.0, "image": ImageWork(), "speed": 1e12, "start_s": 2.0}
    return Tasks(shares=shares, room=known.room(cpus, gpus), gpus_each=gpus, cores_each=cpus, cores_asked=cpus, **work)


def plan_of(tasks: Tasks, machine: Machine) -> Plan:
    costs = tasks_costs(tasks, machine.cluster)
    estimate = Estimate(flops=tasks.flops, hours=tasks.seconds / 3600, costs=costs)
    return Plan({"tune": Planned("tune", "finetune", "run", "", estimate=estimate)})


def alone(plan: Plan, machine: Machine) -> float:
    return scheduled(
        Plan({"photos": Planned("photos", "ingest", "reuse", ""), **plan.nodes}), SPEC.graph, machine
    ).seconds


def test_four_trials_and_then_three_on_three_gpus_are_three_waves() -> None:
    """By hand: 1,000 s of compute; a trial of the sweep is 100 s, one of the test 200 s; each starts for 2 s."""
    found = tasks_on(on(gpus=3), ((4, 0.4), (3, 0.6)), 1.0, 1.0)
    assert found.seconds == pytest.approx(2 * 102 + 202)
    assert (found.at_once, found.compute_seconds) == (3, pytest.approx(found.seconds))
    made = priced(plan_of(found, on(gpus=3)), SPEC.graph, on(gpus=3)).nodes["tune"]
    assert made.gpu_hours == pytest.approx((4 * 102 + 3 * 202) / 3600), "what waits holds nothing"


def test_hours_are_those_of_the_schedule_and_never_less_than_without_limits() -> None:
    draw = random.Random(0)
    for _ in range(400):
        gpus_each = draw.choice([0.0, 0.125, 0.3, 0.5, 1.0, 2.0, 8.0])
        cluster = ClusterFacts(gpus_per_machine=8, cores_per_machine=draw.choice([4, 9, 112]))
        machine = on(
            draw.choice([8, 13, 64]) if gpus_each else 0, draw.choice([2, 6, 30]), cluster, draw.random() < 0.5
        )
        counts = draw.randint(0, 30), draw.randint(1, 9)
        part = draw.random() if counts[0] else 0.0
        cpus = draw.choice([0.25, 1.0, 2.0, 3.0])
        tasks = tasks_on(machine, ((counts[0], part), (counts[1], 1 - part)), gpus_each, cpus)
        if not tasks.room:
            with pytest.raises(UsageError):
                refuse_misfits(plan_of(tasks, machine), machine)
            continue
        seconds = alone(plan_of(tasks, machine), machine)
        assert tasks.seconds == pytest.approx(seconds), (gpus_each, cpus, machine)
        unlimited = sum(phase.seconds for phase in tasks.phases)
        assert tasks.seconds >= unlimited * (1 - 1e-9)
        if tasks.room >= max(counts):
            assert tasks.seconds == pytest.approx(unlimited)


def test_an_ingest_is_cut_into_tasks_and_what_is_one_task_is_not() -> None:
    """Two minutes of one core are four tasks of 32 s with their starts: two waves on two cores."""
    photos = Planned("photos", "ingest", "run", "", estimate=Estimate(hours=120 / 3600))
    tune = Planned("tune", "convert", "run", "", estimate=Estimate(hours=120 / 3600))
    made = timed(Plan({"photos": photos, "tune": tune}), SPEC.graph, on(cores=2))
    assert [3600 * (one.estimate.hours or 0) for one in made.nodes.values()] == pytest.approx([64, 122])
    assert scheduled(made, SPEC.graph, on(cores=2)).seconds == pytest.approx(186)


def gang(ranks: int, cpus: float) -> Plan:
    phase = WorkPhase(tasks=1, seconds=60, cpus=cpus, ranks=ranks)
    facts = {"binds": "compute", "step_seconds": {}, "images_per_s": 1, "compute_images_per_s": 1}
    sizes = {"machines": 1, "workers": ranks, "cores_per_worker": 1, "phases": (phase,)}
    estimate = Estimate(hours=60 / 3600, costs=Costs.model_validate(facts | sizes))
    return Plan({"tune": Planned("tune", "pretrain", "run", "", estimate=estimate)})


def test_ranks_share_the_cores_of_this_machine_as_far_as_a_run_lets_them() -> None:
    most = 2 * RANKS_PER_CORE
    for ranks in (1, 2, most):
        refuse_misfits(gang(ranks, 1), on())
        assert alone(gang(ranks, 1), on()) == pytest.approx(60)
    with pytest.raises(
        UsageError, match=r"on 2 CPU cores: it asks for 9 x \(1 CPU\), room for 8 .* to 8 or less, desc"
    ):
        refuse_misfits(gang(most + 1, 1), on())
    with pytest.raises(UsageError, match=r"1 x \(16 CPU\), largest machine has 8 CPU\. Set resources.cpus_per_worker"):
        refuse_misfits(gang(1, 16), on())
    assert on().known.part_of_cores(most) == 0.25


@pytest.mark.parametrize("cpus", [1, 2, 3, 9])
def test_a_plan_refuses_what_a_run_on_this_machine_would(cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cores that a run's own Ray offers for such ranks, and what they can hold."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for ranks in range(1, 11):
        spec = load(RANKS, [f"nodes.tune.resources={{workers: {ranks}, cpus_per_worker: {cpus}}}"])
        offered = {"here": {"CPU": math.ceil(_cpus_wanted(spec, gang(ranks, cpus)))}}
        holds = not lack((("CPU", float(cpus)),), ranks, offered)
        try:
            refuse_misfits(gang(ranks, cpus), on())
        except UsageError:
            assert not holds, (ranks, cpus)
        else:
            assert holds, (ranks, cpus)


def test_machines_that_are_described_share_no_cores() -> None:
    machine = on(cores=32, cluster=ClusterFacts(cores_per_machine=16), is_here=False)
    refuse_misfits(gang(32, 1), machine)
    with pytest.raises(UsageError, match="room for 4 on 2 machines"):
        refuse_misfits(gang(5, 8), machine)
    assert machine.known.part_of_cores(40) == 1
