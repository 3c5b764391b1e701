"""What lies among people's images and is none: links to nothing, what file servers leave, folders without images."""

import os
import tarfile

import pytest
from photos import contents, encoded, ingest, photo_folder, picture, write
from test_ingest_webdataset import rows, samples
from test_ingest_webdataset import tar as packed

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.store import Entry
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.ingest.sources.folder import FolderSource
from vitpipe.stages.ingest.sources.folder_walk import LeftAside, objects
from vitpipe.stages.ingest.sources.inventory import compare
from vitpipe.stages.ingest.sources.patterns import find_files

JPEG = encoded(picture(700), "JPEG")
LEFT = (
    ".DS_Store", "class-0/._000.png", "class-0/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg", "class-1/@eaDir/x.jpg",
    "@eaDir/class-0/y.jpg", "__MACOSX/class-0/._000.png", "$RECYCLE.BIN/z.jpg", "class-0/Thumbs.db",
    "lost+found/found.png", "#recycle/class-0/a.png",
)  # fmt: skip


def opened(root, splits=None, **settings):
    return FolderSource(kind="folder", root=str(root), **settings).open(splits or {})


def test_what_servers_and_desktops_leave_changes_nothing_and_is_counted(tmp_path):
    root = photo_folder(tmp_path / "user", classes=2, per_class=3)
    plain = ingest(tmp_path, {"source": {"kind": "folder", "root": str(root)}}, node="plain")
    for name in LEFT:
        write(root / name, JPEG)
    littered = ingest(tmp_path, {"source": {"kind": "folder", "root": str(root)}}, node="littered")
    assert contents(littered) == contents(plain)
    (told,) = (note for note in opened(root).listing().notes if "left aside" in note)
    assert "3 '@eaDir'" in told and "1 '__MACOSX'" in told and "1 'Thumbs.db'" in told and "1 '._*'" in told


def test_of_many_names_the_most_frequent_are_told(tmp_path):
    root = photo_folder(tmp_path / "user", classes=2, per_class=3)
    for name in (*(f".rc-{number}" for number in range(9)), "class-0/.often", "class-1/.often"):
        write(root / name, b"")
    (told,) = (note for note in opened(root).listing().notes if "left aside" in note)
    assert "2 '.often', 1 '.rc-" in told and told.count("'.rc-") == 7 and told.endswith(" and 2 other names")


def test_a_list_names_no_litter(tmp_path):
    root = photo_folder(tmp_path / "user", classes=1, per_class=2)
    write(root / "@eaDir/x.jpg", JPEG)
    labels = write(tmp_path / "labels.csv", b"path,label\nclass-0/000.png,cat\n@eaDir/x.jpg,dog\n")
    with pytest.raises(UsageError, match=r"1 of 2 listed images are not below.*is left aside"):
        opened(root, labels=str(labels)).listing()


def test_tars_and_tables_with_litter(tmp_path):
    path = packed(tmp_path / "in/a.tar", [*samples(0, 2), ("@eaDir/x.jpg", JPEG), ("__MACOSX/0.cls", b"1")])
    for name in ("._a.tar", "@eaDir/a.tar", "__MACOSX/._a.tar"):
        write(tmp_path / "in" / name, b"no tar")
    assert [file.name for file in find_files([str(tmp_path / "in")], ".tar")] == [path.name]
    shards = ingest(tmp_path, {"source": {"kind": "webdataset", "urls": str(tmp_path / "in")}})
    assert shards.splits == {"train": 2} and not rows(shards)
    assert tarfile.is_tarfile(path)


def test_objects_of_litter_are_left_aside_by_the_folder():
    there = [Entry(name, 3) for name in (".git/a.jpg", "a/@eaDir/x/1.jpg", "a/@eaDir/y.jpg", "a/b.jpg", "c/._d.jpg")]
    aside = LeftAside()
    assert [file.name for file in objects(there, aside)] == ["a/b.jpg"]
    assert aside.counts == {".git": 1, "@eaDir": 1, "._*": 1}


@pytest.mark.parametrize("urls", ["", "/*.tar", "/b.tar", "/{a,b}.tar"])
def test_a_tar_that_is_a_link_to_nothing_is_told(tmp_path, urls):
    packed(tmp_path / "in/a.tar", samples(0, 2))
    (tmp_path / "in/b.tar").symlink_to("../blobs/b")
    with pytest.raises(UsageError, match=r"files are links to nothing: .*/in/b.tar'"):
        find_files([f"{tmp_path}/in{urls}"], ".tar")
    assert [file.path for file in find_files([f"{tmp_path}/in"], ".tar", all_there=False)] == ["a.tar"]


@pytest.mark.parametrize(
    "start", [b"version https://git-lfs.github.com/spec/v1\noid", b"/annex/objects/MD5E-s9--0.tar"]
)
@pytest.mark.parametrize("kind", ["webdataset", "parquet", "folder"])
def test_a_pointer_to_what_was_not_fetched_is_told(tmp_path, start, kind):
    file = write(tmp_path / {"webdataset": "in/a.tar", "parquet": "in/a.parquet", "folder": "labels.csv"}[kind], start)
    root = photo_folder(tmp_path / "user", classes=1, per_class=1)
    settings = {"root": str(root), "labels": str(file)} if kind == "folder" else {"urls": str(file)}
    with pytest.raises(UsageError, match=r"the pointer of .* to a file that was not fetched"):
        ingest(tmp_path, {"source": {"kind": kind, **settings}})


@pytest.mark.parametrize("target", ["../.git/annex/objects/aa/SHA256E--x.jpg", "/nowhere/x.jpg", "gone.jpg"])
def test_a_link_to_nothing_is_set_aside(tmp_path, target):
    root = photo_folder(tmp_path / "user", classes=2, per_class=3)
    (root / "class-0/gone.jpg").symlink_to(target)
    shards = ingest(tmp_path, {"source": {"kind": "folder", "root": str(root)}})
    (bad,) = rows(shards)
    assert bad["source"] == "class-0/gone.jpg" and bad["reason"].startswith(f"a link to nothing: {target!r}")
    assert shards.splits == {"train": 6} and load_manifest(shards).source.listed == 7


def test_a_link_that_is_followed_later_is_another_file(tmp_path):
    root = photo_folder(tmp_path / "user", classes=1, per_class=2)
    (root / "class-0/later.jpg").symlink_to(tmp_path / "blob")
    source = FolderSource(kind="folder", root=str(root))
    was = source.open({}).inventory(source.open({}).listing())
    assert not compare(was, source.files_now(was).inventory).differs
    write(tmp_path / "blob", JPEG)
    assert compare(was, source.files_now(was).inventory).changed == 1
    assert not any(item.fault for item in source.open({}).listing().items)


def test_a_listed_link_to_nothing_is_set_aside(tmp_path):
    root = photo_folder(tmp_path / "user", classes=1, per_class=2)
    (root / "class-0/gone").symlink_to("/nowhere")
    labels = write(tmp_path / "labels.csv", b"path,label\nclass-0/000.png,cat\nclass-0/gone,cat\n")
    faults = {item.name: item.fault for item in opened(root, labels=str(labels)).listing().items}
    assert not faults["class-0/000.png"] and faults["class-0/gone"].startswith("a link to nothing")


def link(root):
    photo_folder(root, classes=2, per_class=1)
    (root / "class-9").symlink_to("/nowhere/class-9")


def split_folders(*empty):
    def make(root):
        for split in ("train", "test"):
            photo_folder(root / split, classes=2, per_class=1)
        for name in empty:
            (root / name).mkdir(parents=True)

    return make


@pytest.mark.parametrize(
    ("make", "splits", "found"),
    [
        (link, {}, "1 links in the place of folders lead to nothing: 'class-9'"),
        (split_folders("val"), "folders", "1 split folders hold no images: 'val'"),
        (split_folders("Validation", "val/@eaDir"), "folders", "2 split folders hold no images: 'Validation', 'val'"),
        (split_folders("val/class-0"), "folders", "1 class folders hold no images: 'val/class-0'"),
    ],
)
def test_folders_that_hold_nothing_are_refused(tmp_path, make, splits, found):
    make(tmp_path / "user")
    with pytest.raises(UsageError, match=found):
        opened(tmp_path / "user", splits).listing()


def test_a_folder_of_notes_is_no_split(tmp_path):
    split_folders("notes")(tmp_path / "user")
    assert {item.split for item in opened(tmp_path / "user", "folders").listing().items} == {"train", "test"}


def test_a_class_name_that_is_not_utf8_is_kept_and_told(tmp_path):
    root = photo_folder(tmp_path / "user", classes=1, per_class=2)
    os.rename(os.fsencode(root / "class-0"), os.fsencode(root) + b"/ros\xe9")
    shards = ingest(tmp_path, {"source": {"kind": "folder", "root": str(root)}})
    assert load_manifest(shards).classes == ("ros\udce9",)
    assert any("not UTF-8" in note and r"'ros\udce9'" in note for note in opened(root).listing().notes)
