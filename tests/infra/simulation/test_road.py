"""Trainings on simulated machines on bad days, led by the run's own policies: what holds, and times reckoned by hand.

A thousand of them, and what each policy is worth, by `python -m tests.benchmarks road`.
"""

from dataclasses import replace

import numpy as np
import pytest
from simulated_roads import check, every, random_trip

from vitpipe.infra.errors import StageError
from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.simulation.cluster import Hazards
from vitpipe.infra.simulation.road import Road, Trip, travel
from vitpipe.infra.simulation.steps import Steps
from vitpipe.infra.simulation.training_model import TrainingModel


def test_promises_are_kept_on_bad_days():
    ran = [check(seed) for seed in range(40)]
    assert sum(arrival.starts for arrival, _ in ran) > 150, "much went wrong"
    assert sum(arrival.commands for arrival, _ in ran) > 60
    assert any(len(set(training.sizes)) > 1 for _, training in ran)


def test_a_broken_promise_is_seen(monkeypatch):
    """A training that goes on from what it saved and not from what is committed."""
    lose = Steps.lose

    def forgetful(steps):
        steps.committed = max(steps.committed, steps.saved)
        lose(steps)

    monkeypatch.setattr(Steps, "lose", forgetful)
    with pytest.raises(AssertionError):
        for seed in range(40):
            check(seed)


def test_the_same_seed_is_the_same_run():
    assert travel(random_trip(3), 3) == travel(random_trip(3), 3)
    assert travel(random_trip(3), 4) != travel(random_trip(3), 3)


MODEL = TrainingModel(
    100, lambda ranks: 20.0 / ranks, every(10, 100), Size(1, 2, 1, 0), stall_s=1.0, commit_s=5.0, start_s=30.0
)
MACHINES = {name: {"CPU": 1.0} for name in "ab"}


def at(road, seconds, act):
    road.agenda.after(seconds, act)
    return road


def test_nothing_happens():
    arrival = travel(Trip(MACHINES, MODEL))
    assert arrival.seconds == arrival.training_s == 30 + 100 * 10 + 10 * 1 + 5
    assert (arrival.starts, arrival.commands, arrival.steps_lost) == (1, 1, 0)


def test_a_first_start_restores_nothing():
    model = replace(MODEL, first_start_s=4.0)
    assert travel(Trip(MACHINES, model)).seconds == 4 + 100 * 10 + 10 * 1 + 5
    road = Road(Trip(MACHINES, model))
    assert at(road, 1.0, lambda: road.cluster.strike("a", "crash")).travel().seconds > 30 + 100 * 10 + 10 * 1 + 5


def test_a_crash_costs_what_was_not_committed_and_a_start():
    road = Road(Trip(MACHINES, MODEL))
    arrival = at(road, 30 + 250 + 2 + 3, lambda: road.cluster.strike("a", "crash")).travel()  # 25 steps, two saves
    assert arrival.steps_lost == 5 and arrival.spent["again"] == pytest.approx(53)
    calm = travel(Trip(MACHINES, MODEL)).seconds
    assert arrival.seconds == pytest.approx(calm + 53 + MODEL.crash_seen_s + MODEL.end_s + MODEL.start_s)


def test_a_machine_that_is_taken_away_costs_no_step_and_no_charge_and_comes_back():
    road = Road(Trip(MACHINES, replace(MODEL, max_failures=0), Hazards(away_s=1.0)))
    arrival = at(road, 291.0, lambda: road.cluster.drain("a")).travel()
    assert (arrival.steps_lost, arrival.commands) == (0, 1)
    assert road.training.sizes == [2, 1, 2], "it goes on with one, and with two again"
    deaf = Road(Trip(MACHINES, replace(MODEL, max_failures=0, heeds_notices=False), Hazards(away_s=1.0)))
    lost = at(deaf, 291.0, lambda: deaf.cluster.drain("a")).travel()
    assert lost.steps_lost > 0 and lost.commands == 2


def test_too_few_machines_are_borne_for_a_while_and_then_end_the_command():
    model = replace(MODEL, size=Size(2, 2, 1, 0), person_s=1000.0)
    for back, commands in ((100.0, 1), (400.0, 2)):
        road = Road(Trip(MACHINES, model))
        arrival = at(road, 100.0, lambda road=road, back=back: road.cluster.lose("b", back)).travel()
        assert arrival.commands == commands
        assert arrival.spent.get("person", 0.0) == 1000.0 * (commands - 1)


def test_losses_beyond_the_budget_end_the_command():
    road = Road(Trip(MACHINES, replace(MODEL, max_failures=1)))
    for number in range(4):
        at(road, 100.0 + 100 * number, lambda: road.cluster.strike("a", "crash"))
    arrival = road.travel()
    assert road.training.charged == [2] and arrival.commands == 2


def test_what_never_ends_is_told():
    trip = Trip(MACHINES, replace(MODEL, size=Size(2, 2, 1, 0)))
    road = Road(trip)
    with pytest.raises(StageError, match="Cannot simulate a run to its end: step 0 of 100"):
        at(road, 1.0, lambda: road.cluster.lose("b", np.inf)).travel()
