"""No sample lost or repeated: whatever the shards, the ranks, the kills and the world sizes after them."""

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.stages.images import order as order_module
from vitpipe.stages.images.mixture import Mixture
from vitpipe.stages.images.order import Order
from vitpipe.stages.images.ordering import order_of
from vitpipe.stages.training.sampler import DataParallelSampler

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Many windows and streams at sizes a test can enumerate."""
    monkeypatch.setattr(order_module, "WINDOW", 32)
    order_module._window.cache_clear()
    yield
    order_module._window.cache_clear()


@dataclass(frozen=True)
class Life:
    """One start of the gang: so many ranks, and the steps it finishes before it is killed (None: it ends by itself)."""

    world_size: int
    steps: int | None


LIVES = st.lists(st.builds(Life, st.integers(1, 7), st.integers(0, 9)), max_size=4)


def committed(order, micro_batch, micros, total_steps, every, lives, last_world_size):
    """Ids of each step in the committed log of a run that is killed and continues from its newest checkpoint."""
    steps: list[list[int]] = []
    for life in [*lives, Life(last_world_size, None)]:
        first = len(steps) // every * every if len(steps) < total_steps else len(steps)
        del steps[first:]  # executed after the checkpoint, and rolled back
        end = total_steps if life.steps is None else min(total_steps, first + life.steps)
        samplers = [
            DataParallelSampler(micro_batch * micros, micro_batch, rank, life.world_size)
            for rank in range(life.world_size)
        ]
        for step in range(first, end):
            slots: dict[int, int] = {}
            for sampler in samplers:
                for start, count in sampler.ranges(step, step + 1):
                    ids = order.lookup(np.arange(start, start + count))[1].tolist()
                    slots.update(zip(range(start, start + count), ids, strict=True))
            assert (
                len(slots) == sum(len(list(sampler.ranges(step, step + 1))) for sampler in samplers) * micro_batch
            )  # none twice
            steps.append([slots[slot] for slot in sorted(slots)])
    return steps


@settings(deadline=None, max_examples=60)
@given(
    counts=COUNTS, micro_batch=st.integers(1, 6), micros=st.integers(1, 5), every=st.integers(1, 4), lives=LIVES,
    world_size=st.integers(1, 7), epochs=st.integers(1, 3), seed=st.integers(0, 3), is_subset=st.booleans(),
    data=st.data(),
)  # fmt: skip
def test_every_epoch_of_the_committed_log_is_the_orders(
    counts, micro_batch, micros, every, lives, world_size, epochs, seed, is_subset, data
):
    keep = np.arange(sum(counts))
    if is_subset:
        keep = np.sort(data.draw(st.lists(st.sampled_from(keep.tolist()), min_size=1, unique=True)))
    split = SimpleNamespace(
        sets=[SimpleNamespace(manifest_sha256="data")], split="train", counts=np.array(counts), num_images=sum(counts)
    )
    order, batch = order_of(split, keep if is_subset else None, seed), micro_batch * micros
    total_steps = max(1, epochs * len(keep) // batch)
    undisturbed = committed(order, micro_batch, micros, total_steps, total_steps, [], 1)
    steps = committed(order, micro_batch, micros, total_steps, every, lives, world_size)
    assert steps == undisturbed  # global batches, in order
    ids = keep[[one for step in steps for one in step]].tolist()
    images = len(keep)
    for epoch in range(len(ids) // images):
        assert Counter(ids[epoch * images : (epoch + 1) * images]) == Counter(keep.tolist())
    tail = ids[len(ids) // images * images :]
    assert len(set(tail)) == len(tail) and len(ids) == total_steps * batch  # the last partial epoch repeats nothing


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(COUNTS, min_size=2, max_size=3), lives=LIVES, world_size=st.integers(1, 7), data=st.data())
def test_a_mixture_is_as_exact(sizes, lives, world_size, data):
    shares = data.draw(st.lists(st.integers(1, 5), min_size=len(sizes), max_size=len(sizes)))
    orders = [Order(counts, f"set-{place}", 0) for place, counts in enumerate(sizes)]
    mixed = Mixture(orders, shares, "sets", 0)
    steps = committed(mixed, 4, 3, 12, 3, lives, world_size)
    assert steps == committed(mixed, 4, 3, 12, 12, [], 1)
    ids = np.array([one for step in steps for one in step])
    first = 0
    for order in orders:  # of each set, what came is the beginning of its own sequence
        own = ids[(ids >= first) & (ids < first + order.num_images)] - first
        assert (own == order.lookup(np.arange(len(own)))[1]).all()
        first += order.num_images


def test_negative_control_a_dealer_that_pads_by_repeating_is_caught():
    """What plain samplers do: the last ranks get images again, so that all have as many."""
    order = Order([10], "data", 0)
    ids = [one for start in range(0, 12, 4) for one in order.lookup(np.arange(start, start + 4) % 10)[1].tolist()]
    assert Counter(ids) != Counter(range(10))
