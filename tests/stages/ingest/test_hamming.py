"""The banded search finds what comparing all with all finds, and grows as the number of hashes does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.stages.ingest.choose import hamming, near
from vitpipe.stages.ingest.choose.hamming import Lookup, near_pairs


def found(hashes, most):
    return {
        (int(one), int(other)): int(bits)
        for first, second, distance in near_pairs(hashes, most)
        for one, other, bits in zip(first, second, distance, strict=True)
    }


def all_with_all(hashes, most):
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    rows, columns = np.nonzero(np.triu(distance <= most, 1))
    return {(int(one), int(other)): int(distance[one, other]) for one, other in zip(rows, columns, strict=True)}


def planted(count, share, most, seed=0):
    """Random hashes, the last `share` of them copies of earlier ones with up to `most` bits flipped; and whose."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    copies = int(count * share)
    of = rng.integers(0, count - copies, copies)
    flips = rng.permuted(np.tile(np.arange(64), (copies, 1)), axis=1)[:, :most]
    bits = np.where(
        np.arange(most) < rng.integers(0, most + 1, copies)[:, None], np.uint64(1) << flips.astype(np.uint64), 0
    )
    hashes[count - copies :] = hashes[of] ^ np.bitwise_xor.reduce(bits.astype(np.uint64), axis=1)
    return hashes, {(int(one), count - copies + place) for place, one in enumerate(of)}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), count=st.integers(0, 60), crowd=st.integers(1, 64), most=st.integers(0, 12),
    at_once=st.sampled_from([1, 7, 4_000_000]),
)  # fmt: skip
def test_exactly_the_pairs_of_comparing_all_with_all(seed, count, crowd, most, at_once):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64) & np.uint64(2**crowd - 1)  # crowded: many near pairs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "PAIRS_AT_ONCE", at_once)
        assert found(hashes, most) == all_with_all(hashes, most)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), count=st.integers(0, 40), others=st.integers(0, 40), crowd=st.integers(1, 64),
    most=st.integers(0, 8), at_once=st.sampled_from([1, 7, 4_000_000]),
)  # fmt: skip
def test_across_two_sets_too(seed, count, others, crowd, most, at_once):
    rng = np.random.default_rng(seed)
    one, other = (rng.integers(0, 2**64, n, dtype=np.uint64) & np.uint64(2**crowd - 1) for n in (count, others))
    distance = np.bitwise_count(one[:, None] ^ other[None])
    wanted = sorted((int(i), int(j), int(distance[i, j])) for i, j in zip(*np.nonzero(distance <= most), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "PAIRS_AT_ONCE", at_once)
        pieces = [zip(*(part.tolist() for part in piece), strict=True) for piece in Lookup(one, most).near(other)]
    assert sorted(pair for piece in pieces for pair in piece) == wanted


@pytest.mark.parametrize("most", [0, 4, 8])
def test_every_planted_pair_of_200_000_is_found(most):
    hashes, pairs = planted(200_000, 0.01, most)
    near = found(hashes, most)
    assert pairs <= near.keys() and max(near.values()) <= most
    # by chance: 2e10 pairs x sum of C(64, k <= 8) / 2^64 = 2e10 x 2.8e-10 = 6 at 8 bits; copies of one image add theirs
    assert len(near) < len(pairs) + 60


@pytest.mark.parametrize("count", [20_000, 200_000])
def test_each_hash_is_compared_with_few_however_many_there_are(monkeypatch, count):
    """Comparing all with all would be 10,000 and 100,000 for each."""
    compared = 0
    candidates = hamming._candidates

    def counted(*args):
        nonlocal compared
        for first, second in candidates(*args):
            compared += len(first)
            yield first, second

    monkeypatch.setattr(hamming, "_candidates", counted)
    found(planted(count, 0.01, 6)[0], 6)
    assert compared < 200 * count


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), count=st.integers(1, 60), crowd=st.integers(1, 64), most=st.integers(0, 12),
    images=st.sampled_from([60, 10_000, 1_000_000]), ranges=st.sampled_from([1, 2, 7, 60]),
)  # fmt: skip
def test_cells_together_find_each_pair_once(seed, count, crowd, most, images, ranges):
    """Whatever the number of images that a search is planned for: among themselves, and of two sets."""
    rng = np.random.default_rng(seed)
    hashes, others = (rng.integers(0, 2**64, count, dtype=np.uint64) & np.uint64(2**crowd - 1) for _ in range(2))
    rule = near.NearRule(most, 0, (0, images), False, sole=0, ranges=ranges)
    met, across = [], []
    for group in range(rule.groups):
        cells, asking = rule.cell_of(hashes, group), rule.cell_of(others, group)
        assert min(cells.min(), asking.min()) >= 0 and max(cells.max(), asking.max()) < rule.cells
        for number in np.unique(cells).tolist():
            here, there = np.flatnonzero(cells == number), np.flatnonzero(asking == number)
            cell, turned = rule.cell(group, number), rule.turned(hashes[here], group)
            for first, second, bits in near_pairs(turned, most, cell):
                met += zip(here[first].tolist(), here[second].tolist(), bits.tolist(), strict=True)
            for first, second, bits in Lookup(turned, most, cell).near(rule.turned(others[there], group)):
                across += zip(here[first].tolist(), there[second].tolist(), bits.tolist(), strict=True)
    assert sorted(met) == sorted((*pair, bits) for pair, bits in all_with_all(hashes, most).items())
    bits = np.bitwise_count(hashes[:, None] ^ others[None])
    wanted = [(int(i), int(j), int(bits[i, j])) for i, j in zip(*np.nonzero(bits <= most), strict=True)]
    assert sorted(across) == sorted(wanted)
