"""Our tars are, byte for byte, those that webdataset's own writer gives."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset import TarWriter

from vitpipe.stages.ingest.write.ustar import end, header, padding

KEYS = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="-_"), min_size=1, max_size=90)


@given(st.lists(st.tuples(KEYS, st.sampled_from(["jpg", "webp", "json"]), st.binary(max_size=2000)), max_size=40))
def test_equal_to_webdatasets_writer(members):
    theirs, ours = io.BytesIO(), io.BytesIO()
    with TarWriter(theirs, encoder=False, mtime=0, user="", group="") as tar:
        for key, ext, data in members:
            tar.write({"__key__": key, ext: data})
            ours.write(header(f"{key}.{ext}", len(data)) + data + padding(len(data)))
    ours.write(end(ours.tell()))
    assert ours.getvalue() == theirs.getvalue()


@pytest.mark.parametrize(("name", "size"), [("x" * 101, 1), ("x", 8**11)])
def test_what_a_plain_header_cannot_hold_is_refused(name, size):
    with pytest.raises(ValueError, match="does not fit a plain header"):
        header(name, size)
    assert len(header(name[:100], size - 1)) == 512
