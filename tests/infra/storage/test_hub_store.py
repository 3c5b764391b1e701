"""A repository of the Hub as a store: what is read is what was committed, and each refusal has its exit code."""

import hashlib
import socket
from pathlib import Path

import httpx2
import pytest
from hub_server import LARGE_BYTES, PAGE, Hub
from huggingface_hub.utils import parse_hf_uri

from vitpipe.infra.errors import IntegrityError, NotFound, StorageError, UsageError, VitpipeError
from vitpipe.infra.storage import hub as hub_module
from vitpipe.infra.storage import hub_client, hub_ranges
from vitpipe.infra.storage.hub_errors import explained, passes
from vitpipe.infra.storage.hub_names import data_place, hub_place, without_revisions
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Digest

FILES = {f"data/{number}.bin": bytes([number]) * (LARGE_BYTES // 4 * number) for number in range(8)}
SET = "hf://datasets/me/set"


@pytest.mark.parametrize(
    "text",
    [
        "hf://owner/name",
        "hf://models/owner/name@v1.0/config.json",
        "hf://datasets/owner/na.me_x/data/train-00000-of-00004.parquet",
        "hf://datasets/owner/name@refs/convert/parquet/default/train/0000.parquet",
        "hf://datasets/owner/name@refs/pr/12",
        "hf://datasets/owner/name@a%2Fbranch/x",
    ],
)
def test_places_mean_what_huggingface_hub_takes_them_for(text: str) -> None:
    theirs, ours = parse_hf_uri(text), hub_place(text)
    assert (theirs.type, theirs.id, theirs.path_in_repo) == (ours.kind, ours.repo, ours.path)
    assert ours.revision == (theirs.revision or "main")
    again = parse_hf_uri(ours.uri)
    assert (again.type, again.id, again.revision, again.path_in_repo) == (
        *(ours.kind, ours.repo, ours.revision),
        ours.path,
    )


@pytest.mark.parametrize("text", ["hf://gpt2", "hf://datasets/mnist", "hf://spaces/a/b", "hf://a/b@", "hf://a/b/../c"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hf://|part"):
        hub_place(text)


def test_a_place_in_a_source_is_a_data_set_unless_it_says_else() -> None:
    assert data_place("hf://me/set@v1/x*.parquet") == "hf://datasets/me/set@v1/x*.parquet"
    assert data_place("hf://models/me/set") == "hf://models/me/set@main"
    assert data_place(data_place("hf://me/set")) == "hf://datasets/me/set@main"
    assert data_place("s3://me/set@v1") == "s3://me/set@v1"
    assert without_revisions("hf://datasets/me/set@refs/pr/3/x, hf://a/b@v/y") == "hf://datasets/me/set/x, hf://a/b/y"


def test_what_is_read_is_what_was_committed(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("datasets", "me/set", {**FILES, "README.md": b"words"})
    hub.add("datasets", "me/set", {"data/1.bin": b"later"})
    assert len(FILES) > PAGE
    store = open_store(f"{SET}@{commit}")
    assert store.uri == f"{SET}@{commit}"
    assert {entry.path: entry.bytes for entry in store.list("data/")} == {
        path: len(data) for path, data in sorted(FILES.items())
    }
    assert [entry.path for entry in store.child("data").list("1")] == ["1.bin"] and not list(store.list("nothing/"))
    assert list(store.folders()) == ["data"]
    for path, data in FILES.items():
        digest = Digest(len(data), hashlib.sha256(data).hexdigest())
        assert store.read(path) == data and store.size(path) == len(data)
        assert store.download(path, tmp_path / path, expect=digest) == digest
    whole = FILES["data/7.bin"]
    assert store.read("data/7.bin", 10, 20) == whole[10:30]
    assert store.read("data/7.bin", len(whole) - 3, 20) == whole[-3:] and not store.read("data/7.bin", len(whole), 5)
    assert store.size("data/none") is None
    with pytest.raises(NotFound):
        store.read("data/none")
    with pytest.raises(UsageError, match="only read"):
        store.write("x", b"")
    assert open_store(SET).read("data/1.bin") == b"later"


def test_a_file_that_arrives_otherwise_than_the_hub_says(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("models", "me/net", FILES)
    store = open_store("hf://me/net")
    store.download("data/7.bin", tmp_path / "sound")
    real = hub_module.get_range
    monkeypatch.setattr(hub_module, "get_range", lambda *args: real(*args).replace(b"\7", b"\6").replace(b"\1", b"\0"))
    for path in ("data/7.bin", "data/1.bin"):  # by the SHA-256 of a large file, by git's name for a small one
        with pytest.raises(IntegrityError):
            store.download(path, tmp_path / path)
        assert not (tmp_path / path).exists()


def test_a_file_is_looked_up_once_and_its_address_gets_no_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("models", "me/net", FILES)
    hub.token = "right"
    monkeypatch.setenv("HF_TOKEN", "right")
    store = open_store("hf://me/net")
    hub.asked.clear()
    assert [store.read("data/7.bin", at, 3) for at in (0, 9, 18)] == [b"\7\7\7"] * 3
    assert [asked.split()[1][:5] for asked in hub.asked] == ["/me/n", "/cdn/", "/cdn/", "/cdn/"]
    assert hub.told_elsewhere == 1  # the first one: the client follows to the same host
    hub.expired = True
    assert store.read("data/7.bin", 27, 3) == b"\7\7\7"
    monkeypatch.setattr(hub_ranges, "KEPT_S", 0.0)
    hub.asked.clear()
    assert {store.read("data/6.bin", at, 3) for at in (0, 9)} == {b"\6\6\6"} and len(hub.asked) == 4


def test_a_server_without_ranges(hub: Hub) -> None:
    hub.add("models", "me/net", FILES)
    hub.ranges = False
    assert open_store("hf://me/net").read("data/7.bin", 9, 3) == b"\7\7\7"
    assert not open_store("hf://me/net").read("data/7.bin", 99_999, 3)


def refused(uri: str) -> VitpipeError:
    with pytest.raises(VitpipeError) as caught:
        list(open_store(uri).list())
    return caught.value


def test_each_refusal_has_its_exit_code(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("datasets", "me/set", FILES)
    hub.repos["datasets", "me/set"].private = True
    hub.token = "right"
    assert (refused(SET).code, "private" in refused(SET).do) == (2, True)
    monkeypatch.setenv("HF_TOKEN", "wrong-and-secret")
    wrong = refused(SET)
    assert wrong.code == 7 and "token" in wrong.found and "secret" not in repr(wrong)
    monkeypatch.setenv("HF_TOKEN", "right")
    assert len(list(open_store(SET).list())) == len(FILES)
    assert refused("hf://datasets/me/nothing").code == 2
    assert (refused(f"{SET}@v9").code, "branch, tag or commit" in refused(f"{SET}@v9").found) == (2, True)
    hub.faults = [(403, {"X-Error-Message": "no right to it"})]
    assert refused(SET).code == 7
    hub.faults = [(403, {"X-Error-Code": "GatedRepo"})]
    assert "conditions" in refused(SET).do
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = len(hub.asked)
    assert (refused(SET).code, "HF_HUB_OFFLINE" in refused(SET).found, len(hub.asked)) == (7, True, before)


def test_a_hub_that_never_answers_and_one_that_nobody_vouches_for(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setenv("VITPIPE_STORAGE_STALL_S", "0.1")
    monkeypatch.setenv("VITPIPE_STORAGE_DEADLINE_S", "0.3")
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # it takes connections and says nothing
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert refused(SET).code == 7
        monkeypatch.setattr(hub_client.time, "sleep", lambda _: None)
        assert refused(f"{SET}@{'0' * 40}").code == 7  # the listing, which the library tries again by itself
    untrusted = httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    assert not passes(untrusted) and "SSL_CERT_FILE" in explained(untrusted, "read it", "https://hub").do


def test_what_passes_is_tried_again_and_no_answer_is_7(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("datasets", "me/set", FILES)
    hub.faults = [(429, {}), (503, {})]
    store = open_store(SET)
    hub.faults = [(429, {})]
    assert store.read("data/6.bin") == FILES["data/6.bin"]
    waited: list[float] = []
    monkeypatch.setattr(hub_client.time, "sleep", waited.append)
    hub.faults = [(429, {"RateLimit": '"resolvers";r=0;t=170'}), (429, {"Retry-After": "3"})]
    assert store.read("data/6.bin") == FILES["data/6.bin"] and waited == [170, 3]
    hub.faults = [(429, {"Retry-After": "3"})] * 50
    assert refused(SET).code == 7 and len(waited) == 2 + hub_client.TURNS - 1
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", hub.uri)
    monkeypatch.setenv("VITPIPE_STORAGE_DEADLINE_S", "0.3")
    hub.faults = [(429, {})] * 50
    assert isinstance(refused(SET), StorageError) and "429" in refused(SET).found
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refused(SET).code == 7 and "HF_ENDPOINT" in refused(SET).do
