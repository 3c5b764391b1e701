"""Whether a store heeds the conditions of a write is tried, not believed; each way of not heeding them is found."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faults.s3_proxy import Proxy
from s3_server import S3Server
from tiny_stages import tiny_spec, tiny_ways

from vitpipe.infra.errors import Changed, StorageError
from vitpipe.infra.lease_state import LEASE
from vitpipe.infra.storage.conditions import PROBE, SECOND_CREATE, broken
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli.doctor import checks
from vitpipe.pipeline.drive.gc import gc
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.store.retrieval import verify

NODES = {"a": {"value": 2}, "sum": {"stage": "add", "needs": {"shards": ("a",)}}}


class TakesSecondCreates(LocalStore):
    def create(self, path: str, data: bytes) -> str:
        self.write(path, data)
        return self.read_version(path)[1]


class TakesAnySwap(LocalStore):
    def swap(self, path: str, data: bytes, version: str) -> str:
        self.write(path, data)
        return self.read_version(path)[1]


class TakesNoSwap(LocalStore):
    def swap(self, path: str, data: bytes, version: str) -> str:
        raise Changed("swap")


class SwapsNothing(LocalStore):
    def swap(self, path: str, data: bytes, version: str) -> str:
        if self.read_version(path)[1] != version:
            raise Changed("swap")
        return version


class CreatesNothing(LocalStore):
    def create(self, path: str, data: bytes) -> str:
        return "1"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (TakesSecondCreates, [SECOND_CREATE]),
        (TakesAnySwap, ["it takes a swap (`If-Match`) of a version that is gone"]),
        (TakesNoSwap, ["it refuses a swap (`If-Match`) of the version that is there"]),
        (SwapsNothing, ["a swap (`If-Match`) that it took changed nothing",
                        "it takes a swap (`If-Match`) of a version that is gone"]),
        (CreatesNothing, [SECOND_CREATE, "what was created is not there"]),
        (LocalStore, []),
    ],
)  # fmt: skip
def test_each_broken_promise_is_found_by_itself(tmp_path: Path, kind: type[LocalStore], says: list[str]) -> None:
    store = kind(tmp_path)
    assert list(broken(store, PROBE)) == says
    assert list(broken(store, PROBE)) == says, "also where an earlier look has left its object"


@pytest.mark.s3
def test_many_may_look_at_once(s3_uri: str) -> None:
    assert list(open_store(s3_uri).list()) == []  # the client is made once, not by each thread
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: list(broken(open_store(s3_uri), PROBE)), range(8))) == [[]] * 8


@pytest.fixture
def bucket(s3_server: S3Server, s3_uri: str) -> str:
    name = f"versions-{uuid.uuid4().hex[:12]}"
    s3_server.client().create_bucket(Bucket=name)
    return name


def keep_versions(server: S3Server, bucket: str, status: str) -> None:
    server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def spec_in(store: str, folder: Path, **more: dict[str, int]) -> PipelineSpec:
    return replace(tiny_spec(folder, {**NODES, **more}), store=store)


@pytest.mark.s3
def test_a_bucket_with_versions_is_refused_before_the_lease(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    keep_versions(s3_server, bucket, "Enabled")
    spec = spec_in(f"s3://{bucket}/runs", tmp_path)
    with pytest.raises(StorageError) as refused:
        run(spec, (), replace(tiny_ways(), connect=lambda run, cpus: pytest.fail("the cluster was begun")))
    assert refused.value.code == 7 and SECOND_CREATE in refused.value.found and "suspend" in refused.value.do
    paths = [entry.path for entry in open_store(spec.uri).list()]
    assert paths and all(path.startswith("probe") for path in paths), "no lease, no spec, no event"
    store = next(check for check in checks(spec.store) if check.name.startswith("store"))
    assert not store.ok and SECOND_CREATE in store.found and "suspend" in store.do

    keep_versions(s3_server, bucket, "Suspended")  # the remedy, under the same name
    assert set(run(spec, (), tiny_ways()).committed) == {"a", "sum"}
    assert all(check.ok for check in checks(spec.store) if check.name.startswith("store"))


@pytest.mark.s3
def test_a_bucket_that_begins_to_keep_versions_is_found_by_the_next_run(
    s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    store = f"s3://{bucket}/runs"
    run(spec_in(store, tmp_path), (), tiny_ways())
    keep_versions(s3_server, bucket, "Enabled")
    run(spec_in(store, tmp_path), (), tiny_ways())  # nothing is left to do, and no lease is taken
    before = open_store(f"{store}/tiny").read(LEASE)
    for take_the_lease in (
        partial(run, spec_in(store, tmp_path, more={}), (), tiny_ways()),
        partial(gc, f"{store}/tiny"),
    ):
        with pytest.raises(StorageError) as refused:
            take_the_lease()
        assert SECOND_CREATE in refused.value.found
    assert open_store(f"{store}/tiny").read(LEASE) == before


@pytest.mark.s3
def test_the_look_is_cheap_and_what_it_leaves_is_in_nobodys_way(proxy: Proxy, s3_uri: str, tmp_path: Path) -> None:
    asked = []
    for more in ({}, {"more": {"value": 3}}):
        proxy.requests.clear()
        run(spec_in(s3_uri, tmp_path, **more), (), tiny_ways())
        asked.append([request.split()[0] for request, _ in proxy.requests if PROBE in request])
    assert asked == [["PUT", "PUT", "GET", "PUT", "GET", "PUT"], ["PUT", "GET", "PUT", "GET", "PUT"]]
    assert not any(request.startswith("DELETE") for request, _ in proxy.requests)
    paths = [entry.path for entry in open_store(f"{s3_uri}/tiny").list("probe")]
    assert paths == [PROBE] and gc(f"{s3_uri}/tiny").paths == ()
    assert all(found.problem is None for found in verify(f"{s3_uri}/tiny"))
