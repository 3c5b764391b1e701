"""Digests taken several at once are hashlib's, however contents are combined, and with no extension at all."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.stages.images import digests
from vitpipe.stages.images.digests import RunningDigest, sha256_each

CONTENTS = st.lists(st.tuples(st.binary(max_size=63), st.binary(max_size=400)), max_size=40)


@pytest.fixture(params=["as it is here", "without the extension"])
def extension(request, monkeypatch):
    if request.param != "as it is here":
        monkeypatch.setattr(digests, "loaded_extension", lambda: None)


@pytest.mark.usefixtures("extension")
class TestDigests:
    @given(CONTENTS)
    @settings(max_examples=100)
    def test_each_is_that_of_its_head_and_body(self, contents):
        wanted = [hashlib.sha256(head + body).hexdigest() for head, body in contents]
        assert sha256_each(contents) == wanted
        arrays = [(head, np.frombuffer(body, dtype=np.uint8)) for head, body in contents]
        assert sha256_each(arrays) == wanted

    @given(st.lists(st.tuples(st.binary(max_size=900), st.integers(0, 9), st.integers(0, 900)), max_size=6), st.data())
    @settings(max_examples=100)
    def test_a_running_one_and_a_part_of_what_comes(self, steps, data):
        running, whole = RunningDigest(), b""
        for body, start, size in steps:
            blocks = body + bytes(-len(body) % 64)
            start = min(64 * start + data.draw(st.sampled_from([0, 0, 1])), len(blocks))
            part = blocks[start : start + size]
            whole += blocks
            assert running.add(blocks, start, len(part)) == hashlib.sha256(part).hexdigest()
        assert running.hexdigest() == hashlib.sha256(whole).hexdigest()

    def test_a_part_that_is_not_within_is_refused(self):
        for start, size in ((0, 65), (64, 1), (-64, 10)):
            with pytest.raises(ValueError, match="not within 64"):
                RunningDigest().add(bytes(64), start, size)

    def test_large_ones_beside_small_ones(self):
        contents = [(b"375x500", bytes(562_500)), (b"", b"a"), (b"1x1", bytes(100_001))]
        assert sha256_each(contents) == [hashlib.sha256(head + body).hexdigest() for head, body in contents]

    @given(st.lists(st.integers(0, 9_000), max_size=40))
    @settings(max_examples=40)
    def test_many_of_some_blocks(self, sizes):
        contents = [(b"", bytes([place]) * size) for place, size in enumerate(sizes)]
        assert sha256_each(contents) == [hashlib.sha256(body).hexdigest() for _, body in contents]

    def test_half_a_block_cannot_be_gone_on_with(self):
        with pytest.raises(ValueError, match="100 bytes are not a multiple of 64"):
            RunningDigest().add(bytes(100))


def test_a_head_of_a_block_is_refused():
    with pytest.raises(ValueError, match="64 bytes"):
        digests.sha256_by_extension(None, [(bytes(64), b"")])
