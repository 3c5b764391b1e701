"""The commit of a node: once, adopted when equal, refused when not, replaced on request with the old one kept."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_stages import tiny_spec

from vitpipe.infra.errors import AlreadyExists, Changed, DriftError, IntegrityError, LeaseLost, UsageError
from vitpipe.infra.storage.local import LocalStore
from vitpipe.pipeline.drive.provenance import code_version, package_versions
from vitpipe.pipeline.spec.catalog import CATALOG
from vitpipe.pipeline.store.attempts import earlier, header, list_attempts
from vitpipe.pipeline.store.records import commit, encode, read_committed, read_external
from vitpipe.stages.artifacts import File, Origin, ShardSet
from vitpipe.stages.record import Record, parse_record
from vitpipe.stages.seal import sealed


class Held:
    def check(self) -> None:
        return None

    def stopping(self) -> str | None:
        return None


class Lost(Held):
    def check(self) -> None:
        raise LeaseLost("go on", "another holds it")


def record(attempt: str = "a1", fingerprint: str = "f", inputs: Any = None) -> Record:
    return Record(
        node="n", stage="make", fingerprint=fingerprint, recipe={"config": {}}, config={}, inputs=inputs or {},
        output=ShardSet(manifest_sha256="m", num_classes=1, splits={}).facts(), files=(), code="c", versions={},
        started=f"by {attempt}", seconds=1, attempt=attempt,
    )  # fmt: skip


def taking(sha256: str) -> dict[str, tuple[Origin, ...]]:
    return {"shards": (Origin(uri="file:///x", fingerprint="x", record_sha256=sha256),)}


@pytest.fixture
def node(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_the_first_commit_is_the_record(node: LocalStore) -> None:
    done = commit(node, record(), Held())
    assert node.read("record.json") == done.data == encode(record())
    assert read_committed(node) == done and done.artifact().origin.record_sha256 == done.sha256  # type: ignore[union-attr]


def test_no_flipped_bit_and_no_cut_of_a_record_is_believed(node: LocalStore) -> None:
    data = encode(record(inputs=taking("1" * 64)))
    for at in range(len(data)):
        for changed in (data[:at], *(data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :] for bit in range(8))):
            with pytest.raises(IntegrityError):
                parse_record(changed, f"{node.uri}/n", "n")


def test_a_damaged_record_names_who_checks_it_and_advises_no_replacement(node: LocalStore) -> None:
    store = node.child("r/transfer/b-16")
    data = encode(record().model_copy(update={"node": "transfer/b-16"}))
    for changed in (data.replace(b'"seconds": 1.0', b'"seconds": 1.5'), data[:99], data[:10]):
        store.write("record.json", changed)
        with pytest.raises(IntegrityError) as told:
            read_committed(store, "transfer/b-16")
        assert f"`vitpipe artifacts verify {node.uri}/r transfer/b-16`" in told.value.do
        assert "damaged" in told.value.found and "--replace" not in str(told.value)
    store.write("record.json", data[:99])
    with pytest.raises(IntegrityError, match="r transfer/b-16`"):
        read_committed(store)  # by what is left of its own words


def test_records_of_earlier_versions_carry_no_seal_and_newer_ones_are_refused_by_name(node: LocalStore) -> None:
    old = record().model_copy(update={"schema_": 1})
    node.write("record.json", old.model_dump_json(by_alias=True, indent=1).encode())
    assert read_committed(node).record == old and b'"sha256"' not in encode(old)  # type: ignore[union-attr]
    for content in ({**json.loads(encode(record())), "schema": 99, "more": 1}, {"schema": 99}):
        fields = {key: value for key, value in content.items() if key != "sha256"}
        node.write("record.json", sealed(fields) if len(fields) > 1 else json.dumps(fields).encode())
        with pytest.raises(UsageError, match="schema 99 was written by a newer vitpipe"):
            read_committed(node)


def test_an_equal_result_is_adopted(node: LocalStore) -> None:
    first = commit(node, record("a1"), Held())
    assert commit(node, record("a2"), Held()) == first
    assert commit(node, record("a2"), Held(), replace=True) == first
    assert [entry.path for entry in node.list()] == ["record.json"]


@pytest.mark.parametrize("other", [record("a2", "g"), record("a2", inputs=taking("1"))], ids=["recipe", "inputs"])
def test_another_result_is_drift_unless_it_may_be_replaced(node: LocalStore, other: Record) -> None:
    first = commit(node, record("a1"), Held())
    with pytest.raises(DriftError, match="--replace n"):
        commit(node, other, Held())
    assert read_committed(node) == first
    assert commit(node, other, Held(), replace=True).record.attempt == "a2"
    assert node.read("record.1.json") == first.data


def test_the_old_record_is_kept_once_even_when_killed_between(node: LocalStore) -> None:
    first = commit(node, record("a3.2"), Held())
    node.create("record.3.json", first.data)
    commit(node, record("a4", "g"), Held(), replace=True)
    assert node.read("record.3.json") == first.data
    node.write("record.4.json", b"a stranger's")
    with pytest.raises(IntegrityError, match=r"record\.4\.json"):
        commit(node, record("a5", "h"), Held(), replace=True)


def test_who_lost_the_run_commits_nothing(node: LocalStore) -> None:
    with pytest.raises(LeaseLost):
        commit(node, record(), Lost())
    assert list(node.list()) == []


class LostAnswer(LocalStore):
    def create(self, path: str, data: bytes) -> str:
        super().create(path, data)
        raise AlreadyExists(f"create {path}", "412")

    def swap(self, path: str, data: bytes, version: str) -> str:
        super().swap(path, data, version)
        raise Changed(f"swap {path}", "412")


def test_a_lost_answer_is_read_back(tmp_path: Path) -> None:
    node = LostAnswer(tmp_path)
    assert commit(node, record(), Held()).record == record()
    assert commit(node, record("a2", "g"), Held(), replace=True).record == record("a2", "g")


class Overtaken(LocalStore):
    """Between our look and our write another driver commits."""

    def create(self, path: str, data: bytes) -> str:
        if path == "record.json":
            super().create(path, encode(record("a9", "other")))
        return super().create(path, data)


def test_a_lost_race_is_drift_or_adopted(tmp_path: Path) -> None:
    with pytest.raises(DriftError, match="a9"):
        commit(Overtaken(tmp_path / "n"), record(), Held())
    assert commit(Overtaken(tmp_path / "m"), record("a1", "other"), Held()).record.attempt == "a9"


def test_an_artifact_that_was_never_committed_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no record\.json"):
        read_external(f"file://{tmp_path}/nothing")


def begin(node: LocalStore, name: str, fingerprint: str = "f", sha256: str = "1") -> None:
    node.write(
        f"{name}/attempt.json",
        b'{"fingerprint": "%s", "recipe": {}, "inputs": {"shards": [{"uri": "u", "fingerprint": "x", '
        b'"record_sha256": "%s"}]}}' % (fingerprint.encode(), sha256.encode()),
    )


def test_attempts_come_newest_first_with_their_pieces(node: LocalStore) -> None:
    for name in ("a2", "a10", "a10.1", "a10.12"):
        begin(node, name)
    begin(node, "a3", fingerprint="g")
    begin(node, "a4", sha256="2")
    node.write("a2/step-10/manifest.json", b"")
    node.write("a2/step-10/state/x", b"")
    node.write("a7/logs/rank-0.log", b"")  # never begun
    node.write("apple/attempt.json", b"")  # a sibling's name
    attempts = list_attempts(node, r"step-\d+/manifest\.json")
    assert [one.name for one in attempts] == ["a10.12", "a10.1", "a10", "a4", "a3", "a2"]
    assert [one.pieces for one in attempts] == [0, 0, 0, 0, 0, 1]
    assert [one.name for one in earlier(attempts, "f", taking("1"))] == ["a10.12", "a10.1", "a10", "a2"]
    assert [one.pieces for one in list_attempts(node, None)] == [0] * 6


def test_a_damaged_attempt_is_named(node: LocalStore) -> None:
    node.write("a1/attempt.json", b"{")
    with pytest.raises(IntegrityError, match=r"a1/attempt\.json"):
        list_attempts(node, None)


def test_no_flipped_bit_of_an_attempt_makes_a_resume_forget_it(node: LocalStore) -> None:
    net = tiny_spec(Path("/nowhere"), {"n": {}}).graph.nodes["n"]
    data = header(net, "f", {"stage": "make"}, taking("1"), code="c")
    node.write("a1/attempt.json", data)
    assert [one.fingerprint for one in list_attempts(node, None)] == ["f"]
    rng = random.Random(3)
    for at in range(0, len(data), 3):
        node.write("a1/attempt.json", data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
        try:
            (found,) = list_attempts(node, None)
        except IntegrityError:
            continue
        assert found.fits("f", taking("1")), data[at - 20 : at + 20]  # the name of the seal itself, and nothing else


def test_an_attempt_whose_header_is_lost_is_told_by_a_record_that_names_its_files(node: LocalStore) -> None:
    node.write("a1/step-1/manifest.json", b"")
    files = (File(path="step-1/manifest.json", at="a1/step-1/manifest.json", bytes=0, sha256="0"),)
    node.write("record.1.json", encode(record("a2", "g", taking("2")).model_copy(update={"files": files})))
    (found,) = list_attempts(node, r"step-\d+/manifest\.json")
    assert (found.name, found.pieces) == ("a1", 1) and found.fits("g", taking("2"))


def test_a_step_and_its_mark_are_one_piece_and_a_mark_alone_is_one_too(node: LocalStore) -> None:
    begin(node, "a1")
    for path in ("step-1/manifest.json", "committed/step-1", "committed/step-2", "committed/done"):
        node.write(f"a1/{path}", b"")
    assert [one.pieces for one in list_attempts(node, CATALOG["pretrain"].pieces)] == [2]


def test_an_attempt_that_lost_its_header_is_named_where_pieces_are(node: LocalStore) -> None:
    """They would be passed over, and a training would begin anew."""
    begin(node, "a1")
    node.write("a2/step-1/manifest.json", b"")
    with pytest.raises(IntegrityError, match=r"a2/attempt\.json: it is lost, and beside it are 1 finished pieces"):
        list_attempts(node, r"step-\d+/manifest\.json")
    assert [one.name for one in list_attempts(node, None)] == ["a1"]


def test_provenance_names_commit_and_packages() -> None:
    assert len(code_version().removesuffix("+dirty")) == 40 or code_version().startswith("vitpipe ")
    assert {"python", "torch", "ray", "deepspeed", "numpy"} <= package_versions().keys()
