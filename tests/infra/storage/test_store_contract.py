"""What every store promises, asked of a real folder and of a real S3 server."""

import errno
import hashlib
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from vitpipe.infra.errors import AlreadyExists, Changed, IntegrityError, NotFound, StorageError, UsageError
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Digest, Entry, Store

PART = 8 << 20


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    uri = f"file://{tmp_path}/store" if request.param == "file" else request.getfixturevalue("s3_uri")
    return open_store(uri)


def digest(data: bytes) -> Digest:
    return Digest(len(data), hashlib.sha256(data).hexdigest())


def test_written_bytes_are_read_back_whole_and_in_ranges(store):
    data = bytes(range(200))
    assert store.write("a/b.bin", data) == digest(data)
    assert store.read("a/b.bin") == data
    assert store.read("a/b.bin", 10, 5) == data[10:15]
    assert store.read("a/b.bin", 190) == data[190:]
    assert store.read("a/b.bin", 195, 50) == data[195:], "a range ends where the object ends"
    assert store.read("a/b.bin", 200, 5) == b""
    assert store.read("a/b.bin", 900) == b""
    assert store.size("a/b.bin") == 200


def test_a_write_replaces(store):
    store.write("x", b"long content")
    store.write("x", b"new")
    assert store.read("x") == b"new"


def test_an_empty_object_is_an_object(store, tmp_path):
    store.write("empty", b"")
    assert store.read("empty") == b"" and store.size("empty") == 0
    assert store.read("empty", 0, 10) == b""
    assert store.download("empty", tmp_path / "empty", expect=digest(b"")) == digest(b"")
    assert store.upload(tmp_path / "empty", "again") == digest(b"")


def test_a_file_given_away_arrives_with_its_digest(store, tmp_path):
    data = bytes(1000)
    local = tmp_path / "local"
    local.write_bytes(data)
    assert store.upload(local, "deep/in/x", digest(data)) == digest(data)
    assert store.read("deep/in/x") == data
    local.write_bytes(b"the next one")
    assert store.read("deep/in/x") == data
    assert store.upload(local, "deep/in/x", digest(data)) == digest(b"the next one"), "what arrived is told"
    with pytest.raises(StorageError):
        store.upload(tmp_path / "nowhere", "y", digest(data))


def test_what_is_absent_is_not_found(store, tmp_path):
    assert store.size("no") is None
    for ask in (store.read, store.read_version, lambda path: store.download(path, tmp_path / "no")):
        with pytest.raises(NotFound, match="no"):
            ask("no")
    with pytest.raises(NotFound):
        store.read("no", 5, 5)
    store.delete("no")
    assert list(store.list()) == []
    assert not (tmp_path / "no").exists()


def test_a_folder_is_not_an_object(store):
    store.write("a/b", b"1")
    assert store.size("a") is None
    with pytest.raises(NotFound):
        store.read("a")


def test_create_succeeds_once(store):
    version = store.create("record.json", b"mine")
    with pytest.raises(AlreadyExists, match=r"record\.json"):
        store.create("record.json", b"theirs")
    assert store.read_version("record.json") == (b"mine", version)


def test_swap_needs_the_version_that_is_there(store):
    first = store.create("lease", b"1")
    second = store.swap("lease", b"2", first)
    with pytest.raises(Changed, match="lease"):
        store.swap("lease", b"3", first)
    assert store.read_version("lease") == (b"2", second)
    store.delete("lease")
    with pytest.raises(Changed):
        store.swap("lease", b"4", second)
    assert store.size("lease") is None


@pytest.mark.parametrize("verb", ["create", "swap"])
def test_of_many_at_once_one_wins(store, verb):
    version = store.create("swap", b"start")

    def attempt(who: int) -> str:
        data = f"writer {who}".encode()
        return store.create("create", data) if verb == "create" else store.swap("swap", data, version)

    with ThreadPoolExecutor(8) as pool:
        tries = [pool.submit(attempt, who) for who in range(8)]
    winners = [who for who, task in enumerate(tries) if task.exception() is None]
    losers = {type(task.exception()) for task in tries if task.exception()}
    assert len(winners) == 1
    assert losers == {AlreadyExists if verb == "create" else Changed}
    assert store.read_version(verb) == (f"writer {winners[0]}".encode(), tries[winners[0]].result())


def test_folders_are_named_without_what_lies_in_them(store):
    assert list(store.folders()) == []
    for path in ("b/x", "a/deep/y", "a/z", "ab/w", "file"):
        store.write(path, b"1")
    assert list(store.folders()) == ["a", "ab", "b"]
    assert list(store.child("a").folders()) == ["deep"]


def test_lists_by_string_prefix_sorted_by_path(store):
    for path in ("a/b", "a.txt", "a/a/c", "b", "ab/x", "a-1/z"):
        store.write(path, path.encode())
    everything = ["a-1/z", "a.txt", "a/a/c", "a/b", "ab/x", "b"]
    assert list(store.list()) == [Entry(path, len(path)) for path in everything]
    assert [entry.path for entry in store.list("a/")] == ["a/a/c", "a/b"]
    assert [entry.path for entry in store.list("a")] == everything[:-1]
    assert [entry.path for entry in store.list("a/a/")] == ["a/a/c"]
    assert list(store.list("nothing/here")) == []


def test_a_child_is_a_store_of_its_own(store):
    child = store.child("run").child("node/id")
    child.write("x", b"1")
    assert child.uri == f"{store.uri}/run/node/id"
    assert [entry.path for entry in child.list()] == ["x"]
    assert store.read("run/node/id/x") == b"1"
    assert open_store(child.uri).read("x") == b"1"
    store.write("run/node/id2/y", b"2")
    assert [entry.path for entry in child.list()] == ["x"], "id2 is no part of id"


def test_a_copy_is_an_object_of_its_own(store):
    store.write("a/one", b"first")
    store.write("b/two", b"other")
    for _ in range(2):  # again over itself
        store.copy("a/one", "b/two")
    store.copy("a/one", "new/deep/three")
    assert store.read("b/two") == store.read("new/deep/three") == b"first"
    store.write("a/one", b"second")
    store.delete("b/two")
    assert (store.read("new/deep/three"), store.read("a/one")) == (b"first", b"second")
    assert [entry.path for entry in store.list()] == ["a/one", "new/deep/three"]
    with pytest.raises(NotFound):
        store.copy("a/none", "b/none")


def test_a_file_is_copied_where_it_cannot_be_linked(tmp_path, monkeypatch):
    store = open_store(f"file://{tmp_path}/store")
    store.write("one", b"first")
    store.copy("one", "linked")
    assert (tmp_path / "store/linked").stat().st_ino == (tmp_path / "store/one").stat().st_ino
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=OSError(errno.EXDEV, "another disk")))
    store.copy("one", "copied")
    assert store.read("copied") == b"first"
    assert (tmp_path / "store/copied").stat().st_ino != (tmp_path / "store/one").stat().st_ino


def test_delete_removes_one_object(store):
    store.write("a/b", b"1")
    store.write("a/c", b"2")
    store.delete("a/b")
    assert [entry.path for entry in store.list()] == ["a/c"]


def test_many_are_deleted_and_absent_ones_with_them(store):
    for name in ("a/1", "a/2", "a/<&>'3", "b"):
        store.write(name, b"1")
    asked = []
    store.delete_all([], lambda: asked.append(0))
    assert asked == []
    store.delete_all(["a/1", "a/<&>'3", "absent", "b"], lambda: asked.append(1))
    assert [entry.path for entry in store.list()] == ["a/2"] and asked


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", "..", ".", "nul\0", "x" * 1025, "\udcff",
             "a/.vitpipe-tmp-1"]
)  # fmt: skip
def test_no_path_leaves_the_root(store, path, tmp_path):
    (tmp_path / "local").write_bytes(b"1")
    for ask in (
        store.read, store.read_version, store.size, store.delete, store.child,
        lambda path: store.write(path, b""), lambda path: store.create(path, b""),
        lambda path: store.swap(path, b"", "v"), lambda path: store.upload(tmp_path / "local", path),
        lambda path: store.download(path, tmp_path / "down"),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            ask(path)
    with pytest.raises(UsageError):
        list(store.list("../"))


@pytest.mark.parametrize(
    "path", ["with space", "ünï/çødé", "a+b&c=d?e#f", "100%/%41", "..dots", "-dash", "a\\b", "'\""]
)
def test_unusual_names_are_names(store, path):
    store.create(path, b"1")
    assert store.read(path) == b"1" and store.read(path, 0, 1) == b"1"
    assert [entry.path for entry in store.list()] == [path]
    assert store.size(path) == 1
    store.delete(path)
    assert list(store.list()) == []


@pytest.mark.parametrize("size", [1, PART - 1, PART, 2 * PART + 12345], ids=["one", "under", "part", "parts"])
def test_files_go_up_and_down_unchanged(store, tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "up").write_bytes(data)
    assert store.upload(tmp_path / "up", "big/file") == digest(data)
    assert store.size("big/file") == size
    assert store.download("big/file", tmp_path / "new" / "down", expect=digest(data)) == digest(data)
    assert (tmp_path / "new" / "down").read_bytes() == data
    assert os.listdir(tmp_path / "new") == ["down"]


@pytest.mark.parametrize("left", ["half", "whole", "wrong", "too long"])
def test_a_download_goes_on_where_it_ended(store, tmp_path, left):
    data = os.urandom(100_000)
    store.write("x", data)
    part = {"half": data[:50_000], "whole": data, "wrong": b"?" * 50_000, "too long": data + b"!"}[left]
    (tmp_path / "x.part").write_bytes(part)
    read = []
    traffic.listen(count := lambda kind, amount: read.append(amount) if kind == "read_bytes" else None)
    assert store.download("x", tmp_path / "x", expect=digest(data)) == digest(data)
    traffic.unlisten(count)
    assert (tmp_path / "x").read_bytes() == data
    needed = {"half": 50_000, "whole": 0, "wrong": 150_000, "too long": 100_000}[left]
    assert needed <= sum(read) < needed + 10_000, "a heartbeat of another test may read its lease"


def test_of_many_who_want_one_file_one_fetches_it(store, tmp_path):
    data = os.urandom(300_000)
    store.write("x", data)
    read = []
    traffic.listen(count := lambda kind, amount: read.append(amount) if kind == "read_bytes" else None)
    with ThreadPoolExecutor(6) as pool:
        tries = [pool.submit(store.download, "x", tmp_path / "x", expect=digest(data)) for _ in range(6)]
        assert {one.result() for one in tries} == {digest(data)}
    traffic.unlisten(count)
    assert (tmp_path / "x").read_bytes() == data and not (tmp_path / "x.part").exists()
    assert len(data) <= sum(read) < len(data) + 10_000


def test_a_verified_file_is_not_fetched_again(store, tmp_path):
    store.write("x", b"data")
    (tmp_path / "x").write_bytes(b"data")
    store.delete("x")
    assert store.download("x", tmp_path / "x", expect=digest(b"data")) == digest(b"data")
    (tmp_path / "x").write_bytes(b"Data")
    with pytest.raises(NotFound):
        store.download("x", tmp_path / "x", expect=digest(b"data"))


def test_a_wrong_object_never_gets_its_name(store, tmp_path):
    store.write("x", b"flipped bit")
    with pytest.raises(IntegrityError, match="SHA-256"):
        store.download("x", tmp_path / "x", expect=digest(b"flapped bit"))
    assert os.listdir(tmp_path) in ([], ["store"])


def test_a_part_of_an_unknown_object_is_not_trusted(store, tmp_path):
    store.write("x", b"new content")
    (tmp_path / "x.part").write_bytes(b"old")
    assert store.download("x", tmp_path / "x") == digest(b"new content")


def test_survives_pickling(store):
    store.write("x", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again == store and again.read("x") == b"1"


def test_knows_its_clock(store):
    store.write("x", b"1")
    assert abs(store.clock_ahead_s()) < 5
    assert [entry.path for entry in store.list()] == ["x"]


@pytest.mark.parametrize("uri", ["runs", "/runs", "http://x/y", "file://", "s3://", "s3://a", "s3://key:secret@bkt/x",
                                 "s3://bucket/../x", "file:///a\0b"])  # fmt: skip
def test_other_uris_are_refused(uri):
    with pytest.raises(UsageError) as refused:
        open_store(uri)
    assert "secret" not in str(refused.value)


def test_a_link_that_leads_in_a_circle_hides_no_folder(tmp_path):
    for name, target in (("circle", "circle"), ("nowhere", "missing"), ("other", "one")):
        (tmp_path / name).symlink_to(tmp_path / target)
    (tmp_path / "one").mkdir()
    assert list(open_store(f"file://{tmp_path}").folders()) == ["one", "other"]
