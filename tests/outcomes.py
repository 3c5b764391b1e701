"""What becomes of files as others write them: each in a source of its own, ingested, as a row of the how-to page."""

import gzip
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from class_tars import class_folder, class_tars, outer
from photos import contents, encoded, ingest, picture, write
from PIL import Image, PngImagePlugin
from tars import tar

from vitpipe.infra.errors import VitpipeError
from vitpipe.stages.images.manifest import load_manifest

JPEG = encoded(picture(1), "JPEG")
OTHER = encoded(picture(2), "JPEG")
PLAIN = "path,label\na/1.jpg,cat\nb/2.jpg,dog\n"
Make = Callable[[Path], Mapping[str, Any]]


class Case(NamedTuple):
    """A row: what somebody has, and what makes it below a folder; it gives the fields of the ingest."""

    words: str
    make: Make


def outcome(case: Case, folder: Path) -> str:
    """What becomes of it, in words: read, set aside, or refused, with what is said."""
    config = {"source": {}, **case.make(folder / "in")}
    try:
        shards = ingest(folder, {"bad_image_budget": 10, **config})
    except VitpipeError as error:
        return f"refused: {_neutral(error.found, folder)}"
    classes = ", ".join(load_manifest(shards).classes)
    count = sum(shards.splits.values())
    read = f"read: {count} image{'s' * (count != 1)}" + (f" of {classes}" if classes else ", no classes")
    aside = [json.loads(line)["reason"] for line in contents(shards)["quarantine.jsonl"].splitlines()]
    return read + "".join(f"; set aside: {_neutral(reason, folder)}" for reason in aside)


def table(cases: tuple[Case, ...], folder: Path) -> list[str]:
    """The rows of a page."""
    found = [(case.words, outcome(case, folder / str(number))) for number, case in enumerate(cases)]
    return ["| you have | it is |", "|---|---|", *(f"| {words} | {_cell(text)} |" for words, text in found)]


def _neutral(text: str, folder: Path) -> str:
    """Without what differs from machine to machine."""
    return re.sub(rf"(file://)?{re.escape(f'{folder}/in')}|\d+ of \d+(?= bytes)", "...", text)


def _cell(text: str) -> str:
    shown = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return shown.replace("|", "\\|").replace("<", "&lt;")


def tree(files: Mapping[str, bytes], **config: Any) -> Make:
    """A folder source of one class a folder: two cats and a dog, and these files."""

    def make(root: Path) -> Mapping[str, Any]:
        for name, data in {"cat/1.jpg": JPEG, "cat/2.jpg": OTHER, "dog/3.jpg": encoded(picture(3), "JPEG")}.items():
            write(root / name, data)
        for name, data in files.items():
            write(root / name, data)
        return {"source": {"kind": "folder", "root": str(root)}, **config}

    return make


def linked(name: str, target: str) -> Make:
    """The tree with a link in it."""

    def make(root: Path) -> Mapping[str, Any]:
        made = tree({})(root)
        (root / name).symlink_to(target)
        return made

    return make


def split_folders(*names: str, empty: str = "", **config: Any) -> Make:
    """A tree of such folders, each with the classes below it."""

    def make(root: Path) -> Mapping[str, Any]:
        for number, name in enumerate(names):
            write(root / name / "cat/1.jpg", encoded(picture(10 + number), "JPEG"))
            write(root / name / "dog/2.jpg", encoded(picture(20 + number), "JPEG"))
        if empty:
            (root / empty).mkdir(parents=True)
        return {"source": {"kind": "folder", "root": str(root)}, **config}

    return make


def labels(data: str | bytes, name: str = "labels.csv") -> Make:
    """Two images, one without a suffix, with a file of labels."""

    def make(root: Path) -> Mapping[str, Any]:
        for path, image in {"a/1.jpg": JPEG, "b/2.jpg": OTHER, "b/bare": encoded(picture(3), "JPEG")}.items():
            write(root / "images" / path, image)
        written = write(root / name, data.encode() if isinstance(data, str) else data)
        return {"source": {"kind": "folder", "root": str(root / "images"), "labels": str(written)}}

    return make


def members(*files: tuple[str, bytes], cut: int = 0, **source: Any) -> Make:
    """A tar of these members."""

    def make(root: Path) -> Mapping[str, Any]:
        path = tar(root / "a.tar", list(files))
        if cut:
            path.write_bytes(path.read_bytes()[:cut])
        return {"source": {"kind": "webdataset", "urls": str(path), **source}}

    return make


def packed(form: str) -> Make:
    """Tars of one class each, in one of the forms in which they are shipped."""

    def make(root: Path) -> Mapping[str, Any]:
        tars = class_tars(class_folder(root / "folder", classes=2, each=2), root / "tars")
        places = {
            "tars": lambda: tars,
            "tar of tars": lambda: outer(tars, root / "all.tar"),
            "packed": lambda: outer(tars, root / "all.tar.gz"),
            "tree": lambda: outer(root / "folder", root / "tree.tar", "images"),
        }
        return {"source": {"kind": "class_tars", "urls": str(places[form]())}}

    return make


def columns(*named: tuple[str, Any], **source: Any) -> Make:
    """A parquet file of two rows with these columns."""

    def make(root: Path) -> Mapping[str, Any]:
        write(root / "a/1.jpg", JPEG)
        write(root / "a/2.jpg", OTHER)
        file = pa.Table.from_arrays([pa.array(values) for _, values in named], names=[name for name, _ in named])
        pq.write_table(file, root / "a.parquet")
        return {"source": {"kind": "parquet", "urls": str(root / "a.parquet"), **source}}

    return make


def png(text: bytes = b"", orientation: int = 0) -> bytes:
    """A picture with a long text, or with its orientation behind the pixels."""
    about, file = PngImagePlugin.PngInfo(), io.BytesIO()
    if text:
        about.add_text("note", text.decode())
    picture(7).save(file, "PNG", pnginfo=about)
    data = file.getvalue()
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        chunk = io.BytesIO()
        PngImagePlugin.putchunk(chunk, b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        data = data[:-12] + chunk.getvalue() + data[-12:]
    return data


def with_junk() -> bytes:
    """A JPEG with stray bytes before a marker, as some cameras leave them."""
    data = encoded(picture(8), "JPEG")
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\0\0\0" + data[at:]


NAMES = pa.array(["cat", "dog"])
IMAGES = pa.array([JPEG, OTHER], pa.binary())
CASES: dict[str, tuple[Case, ...]] = {
    "folders": (
        Case("`@eaDir`, `__MACOSX`, `Thumbs.db`, `.DS_Store`, `._*` among the images",
             tree({"cat/@eaDir/1.jpg": JPEG, "__MACOSX/cat/._1.jpg": b"x", "dog/Thumbs.db": b"x", ".DS_Store": b"x"})),
        Case("a link to nothing (git-annex, DVC, the Hub's cache)", linked("cat/4.jpg", "../.git/annex/objects/x.jpg")),
        Case("a link to nothing where a class should be", linked("owl", "/mnt/photos/owl")),
        Case("the pointer of Git LFS in place of an image",
             tree({"cat/4.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"})),
        Case("a GIF called `.jpg`", tree({"cat/4.jpg": encoded(picture(4), "GIF")})),
        Case("a PNG called `.jpg`", tree({"cat/4.jpg": encoded(picture(4), "PNG")})),
        Case("a JPEG with stray bytes before a marker", tree({"cat/4.jpg": with_junk()})),
        Case("a PNG with 2 MB of text", tree({"cat/4.png": png(b"x" * 2_000_000)})),
        Case("a PNG with its orientation behind the pixels: turned upright", tree({"cat/4.png": png(orientation=6)})),
        Case("half a JPEG", tree({"cat/4.jpg": JPEG[: len(JPEG) // 2]})),
        Case("an empty file", tree({"cat/4.jpg": b""})),
        Case("an image beside the class folders", tree({"4.jpg": encoded(picture(4), "JPEG")})),
        Case("`train` and `val` around classes, `splits: folders`", split_folders("train", "val", splits="folders")),
        Case("the same with an empty `test`", split_folders("train", "val", empty="test", splits="folders")),
        Case("`splits: folders` without folders of splits", split_folders("a", "b", splits="folders")),
    ),
    "tables of labels": (
        Case("`path,label`, comma", labels(PLAIN)),
        Case("semicolons", labels(PLAIN.replace(",", ";"))),
        Case("tabs, as `.tsv` or `.csv`", labels(PLAIN.replace(",", "\t"), "labels.tsv")),
        Case("a byte-order mark, as Excel writes it", labels(b"\xef\xbb\xbf" + PLAIN.encode())),
        Case("UTF-16 with its mark", labels(PLAIN.encode("utf-16"))),
        Case("UTF-16 without", labels(PLAIN.encode("utf-16-le"))),
        Case("Latin-1", labels(PLAIN.replace("cat", "ros\xe9").encode("latin-1"))),
        Case("`.csv.gz`", labels(gzip.compress(PLAIN.encode()), "labels.csv.gz")),
        Case("`.xlsx`", labels(b"PK\x03\x04" + bytes(40), "labels.xlsx")),
        Case("`Filename` and `LABEL` as columns", labels(PLAIN.replace("path,label", "Filename,LABEL"))),
        Case("both `filename` and `image`", labels("filename,image,label\na/1.jpg,a/1.jpg,cat\n")),
        Case("`./a/1.jpg`", labels(PLAIN.replace("a/1", "./a/1"))),
        Case("backslashes", labels(PLAIN.replace("/", "\\"))),
        Case("a path outside of `root`", labels("path,label\n/elsewhere/1.jpg,cat\n")),
        Case("an image that is not there", labels("path,label\na/9.jpg,cat\n")),
        Case("the suffix left out", labels("path,label\na/1,cat\n")),
        Case("a file that has no suffix", labels("path,label\nb/bare,cat\n")),
        Case("a field more than the header has", labels("path,label\na/1.jpg,cat,extra\n")),
        Case("one image twice", labels("path,label\na/1.jpg,cat\n./a/1.jpg,dog\n")),
        Case("a line break inside a quoted name", labels('path,label\na/1.jpg,"one\nname"\n')),
        Case("JSON lines with `file_name`", labels('{"file_name": "a/1.jpg", "label": "cat"}\n', "metadata.jsonl")),
        Case("a label of 2.0", labels('{"path": "a/1.jpg", "label": 2.0}\n', "labels.jsonl")),
        Case("a label of 2.5", labels('{"path": "a/1.jpg", "label": 2.5}\n', "labels.jsonl")),
        Case("several classes", labels('path,labels\na/1.jpg,"cat;dog"\nb/2.jpg,dog\n')),
    ),
    "tars of samples": (
        Case("`cls` with a number", members(("0.jpg", JPEG), ("0.cls", b"7"))),
        Case("`cls` with a byte-order mark", members(("0.jpg", JPEG), ("0.cls", b"\xef\xbb\xbf7\r\n"))),
        Case("`cls` with a name", members(("0.jpg", JPEG), ("0.cls", b"cat"))),
        Case("no label", members(("0.jpg", JPEG), ("1.jpg", OTHER))),
        Case("no label, `labels: none`", members(("0.jpg", JPEG), ("1.jpg", OTHER), labels="none")),
        Case("img2dataset's `txt` and `json`, `labels: none`, `keep: [txt, json]`",
             members(("0.jpg", JPEG), ("0.txt", b"a cat"), ("0.json", b"{}"), labels="none", keep=["txt", "json"])),
        Case("a tar that was cut", members(("0.jpg", JPEG), ("0.cls", b"7"), ("1.jpg", OTHER), cut=3500)),
    ),
    "tars of one class each": (
        Case("a folder of them (ImageNet-21k, winter21)", packed("tars")),
        Case("one tar of them (fall11)", packed("tar of tars")),
        Case("the same as `.tar.gz`", packed("packed")),
        Case("one tar of class folders", packed("tree")),
    ),
    "parquet": (
        Case("bytes, and a name as label", columns(("image", IMAGES), ("label", ["cat", "dog"]))),
        Case("the Hub's struct of bytes and path",
             columns(("image", [{"bytes": JPEG, "path": None}, {"bytes": OTHER, "path": None}]), ("label", [0, 1]))),
        Case("paths alone, beside the file", columns(("image", ["a/1.jpg", "a/2.jpg"]), ("label", ["cat", "dog"]))),
        Case("a path that leads nowhere", columns(("image", ["a/1.jpg", "a/9.jpg"]), ("label", ["cat", "dog"]))),
        Case("`binary_view`, dictionaries",
             columns(("image", IMAGES.cast(pa.binary_view())), ("label", NAMES.dictionary_encode()))),
        Case("`label: meta.label`",
             columns(("image", IMAGES), ("meta", [{"label": "cat"}, {"label": "dog"}]), label="meta.label")),
        Case("labels of 2.0", columns(("image", IMAGES), ("label", [2.0, 1.0]))),
        Case("labels of 2.5", columns(("image", IMAGES), ("label", [2.5, 1.0]))),
        Case("two columns called `label`", columns(("image", IMAGES), ("label", [0, 1]), ("label", [1, 0]))),
        Case("another name for the column", columns(("img", IMAGES), ("label", [0, 1]))),
        Case("the same with `image: img`", columns(("img", IMAGES), ("label", [0, 1]), image="img")),
    ),
}  # fmt: skip
"""Tables of the page by their heading."""
