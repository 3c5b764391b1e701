"""The order is a bijection in every epoch and the same however it is asked for."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.stages.images import order as order_module
from vitpipe.stages.images.keys import permutation, uniforms
from vitpipe.stages.images.order import Order

GOLDEN_ORDER = [7, 5, 4, 9, 1, 11, 10, 3, 0, 8, 2, 6, 2, 0]
GOLDEN_PERMUTATION = [2, 1, 4, 3, 0]
GOLDEN_UNIFORMS = [0.9155403100981266, 0.24754985238411187]

COUNTS = st.lists(st.integers(0, 90), min_size=1, max_size=12).filter(any)


@pytest.fixture
def small_windows(monkeypatch):
    """Many windows and streams at sizes a test can enumerate."""
    monkeypatch.setattr(order_module, "WINDOW", 32)
    order_module._window.cache_clear()
    yield
    order_module._window.cache_clear()


@pytest.mark.usefixtures("small_windows")
@settings(deadline=None, max_examples=150)
@given(counts=COUNTS, seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_each_epoch_is_a_permutation(counts, seed, epoch):
    total = sum(counts)
    epochs, samples = Order(counts, "data", seed).lookup(np.arange(epoch * total, (epoch + 1) * total))
    assert (epochs == epoch).all()
    assert (np.sort(samples) == np.arange(total)).all()


@pytest.mark.usefixtures("small_windows")
@settings(deadline=None, max_examples=60)
@given(counts=COUNTS, cuts=st.lists(st.integers(0, 500), max_size=6))
def test_any_cut_gives_the_same_sequence(counts, cuts):
    whole = Order(counts, "data", 1).lookup(np.arange(500))[1]
    edges = sorted({0, 500, *cuts})
    parts = [Order(counts, "data", 1).lookup(np.arange(a, b))[1] for a, b in pairwise(edges)]
    assert (np.concatenate(parts) == whole).all()


@pytest.mark.parametrize("total", [65_535, 131_071, 131_072, 262_144 + 31, 600_001])
def test_real_windows_and_streams(total):
    order = Order([total // 3, 0, total - total // 3], "data", 5)
    samples = order.lookup(np.arange(total))[1]
    assert order.streams == max(1, 2 ** int(np.log2(max(1, total // 65_536))))
    assert len(np.unique(samples)) == total
    assert samples.min() == 0 and samples.max() == total - 1


def test_seed_epoch_and_data_change_the_order_and_nothing_else_does():
    first = Order([500], "data", 0).lookup(np.arange(500))[1]
    assert (first == Order([500], "data", 0).lookup(np.arange(500))[1]).all()
    others = [Order([500], "data", 1), Order([500], "other", 0)]
    assert all((first != other.lookup(np.arange(500))[1]).any() for other in others)
    assert (first != Order([500], "data", 0).lookup(np.arange(500, 1000))[1]).any()


def test_the_order_never_changes_between_versions():
    """Golden numbers: a change here breaks every resume."""
    assert Order([7, 0, 5], "data", 3).lookup(np.arange(14))[1].tolist() == GOLDEN_ORDER
    assert permutation(5, "x").tolist() == GOLDEN_PERMUTATION
    assert uniforms(np.array([0, 2**40]), 1, "x")[:, 0].tolist() == pytest.approx(GOLDEN_UNIFORMS, abs=0)


def test_uniforms_look_uniform_and_independent():
    draws = uniforms(np.arange(20_000), 2, "flip", 0)
    assert abs(draws.mean() - 0.5) < 4 * np.sqrt(1 / 12 / draws.size)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 4 / np.sqrt(len(draws))
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 4 / np.sqrt(len(draws))


def test_no_images_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        Order([0, 0], "data", 0)
