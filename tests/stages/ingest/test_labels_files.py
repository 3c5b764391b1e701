"""Files of labels as spreadsheets, databases and other people write them: each row is of the image that it means."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from photos import encoded, ingest, picture, write

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.ingest.sources.folder import FolderSource
from vitpipe.stages.ingest.sources.inventory import compare

PLAIN = "path,label\na/1.png,cat\nb/2.png,dog\n"
WANTED = {"a/1.png": ("cat",), "b/2.png": ("dog",)}


@pytest.fixture
def root(tmp_path):
    for name in ("a/1.png", "b/2.png", "b/bare", "b/ros\u0065\u0301.png", "b/\xfc.png"):
        write(tmp_path / "root" / name, encoded(picture(len(name)), "PNG"))
    return tmp_path / "root"


def listed(root, data, name="labels.csv"):
    """Classes by image, as the source lists them."""
    labels = write(root.parent / name, data if isinstance(data, bytes) else data.encode())
    listing = FolderSource(kind="folder", root=str(root), labels=str(labels)).open({}).listing()
    return {item.name: tuple(listing.classes[label] for label in item.labels) for item in listing.items}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("utf8 mark.csv", b"\xef\xbb\xbf" + PLAIN.encode()),
        ("utf16.csv", PLAIN.encode("utf-16")),
        ("utf16 big.csv", b"\xfe\xff" + PLAIN.encode("utf-16-be")),
        ("utf16 tabs.csv", PLAIN.replace(",", "\t").encode("utf-16")),
        ("utf32.csv", PLAIN.encode("utf-32")),
        ("semicolons.csv", PLAIN.replace(",", ";")),
        ("tabs.tsv", PLAIN.replace(",", "\t")),
        ("tabs.csv", PLAIN.replace(",", "\t")),
        ("LOUD.CSV", PLAIN),
        ("bars.csv", PLAIN.replace(",", "|")),
        ("sep.csv", "sep=;\n" + PLAIN.replace(",", ";")),
        ("packed.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)),
        (
            "packed.jsonl.gz",
            gzip.compress(b'{"path": "a/1.png", "label": "cat"}\n{"path": "b/2.png", "label": "dog"}', mtime=0),
        ),
        ("crlf.csv", PLAIN.replace("\n", "\r\n")),
        ("cr.csv", PLAIN.replace("\n", "\r")),
        ("case.csv", PLAIN.replace("path,label", " Path ,LABEL")),
        ("spaces.csv", 'path, label\na/1.png, cat\nb/2.png, "dog"\n'),
        ("dots.csv", PLAIN.replace("a/1", "./a/1").replace("b/2", ".//b/./2")),
        ("windows.csv", PLAIN.replace("/", "\\")),
        ("blank rows.csv", PLAIN + ",\n\n,\n"),
        ("more columns.csv", "Id;File Name;label;\n7;a/1.png;cat;\n8;b/2.png;dog;\n"),
        *((f"{name}.csv", PLAIN.replace("path", name)) for name in ("file_name", "filename", "image", "Image Path")),
        ("path first.csv", "filename,path,label\n1.png,a/1.png,cat\n2.png,b/2.png,dog\n"),
        ("hub.jsonl", '{"file_name": "a/1.png", "label": "cat"}\n{"file_name": "b/2.png", "label": "dog"}\n'),
        ("mark.jsonl", b'\xef\xbb\xbf{"path": "a/1.png", "label": "cat"}\r\n{"path": "./b/2.png", "label": "dog"}\r\n'),
    ],
)
def test_a_file_is_read_as_it_is_meant(root, name, data):
    assert listed(root, data, name) == WANTED


@pytest.mark.parametrize("form", ["{root}/a/1.png", "file://{root}/a/1.png", "{link}/a/1.png"])
def test_absolute_paths_below_the_root(root, tmp_path, form):
    (tmp_path / "link").symlink_to(root)
    path = form.format(root=root, link=tmp_path / "link")
    linked = FolderSource(kind="folder", root=str(tmp_path / "link"), labels=str(root))
    labels = write(tmp_path / "labels.csv", f"path,label\n{path},cat\n".encode())
    tree = FolderSource(kind="folder", root=linked.root, labels=str(labels)).open({})
    assert [item.name for item in tree.listing().items] == ["a/1.png"]


@pytest.mark.parametrize("path", ["b/ros\u0065\u0301.png", "b/ros\xe9.png", "b/u\u0308.png"])
def test_either_unicode_form_names_the_file(root, path):
    assert list(listed(root, f"path,label\n{path},cat\n").values()) == [("cat",)]


def test_a_name_is_that_of_one_file(root):
    """As it stands before all else; of two files that one path could mean neither is taken."""
    for name in (" a/1.png", "a\\1.png", "b/ros\xe9.png"):
        write(root / name.lstrip("/"), b"other")
    assert listed(root, "path,label\n a/1.png,x\na/1.png,y\na\\1.png,z\n") == {
        " a/1.png": ("x",), "a/1.png": ("y",), "a\\1.png": ("z",),
    }  # fmt: skip
    (root / "b/ros\xe9.png").rename(root / "b/ROS\xe9.png")
    write(root / "b/e\u0323\u0307.png", b"one")
    write(root / "b/\u1eb9\u0307.png", b"other")
    with pytest.raises(UsageError, match="1 of 1 listed images are not below"):
        listed(root, "path,label\nb/e\u0307\u0323.png,cat\n")


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "a\x85b", 'say "hi"', "crane, bird", "a;b", "\u732b"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_class_keeps_its_whole_name(root, name, form):
    quoted = name.replace('"', '""')
    row = json.dumps({"path": "a/1.png", "label": name}, ensure_ascii=False)
    data = {"csv": f'path,label\na/1.png,"{quoted}"\n', "jsonl": row}[form]
    assert listed(root, data, f"a.{form}") == {"a/1.png": (name,)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=12),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_whatever_a_csv_writer_writes_is_read_as_the_same_class(root, name, delimiter, encoding, quoting):
    assume(name.strip() and not name.strip().lstrip("+-")[:1].isdigit() and not name.startswith("\ufeff"))
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, quoting=quoting).writerows([["path", "label"], ["a/1.png", name]])
    assert listed(root, file.getvalue().encode(encoding)) == {"a/1.png": (name.strip(),)}


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("a.csv", 'path;labels\na/1.png;"cat;dog"\n', ("cat", "dog")),
        ("a.csv", 'path,labels\na/1.png,"[""dog"", ""cat""]"\n', ("cat", "dog")),
        ("a.csv", "path\tlabels\na/1.png\tcat;dog\n", ("cat", "dog")),
        ("a.jsonl", '{"path": "a/1.png", "label": 3.0}', ("3",)),
        ("a.jsonl", '{"path": "a/1.png", "labels": [2.0, 1]}', ("1", "2")),
    ],
)
def test_several_classes_and_whole_numbers(root, name, data, wanted):
    assert listed(root, data, name) == {"a/1.png": wanted}


def test_a_listed_file_needs_no_suffix(root, tmp_path):
    labels = write(tmp_path / "labels.csv", b"path,label\nb/bare,cat\na/1.png,dog\n")
    config = {"source": {"kind": "folder", "root": str(root), "labels": str(labels)}}
    shards = ingest(tmp_path, config)
    assert shards.splits == {"train": 2} and load_manifest(shards).classes == ("cat", "dog")
    assert sorted(shards.read_json("train-000000.index")["source"]) == ["a/1.png", "b/bare"]


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.csv", "path,label\na/1.png,cat,extra\n", "line 2 has 3 fields, and the file 2 columns"),
        ("a.csv", "path;label\na/1.png;cat;extra\n", "line 2 has 3 fields, and the file 2 columns"),
        ("a.csv", "path\tlabel\na/1.png\tcat\textra\n", "line 2 has 3 fields, and the file 2 columns"),
        ("a.csv", "filename,image,label\na/1.png,a/1.png,cat\n", "'filename', 'image' may each be meant as 'path'"),
        ("a.csv", "Path,PATH,label\na/1.png,a/1.png,cat\n", "'Path', 'PATH' may each be meant as 'path'"),
        ("a.csv", "path,label\na/1.png,cat\n./a/1.png,dog\n", "'./a/1.png' is listed twice, before as 'a/1.png'"),
        ("a.csv", "path,label\nb/bare.png,cat\n", r"1 of 1 listed.*\(there is 'b/bare'\)"),
        ("a.csv", "path,label\nA/1,cat\n", r"1 of 1 listed.*\(there is 'a/1.png'\)"),
        ("a.csv", "path,label\n.a/1.png,cat\n", "what is hidden.*is left aside"),
        ("a.csv", "path,label\n/elsewhere/a/1.png,cat\n", "has to begin with `root`"),
        ("a.csv", "path,label\n/a/1.png,cat\n", "has to begin with `root`"),
        ("a.csv", "path,label\nC:\\photos\\a\\1.png,cat\n", "has to begin with `root`"),
        ("a.csv", "path,label\nhttps://x/a/1.png,cat\n", "has to begin with `root`"),
        ("a.csv", "path,label\na/../a/1.png,cat\n", "1 of 1 listed images are not below"),
        ("a.csv", "path,labels\na/1.png,\"['cat', 'dog']\"\n", "line 2 has the labels .*neither JSON nor parted"),
        ("a.csv", PLAIN.encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        ("a.csv", PLAIN.replace("cat", "ros\xe9").encode("latin-1"), "it is not UTF-8"),
        ("a.csv", b"PK\x03\x04" + bytes(40), "a zip file, as a spreadsheet's own are"),
        ("a.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)[:-6], "a damaged gzip file"),
        ("a.xlsx", b"PK\x03\x04" + bytes(40), "a zip file"),
        ("a.csv", b"", "its columns are missing"),
        ("a.csv", "sep=;\npath;label\na/1.png;cat\nb/2.png;dog;x\n", "line 4 has 3 fields"),
        ("a.jsonl", '{"path": "a/1.png", "label": 3.5}', "line 1 has the label 3.5"),
        ("a.jsonl", '{"path": "a/1.png", "label": 1e300}', "line 1 has the label"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(root, name, data, found):
    with pytest.raises(UsageError, match=f"(?s){found}"):
        listed(root, data, name)


def test_a_listed_file_without_suffix_is_looked_at_again(root, tmp_path):
    labels = write(tmp_path / "labels.csv", b"path,label\nb/bare,cat\na/1.png,dog\n")
    source = FolderSource(kind="folder", root=str(root), labels=str(labels))
    opened = source.open({})
    was = opened.inventory(opened.listing())
    assert list(was.names[place] for place in range(len(was))) == ["a/1.png", "b/bare"]
    now = source.files_now(was)
    assert not compare(was, now.inventory, now.is_closed).differs
    write(root / "b/bare", b"other")
    changed = source.files_now(was)
    assert compare(was, changed.inventory, changed.is_closed).changed == 1
