"""What only S3 does: credentials, buckets, endpoints, pages, uploads left half done."""

import json
import multiprocessing
import os
import time
from collections import Counter
from datetime import datetime, timedelta
from hashlib import sha256
from types import SimpleNamespace

import botocore.auth
import pytest
from botocore.exceptions import ClientError
from counted import asked
from s3_server import BUCKET

from vitpipe.infra.errors import NotFound, Refused, StorageError
from vitpipe.infra.storage import s3
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.s3_errors import Doubtful, explained
from vitpipe.infra.storage.s3_transfer import delete_batch, send_whole
from vitpipe.infra.storage.store import Digest
from vitpipe.pipeline.cli.doctor import checks

pytestmark = pytest.mark.s3


def asks(store):
    """Every kind of question, each of which has to fail in the same words."""
    yield lambda: store.read("x")
    yield lambda: store.read("x", 0, 10)
    yield lambda: store.read_version("x")
    yield lambda: store.size("x")
    yield lambda: store.write("x", b"1")
    yield lambda: store.create("x", b"1")
    yield lambda: store.swap("x", b"1", "0")
    yield lambda: list(store.list())
    yield lambda: store.delete("x")
    yield lambda: store.clock_ahead_s()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong-canary", "403"),
        ("AWS_ACCESS_KEY_ID", "nobody", "403"),
        ("AWS_ACCESS_KEY_ID", None, r"no usable AWS credentials.*Set AWS_ACCESS_KEY_ID"),
        ("AWS_PROFILE", "nonesuch", "profile"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "AWS_ENDPOINT_URL"),
    ],
)
def test_what_the_operator_got_wrong_is_said(s3_uri, monkeypatch, name, value, says):
    monkeypatch.setenv("VITPIPE_STORAGE_DEADLINE_S", "0.1")
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    for ask in asks(open_store(s3_uri)):
        with pytest.raises(StorageError, match=says) as refused:
            ask()
        assert not isinstance(refused.value, NotFound)
        assert "canary" not in str(refused.value)


def test_an_endpoint_that_is_no_url_is_said(s3_uri, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(StorageError, match=r"nonsense.*AWS_ENDPOINT_URL"):
        open_store(s3_uri).read("x")


def test_a_bucket_that_does_not_exist_is_said(s3_uri, tmp_path):
    store = open_store("s3://no-such-bucket/run")
    (tmp_path / "up").write_bytes(b"1")
    for ask in (*asks(store), lambda: store.upload(tmp_path / "up", "x"), lambda: store.download("x", tmp_path / "d")):
        with pytest.raises(StorageError, match="no bucket 'no-such-bucket'") as refused:
            ask()
        assert not isinstance(refused.value, NotFound)


def test_a_missing_local_file_is_named(s3_uri, tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        open_store(s3_uri).upload(tmp_path / "nowhere", "x")


def test_lists_beyond_one_page(s3_uri, monkeypatch):
    monkeypatch.setattr(s3, "PAGE_KEYS", 10)
    store = open_store(s3_uri)
    names = [f"n{number:02}" for number in range(23)]
    for name in names:
        store.write(name, b"")
    assert [entry.path for entry in store.list()] == names


class ADayAhead(datetime):
    """This machine's clock, wrong."""

    @classmethod
    def now(cls, zone=None):
        return super().now(zone) + timedelta(days=1)


def test_an_upload_left_half_done_is_swept(s3_uri, s3_server, monkeypatch):
    key = s3_uri.removeprefix(f"s3://{BUCKET}/") + "/big"
    monkeypatch.setattr(s3, "datetime", ADayAhead)
    s3_server.client().create_multipart_upload(Bucket=BUCKET, Key=key)
    store = open_store(s3_uri)
    assert store.sweep(3600) == 0
    assert store.sweep(0) == 1
    assert store.sweep(0) == 0


def test_marks_of_empty_folders_are_no_objects(s3_uri, s3_server):
    s3_server.client().put_object(Bucket=BUCKET, Key=s3_uri.removeprefix(f"s3://{BUCKET}/") + "/folder/", Body=b"")
    assert list(open_store(s3_uri).list()) == []


def read_in_child(uri, answers):
    answers.put(open_store(uri).read("x"))


def test_works_in_a_forked_process(s3_uri):
    store = open_store(s3_uri)
    store.write("x", b"1")
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=read_in_child, args=(s3_uri, answers))
    child.start()
    assert answers.get(timeout=30) == b"1"
    child.join(30)
    assert child.exitcode == 0 and store.read("x") == b"1"


def test_whole_bucket_as_a_store(s3_uri):
    store = open_store(f"s3://{BUCKET}/")
    assert store.uri == f"s3://{BUCKET}"
    path = s3_uri.removeprefix(f"s3://{BUCKET}/") + "/x"
    store.write(path, b"1")
    assert open_store(s3_uri).read("x") == b"1"
    assert [entry.path for entry in store.list(path)] == [path]


def test_boto3_is_imported_only_where_s3_is_used():
    code = (
        "import sys, vitpipe.infra.storage.opening as o; o.open_store('file:///tmp'); sys.exit('boto3' in sys.modules)"
    )
    assert os.spawnl(os.P_WAIT, os.sys.executable, "python", "-c", code) == 0


@pytest.fixture
def clock_off(monkeypatch):
    """Sets this machine's clock wrong by so many seconds: what requests are signed with, and what we look at."""
    signing = botocore.auth.get_current_datetime

    def set_wrong(ahead_s):
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: signing() + timedelta(seconds=ahead_s))
        now = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(seconds=ahead_s))
        monkeypatch.setattr("vitpipe.infra.storage.s3_ranges.datetime", now)
        monkeypatch.setattr("vitpipe.infra.storage.s3_errors.time", SimpleNamespace(time=lambda: time.time() + ahead_s))

    return set_wrong


@pytest.mark.parametrize(
    ("ahead_s", "says"),
    [
        (20 * 60, "clock is 20 minutes ahead of the server's"),
        (-20 * 60, "clock is 20 minutes behind the server's"),
        (30 * 86400, "clock is 30 days ahead of the server's"),
    ],
)
def test_a_wrong_clock_is_told_and_not_as_wrong_credentials(s3_uri, clock_off, tmp_path, ahead_s, says):
    store = open_store(s3_uri)
    (tmp_path / "up").write_bytes(b"1")
    clock_off(ahead_s)
    for ask in (*asks(store), lambda: store.upload(tmp_path / "up", "x"), lambda: store.download("x", tmp_path / "d")):
        with pytest.raises(StorageError) as refused:
            ask()
        assert says in refused.value.found and "NTP" in refused.value.do and refused.value.code == 7
        assert "credentials" not in str(refused.value) and "AWS_" not in str(refused.value)
    store_check = next(check for check in checks(s3_uri) if check.name.startswith("store"))
    assert not store_check.ok and says in store_check.found


def test_a_clock_that_s3_bears_is_not_blamed(s3_uri, clock_off, monkeypatch):
    clock_off(13 * 60)
    open_store(s3_uri).write("x", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for ask in (lambda: open_store(s3_uri).read("x"), lambda: open_store(s3_uri).size("x")):
        with pytest.raises(StorageError, match=r"credentials|AWS_SECRET_ACCESS_KEY") as refused:
            ask()
        assert "clock" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "code", "date", "says"),
    [
        (400, "AuthorizationHeaderMalformed", None, "AWS_DEFAULT_REGION"),
        (400, "ExpiredToken", None, "have expired"),
        (400, "AuthorizationHeaderMalformed", "Sat, 01 Jan 2000 00:00:00 GMT", "days ahead"),
        (403, "403", "Sat, 01 Jan 2000 00:00:00 GMT", "days ahead"),
        (403, "SignatureDoesNotMatch", "yesterday", "secret key is wrong"),
        (500, "InternalError", "Sat, 01 Jan 2000 00:00:00 GMT", "no answer to rely on"),
    ],
)
def test_what_other_servers_answer_is_understood(status, code, date, says):
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {"date": date} if date else {}}
    error = ClientError({"Error": {"Code": code}, "ResponseMetadata": metadata}, "HeadObject")
    assert says in str(explained(error, "read x", "bucket"))


def put_and_got(store, folder, counts):
    (folder / "small").write_bytes(os.urandom(20_000))
    digest = store.upload(folder / "small", "small")
    assert store.read("small") == (folder / "small").read_bytes() and digest.bytes == 20_000
    return Counter(what.partition(" ")[0] for what in counts.elements())


def test_a_small_file_goes_up_in_one_request(s3_uri, tmp_path, monkeypatch):
    store = open_store(s3_uri)
    with asked() as counts:
        assert put_and_got(store, tmp_path, counts) == {"PUT": 1, "GET": 1}
    monkeypatch.setattr(s3, "PART_BYTES", 10_000)  # the control: a large one is looked at
    with asked() as counts:
        assert put_and_got(store, tmp_path, counts) == {"PUT": 1, "HEAD": 1, "GET": 1}


class Keyed:
    """A server whose ETag is no MD5, which has so many bytes of an object."""

    def __init__(self, stored):
        self.stored, self.looks = stored, 0

    def put_object(self, **put):
        return {"ETag": '"of another kind"'}

    def head_object(self, **at):
        self.looks += 1
        return {"ContentLength": self.stored}


def test_where_the_answer_proves_nothing_the_object_is_looked_at():
    at = {"Bucket": "b", "Key": "k"}
    assert send_whole(whole := Keyed(3), b"123", at) == Digest(3, sha256(b"123").hexdigest()) and whole.looks == 1
    with pytest.raises(Doubtful, match="2 of 3 bytes"):
        send_whole(Keyed(2), b"123", at)


def test_a_listing_begins_behind_a_name(s3_uri):
    store = open_store(s3_uri)
    for name in ("a/1", "a/2", "b"):
        store.write(name, b"")
    assert [entry.path for entry in store.list(after="a/1")] == ["a/2", "b"]
    assert list(store.list("a/", "a0")) == []


def test_a_thousand_objects_go_by_one_request(s3_uri, monkeypatch):
    monkeypatch.setattr(s3, "PAGE_KEYS", 10)
    store = open_store(s3_uri)
    names = [f"n{number:02}" for number in range(21)]
    for name in names:
        store.write(name, b"")
    leases = []
    with asked() as counts:
        store.delete_all(names, lambda: leases.append(1))
    assert Counter(what.partition(" ")[0] for what in counts.elements()) == {"POST": 2, "DELETE": 1}
    assert len(leases) == 4 and list(store.list()) == []  # ahead of each request that may delete


def test_what_a_policy_keeps_is_named_and_the_others_go(s3_uri, s3_server, monkeypatch):
    store, prefix = open_store(s3_uri), s3_uri.removeprefix("s3://")
    for name in ("a/1", "a/2", "kept", "a/3"):
        store.write(name, b"")
    every = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
    denied = {"Effect": "Deny", "Action": ["s3:DeleteObject"], "Resource": [f"arn:aws:s3:::{prefix}/kept"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [every, denied]})
    for name, value in s3_server.user("keeper", policy).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refused, match=r"/kept: S3 refused it: 403 AccessDenied"):
        store.delete_all(["a/1", "kept", "a/2", "a/3"])
    assert [entry.path for entry in store.list()] == ["kept"]


class Batches:
    """A server that answers batches of deletions so."""

    def __init__(self, answer):
        self.answer, self.exceptions = answer, SimpleNamespace(ClientError=ClientError)

    def delete_objects(self, **asked):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def failed(status, code):
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "DeleteObjects")


@pytest.mark.parametrize(
    ("answer", "stay"),
    [
        ({}, []),
        ({"Errors": [{"Key": "b", "Code": "InternalError"}]}, ["b"]),
        ({"Errors": [{"Key": "another", "Code": "AccessDenied"}]}, ["a", "b", "c"]),
        ({"Errors": [{"Code": "AccessDenied"}]}, ["a", "b", "c"]),
        (failed(501, "NotImplemented"), ["a", "b", "c"]),
        (failed(403, "AccessDenied"), ["a", "b", "c"]),
    ],
)
def test_what_stays_of_a_batch_is_asked_for_alone(answer, stay):
    assert delete_batch("bucket", ["a", "b", "c"], Batches(answer)) == stay


def test_a_busy_server_is_asked_for_the_batch_again():
    with pytest.raises(ClientError, match="SlowDown"):
        delete_batch("bucket", ["a", "b"], Batches(failed(503, "SlowDown")))
