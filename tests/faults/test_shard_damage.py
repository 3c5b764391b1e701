"""A shard that is not what was written is an error that names it, wherever it is damaged; plain webdataset goes on."""

import gc
import os
import random
from unittest import mock

import pytest
from faults.shard_damage import EXACT, FEWER, NAMED, OTHER, damaged, small_shard, table, tar_of
from photos import encoded, ingest, picture, write

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.images.cache import ShardCache
from vitpipe.stages.images.manifest import load_manifest


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_shard(tmp_path_factory.mktemp("small"))


def refusals(shards, folder, bad):
    """How many of the damaged tars were refused by name; asserts that none came through."""
    tar, (entry,) = tar_of(shards), load_manifest(shards).shards
    data, refused = tar.read_bytes(), 0
    cache = ShardCache(folder)
    try:
        with mock.patch.object(os, "fsync"):
            for _, other in bad(data):
                tar.write_bytes(other)
                with pytest.raises(IntegrityError, match=r"train-000000\.tar"):
                    cache.mapped(shards, entry)
                refused += 1
    finally:
        tar.write_bytes(data)
    assert not list(folder.glob("??/*.tar")) and cache.mapped(shards, entry) is not None  # whole, it is taken
    return refused


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.drill), 13])
def test_cuts_and_flipped_bytes_all_over_a_small_shard_are_refused_by_name(small, tmp_path, step):
    places = -(-tar_of(small).stat().st_size // step)
    assert refusals(small, tmp_path, lambda data: damaged(data, step)) == 2 * places > 1000


def test_two_hundred_random_ones_of_a_larger_shard_are_too(tmp_path):
    for number in range(40):
        write(tmp_path / f"source/a/{number}.jpg", encoded(picture(number, 300, 240), "JPEG", quality=95))
    shards = ingest(tmp_path, {"source": {"kind": "folder", "root": str(tmp_path / "source")}})
    chosen = random.Random(0)

    def bad(data):
        assert len(data) > 200_000
        for _ in range(100):
            place = chosen.randrange(len(data))
            yield "cut", data[:place]
            yield "flip", data[:place] + bytes([data[place] ^ 1 << chosen.randrange(8)]) + data[place + 1 :]

    assert refusals(shards, tmp_path / "cache", bad) == 200


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves the tars open that it gave up
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_plain_webdataset_makes_of_the_same_files(small, tmp_path):
    """Negative control of the damage, and the reason for our own reader."""
    found = table(small, tmp_path, step=97)
    assert set(found["vitpipe"]["cut"]) == set(found["vitpipe"]["flip"]) == {NAMED}
    default = found["webdataset"]["cut"] + found["webdataset"]["flip"]
    assert default[FEWER] and default[OTHER] and default[NAMED] and default[EXACT]
    lenient = found["webdataset, ignore_and_continue"]
    gc.collect()
    assert lenient["cut"][NAMED] == 0 and lenient["cut"][FEWER] > default[FEWER] / 2
