"""What only a folder does: temporary files, full disks, refused rights, processes side by side, relative URIs."""

import errno
import multiprocessing
import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from vitpipe.infra.errors import Changed, StorageError
from vitpipe.infra.storage import local
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def everything(store: LocalStore) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def test_a_relative_uri_is_absolute_from_then_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("file://./runs/")
    assert store.uri == f"file://{tmp_path}/runs"
    monkeypatch.chdir("/")
    store.write("x", b"1")
    assert (tmp_path / "runs" / "x").read_bytes() == b"1"


@pytest.mark.parametrize("verb", ["write", "create", "swap", "upload"])
def test_a_full_disk_leaves_the_old_object_and_no_litter(store, monkeypatch, verb, tmp_path):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    version = store.create("x", b"old")
    (tmp_path / "local").write_bytes(b"new")
    ask = {
        "write": lambda: store.write("x", b"new"),
        "create": lambda: store.create("y", b"new"),
        "swap": lambda: store.swap("x", b"new", version),
        "upload": lambda: store.upload(tmp_path / "local", "x"),
    }[verb]
    with (
        monkeypatch.context() as patched,
        pytest.raises(StorageError, match=r"No space left.*Free some disk") as refused,
    ):
        patched.setattr(os, "fsync", full)
        ask()
    assert str(store.root) in str(refused.value)
    assert store.read("x") == b"old"
    assert [name for name in everything(store) if "tmp" in name] == []
    ask()


def test_a_file_too_large_for_the_file_system_is_a_storage_error(store, tmp_path):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "large").write_bytes(b"x" * 3_000_000)
    store.write("small", b"1")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            store.upload(tmp_path / "large", "large")
        with pytest.raises(StorageError, match=r"down\.part"):
            LocalStore(tmp_path).download("large", tmp_path / "down")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert everything(store) == ["small"]
    assert not (tmp_path / "down").exists()


def test_an_unwritable_store_says_where_and_what_to_do():
    with pytest.raises(StorageError, match=r"/sys.*(right|written)"):
        open_store("file:///sys/vitpipe").write("x", b"1")


def test_a_file_where_a_folder_is_needed(store):
    store.write("a", b"1")
    for ask in (store.write, store.create):
        with pytest.raises(StorageError, match="a file is where a folder is needed"):
            ask("a/b", b"2")


def test_a_folder_where_a_file_is_needed(store):
    store.write("a/b", b"1")
    with pytest.raises(StorageError, match="folder"):
        store.write("a", b"2")
    assert everything(store) == ["a/b"]


def test_a_missing_local_file_is_named(store, tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        store.upload(tmp_path / "nowhere", "x")
    assert store.size("x") is None


def test_deleting_leaves_no_empty_folders(store):
    version = store.create("a/b/c", b"1")
    store.swap("a/b/c", b"2", version)
    store.write("a/d", b"1")
    store.delete("a/b/c")
    assert not (store.root / "a" / "b").exists()
    store.delete("a/d")
    assert os.listdir(store.root) == []


def test_what_a_killed_writer_left_is_hidden_and_swept(store):
    store.write("a/x", b"1")
    old, fresh = store.root / "a" / ".vitpipe-tmp-old", store.root / "a" / ".vitpipe-tmp-fresh"
    for left in (old, fresh):
        left.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert [entry.path for entry in store.list()] == ["a/x"]
    assert store.sweep(3600) == 1
    assert not old.exists() and fresh.exists()


def test_what_is_old_is_told_by_the_stores_clock(store, monkeypatch):
    """A machine whose clock is a day ahead sweeps nobody's write away."""
    store.write("x", b"1")
    (store.root / ".vitpipe-tmp-fresh").write_bytes(b"half")
    real = time.time
    monkeypatch.setattr(local, "time", SimpleNamespace(time=lambda: real() + 86400))
    assert store.sweep(3600) == 0 and store.sweep(-1) == 1


def test_links_are_followed_but_never_in_circles(store, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "y").write_bytes(b"1")
    store.write("a/x", b"1")
    (store.root / "link").symlink_to(tmp_path / "elsewhere")
    (store.root / "a" / "up").symlink_to(store.root)
    assert [entry.path for entry in store.list()] == ["a/x", "link/y"]


def count_up(root: Path, times: int) -> None:
    store = LocalStore(root)
    while times:
        data, version = store.read_version("counter")
        try:
            store.swap("counter", str(int(data) + 1).encode(), version)
            times -= 1
        except Changed:
            continue


def test_processes_side_by_side_lose_no_swap(store):
    store.create("counter", b"0")
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=count_up, args=(store.root, 40)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert store.read("counter") == b"120"
