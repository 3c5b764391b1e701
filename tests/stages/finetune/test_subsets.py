"""Subsets and the dev split as pure functions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitpipe.infra.errors import StageError
from vitpipe.stages.finetune.subsets import dev_split, training_subset

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), (40, 30, 20, 12, 8)))


def test_every_class_gets_as_many_and_smaller_subsets_are_nested():
    five, eight = (training_subset(LABELS, "data", 0, count) for count in (5, 8))
    assert np.bincount(LABELS[eight]).tolist() == [8] * 5
    assert set(five) < set(eight)
    assert (np.diff(eight) > 0).all()


def test_the_seed_and_the_data_decide_and_nothing_else():
    assert (training_subset(LABELS, "data", 0, 5) == training_subset(LABELS, "data", 0, 5)).all()
    assert set(training_subset(LABELS, "data", 1, 5)) != set(training_subset(LABELS, "data", 0, 5))
    assert set(training_subset(LABELS, "other", 0, 5)) != set(training_subset(LABELS, "data", 0, 5))


def test_the_dev_split_keeps_shares():
    train, dev = dev_split(LABELS, np.arange(len(LABELS)), "data", 0.1)
    assert np.bincount(LABELS[dev]).tolist() == [4, 3, 2, 1, 1]
    assert set(train) | set(dev) == set(range(110))


@given(seed=st.integers(0, 50), per_class=st.integers(2, 8), dev=st.one_of(st.floats(0.1, 0.8), st.integers(1, 30)))
def test_the_dev_split_is_a_partition_that_leaves_every_class_something(seed, per_class, dev):
    kept = training_subset(LABELS, "data", seed, per_class)
    wanted = round(dev * len(kept)) if dev < 1 else dev
    if wanted > len(kept) - 5:
        with pytest.raises(StageError):
            dev_split(LABELS, kept, "data", dev)
        return
    train, held = dev_split(LABELS, kept, "data", dev)
    assert not set(train) & set(held) and set(train) | set(held) == set(kept)
    assert len(held) == wanted
    assert (np.bincount(LABELS[train], minlength=5) >= 1).all()


def test_what_cannot_be_drawn_is_named():
    assert np.bincount(LABELS[training_subset(LABELS, "data", 0, 25)]).tolist() == [25, 25, 20, 12, 8], "all there are"
    with pytest.raises(StageError, match="0 images"):
        dev_split(LABELS, np.arange(110), "data", 0.001)
