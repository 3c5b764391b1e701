"""Tars of one class each: the shards of the same images as a folder, however they are packed and wherever they lie."""

import gzip
import hashlib
import json
import pickle
import shutil

import pytest
from class_tars import class_folder, class_tars, outer
from inprocess import InProcessCluster, commit, make_context
from photos import contents, encoded, ingest, picture, write
from tars import tar

from vitpipe.infra.errors import IntegrityError, StageError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.plan.fingerprint import encode
from vitpipe.pipeline.store.garbage import garbage
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Known
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.drift import look
from vitpipe.stages.ingest.estimate import estimate
from vitpipe.stages.ingest.run import run
from vitpipe.stages.ingest.sources import tar_sample, unpacking
from vitpipe.stages.record import read_record


def config(urls, **more):
    source = {"kind": "class_tars", "urls": str(urls), **more.pop("source", {})}
    return {"source": source, "images_per_shard": 150, **more}


def folder_config(root, **more):
    return {**config(root, **more), "source": {"kind": "folder", "root": str(root)}}


def shards_of(found):
    """Tars and indexes, and what the manifest says of the data: all but the name of the kind of source."""
    files = {path: data for path, data in contents(found).items() if path.endswith((".tar", ".index"))}
    manifest = json.loads(contents(found)["manifest.json"])
    assert manifest["source"].pop("kind")
    return files, manifest


def planned(given):
    parsed = IngestConfig.model_validate(given)
    return estimate(parsed, IngestResources(), {}, Known())


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The same images in each form, and their shards as those of a folder."""
    base = tmp_path_factory.mktemp("packed")
    root = class_folder(base / "folder", each=200)
    write(root / "n00000001/readme.txt", b"no image")
    write(root / "n00000001/.hidden.jpg", b"not looked at")
    tars = class_tars(root, base / "tars")
    forms = {
        "tars": tars,
        "outer": outer(tars, base / "fall11_whole.tar"),
        "packed": outer(tars, base / "winter21_whole.tar.gz"),
        "tree": outer(root, base / "tree.tar", "data/images"),
        "packed-tree": outer(root, base / "tree.tgz", "."),
        "each-packed": base / "each",
    }
    for one in tars.iterdir():
        write(forms["each-packed"] / f"{one.name}.gz", gzip.compress(one.read_bytes()))
    wanted = shards_of(ingest(base / "run", folder_config(root)))
    return forms, wanted


FORMS = ("tars", "outer", "packed", "tree", "packed-tree", "each-packed")


@pytest.mark.parametrize("form", FORMS)
def test_the_shards_are_those_of_the_folder(packed, tmp_path, form, monkeypatch):
    forms, wanted = packed
    monkeypatch.setattr(unpacking, "PIECE_BYTES", 100_000)  # a tree is cut within its classes
    given = config(forms[form])
    told = planned(given)
    assert told.num_classes == 3 and abs((told.images or 0) - 600) <= (30 if form == "each-packed" else 0)
    assert told.class_names == ("n00000000", "n00000001", "n00000002")
    found = ingest(tmp_path, given)
    assert shards_of(found) == wanted
    record, _ = read_record(found.uri)
    settings = IngestConfig.model_validate(given)
    seen = [look(settings, IngestResources(), found, record, digests) for digests in (False, True)]
    assert all(one.is_same for one in seen), seen
    assert "files of" in seen[0].note and "by digest" in seen[1].note


def test_in_a_bucket_and_streamed_once(s3_uri, packed, tmp_path, monkeypatch):
    from vitpipe.infra.storage.s3 import S3Store

    forms, wanted = packed
    store = open_store(f"{s3_uri}/given")
    for path in forms["tars"].iterdir():
        store.upload(path, f"tars/{path.name}")
    for form in ("outer", "packed"):
        store.upload(forms[form], forms[form].name)
    read, taken = S3Store.read, []

    def counted(self, path, *place, **more):
        data = read(self, path, *place, **more)
        taken.append((path, len(data)))
        return data

    monkeypatch.setattr(S3Store, "read", counted)
    for name in ("tars", "fall11_whole.tar", "winter21_whole.tar.gz"):
        given = config(f"{s3_uri}/given/{name}")
        assert "counted when" in planned(given).notes[0]
        assert shards_of(ingest(tmp_path, given, node=name.split("_")[0])) == wanted
    size = forms["packed"].stat().st_size
    assert sum(count for path, count in taken if path.endswith(".gz")) == size, "each byte of it once"


test_in_a_bucket_and_streamed_once = pytest.mark.s3(test_in_a_bucket_and_streamed_once)


def test_what_is_unpacked_is_taken_over(packed, tmp_path, monkeypatch):
    forms, wanted = packed
    given = config(forms["packed"])
    ctx = make_context(tmp_path, "shards", IngestResources())
    source = IngestConfig.model_validate(given).source
    source.make_ready({"train": 1.0}, ctx)
    monkeypatch.setattr(unpacking, "unpack", None)  # nothing may be unpacked again
    assert shards_of(ingest(tmp_path, given, attempt="a2", earlier=("a1",))) == wanted
    monkeypatch.undo()
    piece = next((tmp_path / "store/test/shards/a1/unpacked").glob("*.tar"))
    piece.unlink()
    again = make_context(tmp_path, "shards", IngestResources(), attempt="a3", earlier=("a1",))
    assert all(file.folder.endswith("/a3") for file in source.make_ready({"train": 1.0}, again).files)


def test_what_is_unpacked_is_garbage_once_the_shards_are_there(packed, tmp_path):
    forms, _ = packed
    given = config(forms["packed"])
    parsed, recipe = IngestConfig.model_validate(given), {"stage": "ingest", "config": given, "node": "shards"}
    header = {"recipe": recipe, "fingerprint": hashlib.sha256(encode(recipe)).hexdigest(), "inputs": {}}
    ctx, store = (
        make_context(tmp_path, "shards", IngestResources(), header=header),
        open_store(f"file://{tmp_path}/store"),
    )
    parsed.source.make_ready(parsed.splits, ctx)
    assert not garbage(store.child("test"), unfinished=False), "a resume takes it over"
    found = commit(ctx, run(parsed, Inputs({}), ctx), stage="ingest", config=given)
    gone = {one.path for one in garbage(store.child("test"), unfinished=False)}
    there = {entry.path for entry in store.child("test").list("shards/a1/unpacked/")}
    assert there and there <= gone and not gone & {f"shards/{file.at}" for file in found.files}


@pytest.mark.parametrize("form", ["packed", "outer", "packed-tree"])
def test_a_file_of_all_that_is_cut_is_refused_before_anything_is_ingested(packed, tmp_path, form):
    forms, _ = packed
    data = forms[form].read_bytes()
    path = write(tmp_path / forms[form].name, data[: len(data) * 2 // 3])
    with pytest.raises(IntegrityError, match=r"(?i)fetch the whole file again") as refused:
        ingest(tmp_path, config(path))
    assert path.name in refused.value.asked
    with pytest.raises(IntegrityError):
        planned(config(path))
    if form != "outer":
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 0xFF  # a single bit may be one that nothing reads
        with pytest.raises(IntegrityError, match=path.name):
            ingest(tmp_path, config(write(tmp_path / path.name, bytes(damaged))), node="damaged")
    assert not list((tmp_path / "store").rglob("train-*"))


def test_a_broken_tar_of_one_class_is_named(packed, tmp_path):
    forms, _ = packed
    tars = shutil.copytree(forms["tars"], tmp_path / "tars")
    broken = tars / "n00000002.tar"
    broken.write_bytes(broken.read_bytes()[:2500])
    found = ingest(tmp_path, config(tars, bad_image_budget=20))
    rows = [json.loads(row) for row in contents(found)["quarantine.jsonl"].splitlines()]
    assert [row["source"] for row in rows] == ["n00000002.tar"]
    assert "the file ends inside" in rows[0]["reason"] and "fetch this tar again" in rows[0]["reason"]
    with pytest.raises(StageError, match=r"n00000002.tar.*fetch this tar again"):
        ingest(tmp_path, config(outer(tars, tmp_path / "whole.tar"), bad_image_budget=0), node="strict")


def test_what_became_of_the_tars(packed, tmp_path):
    forms, _ = packed
    tars = shutil.copytree(forms["tars"], tmp_path / "tars")
    given = config(tars)
    found = ingest(tmp_path, given)
    record, _ = read_record(found.uri)

    def seen(digests=False):
        return look(IngestConfig.model_validate(given), IngestResources(), found, record, digests)

    one = tars / "n00000001.tar"
    data = bytearray(one.read_bytes())
    data[data.rindex(b"\xff\xd9")] ^= 1
    one.write_bytes(data)
    assert not seen().changes and "may have changed" in seen().note
    assert "1 changed of 600 images" in seen(digests=True).changes[0]
    one.unlink()
    assert "1 gone" in seen().changes[0]


def test_other_bytes_of_a_packed_file_are_seen(packed, tmp_path):
    forms, _ = packed
    path = write(tmp_path / "whole.tar.gz", forms["packed"].read_bytes())
    given = config(path)
    found = ingest(tmp_path, given)
    record, _ = read_record(found.uri)
    data = bytearray(path.read_bytes())
    data[4] ^= 1  # the time in gzip's header: equal images
    path.write_bytes(data)
    settings = IngestConfig.model_validate(given)
    assert "may have changed" in look(settings, IngestResources(), found, record, False).note
    assert "other bytes" in look(settings, IngestResources(), found, record, True).changes[0]


RELEASE = ("imagenet21k_train", "imagenet21k_val", "imagenet21k_small_classes")


def release(root):
    """The processed release: train and val of the same classes, small classes apart."""
    for number, name in enumerate(RELEASE):
        class_folder(root / name, classes=2 if number < 2 else 3, each=4, first=100 * number)
    shutil.rmtree(root / RELEASE[2] / "n00000000")
    shutil.rmtree(root / RELEASE[2] / "n00000001")
    return root


@pytest.mark.parametrize("splits", ["folders", "official"])
def test_the_processed_release_has_its_splits(tmp_path, splits):
    root = release(tmp_path / "imagenet21k_resized")
    by_folder = {**folder_config(root), "splits": "folders"}
    wanted = shards_of(ingest(tmp_path, by_folder, node="folder"))
    assert load_manifest(ingest(tmp_path, by_folder, node="again")).classes == tuple(f"n{k:08d}" for k in range(3))
    path = outer(root, tmp_path / "imagenet21k_resized.tar.gz", "imagenet21k_resized")
    given = config(path, splits=splits)
    told = planned(given)
    assert told.splits == {"train": 8, "val": 8, "small-classes": 4} and told.num_classes == 3
    assert shards_of(ingest(tmp_path, given, node="packed")) == wanted
    for name in RELEASE:
        class_tars(root / name, tmp_path / "tars" / name)
        outer(root / name, tmp_path / f"three/{name}.tar", ".")
    assert shards_of(ingest(tmp_path, config(tmp_path / "tars", splits=splits), node="tars")) == wanted
    assert shards_of(ingest(tmp_path, config(tmp_path / "three", splits=splits), node="three")) == wanted
    with pytest.raises(UsageError, match=r"(?i)set `splits: folders`"):
        planned(config(path))
    with pytest.raises(UsageError, match=r"(?i)set `splits: folders`"):
        ingest(tmp_path, config(tmp_path / "tars"), node="no")


def test_what_cannot_be_meant_is_refused(tmp_path):
    jpeg = encoded(picture(1), "JPEG")
    tar(tmp_path / "a/cat.tar", [("1.jpg", jpeg)])
    tar(tmp_path / "b/cat.tar", [("1.jpg", jpeg)])
    with pytest.raises(UsageError, match="both the class 'cat'"):
        ingest(tmp_path, config(f"{tmp_path}/a/cat.tar::{tmp_path}/b/cat.tar"))
    tar(tmp_path / "c/dog.tar", [("1.jpg", jpeg)])
    tar(tmp_path / "c/pets.tar", [("cat.tar", (tmp_path / "a/cat.tar").read_bytes())])
    with pytest.raises(UsageError, match=r"pets.tar as a tar of one class: it holds the tar cat.tar"):
        ingest(tmp_path, config(tmp_path / "c"))
    tar(tmp_path / "empty.tar", [("readme.txt", b"nothing")])
    with pytest.raises(UsageError, match="without an image"):
        planned(config(tmp_path / "empty.tar"))
    with pytest.raises(UsageError, match="none is named train, val or test"):
        planned(config(f"{tmp_path}/a/cat.tar", splits="folders"))
    with pytest.raises(UsageError, match="imagenet21k_train"):
        planned(config(write(tmp_path / "train/cat.tar", (tmp_path / "a/cat.tar").read_bytes()), splits="official"))
    tar(tmp_path / "nested.tar", [("cat.tar.gz", gzip.compress(b""))])
    with pytest.raises(UsageError, match="holds the packed tar"):
        planned(config(tmp_path / "nested.tar"))
    with pytest.raises(UsageError, match=r"packed with gzip.*\.tar\.gz"):
        planned(config(write(tmp_path / "lies.tar", gzip.compress((tmp_path / "a/cat.tar").read_bytes()))))


def test_tars_of_one_class_beside_one_of_all_are_told_before_the_work(packed, tmp_path):
    forms, _ = packed
    both = f"{forms['each-packed']}::{forms['packed']}"
    with pytest.raises(UsageError, match=r"holds images of one class; .* holds a tar a class"):
        ingest(tmp_path, config(both))
    assert not list((tmp_path / "store").rglob("unpacked"))


def test_a_task_that_runs_twice_unpacks_the_same(packed, tmp_path):
    forms, wanted = packed
    twice = ingest(tmp_path, config(forms["packed"]), cluster=InProcessCluster(rerun_tasks=True))
    assert shards_of(twice) == wanted


def test_names_within_a_tar(tmp_path):
    images = [encoded(picture(number), "JPEG") for number in range(5)]
    names = ("./1.jpg", "home/me/cat/2.jpg", "cat/3.jpg", "cat/3.jpg", "sub/4.jpg")
    tar(tmp_path / "in/cat.tar", zip(names, images, strict=True))
    tar(tmp_path / "in/dog.tar", [("1.png", encoded(picture(9), "PNG")), ("notes.txt", b"")])
    tar(tmp_path / "in/none.tar", [("notes.txt", b"")])
    found = ingest(tmp_path, config(tmp_path / "in"))
    index = json.loads(contents(found)["train-000000.index"])
    assert sorted(index["source"]) == ["cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "cat/sub/4.jpg", "dog/1.png"]
    (row,) = map(json.loads, contents(found)["quarantine.jsonl"].splitlines())
    assert row["source"].startswith("cat/3.jpg@") and "replaces it" in row["reason"]
    assert load_manifest(found).classes == ("cat", "dog")


def test_a_large_set_is_reckoned_from_its_beginning(packed, monkeypatch):
    forms, _ = packed
    monkeypatch.setattr(tar_sample, "QUICK_BYTES", 0)
    for form in ("tars", "outer", "tree", "packed"):
        told = planned(config(forms[form]))
        assert 540 <= told.images <= 660, form
        assert told.num_classes == (None if form == "tree" else 3)
    monkeypatch.setattr(tar_sample, "SAMPLE_BYTES", 1)
    assert any("reckoned from" in note for note in planned(config(forms["tars"])).notes)


def test_twenty_thousand_tars_are_sent_in_few_bytes(packed):
    forms, _ = packed
    source = IngestConfig.model_validate(config(forms["tars"])).source
    opened = source.open({"train": 1.0})
    assert pickle.loads(pickle.dumps(opened)).files[1] == opened.files[1]
    from vitpipe.stages.ingest.sources.file_table import FileTable

    many = FileTable(opened.files[0] for _ in range(20_000))
    assert len(pickle.dumps(many)) < 20_000 * 220
