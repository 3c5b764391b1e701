"""Several sets as one sequence: exact shares, every image of every set in its own epochs, and one integer as state."""

from itertools import pairwise

import numpy as np
import pytest
import synthetic
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.mixture import Mixture
from vitpipe.stages.images.order import Order
from vitpipe.stages.images.shares import BLOCK, FINEST, block_counts
from vitpipe.stages.images.train import TrainImages

PLAIN = AugmentSettings(crop="none", flip=False)
SHARES = st.lists(st.integers(1, 20).map(lambda n: n / 4), min_size=2, max_size=4)


def mixture(sizes, shares, seed=0):
    return Mixture([Order([size], f"set-{place}", seed) for place, size in enumerate(sizes)], shares, "sets", seed)


@settings(deadline=None, max_examples=30)
@given(shares=SHARES, seed=st.integers(0, 5), first=st.integers(0, 10**9), data=st.data())
def test_each_block_holds_exactly_its_share_and_each_set_comes_in_its_own_order(shares, seed, first, data):
    sizes = [data.draw(st.integers(60, 300)) for _ in shares]
    mixed = mixture(sizes, shares, seed)
    size = sum(mixed.per_block)
    assert size >= BLOCK
    assert all(
        count * sum(shares) == pytest.approx(share * size) for count, share in zip(mixed.per_block, shares, strict=True)
    )
    block = np.arange(first * size, (first + 1) * size)
    sets, places = mixed.assign(block)
    assert np.bincount(sets, minlength=len(shares)).tolist() == list(mixed.per_block)
    epochs, samples = mixed.lookup(block)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    for one, count in enumerate(mixed.per_block):
        assert (places[sets == one] == first * count + np.arange(count)).all()  # none skipped, none twice
        own = Order([sizes[one]], f"set-{one}", seed).lookup(places[sets == one])
        assert (epochs[sets == one] == own[0]).all() and (samples[sets == one] == own[1] + starts[one]).all()


@settings(deadline=None, max_examples=40)
@given(shares=SHARES, cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_any_cut_gives_the_same_sequence(shares, cuts):
    sizes = [100, 137, 65, 800][: len(shares)]
    whole = mixture(sizes, shares).lookup(np.arange(3000))[1]
    edges = sorted({0, 3000, *cuts})
    parts = [mixture(sizes, shares).lookup(np.arange(a, b))[1] for a, b in pairwise(edges)]
    assert (np.concatenate(parts) == whole).all()


def test_neighbours_are_of_any_two_sets():
    sets, _ = mixture([1000, 1000], [1, 1]).assign(np.arange(20 * BLOCK))
    pairs = np.bincount(sets[::2] * 2 + sets[1::2], minlength=4) / (10 * BLOCK)
    assert np.abs(pairs - 0.25).max() < 0.02
    assert (sets[:BLOCK] != mixture([1000, 1000], [1, 1], seed=1).assign(np.arange(BLOCK))[0]).any()


@pytest.mark.parametrize(
    ("shares", "counts"),
    [
        ([1, 1, 1], (342, 342, 342)),
        ([0.7, 0.3], (721, 309)),
        ([3], (1024,)),
        ([0.123456, 0.876544], (1235, 8765)),  # finer than ten thousand parts: rounded
        ([1e-3, 1], (1 * 2, 1000 * 2)),
    ],
)
def test_shares_become_whole_numbers(shares, counts):
    assert block_counts(shares) == counts


@pytest.mark.parametrize("shares", [[], [1, 0], [1, -1], [1e-6, 1]])
def test_shares_that_cannot_be_meant(shares):
    with pytest.raises(ValueError, match="share"):
        block_counts(shares)
    assert FINEST == 10_000


def test_the_mixture_never_changes_between_versions():
    """Golden numbers: a change here breaks every resume."""
    assert mixture([7, 5], [2, 1], seed=3).lookup(np.arange(12))[1].tolist() == GOLDEN


GOLDEN = [6, 0, 2, 4, 11, 5, 3, 1, 10, 9, 6, 5]


@pytest.fixture
def two(tmp_path):
    return synthetic.shards(tmp_path, "one", counts={"train": 30}), synthetic.shards(
        tmp_path, "two", counts={"train": 10}
    )


def images_of(shards, tmp_path, **more):
    return TrainImages(shards, "train", 16, PLAIN, 0, tmp_path / "cache", **more)


def pixels(batch):
    return [image.numpy().tobytes() for image in batch.images_BCHW]


def test_images_and_labels_of_each_set_come_as_alone(two, tmp_path):
    mixed = images_of(two, tmp_path, shares=[1, 3])
    batch = mixed.micro_batch(0, BLOCK)
    assert mixed.num_images == 40
    labels = dict(zip(pixels(batch), batch.labels.tolist(), strict=True))
    for one, share in zip(two, (BLOCK // 4, 3 * BLOCK // 4), strict=True):
        alone = images_of(one, tmp_path).micro_batch(0, share)
        known = set(pixels(alone))
        assert [image for image in pixels(batch) if image in known] == pixels(alone)
        assert all(labels[image] == label for image, label in zip(pixels(alone), alone.labels.tolist(), strict=True))


def test_micro_batches_ranks_and_resumes_do_not_matter(two, tmp_path):
    whole = images_of(two, tmp_path, shares=[1, 3]).micro_batch(0, 96)
    again = images_of(two, tmp_path, shares=[1, 3])
    dealt = {start: again.micro_batch(start, 4) for rank in (2, 0, 1) for start in range(4 * rank, 96, 12)}
    assert torch.equal(torch.cat([dealt[start].images_BCHW for start in sorted(dealt)]), whole.images_BCHW)


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (("red", "green", "bleu"), r"3 and 3; only the first has 'blue'; only the second has 'bleu'"),
        (("red", "green"), r"3 and 2; only the first has 'blue'\."),
        (("red", "blue", "green"), r"the same 3 names in another order, from number 1 on: 'green' and 'blue'"),
    ],
)
def test_classes_have_to_be_the_same(two, tmp_path, classes, found):
    other = synthetic.shards(tmp_path, "other", classes=classes, counts={"train": 6})
    with pytest.raises(UsageError, match=found):
        images_of((two[0], other), tmp_path, shares=[1, 1])
    unlabelled = images_of((two[0], other), tmp_path, shares=[1, 1], labelled=False)  # fine without labels
    assert unlabelled.micro_batch(0, 40).labels.tolist() == [0] * 40
