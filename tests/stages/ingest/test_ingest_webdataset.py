"""Tars of samples as others wrote them: what passes through, what is set aside, and nothing lost in silence."""

import json

import pytest
import webdataset as wds
from inprocess import make_context
from photos import contents, encoded, indexes, ingest, picture, write
from tars import samples, tar, tars
from test_ingest_determinism import Dying, Shuffled

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.contract import Inputs
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.split import Split
from vitpipe.stages.ingest import run as run_module
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.run import run
from vitpipe.stages.ingest.sources import tar_reading


def source(folder, **more):
    return {"kind": "webdataset", "urls": str(folder), **more}


def config(folder, settings=None, **more):
    return {"source": source(folder, **(settings or {})), "bad_image_budget": 100, **more}


def rows(shards, name="quarantine.jsonl"):
    return [json.loads(line) for line in contents(shards)[name].splitlines()]


def labelled(shards, cache):
    split = Split(shards, "train", cache)
    found = {}
    for index in indexes(split):
        found |= dict(zip(index.source, map(tuple, index.labels), strict=True))
    return found


def test_bytes_labels_and_names_pass_through(tmp_path):
    shards = ingest(tmp_path, config(tars(tmp_path / "in"), images_per_shard=5))
    given = {
        f"in-{shard:06d}.tar#{number:04d}": (number % 3,)
        for shard in range(3)
        for number in range(6 * shard, 6 * shard + 6)
    }
    assert labelled(shards, tmp_path / "cache") == given
    assert load_manifest(shards).classes == ("0", "1", "2") and not rows(shards)
    index = indexes(Split(shards, "train", tmp_path / "cache"))[0]
    shard = contents(shards)["train-000000.tar"]
    number = int(index.source[2].partition("#")[2])
    assert shard[index.offset[2] : index.offset[2] + index.size[2]] == encoded(picture(number), "JPEG")


def test_our_own_shards_go_in_again(tmp_path):
    first = ingest(tmp_path, config(tars(tmp_path / "in"), images_per_shard=5), node="first")
    folder = tmp_path / "store/test/first/a1"
    again = ingest(tmp_path, config(folder), node="again")
    assert again.splits == first.splits and not rows(again)
    pixels = [
        {content for index in indexes(Split(shards, "train", tmp_path / "cache")) for content in index.pixels_sha256}
        for shards in (first, again)
    ]
    assert pixels[0] == pixels[1]


@pytest.mark.parametrize(
    ("members", "settings", "classes", "labels"),
    [
        ([("a.txt", b"cat\n"), ("b.txt", b"ant")], {"label": "txt"}, ("ant", "cat"), [(1,), (0,)]),
        ([("a.json", b'{"labels": ["x", "y"]}'), ("b.json", b"[3]")], {}, ("3", "x", "y"), [(1, 2), (0,)]),
        ([("a.json", b'{"id": 7, "label": 0}'), ("b.cls", b"1")], {}, ("0", "1"), [(0,), (1,)]),
        ([("a.json", b'{"id": 7}'), ("b.json", b'{"id": 9}')], {"label_field": "id"}, ("7", "9"), [(0,), (1,)]),
        ([("a.cls", b"07"), ("b.cls", b"9")], {"classes": 10}, tuple("0123456789"), [(7,), (9,)]),
        ([("a.top.cls", b"0"), ("b.top.cls", b"1")], {"label": "top.cls"}, ("0", "1"), [(0,), (1,)]),
        ([("a.cls", b"dog\n"), ("b.cls", b"ant")], {}, ("ant", "dog"), [(1,), (0,)]),
        ([("a.cls", b"\xef\xbb\xbf10"), ("b.cls", "9\r\n".encode("utf-16"))], {}, ("9", "10"), [(1,), (0,)]),
        ([("a.cls", b"dog"), ("b.cls", b"1")], {"classes": 2}, ("0", "1"), [(1,)]),
        (
            [("a.json", b'{"meta": {"label": 2.0}}'), ("b.json", b'{"meta": {"label": 1}}')],
            {"label_field": "meta.label"},
            ("1", "2"),
            [(1,), (0,)],
        ),
        (
            [("a.json", b'{"meta.label": 2}'), ("b.json", b'{"meta": {"label": 1}}')],
            {"label_field": "meta.label"},
            ("1", "2"),
            [(1,), (0,)],
        ),
    ],
)
def test_labels_of_every_kind(tmp_path, members, settings, classes, labels):
    images = [(f"{key}.jpg", encoded(picture(number), "JPEG")) for number, key in enumerate("ab")]
    path = tar(tmp_path / "in.tar", images + members)  # all images, then all labels: joined by key
    shards = ingest(tmp_path, config(path, settings))
    assert load_manifest(shards).classes == classes
    assert len(rows(shards)) == 2 - len(labels)
    assert [label for _, label in sorted(labelled(shards, tmp_path / "cache").items())] == labels
    assert shards.multi_label == (labels[0] == (1, 2))


def test_class_names_from_a_file(tmp_path):
    names = write(tmp_path / "names.txt", b"tench\ngoldfish\nshark\n")
    shards = ingest(tmp_path, config(tars(tmp_path / "in"), {"class_names": str(names)}))
    assert load_manifest(shards).classes == ("tench", "goldfish", "shark")
    write(tmp_path / "names.txt", "tench\r\ngold\u2028fish\x85\r\nshark\r\n".encode())
    shards = ingest(tmp_path, config(tars(tmp_path / "in"), {"class_names": str(names)}), node="odd")
    assert load_manifest(shards).classes == ("tench", "gold\u2028fish", "shark"), "no name is cut in two"
    for text, found in ((b"", "it is empty"), (b"a\na", "'a' stand more than once"), (b"[1", "Expecting")):
        write(tmp_path / "names.txt", text)
        with pytest.raises(UsageError, match=f"(?i){found}"):
            ingest(tmp_path, config(tmp_path / "in", {"class_names": str(names)}), node="bad")


JPEG = encoded(picture(500), "JPEG")


@pytest.mark.parametrize(
    ("members", "reasons"),
    [
        ([("x.jpg", JPEG)], ["no label: it has jpg, none of cls;json"]),
        ([("x.cls", b"1")], ["no image: it has cls, none of jpg;jpeg;png;webp"]),
        ([("x.gif", b"GIF8"), ("x.cls", b"1")], ["no image: it has cls, gif"]),
        ([("x.jpg", JPEG), ("x.cls", b"-1")], ["its .cls has the label '-1', a number that is no class"]),
        ([("x.jpg", JPEG), ("x.cls", b"1.0")], ["its .cls has the label '1.0'"]),
        ([("x.jpg", JPEG), ("x.cls", b"cat")], ["its .cls has the label 'cat', which is no number of a class"]),
        ([("x.jpg", JPEG), ("x.cls", b"3")], ["the label '3' is none of the 3 classes"]),
        ([("x.jpg", JPEG), ("x.cls", b"")], ["its .cls has no label: ''"]),
        ([("x.jpg", JPEG), ("x.cls", b"\xff")], ["its .cls is not UTF-8"]),
        ([("x.jpg", JPEG), ("x.json", b"{")], ["its .json is not JSON"]),
        ([("x.jpg", JPEG), ("x.json", b'{"a": 1}')], ["no field labels or label or cls; its fields are a"]),
        ([("x.jpg", JPEG), ("x.json", b"[]")], ["no label: []"]),
        ([("x.jpg", JPEG), ("x.json", b'{"label": NaN}')], ["its .json has no label: nan"]),
        ([("x.jpg", JPEG[:300]), ("x.cls", b"1")], ["JPEG damaged"]),
        (
            [("x.jpg", JPEG), ("x.cls", b"1"), ("x.jpg", encoded(picture(501), "JPEG")), ("x.cls", b"2")],
            ["the key 'x' is used more than once"] * 2,
        ),
        ([("x.jpg", JPEG), ("x.cls", b"1"), ("x.cls", b"2")], ["the key 'x' is used more than once"]),
    ],
)
def test_a_bad_sample_is_set_aside_with_its_reason(tmp_path, members, reasons):
    path = tar(tmp_path / "in.tar", [*samples(0, 2), *members, *samples(2, 2)])
    shards = ingest(tmp_path, config(path, {"classes": 3}))
    found = rows(shards)
    assert [row["source"].partition("@")[0] for row in found] == ["in.tar#x"] * len(reasons)
    assert all(reason in row["reason"] for row, reason in zip(found, reasons, strict=True)), found
    assert set(labelled(shards, tmp_path / "cache")) == {f"in.tar#{number:04d}" for number in range(4)}
    with pytest.raises(StageError, match=f"{len(reasons)} are bad: 'in.tar#x"):
        ingest(tmp_path, config(path, {"classes": 3}, on_bad_image="fail"), node="strict")


def test_a_cut_tar_costs_what_is_cut_and_says_how_much(tmp_path):
    folder = tars(tmp_path / "in", shards=4)
    path = folder / "in-000001.tar"
    whole = ingest(tmp_path, config(folder), node="whole")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    shards = ingest(tmp_path, config(folder))
    kept, lost = labelled(shards, tmp_path / "cache"), labelled(whole, tmp_path / "cache").keys()
    assert all(labels == (int(name[-4:]) % 3,) for name, labels in kept.items())
    missing = {name for name in lost if name not in kept}
    assert len(missing) == 4 and all(name.startswith("in-000001.tar#") for name in missing)
    # the third image lost its label, the three behind it are gone
    finding = next(row for row in rows(shards) if row["source"] == "in-000001.tar")
    assert "the file ends inside" in finding["reason"] and "fewer than is usual" in finding["reason"]
    with pytest.raises(StageError, match="damage in 1 files may have cost 3 more"):
        ingest(tmp_path, {**config(folder), "bad_image_budget": 3}, node="strict")


def test_a_lone_cut_tar_is_no_small_matter(tmp_path):
    """Nothing tells how much is gone: as much as is there is counted, so that half a set is never taken for a whole."""
    path = tar(tmp_path / "in.tar", samples(0, 30))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StageError, match=r"may have cost 16 more.*as many again are reckoned with"):
        ingest(tmp_path, {"source": source(path)}, node="cut")
    header = data.index(b"0002.jpg")  # where damage has an end, what it costs is seen
    path.write_bytes(data[: header + 100] + b"\xff" + data[header + 101 :])
    assert ingest(tmp_path, {"source": source(path)}).splits == {"train": 29}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the collector
def test_what_plain_webdataset_loses_in_silence_is_told_here(tmp_path):
    """The same damaged tars, read by both: (samples webdataset gives, errors it raises), (ours, findings)."""
    path = tmp_path / "in.tar"
    whole = tar(path, samples(0, 6)).read_bytes()
    first, third = whole.index(b"0000.jpg"), whole.index(b"0002.jpg")
    damages = {
        "none": whole,
        "cut between members": whole[:third],
        "cut inside a header": whole[: third + 100],
        "damaged header": whole[: third + 100] + b"\xff" + whole[third + 101 :],
        "emptied header": whole[:third] + bytes(512) + whole[third + 512 :],
        "laid end to end": whole[: first + len(whole)] + tar(tmp_path / "b.tar", samples(6, 2)).read_bytes(),
    }
    found = {}
    for damage, data in damages.items():
        path.write_bytes(data)
        plain = list(wds.WebDataset(str(path), shardshuffle=False).to_tuple("jpg", "cls"))
        shards = ingest(tmp_path, config(path), node=damage.replace(" ", "-"))
        found[damage] = (len(plain), shards.splits["train"], len(rows(shards)))
    assert found == {
        "none": (6, 6, 0),
        "cut between members": (2, 2, 1),  # webdataset gives fewer and says nothing; here it is told
        "cut inside a header": (2, 2, 1),
        "damaged header": (2, 5, 2),
        "emptied header": (2, 5, 2),
        "laid end to end": (6, 8, 0),
    }


def test_a_damaged_header_costs_its_member_alone(tmp_path):
    folder = tars(tmp_path / "in", shards=1)
    path = folder / "in-000000.tar"
    data = bytearray(path.read_bytes())
    data[data.index(b"0002.jpg") + 100] ^= 4
    path.write_bytes(data)
    shards = ingest(tmp_path, config(folder))
    assert len(labelled(shards, tmp_path / "cache")) == 5
    reasons = [row["reason"] for row in rows(shards)]
    assert "no header at byte" in reasons[0] and "no image: it has cls" in reasons[1]


def test_a_whole_source_has_no_findings(tmp_path):
    ctx = make_context(tmp_path, "shards", IngestResources())
    run(IngestConfig.model_validate({"source": source(tars(tmp_path / "in"))}), Inputs({}), ctx)
    assert not ctx.events.of("quarantined") and not ctx.events.of("note")


def test_numbers_with_gaps_are_told(tmp_path):
    path = tar(tmp_path / "in.tar", [*samples(0, 3, classes=10)[4:], ("9.jpg", JPEG), ("9.cls", b"9")])
    ctx = make_context(tmp_path, "shards", IngestResources())
    run(IngestConfig.model_validate({"source": source(path)}), Inputs({}), ctx)
    (note,) = ctx.events.of("note")
    assert "the labels 0 to 9 have 2 classes that occur" in note and "classes: 10" in note


@pytest.mark.parametrize(
    ("arrange", "found"),
    [
        (lambda path: None, "no file of that name"),
        (lambda path: tar(path, []), "1 files without a sample"),
        (lambda path: write(path, b""), r"without a sample; in\.tar: the tar is damaged: the file ends without"),
        (lambda path: write(path, bytes(range(256)) * 9), "the tar is damaged: no header at byte 0; 2304 bytes"),
        (lambda path: write(path, b"\x1f\x8b\x08 and so on"), "packed with gzip"),
    ],
)
def test_tars_that_cannot_be_meant(tmp_path, arrange, found):
    arrange(tmp_path / "in.tar")
    with pytest.raises(UsageError, match=found):
        ingest(tmp_path, config(tmp_path / "in.tar"))


@pytest.mark.parametrize(
    "url",
    ["pipe:cat x.tar", "x.tar::PIPE:cat y.tar", ["x.tar::http://host/x.tar"], "gs://b/x.tar", "x.tar::", "", []],
)
def test_nothing_but_files_and_s3_is_opened(url):
    with pytest.raises(ValueError, match="urls"):
        IngestConfig.model_validate({"source": {"kind": "webdataset", "urls": url}})


def test_workers_kills_and_places_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "CHUNK_IMAGES", 7)
    folder = tars(tmp_path / "in")
    asked = config(folder, images_per_shard=4, splits={"train": 0.7, "test": 0.3})
    plain = contents(ingest(tmp_path, asked, node="plain"))
    for seed in range(2):
        assert contents(ingest(tmp_path, asked, node=f"other-{seed}", cluster=Shuffled(seed))) == plain
    for after in (1, 5, 7, 9):
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path, asked, node=f"killed-{after}", cluster=Dying(after))
        resumed = ingest(tmp_path, asked, node=f"killed-{after}", attempt="a2", earlier=("a1",))
        assert contents(resumed) == plain
    folder.rename(tmp_path / "moved")
    assert contents(ingest(tmp_path, {**asked, "source": source(tmp_path / "moved")}, node="moved")) == plain


def test_subsets_are_nested_and_damage_is_in_each(tmp_path):
    folder = tars(tmp_path / "in", shards=5)
    path = folder / "in-000002.tar"
    path.write_bytes(path.read_bytes()[:-9000])

    def part(node, **settings):
        shards = ingest(tmp_path, config(folder, settings), node=node)
        assert "in-000002.tar" in {row["source"] for row in rows(shards)}
        return set(labelled(shards, tmp_path / "cache"))

    third, most = part("a", subset={"fraction": 0.3}), part("b", subset={"fraction": 0.8})
    assert third < most and third
    assert part("c", limit=4) < part("d", limit=12)


@pytest.mark.s3
def test_a_bucket_gives_what_the_same_folder_gives(s3_uri, tmp_path, monkeypatch):
    folder = tars(tmp_path / "in")
    store = open_store(s3_uri)
    for path in folder.glob("*.tar"):
        store.upload(path, f"in/{path.name}")
    asked = config(folder, images_per_shard=4)
    here = contents(ingest(tmp_path, asked, node="here"))
    there = {**asked, "source": source(f"{s3_uri}/in/in-{{000000..000002}}.tar")}
    assert contents(ingest(tmp_path, there, node="there")) == here
    monkeypatch.setattr(tar_reading, "RUN_BYTES", 2000)
    assert contents(ingest(tmp_path, there, node="runs")) == here
    with pytest.raises(UsageError, match=r"none/\*\.tar': no file of that name or pattern"):
        ingest(tmp_path, {**asked, "source": source(f"{s3_uri}/none/*.tar")}, node="none")
