"""Random trainings on random machines on bad days, and what must hold whatever happens."""

import numpy as np

from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.simulation.cluster import Hazards
from vitpipe.infra.simulation.road import Road, Trip
from vitpipe.infra.simulation.training_model import TrainingModel


def every(length, total):
    """Saves at each multiple, and at the end."""
    return lambda step: min(total, (step // length + 1) * length)


def random_trip(seed):
    """Some hours in which several things go wrong, with machines that suffice once those that are away are back."""
    rng = np.random.default_rng(seed)
    count, gpus = int(rng.integers(2, 9)), int(rng.choice([1, 2, 4]))
    spare = int(rng.integers(0, 3))
    most = count * gpus
    least = most if rng.random() < 0.4 else int(rng.integers(1, most + 1))
    total, length = int(rng.integers(50, 1500)), int(rng.integers(5, 200))
    model = TrainingModel(
        total,
        lambda ranks: 4.0 * most / ranks,
        every(length, total),
        Size(least, most, 1, 1.0),
        stall_s=float(rng.uniform(0, 10)),
        commit_s=float(rng.choice([0.0, 5.0, 60.0, 900.0])),
        start_s=float(rng.uniform(1, 60)),
        hang_timeout_s=float(rng.choice([20, 600])),
        max_failures=int(rng.integers(0, 4)),
        heeds_notices=bool(rng.random() < 0.7),
        saves_aside=bool(rng.random() < 0.7),
    )
    machines = count + spare
    between = min(length, total) * 4.0 * most / least * 1.5 + model.start_s + model.commit_s
    whole = max(total * 4.0, 8 * between)  # else it might never get from one commit to the next

    def sometimes(times, away=0.0):
        often = max(whole / rng.uniform(0.5, times), 6 * away)  # most are there, most of the time
        return float(machines * often) if rng.random() < 0.7 else np.inf

    repair, away = rng.uniform(10, 2000, 2).tolist()
    hazards = Hazards(
        crash_s=sometimes(4), hang_s=sometimes(2), loss_s=sometimes(3, repair), repair_s=repair,
        preempt_s=sometimes(4, away), grace_s=float(rng.choice([1, 30, 1000])), away_s=away,
        slow_s=sometimes(3), slow_for_s=300.0,
    )  # fmt: skip
    tasks = [tuple(rng.lognormal(3, 1, int(rng.integers(0, 20))).tolist()) for _ in range(2)]
    has = {f"m{n}": {"CPU": float(gpus + 1), "GPU": float(gpus)} for n in range(machines)}
    return Trip(has, model, hazards, *tasks)


class _Room:
    """Sees at every change that nobody holds more than there is."""

    def __init__(self, road):
        self.road = road

    def look(self, *_):
        there = self.road.queue.there
        assert all(amount >= -1e-6 for name in there.has for amount in there.free(name).values()), "more than there is"

    hit = gone = changed = look


def check(seed):
    """Simulate one, and see that it kept every promise; how it went."""
    road = Road(random_trip(seed), seed)
    road.cluster.residents.append(_Room(road))
    arrival = road.travel()
    trip, model, training, steps = road.trip, road.trip.training, road.training, road.training.steps
    assert sorted(road.images.done) == list(range(len(trip.before))), "each task ended once"
    assert sorted(road.trials.done) == list(range(len(trip.after)))
    assert steps.committed == steps.count == model.total_steps
    assert steps.commits == sorted(set(steps.commits)), "a committed step was made again"
    assert steps.made == model.total_steps + steps.lost, "each step was made once, and once more for each loss"
    assert steps.lost == sum(count - committed for count, _, committed in steps.losses)
    for count, saved, committed in steps.losses:
        assert committed in (0, *steps.commits)
        assert committed <= saved <= count <= model.next_save(model.next_save(committed))
    assert abs(sum(arrival.spent.values()) - arrival.training_s) < 1e-3, "each second went to something"
    assert arrival.spent["steps"] >= arrival.ideal_s - 1e-3, "no step took less than it takes"
    assert arrival.goodput <= 1.0
    assert all(charged <= model.max_failures + 1 for charged in training.charged), "the budget was respected"
    assert training.commands == len(training.charged) + 1
    assert all(model.size.least <= ranks <= model.size.most for ranks in training.sizes)
    return arrival, training
