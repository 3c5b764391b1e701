"""Graphs of gangs and fan-outs by the run's own queue on a simulated clock: how late they end, and how long gangs wait.

All 200 of them, and the table, by `python -m tests.benchmarks queueing`.
"""

from statistics import fmean

import pytest
from simulated_graphs import FirstCome, LongestFirst, StrictFirstCome, random_graph, simulate, work, wrong

SEEDS = range(40)


@pytest.fixture(scope="module")
def ours():
    return [simulate(*random_graph(seed), seed=seed) for seed in SEEDS]


def test_graphs_end_near_what_no_order_can_beat(ours):
    assert fmean(one.seconds / one.tight for one in ours) <= 1.10


@pytest.mark.parametrize("simpler", [FirstCome, LongestFirst, StrictFirstCome])
def test_simpler_orders_end_later(simpler, ours):
    theirs = [simulate(*random_graph(seed), simpler, seed=seed) for seed in SEEDS]
    assert fmean(one.seconds / one.bound for one in theirs) > fmean(one.seconds / one.bound for one in ours) + 0.005


@pytest.mark.parametrize("told", [lambda rng, seconds: seconds, wrong, lambda rng, seconds: None])
def test_a_gang_waits_for_what_runs_and_for_nobody_that_comes_later(told):
    """Whatever is estimated: with true estimates never longer than the longest that ran when it came."""
    over = [
        waited - longest
        for seed in SEEDS
        for waited, longest in simulate(*random_graph(seed), told=told, seed=seed).lone()
    ]
    assert over
    if told is not wrong:
        assert max(over) <= 1e-6
    late = sum(one > 1e-6 for one in over)
    assert late <= len(over) / 10, "an estimate that is too small lets a task in front, now and then"


def test_the_second_of_two_trainings_does_not_wait_for_the_trials_of_the_first():
    graph = {"a": work((100.0,), 1, 2), "b": work((100.0,), 1, 2)}
    graph |= {f"trials of {net}": work((10.0,) * 40, needs=(net,)) for net in "ab"}
    ran = simulate(graph, {"m": {"CPU": 2.0}})
    assert sorted(turn for _, _, turn, _ in ran.gangs.values()) == [0.0, 100.0]
    later = {"slow data": work((105.0,)), **graph, "b": work((100.0,), 1, 2, ("slow data",))}
    came, longest, turn, _ = simulate(later, {"m": {"CPU": 3.0}}).gangs["b"]
    assert came == 105.0 and turn - came <= longest == 10.0, "one trial of the first, of forty"
