"""Where a number gets its name, for every source of many parts: united by name, told, or refused with both lists."""

import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inprocess import make_context
from photos import indexes, ingest, write
from tars import tar
from test_ingest_parquet import feature, parquet

from vitpipe.infra.errors import UsageError
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Known
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.estimate import estimate
from vitpipe.stages.ingest.run import run


def image(number):
    """A grey PNG of 8 x 8 that no other number has, the same bytes whatever compresses: stored, not packed."""
    rows = b"".join(b"\0" + struct.pack(">II", number, row) for row in range(8))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 0)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def tables(folder, files):
    """Parquet files of `name: (names or None, labels)`."""
    number = 0
    for name, (names, labels) in files.items():
        images = [image(number + row) for row in range(len(labels))]
        number += len(labels)
        parquet(folder / name, images, labels, feature({"names": names}) if names else None, group=2)
    return {"kind": "parquet", "urls": str(folder)}


def samples(folder, files):
    """Tars of `name: [(extension, bytes), ...]`, a label a sample."""
    number = 0
    for name, labels in files.items():
        members = []
        for ext, data in labels:
            members += [(f"{number:03d}.png", image(number)), (f"{number:03d}.{ext}", data)]
            number += 1
        tar(folder / name, members)
    return {"kind": "webdataset", "urls": str(folder), "label": "cls;json;txt"}


def tree(folder, names):
    """Folders of one image each."""
    for number, name in enumerate(names):
        write(folder / name / f"{number:03d}.png", image(number))
    return {"kind": "folder", "root": str(folder)}


def names_of(shards, cache):
    """Of each image, by its name in the source, the names of its classes."""
    split = Split(shards, "train", cache)
    pairs = (pair for index in indexes(split) for pair in zip(index.source, index.labels, strict=True))
    return {source: tuple(split.classes[label] for label in labels) for source, labels in pairs}


def by_row(files):
    """What the files themselves call their rows."""
    return {
        f"{name}#{row:09d}": (names[label] if names else label,)
        for name, (names, labels) in files.items()
        for row, label in enumerate(labels)
    }


def told(tmp_path, source, **more):
    """The shards, and what was said on the way."""
    ctx = make_context(tmp_path, "told", IngestResources())
    run(IngestConfig.model_validate({"source": source, **more}), Inputs({}), ctx)
    return ctx.events.of("note")


def plan(source, **more):
    return estimate(IngestConfig.model_validate({"source": source, **more}), IngestResources(), {}, Known())


ANTS, MOVED = ["ant", "bee", "cat"], ["cat", "ant", "bee"]

UNITED = {
    "another order in the second": {"a.parquet": (ANTS, [0, 1, 2]), "b.parquet": (MOVED, [0, 1, 2])},
    "a test file that sorts first": {"test-0.parquet": (MOVED, [1, 0]), "train-0.parquet": (ANTS, [0, 1, 2, 2])},
    "lists of other classes": {"a.parquet": (["ant", "bee"], [0, 1]), "b.parquet": (["dog", "ant"], [0, 1])},
    "names as text beside a list": {"a.parquet": (ANTS, [2, 0]), "b.parquet": (None, ["bee", "dog"])},
    "text sorts first": {"a.parquet": (None, ["bee", "cat"]), "b.parquet": (ANTS, [2, 0])},
    "names that would be wrong as numbers": {"a.parquet": (["-1", "1.5"], [0, 1]), "b.parquet": (["1.5"], [0])},
    "names that are numbers": {"a.parquet": (["1", "2", "3"], [0, 1, 2]), "b.parquet": (["3", "2", "1"], [0, 1, 2])},
}


@pytest.mark.parametrize("case", UNITED)
def test_parquet_files_are_united_by_name(case, tmp_path):
    files = UNITED[case]
    source = tables(tmp_path / "in", files)
    shards = ingest(tmp_path, {"source": source})
    assert names_of(shards, tmp_path / "cache") == by_row(files)
    notes = told(tmp_path, source)
    assert any("united by name" in note or "without a list" in note for note in notes) or case == "text sorts first"
    known = plan(source)
    assert known.class_names is None or set(known.class_names) <= set(load_manifest(shards).classes)


POOL = ["ant", "bee", "cat", "dog", "1", "2", "0", "Bee"]


@st.composite
def some_files(draw):
    """One to four files, each with its own list, part of the pool in its own order, or with names as text."""
    files = {}
    for name in draw(st.permutations([f"{place}.parquet" for place in range(draw(st.integers(1, 4)))])):
        names = draw(st.lists(st.sampled_from(POOL), min_size=1, max_size=5, unique=True))
        places = st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=4)
        as_text = files and draw(st.booleans()) and not any(one.isdecimal() for one in names)
        files[name] = (None, [names[place] for place in draw(places)]) if as_text else (names, draw(places))
    return files


@settings(deadline=None, max_examples=25)
@given(files=some_files())
def test_every_image_has_the_name_that_its_own_file_gives_it(files, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("files")
    shards = ingest(tmp_path, {"source": tables(tmp_path / "in", files)})
    assert names_of(shards, tmp_path / "cache") == by_row(files)


NAMELESS = {"a.parquet": (ANTS, [0, 1]), "b.parquet": (None, [0, 1])}
TEXT = [("txt", b"cat"), ("txt", b"ant")]
CLS = [("cls", b"0"), ("cls", b"1")]
FOLDERS = {"splits": "folders"}

REFUSED = [
    (tables, NAMELESS, {}, "a.parquet names 3 classes, 'ant', 'bee', 'cat'; b.parquet has the numbers '0', '1' without",
     True),
    (tables, NAMELESS | {"b.parquet": (None, [[0], [1]])}, {}, "b.parquet has the numbers '0', '1' without", True),
    (tables, NAMELESS | {"b.parquet": (None, ["0", "1"])}, {}, "b.parquet has the numbers '0', '1' without", False),
    (tables, {"a.parquet": (["x", "y", "x"], [0])}, {}, "number the classes of a.parquet. 'x' stand more than once",
     True),
    (tables, UNITED["another order in the second"], {"classes": 3}, "their lists differ: .* in another order", True),
    (tables, {"a.parquet": (ANTS, [0])}, {"class_names": ["bee", "ant", "dog"]}, "only a.parquet has 'cat'", True),
    (tables, {"a.parquet": (["b", "z"], [1])}, {"class_names": ["b", "a", "c"]}, "only a.parquet has 'z'", True),
    (samples, {"a.tar": CLS, "b.tar": TEXT}, {}, "a.tar has the numbers '0', '1', b.tar the names 'ant', 'cat'", False),
    (samples, {"a.tar": CLS}, {"class_names": "ant\n\nbee\n"}, "line 2 is blank", True),
    (samples, {"a.tar": CLS}, {"class_names": {"0": "bee", "1": "ant"}}, "JSON object", True),
    (tree, ["ros\u00e9", "rose\u0301"], {}, "are one name in two Unicode forms", True),
    (tree, ["train/ros\u00e9", "test/rose\u0301"], FOLDERS, "one name in two Unicode forms", True),
    (tree, ["cat", "cat\u200b"], {}, "'cat' and 'cat.u200b' look the same", True),
    (tables, {"a.parquet": (["ant", None], [0])}, {}, "its ClassLabel has None among its 2 names", True),
    (tables, {"a.parquet": (["ant", ""], [0])}, {}, "its ClassLabel has '' among", True),
]  # fmt: skip


def with_names(tmp_path, fields):
    """`class_names` written to a file: lines, or JSON of anything else."""
    names = fields.get("class_names")
    if names is None:
        return fields
    data = (names if isinstance(names, str) else json.dumps(names)).encode()
    return fields | {"class_names": str(write(tmp_path / "names", data))}


@pytest.mark.parametrize(("made", "files", "fields", "found", "at_plan"), REFUSED)
def test_what_cannot_be_united_is_refused_with_both_lists(made, files, fields, found, at_plan, tmp_path):
    splits = {name: value for name, value in fields.items() if name == "splits"}
    source = made(tmp_path / "in", files) | with_names(
        tmp_path, {name: value for name, value in fields.items() if name not in splits}
    )
    with pytest.raises(UsageError, match=found):
        ingest(tmp_path, {"source": source, **splits})
    if at_plan:
        with pytest.raises(UsageError, match=found.replace("has the numbers '0', '1'", "has numbers")):
            plan(source, **splits)


CONFIGURED = [
    # an integer is a place in the file of names, whatever these are; a text is a name first
    (samples, {"a.tar": [("cls", b"1"), ("json", b'{"label": 2}'), ("json", b'{"label": "1"}')]}, ["1", "2", "3"],
     ["2", "3", "1"], None),
    # a schema's names are found among the config's by name, in whatever order these stand
    (tables, {"a.parquet": (ANTS, [0, 1, 2])}, ["dog", "cat", "bee", "ant"], ANTS, "matched by name"),
    # a byte order mark is of the file, not of the name in it
    (samples, {"a.tar": [("txt", b"\xef\xbb\xbfcat"), ("txt", b"cat")]}, ["ant", "cat"], ["cat", "cat"], None),
    # the same classes, called otherwise by the config: by number, and told
    (tables, {"a.parquet": (["n01", "n02"], [0, 1])}, ["tench", "shark"], ["tench", "shark"],
     "a.parquet calls class 0 'n01', the config 'tench'"),
    (tables, {"a.parquet": (["n01", "bee"], [1, 0])}, "\ufeffant\nbee\n", ["bee", "ant"], "'n01', the config 'ant'"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "files", "class_names", "expected", "note"), CONFIGURED)
def test_names_of_the_config_and_of_the_files(made, files, class_names, expected, note, tmp_path):
    source = made(tmp_path / "in", files) | with_names(tmp_path, {"class_names": class_names})
    found = names_of(ingest(tmp_path, {"source": source}), tmp_path / "cache")
    assert [names for _, names in sorted(found.items())] == [(name,) for name in expected]
    notes = told(tmp_path, source)
    assert any(note in one for one in notes) if note else not notes


def test_numbers_of_two_shard_sets_are_united_by_their_names(tmp_path):
    """The tars have numbers alone; the manifests beside them say what they mean."""
    sets = {"one": tree(tmp_path / "x", ["ant", "bee"]), "two": tree(tmp_path / "y", ["bee", "cat", "eel"])}
    for number, (node, source) in enumerate(sets.items()):
        for path in (tmp_path / "xy"[number]).rglob("*.png"):
            path.write_bytes(image(100 * number + int(path.stem)))
        ingest(tmp_path, {"source": source}, node=node)
    tars = [str(tmp_path / "store/test" / node / "a1" / "*.tar") for node in sets]
    source = {"kind": "webdataset", "urls": tars}
    shards = ingest(tmp_path, {"source": source}, node="both")
    assert load_manifest(shards).classes == ("ant", "bee", "cat", "eel") == plan(source).class_names
    found = names_of(shards, tmp_path / "cache")
    assert sorted(names for (names,) in found.values()) == ["ant", "bee", "bee", "cat", "eel"]
    alone = ingest(tmp_path, {"source": {**source, "urls": tars[0]}}, node="alone")
    assert load_manifest(alone).classes == ("0", "1"), "as ever"
    tar(tmp_path / "others/z.tar", [("a.png", image(7)), ("a.cls", b"0")])
    with pytest.raises(UsageError, match=r"z\.tar has .*numbers.* without names"):
        ingest(tmp_path, {"source": {**source, "urls": [*tars, str(tmp_path / "others")]}}, node="third")


def test_a_shard_set_beside_tars_without_a_list(tmp_path):
    """Their numbers are not the set's; where the set's classes are called by their numbers, they are."""
    ingest(tmp_path, {"source": tree(tmp_path / "x", ["ant", "bee"])}, node="named")
    ingest(tmp_path, {"source": tree(tmp_path / "y", ["0", "1"])}, node="numbered")
    sets = {node: tmp_path / "store/test" / node / "a1" for node in ("named", "numbered")}
    others = tar(tmp_path / "others/z.tar", [("a.png", image(7)), ("a.cls", b"0")])

    def both(node):
        return {"kind": "webdataset", "urls": [str(sets[node] / "*.tar"), str(others)]}

    with pytest.raises(UsageError, match=r"'ant', 'bee'; .*z\.tar has the numbers '0' without names"):
        ingest(tmp_path, {"source": both("named")}, node="refused")
    found = names_of(ingest(tmp_path, {"source": both("numbered")}, node="same"), tmp_path / "cache")
    assert sorted(found.values()) == [("0",), ("0",), ("1",)]
    write(tmp_path / "others/z.tar", tar(tmp_path / "cat.tar", [("a.png", image(7)), ("a.txt", b"cat")]).read_bytes())
    named = both("named") | {"label": "cls;json;txt"}
    assert plan(named).class_names is None, "what the others have is not known before they are read"
    assert load_manifest(ingest(tmp_path, {"source": named}, node="more")).classes == ("ant", "bee", "cat")
    manifest = sets["named"] / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:40])
    with pytest.raises(UsageError, match=r"named/a1/manifest\.json.*not JSON"):
        ingest(tmp_path, {"source": both("named")}, node="cut")


SAID = [
    (tree, ["Bee", "bee", "ant"], {}, "'Bee' is nearly 'bee'"),
    (tree, ["01", "1", "2"], {}, "'01' is nearly '1'"),
    (tree, ["train/ant", "train/bee", "test/ant", "test/Bee"], FOLDERS,
     "train and test differ: 2 and 2; only train has 'bee'; only test has 'Bee'"),
    (samples, {"a.tar": [("json", b'{"label": "cat"}'), ("cls", b"3")]}, {}, "a.tar has numbers beside names"),
    (tables, {"a.parquet": (["golden_retriever", "golden retriever"], [0, 1])}, {}, "nearly one stay apart"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "files", "more", "note"), SAID)
def test_what_may_be_meant_is_said(made, files, more, note, tmp_path):
    assert any(note in one for one in told(tmp_path, made(tmp_path / "in", files), **more))


def test_a_labels_file_says_what_it_mixes_and_refuses_what_it_contradicts(tmp_path):
    source = tree(tmp_path / "in", ["a", "b", "c"]) | {"labels": str(tmp_path / "l.jsonl")}
    (tmp_path / "l.jsonl").write_text('{"path": "a/000.png", "label": 1}\n{"path": "b/001.png", "label": "cat"}\n')
    assert any(
        "numbers beside names, and each is a class by itself: '1'; 'cat'" in one for one in told(tmp_path, source)
    )
    lines = [{"path": "a/000.png", "label": "cat", "labels": ["cat", "dog"]}, {"path": "b/001.png", "label": "1"}]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert load_manifest(ingest(tmp_path, {"source": source})).classes == ("1", "cat", "dog")
    (tmp_path / "l.jsonl").write_text(json.dumps(lines[0] | {"label": "cow"}))
    with pytest.raises(UsageError, match="line 1 has the label 'cow', which is none of its labels 'cat', 'dog'"):
        ingest(tmp_path, {"source": source}, node="contradicted")


def test_copies_with_other_labels_are_told(tmp_path):
    source = tree(tmp_path / "in", ["ant", "bee"])
    write(tmp_path / "in/bee/copy.png", image(0))
    assert any("1 of them bear other classes than the image that stays" in one for one in told(tmp_path, source))
