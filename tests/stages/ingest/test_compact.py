"""Images in columns, in memory and in the store: rows come back as they went in, and travel as places."""

import hashlib
import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.ingest.choose.select import Range, StoredImages, tar_bytes
from vitpipe.stages.ingest.draw import unit_hash, unit_hashes
from vitpipe.stages.ingest.listing import Item, Items
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.look.scan import RejectedImage, SoundImage
from vitpipe.stages.ingest.look.seen import beside, images_of, seen_rows
from vitpipe.stages.ingest.parts.rows import item_rows, items_of, names_of, unpacked
from vitpipe.stages.ingest.parts.sheets import Sheets

names = st.text(st.characters(codec="utf-8"), max_size=12) | st.just("\udcff.jpg")
items = st.builds(
    Item, names, st.lists(st.integers(0, 30_000), max_size=3).map(tuple),
    st.sampled_from([None, "train", "test", "\udce9"]),
    st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=3).map(tuple), st.sampled_from(["", "no label"]),
    st.integers(0, 2**63 - 1),
)  # fmt: skip
seen = st.builds(
    SoundImage, st.sampled_from(["00" * 32, "ab" * 31 + "00", "00" * 31 + "01"]), st.just("cd" * 32),
    st.integers(1, 2**40), st.sampled_from(["jpg", "png", "webp"]), st.integers(1, 2**20), st.integers(1, 2**20),
    st.tuples(st.integers(0, 2**20), st.integers(0, 2**40)), st.none() | st.binary(min_size=32, max_size=64),
    st.booleans(),
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(st.lists(items, max_size=12), st.data())
def test_rows_come_back_as_they_went_in_also_from_afar(rows, data):
    kept = Items(rows)
    assert list(kept) == rows
    assert [one.name for one in kept.by_name()] == sorted(one.name for one in rows)
    start, stop = (data.draw(st.integers(0, len(rows))) for _ in range(2))
    assert list(pickle.loads(pickle.dumps(kept[start:stop]))) == rows[start:stop]
    table = item_rows(rows)
    assert items_of(table) == rows
    assert sorted(names_of(table)) == list(map(unpacked, sorted(table.column("name").to_pylist())))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(items, seen | st.just(RejectedImage("cut \udcff"))), max_size=8))
def test_what_was_seen_stands_beside_what_was_listed(rows):
    listed, found = [item._replace(fault="", mark=0) for item, _ in rows], [one for _, one in rows]
    sound, bad = beside(item_rows(listed), seen_rows(found), 70)
    pairs = list(zip(listed, found, strict=True))
    numbers = [70 + row for row, one in enumerate(found) if isinstance(one, SoundImage)]
    assert sound.column(sound.num_columns - 1).to_pylist() == numbers
    assert images_of(sound) == [Image(item, one) for item, one in pairs if isinstance(one, SoundImage)]
    reasons = list(map(unpacked, bad.column("reason").to_pylist()))
    assert list(zip(names_of(bad), reasons, strict=True)) == [
        (item.name, one.reason) for item, one in pairs if isinstance(one, RejectedImage)
    ]


def test_a_plan_travels_as_places(tmp_path):
    sheets = Sheets("a1/parts/ordered/" + hashlib.sha256().hexdigest(), 128, 524_288, 10**8, "0" * 64)
    images = StoredImages(open_store(f"file://{tmp_path}"), [Range(sheets, 0, 10_000)])
    assert len(images) == 10_000 and len(pickle.dumps(images)) < 1_000


@given(st.lists(names))
def test_many_are_drawn_as_each_is(several):
    assert list(unit_hashes("shuffle", 3, several)) == [unit_hash("shuffle", 3, name) for name in several]


def test_tars_are_reckoned_in_blocks():
    assert tar_bytes(np.array([512, 513])).tolist() == [2048, 2560]
