"""Sources that changed after they were ingested: what `plan` and `run` say of each change, through the command line."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from command_line import Vitpipe, typed
from official_files import official, write_mnist
from photos import encoded, photo_folder, picture, write
from tars import samples, tar, tars
from tiny_stages import STAGES, in_process

from vitpipe.infra.storage.local import LocalStore
from vitpipe.pipeline.drive import runner
from vitpipe.pipeline.spec.catalog import CATALOG
from vitpipe.stages.ingest.sources import digits as digits_module
from vitpipe.stages.ingest.sources.inventory import INVENTORY, MARKS
from vitpipe.stages.seal import SEAL

Change = Callable[[Path], None]

SPEC = """\
version: 1
name: tiny
store: file://./runs
nodes:
  shards: {stage: ingest, config: {source: SOURCE}}
  sum: {stage: add, needs: {shards: shards}}
"""
FOLDER = "{kind: folder, root: ./user}"


@pytest.fixture
def vitpipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Vitpipe]:
    """Runs a command beside `tiny.yaml`, in this process; its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setitem(CATALOG, "add", STAGES["add"])
    real = runner.run

    def here(spec: Any, replacing: Any, ways: Any) -> runner.Outcome:
        return real(spec, replacing, replace(ways, connect=in_process, metrics_at=lambda: None))

    monkeypatch.setattr(runner, "run", here)

    yield typed(capsys)


def written(tmp_path: Path, source: str) -> None:
    (tmp_path / "tiny.yaml").write_text(SPEC.replace("SOURCE", source))


def planned(vitpipe: Vitpipe, *more: str) -> dict[str, Any]:
    code, out, err = vitpipe("plan", "tiny.yaml", "--json", *more)
    assert (code, err) == (0, "")
    return {node["node"]: node for node in json.loads(out)["nodes"]}


def records(tmp_path: Path) -> dict[str, bytes]:
    return {node: (tmp_path / "runs/tiny" / node / "record.json").read_bytes() for node in ("shards", "sum")}


def png(number: int) -> bytes:
    return encoded(picture(number), "PNG")


def same_size(path: Path) -> None:
    """Other content of the same length; the file's time moves on whatever the clock's step."""
    data = bytearray(path.read_bytes())
    data[min(600, len(data) - 1)] ^= 1
    before = path.stat()
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


def moved(user: Path) -> None:
    user.rename(user.with_name("there"))
    text = user.with_name("tiny.yaml").read_text()
    user.with_name("tiny.yaml").write_text(text.replace("./user", "./there"))


CHANGES: list[tuple[str, Change, str, str]] = [
    ("nothing", lambda user: None, "reuse", "is as it was ingested, 12 images"),
    ("the root moved", moved, "reuse", "is as it was ingested, 12 images"),
    ("another kind of file", lambda user: user.joinpath("class-0/notes.txt").write_text("x") and None, "reuse", ""),
    ("added", lambda user: write(user / "class-0/more.png", png(90)) and None, "drifted",
     "1 added, 0 gone, 0 changed of 12 images"),
    ("added outside the classes", lambda user: write(user / "stray.png", png(90)) and None, "drifted", "1 added"),
    ("removed", lambda user: (user / "class-1/002.png").unlink(), "drifted", "0 added, 1 gone, 0 changed"),
    ("replaced", lambda user: write(user / "class-1/002.png", png(90) + b"longer") and None, "drifted",
     "0 added, 0 gone, 1 changed of 12 images"),
    ("renamed", lambda user: (user / "class-1/002.png").rename(user / "class-1/x.png") and None, "drifted",
     "1 added, 1 gone, 0 changed"),
    ("class folder renamed", lambda user: (user / "class-1").rename(user / "class-9") and None, "drifted",
     "4 added, 4 gone, 0 changed"),
    ("replaced, of the same size", lambda user: same_size(user / "class-1/002.png"), "reuse",
     "1 of 12 images of"),
    ("the root is gone", lambda user: shutil.rmtree(user), "reuse", "was not looked at"),
    ("the root is empty", lambda user: [shutil.rmtree(path) for path in user.iterdir()] and None, "reuse",
     "was not looked at"),
]  # fmt: skip
LOUD = {"replaced, of the same size", "the root is gone", "the root is empty"}


@pytest.mark.parametrize(("name", "change", "action", "told"), CHANGES, ids=[name for name, *_ in CHANGES])
def test_what_became_of_a_folder(
    name: str, change: Change, action: str, told: str, tmp_path: Path, vitpipe: Vitpipe
) -> None:
    photo_folder(tmp_path / "user", per_class=4)
    written(tmp_path, FOLDER)
    assert vitpipe("run", "tiny.yaml")[0] == 0
    before = records(tmp_path)
    change(tmp_path / "user")

    shards = planned(vitpipe)["shards"]
    assert shards["action"] == action and told in shards["source"]
    code, out, err = vitpipe("run", "tiny.yaml")
    assert records(tmp_path) == before
    if action == "reuse":
        assert (code, err) == (0, "") and "0 of 2 nodes run" in out
        assert (shards["source"] in out) == (name in LOUD)
        return
    assert code == 3 and told in err
    assert all(remedy in err for remedy in ("another `name`", "--replace shards", "trust_source", "put the files back"))
    assert vitpipe("run", "tiny.yaml", "nodes.shards.resources.trust_source=true")[0] == 0
    trusting = ("run", "tiny.yaml", "nodes.shards.resources.trust_source=true")
    assert "shards: nothing to replace" in vitpipe(*trusting, "--replace", "shards")[1]
    assert "`--verify-sources` looks all the same" in vitpipe(*trusting, "--verify-sources")[2]
    assert records(tmp_path) == before
    if name == "added outside the classes":  # an ingest would not take it
        assert vitpipe("run", "tiny.yaml", "--replace", "shards")[0] == 2 and records(tmp_path) == before
        return
    code, out, err = vitpipe("run", "tiny.yaml", "--replace", "shards")
    assert (code, err) == (0, "") and "2 of 2 nodes run" in out
    kept = {node: (tmp_path / "runs/tiny" / node / "record.1.json").read_bytes() for node in before}
    assert kept == before and vitpipe("artifacts", "verify", "tiny.yaml")[0] == 0
    assert "0 of 2 nodes run" in vitpipe("run", "tiny.yaml", "--replace", "shards")[1]  # they agree now


def test_digests_tell_what_sizes_do_not(tmp_path: Path, vitpipe: Vitpipe) -> None:
    user = photo_folder(tmp_path / "user", per_class=4)
    write(user / "class-2/copy.png", (user / "class-0/000.png").read_bytes())
    write(user / "class-2/bad.png", b"no image")
    written(tmp_path, FOLDER)
    assert vitpipe("run", "tiny.yaml")[0] == 0

    shutil.copytree(user, tmp_path / "copied", copy_function=shutil.copy)  # another time for every file
    source = planned(vitpipe, "nodes.shards.config.source.root=./copied")["shards"]["source"]
    where = f"{tmp_path}/copied, ingested from {user}"
    assert f"14 of 14 images of {where} have the size they had and another time: 'class-0/000.png', " in source
    found = planned(vitpipe, "nodes.shards.config.source.root=./copied", "--verify-sources")["shards"]
    assert found["action"] == "reuse" and "14 images of" in found["source"] and "by digest" in found["source"]

    same_size(user / "class-1/002.png")
    code, out, _ = vitpipe("run", "tiny.yaml", "--json")
    assert code == 0 and "1 of 14 images" in json.loads(out)["nodes"][0]["source"]
    code, out, err = vitpipe("run", "tiny.yaml", "--verify-sources")
    assert code == 3 and "0 added, 0 gone, 1 changed of 14 images" in err and "'class-1/002.png'" in err
    assert "--replace shards --verify-sources" in err
    code, out, err = vitpipe("run", "tiny.yaml", "--replace", "shards", "--verify-sources")
    assert (code, err) == (0, "") and "2 of 2 nodes run" in out
    same_size(user / "class-2/copy.png")  # left out as equal: its digest is known all the same
    assert vitpipe("run", "tiny.yaml", "--verify-sources")[0] == 3


def labelled(tmp_path: Path) -> str:
    for number in range(6):
        write(tmp_path / f"user/{number}.png", png(number))
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(5)))
    return "{kind: folder, root: ./user, labels: ./labels.csv}"


def relabelled(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(path.read_text().replace("4.png,a", "4.png,b"))


def line_more(tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("\n")


def folder_of_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "labels.csv").mkdir()


def labels_and_image_gone(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "user/0.png").unlink()


def in_a_circle(tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "user/class-0/loop")
    (tmp_path / "user/class-1/000.png").unlink()


def limited(tmp_path: Path) -> str:
    photo_folder(tmp_path / "user", per_class=4)
    return "{kind: folder, root: ./user, limit: 5, subset: {fraction: 0.9}}"


def drawn(tmp_path: Path, wanted: bool) -> Path:
    """An image that is, or is not, in the part that was ingested."""
    store = LocalStore(tmp_path / "runs/tiny/shards")
    index = json.loads(store.read("a1/train-000000.index"))
    assert len(index["source"]) == 5
    return next(
        path for path in sorted((tmp_path / "user").rglob("*.png"))
        if (path.relative_to(tmp_path / "user").as_posix() in index["source"]) == wanted
    )  # fmt: skip


def packed(tmp_path: Path) -> str:
    tars(tmp_path / "in")
    return "{kind: webdataset, urls: './in/in-{000000..000002}.tar', classes: 3}"


def tables(tmp_path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number in range(2):
        images = [encoded(picture(10 * number + row), "JPEG") for row in range(4)]
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1]}), tmp_path / f"in/{number}.parquet")
    return "{kind: parquet, urls: ./in}"


def mnist(tmp_path: Path) -> str:
    (tmp_path / "user").mkdir()
    write_mnist(tmp_path / "user", 20, 10)
    return "{kind: benchmark, name: mnist, root: ./user}"


def digits(tmp_path: Path) -> str:
    return "{kind: digits, limit: 20}"


LATER: list[tuple[str, Callable[[Path], str], Callable[[Path], Any], str, str]] = [
    ("a label", labelled, relabelled, "drifted", "source: the labels file: changed; 0 added, 0 gone, 0 changed of 5"),
    ("a line's end", labelled, line_more, "reuse", "the labels file: changed, but means the same"),
    ("labels gone", labelled, lambda at: shutil.move(at / "labels.csv", at / "x.csv"), "drifted",
     "the labels file: gone; 0 added, 0 gone, 0 changed of 5"),
    ("labels gone, and an image", labelled, labels_and_image_gone,
     "drifted", "the labels file: gone; 0 added, 1 gone, 0 changed of 5 images"),
    ("labels in another code", labelled, lambda at: (at / "labels.csv").write_bytes(b"path,label\n0.png,\xff\n"),
     "drifted", "the labels file: changed; 0 added"),
    ("labels a folder", labelled, folder_of_labels, "drifted", "the labels file: changed; 0 added"),
    ("links in a circle", lambda at: photo_folder(at / "user") and FOLDER,
     in_a_circle, "drifted",
     "0 added, 1 gone, 0 changed of 24 images"),
    ("an image without a label", labelled, lambda at: write(at / "user/9.png", png(9)), "reuse", "5 images"),
    ("a labelled image gone", labelled, lambda at: (at / "user/0.png").unlink(), "drifted", "0 added, 1 gone"),
    ("an image beside the part", limited, lambda at: drawn(at, False).unlink(), "reuse", "5 images"),
    ("an image of the part", limited, lambda at: drawn(at, True).unlink(), "drifted", "1 added, 1 gone"),
    ("a tar more", packed, lambda at: tar(at / "in/in-000003.tar", samples(90, 2)), "reuse", "3 files"),
    ("a tar gone", packed, lambda at: (at / "in/in-000001.tar").unlink(), "drifted", "0 added, 1 gone, 0 changed of 3"),
    ("another tar", packed, lambda at: tar(at / "in/in-000001.tar", samples(90, 9)), "drifted", "1 changed of 3 files"),
    ("all tars gone", packed, lambda at: shutil.rmtree(at / "in"), "reuse", "not looked at"),
    ("a tar of the same size", packed, lambda at: same_size(at / "in/in-000001.tar"), "reuse", "1 of 3 files"),
    ("a table more", tables, lambda at: shutil.copy(at / "in/0.parquet", at / "in/2.parquet"), "drifted", "1 added"),
    ("an official file", mnist, lambda at: (at / "user/train-labels-idx1-ubyte.gz").write_bytes(b"x"), "drifted",
     "0 added, 0 gone, 1 changed of 4 files"),
    ("an official file gone", mnist, lambda at: (at / "user/train-labels-idx1-ubyte.gz").unlink(), "drifted", "1 gone"),
    ("a file beside the official", mnist, lambda at: write(at / "user/readme.txt", b"x"), "reuse", "4 files"),
    ("other digits", digits, lambda at: write(at / "digits.csv.gz", b"another"), "drifted", "digits.csv.gz: changed"),
    ("no digits", digits, lambda at: None, "reuse", "which brings them"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "change", "action", "told"), LATER, ids=[name for name, *_ in LATER])
def test_what_became_of_other_sources(
    name: str, make: Callable[[Path], str], change: Callable[[Path], Any], action: str, told: str,
    tmp_path: Path, vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    written(tmp_path, make(tmp_path))
    if make is mnist:
        official(monkeypatch, "mnist", tmp_path / "user", {"train": 20, "test": 10})
    assert vitpipe("run", "tiny.yaml")[0] == 0
    if make is digits:
        monkeypatch.setattr(digits_module, "SCIKIT_LEARN_DIGITS", (tmp_path / "digits.csv.gz").as_posix())
    change(tmp_path)

    shards = planned(vitpipe)["shards"]
    assert shards["action"] == action and told in shards["source"]
    assert vitpipe("run", "tiny.yaml")[0] == (3 if action == "drifted" else 0)
    if "same size" in name:
        code, _, err = vitpipe("run", "tiny.yaml", "--verify-sources")
        assert code == 3 and "1 changed of 18 images" in err


def of_an_earlier_version(tmp_path: Path, **changed: object) -> None:
    """The records as a version wrote them that knew neither seals nor inventories."""
    shards, taker = (tmp_path / "runs/tiny" / node / "record.json" for node in ("shards", "sum"))
    fields = {**json.loads(shards.read_text()), "schema": 1, **changed}
    fields.pop(SEAL, None)
    fields["files"] = [file for file in fields["files"] if file["path"] != INVENTORY]
    shards.write_text(json.dumps(fields))
    took = {**json.loads(taker.read_text()), "schema": 1}
    took.pop(SEAL, None)
    took["inputs"]["shards"][0]["record_sha256"] = sha256(shards.read_bytes()).hexdigest()
    taker.write_text(json.dumps(took))


@pytest.mark.parametrize("make", [lambda at: photo_folder(at / "user") and FOLDER, packed, mnist, digits])
def test_shards_of_earlier_versions_are_compared_as_far_as_they_tell(
    make: Callable[[Path], str], tmp_path: Path, vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, make(tmp_path))
    if make is mnist:
        official(monkeypatch, "mnist", tmp_path / "user", {"train": 20, "test": 10})
    assert vitpipe("run", "tiny.yaml")[0] == 0
    of_an_earlier_version(tmp_path)
    assert planned(vitpipe)["shards"]["action"] == "reuse"
    found = planned(vitpipe, "--verify-sources")["shards"]
    assert found["action"] == "reuse" and "by digest" in found["source"]
    if make is digits:
        monkeypatch.setattr(digits_module, "LEVELS", 15)
        of_an_earlier_version(tmp_path, versions={"pillow": "1.0"})
        found = planned(vitpipe, "--verify-sources")["shards"]
        assert (
            "0 added, 0 gone, 20 changed of 20 images" in found["source"] and "pillow 1.0, here is" in found["source"]
        )
        return
    victim = next(path for folder in ("user", "in") for path in sorted((tmp_path / folder).rglob("*.*")) if path)
    if "class" in str(victim):
        victim.unlink()
        found = planned(vitpipe)["shards"]
        assert found["action"] == "drifted" and "other names, sizes or classes" in found["source"]
    else:
        same_size(victim)
        assert planned(vitpipe)["shards"]["action"] == "reuse"
    assert planned(vitpipe, "--verify-sources")["shards"]["action"] == "drifted"
    shutil.rmtree(victim.parent.parent if "class" in str(victim) else victim.parent)
    assert "not looked at" in planned(vitpipe, "--verify-sources")["shards"]["source"]


def test_what_is_damaged_or_lost_of_an_inventory_is_told(tmp_path: Path, vitpipe: Vitpipe) -> None:
    photo_folder(tmp_path / "user", per_class=2)
    written(tmp_path, FOLDER)
    assert vitpipe("run", "tiny.yaml")[0] == 0
    attempt = tmp_path / "runs/tiny/shards/a1"
    assert vitpipe("gc", "tiny.yaml")[0] == 0 and (attempt / MARKS).is_file()
    for damage, words in (
        (lambda: (attempt / MARKS).write_bytes(b"cut"), "the times that they had are damaged"),
        (lambda: (attempt / MARKS).unlink(), "the times that they had are lost"),
    ):
        damage()
        code, out, _ = vitpipe("run", "tiny.yaml")
        assert code == 0 and "0 of 2 nodes run" in out and words in out
    whole = (attempt / INVENTORY).read_bytes()
    for data in (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], b"cut", None):
        (attempt / INVENTORY).write_bytes(data) if data else (attempt / INVENTORY).unlink()
        assert planned(vitpipe)["shards"]["action"] == "blocked"
        for more in ((), ("--replace", "shards")):
            code, _, err = vitpipe("run", "tiny.yaml", *more)
            assert code == 8 and INVENTORY in err and "runs/tiny/shards" in err and "vitpipe artifacts verify" in err
        assert vitpipe("artifacts", "verify", "tiny.yaml")[0] == 8
    (attempt / INVENTORY).write_bytes(whole)
    index = attempt / "train-000000.index"
    index.write_bytes(index.read_bytes().replace(b'"width":[20', b'"width":[21'))
    assert vitpipe("run", "tiny.yaml", "--verify-sources")[0] == 8


def kept_back(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """For the superuser, who runs tests too, no mode keeps anything back."""
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("more", ["", ", limit: 10"])
def test_what_can_be_compared_is_where_a_folder_is_kept_back(
    more: str, tmp_path: Path, vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = photo_folder(tmp_path / "user", per_class=4)
    written(tmp_path, FOLDER.replace("}", more + "}"))
    assert vitpipe("run", "tiny.yaml")[0] == 0
    kept_back(monkeypatch, user / "class-1")
    for options in ((), ("--verify-sources",)):
        code, out, err = vitpipe("run", "tiny.yaml", *options)
        assert (code, err) == (0, "") and "as far as it can be seen" in out
        assert "not looked at: class-1/: Permission denied" in out and "--replace" not in out
    write(user / "class-0/000.png", png(90) + b"longer")
    write(user / "class-2/000.png", png(91) + b"longer")
    code, _, err = vitpipe("run", "tiny.yaml")
    assert code == 3 and "not looked at: class-1/: Permission denied" in err and " 0 gone, " in err
    (tmp_path / "tiny.yaml").write_text((tmp_path / "tiny.yaml").read_text().replace("name: tiny", "name: other"))
    assert planned(vitpipe)["shards"]["action"] == "blocked"
    code, _, err = vitpipe("run", "tiny.yaml")
    assert code == 7 and "user/class-1/ cannot be listed: Permission denied" in err


def test_an_image_that_cannot_be_read_is_not_called_changed(
    tmp_path: Path, vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = photo_folder(tmp_path / "user", per_class=4)
    written(tmp_path, FOLDER)
    assert vitpipe("run", "tiny.yaml")[0] == 0
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path == user / "class-1/002.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    code, out, err = vitpipe("run", "tiny.yaml", "--verify-sources")
    assert (code, err) == (0, "") and "11 of 12 images of" in out
    assert "1 could not be read: 'class-1/002.png'" in out
    data = bytearray(real(user / "class-0/000.png"))
    data[60] ^= 1
    (user / "class-0/000.png").write_bytes(bytes(data))
    code, _, err = vitpipe("run", "tiny.yaml", "--verify-sources")
    assert code == 3 and "0 added, 0 gone, 1 changed of 12" in err and "1 could not be read: 'class-1/002.png'" in err
