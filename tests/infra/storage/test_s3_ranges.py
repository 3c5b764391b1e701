"""Ranges by the short way: the same bytes, signatures, errors and requests as botocore's, which decides in doubt."""

import io
import os
from datetime import UTC, datetime
from types import SimpleNamespace

import botocore.auth
import numpy as np
import pytest
from botocore.awsrequest import AWSRequest
from counted import asked
from s3_server import BUCKET

from vitpipe.infra.errors import IntegrityError, NotFound, StorageError
from vitpipe.infra.retry import RetryPolicy
from vitpipe.infra.storage import s3_transfer
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.s3_client import client, ranged_client
from vitpipe.infra.storage.s3_errors import Doubtful
from vitpipe.infra.storage.s3_ranges import BucketRoute, RangedClient
from vitpipe.infra.storage.s3_transfer import ObjectRange, pieces

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AGENT = {"User-Agent": b"tests"}


def signed_by_botocore(url, credentials, headers, monkeypatch):
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)
    request = AWSRequest("GET", url, headers={**headers, **AGENT})
    botocore.auth.S3SigV4Auth(credentials, "s3", "eu-x-1").add_auth(request)
    return request.prepare()


@pytest.mark.parametrize("token", [None, "a/token+of=a role"])
@pytest.mark.parametrize("base", ["http://127.0.0.1:7480/bucket/", "https://bucket.s3.eu-x-1.example.com:443/run/"])
def test_a_range_is_signed_as_botocore_signs_it(base, token, monkeypatch):
    key, quoted = "a b/~x+é=1.tar", "a%20b/~x%2B%C3%A9%3D1.tar"
    credentials = SimpleNamespace(access_key="an-id", secret_key="a-secret", token=token)
    headers = {"Range": "bytes=7-9", "If-Match": "0a1b-2"}
    theirs = signed_by_botocore(base + quoted, credentials, headers, monkeypatch)
    route = BucketRoute.of(theirs, key, "an-id")
    ours = route.request(key, {"range": "bytes=7-9", "if-match": "0a1b-2"}, credentials, NOW)
    assert ours.url == theirs.url and ours.stream_output
    assert ours.headers["authorization"] == theirs.headers["Authorization"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"Authorization": b"AWS4-HMAC-SHA256 Credential=another/20260102/r/s3/aws4_request, X"}, "x"),
        ({"Authorization": b"AWS4-HMAC-SHA256 Credential=an-id/20260102/r/s3express/aws4_request, X"}, "x"),
        ({"Authorization": b"AWS4-ECDSA-P256-SHA256 Credential=an-id/20260102/s3/aws4_request, X"}, "x"),
        ({"Authorization": b"Bearer t"}, "x"),
        ({}, "another"),
    ],
)
def test_what_is_signed_otherwise_is_left_to_botocore(change, key, monkeypatch):
    credentials = SimpleNamespace(access_key="an-id", secret_key="a-secret", token=None)
    sent = signed_by_botocore("http://h/bucket/x", credentials, {}, monkeypatch)
    assert BucketRoute.of(sent, "x", "an-id") is not None  # the control
    sent.headers.update(change)
    assert BucketRoute.of(sent, key, "an-id") is None


@pytest.fixture
def long_way():
    """Requests that botocore made of its own."""
    made = []
    s3 = client()
    s3.meta.events.register_last("before-send.s3.GetObject", saw := lambda request, **_: made.append(request.url))
    yield made
    s3.meta.events.unregister("before-send.s3.GetObject", saw)


@pytest.mark.s3
def test_ranges_go_the_short_way_once_it_is_known(s3_uri, long_way):
    data, store = os.urandom(300_000), open_store(s3_uri)
    store.write("a b/shard é.tar", data)
    ranged_client()._routes.clear()
    with asked() as counts:
        for start in range(0, 300_000, 50_000):
            assert store.read("a b/shard é.tar", start, 50_000) == data[start : start + 50_000]
        assert store.read("a b/shard é.tar", 299_999, 10) == data[-1:]
        assert store.read("a b/shard é.tar", 400_000, 10) == b""
    assert len(long_way) == 1 and counts.total() == 8  # the first of them, and all are counted
    for path, version, error in (("none", None, NotFound), ("a b/shard é.tar", "0" * 32, IntegrityError)):
        with pytest.raises(error):
            store.read(path, 0, 5, version)
    assert len(long_way) == 1


@pytest.mark.s3
def test_a_refusal_is_botocores_to_explain_and_a_bucket_where_it_alone_is_heard_is_its_own(proxy, s3_uri, monkeypatch):
    store = open_store(s3_uri)
    store.write("x", b"12345")
    assert store.read("x", 0, 2) == store.read("x", 0, 2) == b"12"
    client().meta.events.register_last("before-send.s3.GetObject", seen := lambda request, **_: made.append(1))
    made = []
    proxy.plan("status", status=403, times=2)
    with pytest.raises(StorageError, match="403"):  # both ways
        store.read("x", 0, 2)
    assert store.read("x", 1, 2) == b"23" and len(made) == 1  # the short way is still trusted
    proxy.plan("status", status=403)
    for _ in range(3):
        assert store.read("x", 2, 2) == b"34"
    assert len(made) == 4
    client().meta.events.unregister("before-send.s3.GetObject", seen)
    ranged_client()._routes.clear()


class Renewed:
    """Credentials that are others at each look."""

    def __init__(self, environment):
        self.all = iter(environment)

    def get_frozen_credentials(self):
        said = next(self.all)
        keys = {"access_key": said["AWS_ACCESS_KEY_ID"], "secret_key": said["AWS_SECRET_ACCESS_KEY"]}
        return SimpleNamespace(**keys, token=None)


@pytest.mark.s3
def test_credentials_that_were_renewed_are_used(s3_server, s3_uri):
    key = s3_uri.removeprefix(f"s3://{BUCKET}/") + "/x"
    s3_server.client().put_object(Bucket=BUCKET, Key=key, Body=b"12345")
    wrong = {**s3_server.environment, "AWS_SECRET_ACCESS_KEY": "old"}
    ranged = RangedClient(s3_server.client(), Renewed([s3_server.environment, s3_server.environment, wrong]))
    query = {"Bucket": BUCKET, "Key": key, "Range": "bytes=1-2"}
    for _ in range(2):
        assert ranged.get_object(**query)["Body"].read() == b"23"
    assert ranged._routes[BUCKET] is not None
    assert ranged.get_object(**query)["Body"].read() == b"23"  # botocore's own are right still
    assert ranged._routes[BUCKET] is None


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(s3_transfer, "PART_BYTES", 100)


def test_parts_of_a_download_come_in_order_and_in_memory_used_again(small_parts):
    data, places = os.urandom(100 * 50 + 7), set()

    def get(start, length, etag, into):
        assert etag == (None if into is None else "v")
        part = data[start : start + length]
        if into is None:
            return ObjectRange(part, "v", len(data))
        into[: len(part)] = part
        places.add(np.frombuffer(into, np.uint8).ctypes.data)
        return ObjectRange(into[: len(part)], "v", len(data))

    assert b"".join(bytes(piece) for piece in pieces(get, 0)) == data
    assert len(places) <= s3_transfer.THREADS
    assert b"".join(bytes(piece) for piece in pieces(get, 250)) == data[250:]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("bad", [1, 9, 49])
def test_a_part_that_fails_ends_the_download_and_holds_nobody(small_parts, bad):
    def get(start, length, etag, into):
        if start == 100 * bad:
            raise Doubtful("the body ended")
        return ObjectRange(into[:length] if into else bytes(length), "v", 100 * 50)

    with pytest.raises(Doubtful):
        for _ in pieces(get, 0):
            pass
    for _ in pieces(lambda *asked: ObjectRange(asked[3] or bytes(100), "v", 100 * 50), 0):
        break  # nor does one who stops early


def test_an_answer_without_a_length_is_doubted():
    with pytest.raises(Doubtful, match="does not say its length"):
        s3_transfer._body({"Body": io.BytesIO(b"abc")}, RetryPolicy.from_environment(), None)
