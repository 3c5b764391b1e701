"""What is kept of a source's files comes back as it was, and two of them are told apart as plain sets would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.drift import files_now
from vitpipe.stages.ingest.sources import glyph_classes
from vitpipe.stages.ingest.sources.inventory import Inventory, compare, parse_inventory, with_marks

names = st.text(st.sampled_from("ab/\n\udcff\U0001f600"), max_size=3)
files = st.dictionaries(names, st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=8)
texts = st.dictionaries(st.sampled_from(["labels", "names"]), st.sampled_from(["1", "2"]))


def inventory(of: dict[str, tuple[int, int]], beside: dict[str, str]) -> Inventory:
    return Inventory.of(((name, *facts) for name, facts in of.items()), beside)


@settings(deadline=None, max_examples=150)
@given(files, files, texts, texts, st.booleans(), st.booleans())
def test_counts_are_those_of_plain_sets(was, now, texts_was, texts_now, same_names, closed):
    if same_names:
        now = {name: now.get(name, facts) for name, facts in was.items()}
    found = compare(inventory(was, texts_was), inventory(now, texts_now), closed)
    both = was.keys() & now.keys()
    others = {name for name in texts_was.keys() | texts_now.keys() if texts_was.get(name) != texts_now.get(name)}
    assert found.added == (0 if closed else len(now.keys() - was.keys()))
    assert found.gone == len(was.keys() - now.keys())
    assert found.changed == sum(was[name][0] != now[name][0] for name in both)
    assert {one.partition(": ")[0]: one.endswith("gone") for one in found.others} == {
        name: name not in texts_now for name in others
    }
    same_size = [(was[name][1], now[name][1]) for name in both if was[name][0] == now[name][0]]
    assert found.touched == sum(0 != old != new != 0 for old, new in same_size)
    assert found.differs == bool(found.examples or found.others) and bool(found.touched) == bool(found.touched_examples)
    assert all(0 != was[name][1] != now[name][1] != 0 for name in found.touched_examples)
    assert set(found.examples) <= was.keys() | now.keys()


@settings(deadline=None, max_examples=50)
@given(files, texts)
def test_it_comes_back_and_its_bytes_are_those_of_its_content(was, beside):
    kept = inventory(was, beside)
    data = kept.encode()
    back = with_marks(parse_inventory(data, "here"), kept.encode_marks())
    assert (list(back), back.texts, back.unit) == (list(kept), beside, "files")
    assert inventory(dict(reversed(was.items())), beside).encode() == data
    assert inventory({name: (size, 9) for name, (size, _) in was.items()}, beside).encode() == data  # without times
    with pytest.raises(ValueError, match="files instead of"):
        with_marks(back, inventory({**was, "more": (1, 1)}, {}).encode_marks())


@pytest.mark.parametrize(
    "change", [lambda data: data[:-40], lambda data: b"", lambda data: data.replace(b"ends", b"e")]
)
def test_a_damaged_one_is_told_by_name(change):
    data = inventory({"a": (1, 2)}, {}).encode()
    with pytest.raises(IntegrityError, match="of here"):
        parse_inventory(change(data), "inventory.npz of here")


def test_names_like_imagenets_take_few_bytes_each():
    count = 100_000
    sizes, marks = np.random.default_rng(0).integers(10_000, 300_000, count), np.arange(count) * 40_000 + 1_700 * 10**15
    rows = ((f"n{n // 1300:08d}/n{n // 1300:08d}_{n % 1300}.JPEG", int(sizes[n]), int(marks[n])) for n in range(count))
    kept = Inventory.of(rows)
    assert (len(kept.encode()) + len(kept.encode_marks())) / count < 12


def test_glyphs_are_known_by_their_fonts(monkeypatch, tmp_path):
    config = IngestConfig.model_validate({
        "source": {"kind": "glyphs", "classes": 2, "images_per_class": 3, "image_px": 8}
    })  # fmt: skip
    was = files_now(config.source, inventory({}, {}))[0].inventory
    assert len(was.texts) == 16 and not compare(was, files_now(config.source, was)[0].inventory).differs
    real = glyph_classes.font_path
    (tmp_path / "other.ttf").write_bytes(b"another")
    monkeypatch.setattr(
        glyph_classes, "font_path", lambda name: tmp_path / "other.ttf" if name == "STIXGeneral" else real(name)
    )
    assert compare(was, files_now(config.source, was)[0].inventory).others == ("STIXGeneral.ttf: changed",)
