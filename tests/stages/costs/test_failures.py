"""What failures are expected to cost: by hand, and beside the simulation of the road, which draws them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import poisson

from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.simulation import road
from vitpipe.infra.simulation.cluster import DAY_S, Hazards
from vitpipe.infra.simulation.policies import NO_BUDGET, SavesEach
from vitpipe.infra.simulation.road import Trip, travel
from vitpipe.infra.simulation.training_model import TrainingModel
from vitpipe.stages.costs.failures import HOPELESS, MONTH_S, Saving, best_interval_s, upload_s
from vitpipe.stages.costs.machines import ClusterFacts

USUAL = Saving(seconds=1e6, every_s=2000, stall_s=20, upload_s=0, between_failures_s=40_000, restart_s=60)


def test_an_interval_that_failures_seldom_survive_takes_e_to_the_power_of_it() -> None:
    """1,700 s at a failure each 562 s: 562 (e^3.025 - 1) = 11,011 s an interval, 6.48 times as long."""
    found = Saving(seconds=530_000, every_s=1700, stall_s=0, upload_s=0, between_failures_s=562, restart_s=0)
    assert found.expected_s / 530_000 == pytest.approx(6.477, abs=0.001)
    assert found.lost_s == pytest.approx(5.477 * 530_000, rel=1e-3)
    slow = replace(found, restart_s=180, upload_s=3.9)
    assert (slow.expected_s - 3.9) / found.expected_s == pytest.approx(math.exp(183.9 / 562))


def test_seldom_failures_cost_a_restart_and_half_an_interval() -> None:
    """25 of them in a million seconds; e^x is 1 + x + x^2 / 2 there."""
    seldom = replace(USUAL, between_failures_s=40_000_000)
    assert seldom.stalls_s == 500 * 20
    assert seldom.lost_s == pytest.approx(1e6 / 4e7 * 1.01 * (60 + 1010), rel=0.01)


def test_a_checkpoint_is_not_begun_before_the_last_one_is_in_the_store() -> None:
    """Of 25 Gbit/s each, eight machines send 8.9 GB in 0.36 s; at a total of 10 Gbit/s in 7.1 s."""
    facts = ClusterFacts()
    assert upload_s(facts, 8.9e9, 8) == pytest.approx(0.356)
    assert upload_s(facts.model_copy(update={"store_total_gbit_per_s": 10.0}), 8.9e9, 8) == pytest.approx(7.12)
    slow = Saving(seconds=1000, every_s=10, stall_s=1, upload_s=25, between_failures_s=1e12, restart_s=0)
    assert slow.stalls_s == 100 * 1 + 99 * 15 + 25
    assert slow.expected_s == pytest.approx(1000 + 100 * 16 + 25, rel=1e-6)


def test_what_never_ends_is_no_infinite_number() -> None:
    hopeless = replace(USUAL, every_s=1e6, between_failures_s=1000)
    assert hopeless.expected_s == math.inf and not hopeless.ends
    assert hopeless.seconds + hopeless.stalls_s + hopeless.lost_s == pytest.approx(HOPELESS * 1e6 + MONTH_S)
    assert USUAL.ends
    assert (HOPELESS, MONTH_S) == (road.HOPELESS, 30 * DAY_S), "as the simulation has it"


def test_the_suggested_interval_loses_least() -> None:
    for mean in (200.0, 4000.0, 40_000.0):
        best = best_interval_s(20, mean)
        given = replace(USUAL, between_failures_s=mean)
        losses = {factor: replace(given, every_s=factor * best).expected_s for factor in (0.7, 0.9, 1.0, 1.1, 1.4)}
        assert min(losses, key=lambda factor: losses[factor]) == 1.0
    assert best_interval_s(20, 40_000) == pytest.approx(np.sqrt(2 * 20 * 40_000), rel=0.02), "Young's"
    assert best_interval_s(100, 10) == pytest.approx(10, rel=1e-3), "more often than it fails nothing is gained"


@pytest.mark.parametrize(("every", "upload"), [(100, 60.0), (400, 60.0), (40, 120.0)])
def test_the_simulation_draws_what_is_expected(every: int, upload: float) -> None:
    """Four machines, a process dies each 1,000 s, 1 s steps: the mean of 30 runs, whose own error is 2 %."""
    model = TrainingModel(
        10_000, lambda count: 4.0 / count, SavesEach(every, 10_000), Size(4, 4, 1, 0), stall_s=2.0, commit_s=upload,
        start_s=50.0, end_s=0.0, crash_seen_s=0.0, max_failures=NO_BUDGET,
    )  # fmt: skip
    trip = Trip({name: {"CPU": 1.0} for name in "abcd"}, model, Hazards(crash_s=4000.0))
    drawn = np.mean([travel(trip, seed).training_s for seed in range(30)])
    expected = Saving(10_000, float(every), 2.0, upload, 1000.0, 50.0).expected_s
    assert drawn == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("mean", [0.01, 0.5, 3.0, 14.0, 100.0, 1000.0])
def test_the_most_failures_are_those_of_poissons_law(mean: float) -> None:
    """Beside scipy's."""
    training = Saving(seconds=mean * 1e9, every_s=1e3, stall_s=0, upload_s=0, between_failures_s=1e9, restart_s=0)
    assert training.failures == pytest.approx(mean, rel=1e-3)
    assert training.most_failures == poisson.ppf(0.99, training.failures)
    for count in (0, 3, int(mean), int(1.3 * mean)):
        assert training.is_likely(count) is bool(poisson.sf(count, training.failures) > 0.05)
    assert not training.is_likely(1_000_000)


def test_of_very_many_failures_the_normal_distribution_will_do() -> None:
    """Within a thousandth of the quantile, in no time."""
    many = Saving(seconds=3e5 * 1e9, every_s=1e3, stall_s=0, upload_s=0, between_failures_s=1e9, restart_s=0)
    assert many.most_failures == pytest.approx(poisson.ppf(0.99, many.failures), rel=1e-4)
