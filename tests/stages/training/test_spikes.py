"""A loss far above its like is told, and nothing else is."""

import math
import random

from vitpipe.stages.training.measure.spikes import LEAST, Spikes


def found(losses: list[float]) -> list[int]:
    spikes = Spikes()
    return [step for step, loss in enumerate(losses) if spikes.add(loss) is not None]


def falling(number: int) -> list[float]:
    draw = random.Random(0)
    return [6 * math.exp(-step / 200) + draw.gauss(0, 0.1) for step in range(number)]


def test_a_curve_that_falls_has_no_spikes() -> None:
    assert found(falling(2000)) == []


def test_a_spike_is_told_once_with_what_is_usual() -> None:
    losses = falling(400)
    losses[300] = 5.0
    assert found(losses) == [300]


def test_the_first_steps_are_not_judged() -> None:
    assert found([1.0] * (LEAST - 1) + [100.0]) == []


def test_what_stays_is_told_once_and_becomes_usual() -> None:
    assert found([1.0] * 100 + [3.0] * 200 + [9.0] + [3.0] * 9) == [100, 300]


def test_a_loss_that_hardly_varies_may_vary_a_little() -> None:
    assert found([1.0] * 100 + [1.2] + [1.0] * 50) == []
