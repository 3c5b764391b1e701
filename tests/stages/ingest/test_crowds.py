"""Crowds of images that look alike: what plain code finds, with work that grows as their number, up to a cap."""

import numpy as np
import plain_near
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from near_in_parts import near_duplicates
from test_near import kept

from vitpipe.stages.ingest.choose import hamming, near
from vitpipe.stages.ingest.choose.duplicate import keep_order
from vitpipe.stages.ingest.choose.exclude import Excluded
from vitpipe.stages.ingest.choose.near import SECOND_MOST
from vitpipe.stages.ingest.look.likeness import LIKENESS_BYTES


def bits(one, other):
    """Of the first and the second look of every one and every other that differ."""
    one, other = (np.frombuffer(look, dtype=np.uint8).reshape(-1, LIKENESS_BYTES) for look in (one, other))
    differ = np.bitwise_count(one[:, None] ^ other[None]).astype(int)
    return zip(differ[..., :8].sum(-1).ravel().tolist(), differ[..., 8:].sum(-1).ravel().tolist(), strict=True)


def plain(images, excluded, most):
    """Each image beside every one that is kept before it: name, what it is like, and in how many bits.

    What looks the same as one before it fares as that one did.
    """
    stay = [(one.name, one.look) for one in excluded]
    like = {one.look: (one.name, 0, 0) for one in reversed(excluded)}
    gone = set()
    for image in sorted(images, key=keep_order):
        look, own = image.seen.likeness, image.seen.likeness[:LIKENESS_BYTES]
        met = []
        for place, (name, other) in enumerate(stay):
            for first, second in [*bits(own, other), *bits(look, other[:LIKENESS_BYTES])]:
                if first <= most and second <= SECOND_MOST:
                    met.append((first, second, place, name))
        if own in like:
            gone.add((image.item.name, *like[own]))
        elif met:
            first, second, _, name = min(met)
            like[own] = (name, first, second)
            gone.add((image.item.name, *like[own]))
        else:
            like[own] = (image.item.name, 0, 0)
            stay.append((image.item.name, look))
    return gone


def crowded(rng, count, views, spread):
    """Looks about a few centres, each some bits from its own in the first and in the second look."""
    centres = rng.integers(0, 256, (3, LIKENESS_BYTES), dtype=np.uint8)
    looks = []
    for _ in range(count):
        own = np.repeat(centres[[rng.integers(3)]], rng.integers(1, views + 1), axis=0)
        for view in own:
            for bit in rng.choice(64, rng.integers(spread[0] + 1), replace=False):
                view[bit // 8] ^= 1 << bit % 8
            for bit in rng.choice(192, rng.integers(spread[1] + 1), replace=False):
                view[8 + bit // 8] ^= 1 << bit % 8
        looks.append(own.tobytes())
    return looks


cases = st.fixed_dictionaries({
    "seed": st.integers(0, 10_000), "count": st.integers(1, 60), "views": st.integers(1, 3), "most": st.integers(0, 8),
    "limit": st.sampled_from([-1e9, 3, 20, 1e9]), "spread": st.sampled_from([(0, 0), (2, 8), (8, 40), (20, 90)]),
    "train": st.sampled_from([1, 2, 5, 100]), "held": st.sampled_from([2, 6, 100]),
})  # fmt: skip
parts = st.fixed_dictionaries({
    "parts": st.integers(1, 5), "bins": st.integers(1, 3), "ranges": st.integers(1, 5),
    "sole": st.sampled_from([0, 99]),
})  # fmt: skip


def made(seed, count, views, most, limit, spread, train, held):
    """Looks to search among, some of them excluded."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(count)
    looks = crowded(rng, count, views, spread)
    excluded = [
        Excluded(f"uri://{number}", look[:LIKENESS_BYTES]) for number, look in enumerate(looks[: count // held])
    ]
    images = [
        kept(f"{names[number]:03d}", look, [None, "train"][number % train == 0], (number % 3,))
        for number, look in enumerate(looks[count // held :])
    ]
    return images, excluded


def in_parts(case, cut, images, excluded, patch):
    """What is found in so many parts of the listing, bins and ranges."""
    count = len(images) + len(excluded)
    patch.setattr(near, "SOLE", cut["sole"])
    patch.setattr(near, "RANGE_IMAGES", -(-count // cut["ranges"]))
    return near_duplicates(images, excluded, case["most"], -(-count // cut["parts"]), cut["bins"])


@settings(max_examples=25, deadline=None)
@given(cases, parts)
def test_any_parts_give_what_plain_code_gives(case, cut):
    """Wherever a crowd begins: of all images, of some, of none."""
    images, excluded = made(**case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "CROWD", case["limit"])
        before = plain_near.near_duplicates(images, excluded, case["most"])
        found = in_parts(case, cut, images, excluded, patch)
    dropped = {(one.source, one.of, one.distance, one.second) for one in found.dropped}
    assert dropped == plain(images, excluded, case["most"])
    assert found.dropped == before.dropped and found.in_part == before.in_part == 0


@settings(max_examples=15, deadline=None)
@given(cases, parts, st.integers(1, 6))
def test_any_parts_meet_the_cap_alike(case, cut, most_kept):
    """Whoever is of a crowd is so in parts of any size; then as it was in one memory."""
    images, excluded = made(**case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "CROWD", case["limit"])
        patch.setattr(near, "MOST_KEPT", most_kept)
        patch.setattr(hamming, "SAMPLE", 3)
        found = [in_parts(case, one, images, excluded, patch) for one in (cut, {**cut, "ranges": 1, "parts": 1})]
        before = plain_near.near_duplicates(images, excluded, case["most"], found[0].crowd)
    assert found[0] == found[1] and found[0][:2] == tuple(before)


PER_IMAGE = 400
"""Comparisons that tell of an image whether it is one of a crowd: some of each bucket that it could be in."""


class Comparisons:
    """Counts the looks that are compared: every comparison counts bits."""

    def __init__(self, patch):
        self.count, count_bits = 0, np.bitwise_count

        def counted(differences, *args, **kwargs):
            self.count += len(differences)
            return count_bits(differences, *args, **kwargs)

        patch.setattr(np, "bitwise_count", counted)


def alike(count, views=2, seed=0):
    """Images a few bits from one another, no two of them equal."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (views, LIKENESS_BYTES), dtype=np.uint8)
    found = []
    for number in range(count):
        look = base.copy()
        look[:, -3:] ^= np.frombuffer(number.to_bytes(3, "big"), dtype=np.uint8)
        look[:, number % 8] ^= np.uint8(1 << rng.integers(8))
        found.append(kept(f"{number:06d}", look.tobytes()))
    return found


@pytest.mark.parametrize("count", [5_000, 20_000])
def test_work_is_linear_where_all_look_alike(count):
    """The negative control searches for pairs, as for any set: work for each image that grows as their number."""
    images = alike(count)
    with pytest.MonkeyPatch.context() as patch:
        compared = Comparisons(patch)
        found = near_duplicates(images, [], 4)
        assert {one.of for one in found.dropped} == {"000000"} and len(found.dropped) == count - 1
        assert found.in_part == 0 and compared.count < PER_IMAGE * count
        few, compared.count = images[:2_000], 0
        patch.setattr(near, "CROWD", 1e9)
        assert near_duplicates(few, [], 4).dropped == found.dropped[:1_999] and compared.count > 10 * PER_IMAGE * len(
            few
        )


def test_equal_images_are_compared_once():
    (one,) = alike(1)
    images = [kept(f"{number:06d}", one.seen.likeness) for number in range(20_000)]
    with pytest.MonkeyPatch.context() as patch:
        compared = Comparisons(patch)
        assert len(near_duplicates(images, [], 4).dropped) == 19_999 and compared.count < 20_000


def test_the_cap_is_met_where_a_crowd_is_not_alike_after_all(monkeypatch):
    """Equal first looks, second looks that have nothing in common, and one true copy behind the cap."""
    rng = np.random.default_rng(0)
    looks = [bytes(8) + rng.bytes(24) for _ in range(1_500)]
    images = [kept(f"{number:06d}", look) for number, look in enumerate(looks)]
    early, late = (kept(f"{number:06d}-copy", looks[number][:-1] + b"?") for number in (20, 1_400))
    compared = Comparisons(monkeypatch)
    for most_kept, copies, in_part in [(4_000, [early, late], 0), (1_000, [early], 501), (50, [early], 1_451)]:
        monkeypatch.setattr(near, "MOST_KEPT", most_kept)
        compared.count = 0
        found = near_duplicates([*images, early, late], [], 4)
        assert [one.source for one in found.dropped] == [one.item.name for one in copies]
        assert found.in_part == in_part and compared.count < (15 * most_kept + PER_IMAGE) * len(images)


@pytest.mark.parametrize(("alike", "in_part"), [(16, 0), (64, 1_490)])
def test_no_crowd_are_images_that_meet_in_a_part_of_the_first_look(monkeypatch, alike, in_part):
    """Of a large set the looks are uneven: all are compared with all, and none is near another."""
    monkeypatch.setattr(near, "MOST_KEPT", 10)
    rng = np.random.default_rng(0)
    looks = [bytes(alike // 8) + rng.bytes(LIKENESS_BYTES - alike // 8) for _ in range(1_500)]
    found = near_duplicates([kept(f"{number:06d}", look) for number, look in enumerate(looks)], [], 4)
    assert found.dropped == [] and found.in_part == in_part
