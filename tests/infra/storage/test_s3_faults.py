"""S3 as it is on a bad day: every fault ends in the right bytes or in an error that says what to do."""

import hashlib
import os

import pytest
from faults.s3_proxy import Proxy

from vitpipe.infra.errors import AlreadyExists, Changed, IntegrityError, StorageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Digest, Store

pytestmark = pytest.mark.s3

PART = 8 << 20


@pytest.fixture
def store(proxy: Proxy, s3_uri: str) -> Store:
    return open_store(s3_uri)


def digest(data: bytes) -> Digest:
    return Digest(len(data), hashlib.sha256(data).hexdigest())


PASSING = ["status", "lost", "refused", "stall", "xml"]


@pytest.mark.parametrize("kind", PASSING)
def test_a_passing_fault_of_a_write_is_not_seen(store, proxy, retries, kind):
    proxy.plan(kind, method="PUT", path="record")
    store.write("record", b"data")
    assert store.read("record") == b"data"
    assert len(retries) == 1


@pytest.mark.parametrize("kind", [*PASSING, "short", "flip", "cut", "drip"])
def test_a_passing_fault_of_a_read_is_not_seen(store, proxy, kind):
    store.write("record", b"x" * 1000)
    proxy.plan(kind, method="GET", path="record")
    assert store.read_version("record")[0] == b"x" * 1000
    assert sum(request.startswith("GET") for request, _ in proxy.requests) >= 2


@pytest.mark.parametrize("kind", [*PASSING, "short", "cut", "drip"])
def test_a_passing_fault_of_a_ranged_read_is_not_seen(store, proxy, kind):
    data = os.urandom(5000)
    store.write("shard.tar", data)
    assert store.read("shard.tar", 0, 9) == data[:9]  # after which the short way is known
    proxy.plan(kind, method="GET", path="shard")
    before = len(proxy.requests)
    assert store.read("shard.tar", 1000, 3000) == data[1000:4000]
    assert len(proxy.requests) == before + 2


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_burst_is_waited_for(store, proxy, retries, status):
    proxy.plan("status", status=status, times=3)
    store.write("x", b"1")
    assert store.read("x") == b"1"
    assert len(retries) == 3


def test_patience_ends(store, proxy, monkeypatch):
    monkeypatch.setenv("VITPIPE_STORAGE_DEADLINE_S", "1")
    proxy.plan("status", times=1000)
    with pytest.raises(StorageError, match=r"503.*Check the network"):
        store.read("x")


@pytest.mark.parametrize("kind", PASSING)
def test_a_create_is_mine_even_when_its_answer_was_lost(store, proxy, kind):
    proxy.plan(kind, method="PUT", path="record")
    version = store.create("record", b"mine")
    assert store.read_version("record") == (b"mine", version)
    with pytest.raises(AlreadyExists):
        store.create("record", b"mine")


def test_a_create_that_another_won_meanwhile_is_lost(store, proxy):
    store.write("record", b"theirs")
    proxy.plan("refused", method="PUT", path="record")
    with pytest.raises(AlreadyExists):
        store.create("record", b"mine")
    assert store.read("record") == b"theirs"


@pytest.mark.parametrize("kind", PASSING)
def test_a_swap_is_mine_even_when_its_answer_was_lost(store, proxy, kind):
    version = store.create("lease", b"1")
    proxy.plan(kind, method="PUT", path="lease")
    version = store.swap("lease", b"2", version)
    assert store.read_version("lease") == (b"2", version)


def test_a_swap_that_another_won_meanwhile_is_lost(store, proxy):
    version = store.create("lease", b"1")
    store.write("lease", b"theirs")
    proxy.plan("refused", method="PUT", path="lease")
    with pytest.raises(Changed):
        store.swap("lease", b"2", version)


def test_a_refusal_ends_at_once(store, proxy, retries):
    proxy.plan("status", status=403)
    with pytest.raises(StorageError, match="403"):
        store.read("x")
    assert retries == []


@pytest.mark.parametrize("kind", ["status", "lost", "refused", "stall", "xml", "flip_up"])
def test_an_upload_in_parts_survives(store, proxy, tmp_path, kind):
    data = os.urandom(2 * PART + 99)
    (tmp_path / "up").write_bytes(data)
    proxy.plan(kind, method="PUT", path="partNumber=2")
    assert store.upload(tmp_path / "up", "shard.tar") == digest(data)
    assert hashlib.sha256(store.read("shard.tar")).hexdigest() == digest(data).sha256


@pytest.mark.parametrize("kind", ["status", "lost", "refused", "stall", "xml", "flip_up"])
def test_an_upload_in_one_request_survives(store, proxy, tmp_path, kind):
    data = os.urandom(9_999)
    (tmp_path / "up").write_bytes(data)
    proxy.plan(kind, method="PUT", path="small.json", times=2)
    assert store.upload(tmp_path / "up", "small.json") == digest(data)
    assert store.read("small.json") == data


def test_an_upload_whose_completion_was_an_error_is_sent_again(store, proxy, tmp_path):
    data = os.urandom(PART + 99)
    (tmp_path / "up").write_bytes(data)
    proxy.plan("xml", method="POST", path="uploadId=")
    assert store.upload(tmp_path / "up", "shard.tar") == digest(data)
    assert store.size("shard.tar") == len(data)


@pytest.mark.parametrize("kind", ["status", "refused", "stall", "short", "cut", "drip"])
def test_a_download_in_parts_survives(store, proxy, tmp_path, kind):
    data = os.urandom(2 * PART + 99)
    store.write("shard.tar", data)
    proxy.plan(kind, method="GET", path="shard", times=2)
    assert store.download("shard.tar", tmp_path / "down", expect=digest(data)) == digest(data)
    assert digest((tmp_path / "down").read_bytes()) == digest(data)


def test_a_flipped_bit_of_a_download_is_found(store, proxy, tmp_path):
    data = os.urandom(5000)
    store.write("shard.tar", data)
    proxy.plan("flip", method="GET", path="shard")
    with pytest.raises(IntegrityError, match=r"shard\.tar"):
        store.download("shard.tar", tmp_path / "down", expect=digest(data))
    assert os.listdir(tmp_path) == []
    assert store.download("shard.tar", tmp_path / "down", expect=digest(data)) == digest(data)


def test_an_object_replaced_under_its_name_is_found(store, tmp_path):
    store.write("shard.tar", b"other")
    with pytest.raises(IntegrityError, match=r"shard\.tar"):
        store.download("shard.tar", tmp_path / "down", expect=digest(b"first"))


def test_a_stalled_list_is_asked_again(store, proxy):
    store.write("a", b"1")
    proxy.plan("stall", method="GET", path="list-type=2")
    assert [entry.path for entry in store.list()] == ["a"]


@pytest.mark.parametrize(("setting", "expected"), [("when_required", False), ("when_supported", True)])
def test_checksums_are_sent_as_the_operator_says(store, proxy, monkeypatch, setting, expected):
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    store.write("x", b"1")
    ((_, headers),) = [request for request in proxy.requests if request[0].startswith("PUT")]
    assert any(name.lower().startswith("x-amz-checksum") for name in headers) is expected
