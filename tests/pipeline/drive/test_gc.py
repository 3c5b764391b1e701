"""`gc` removes what nobody can want, and nothing else, however the run came to be as it is."""

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from vitpipe.infra.errors import IntegrityError, LeaseLost, UsageError
from vitpipe.infra.lease_state import Timing
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.drive.gc import gc
from vitpipe.pipeline.drive.lease import acquire
from vitpipe.stages.artifacts import File, Origin, Report
from vitpipe.stages.record import Record

QUICK = Timing(renew_s=0.05, look_s=0.02, watch_s=0.3)


@pytest.fixture
def run(tmp_path: Path) -> Store:
    store = open_store(f"file://{tmp_path}/runs/r")
    store.write("spec.yaml", b"")
    return store


def attempt(run: Store, node: str, name: str, files: list[str], fingerprint: str = "f", stage: str = "ingest") -> None:
    ref = Origin(uri="file:///x", fingerprint="i", record_sha256="r")
    fields = {"fingerprint": fingerprint, "recipe": {"stage": stage}, "inputs": {"shards": [ref.model_dump()]}}
    run.write(f"{node}/{name}/attempt.json", json.dumps(fields).encode())
    for file in files:
        run.write(f"{node}/{name}/{file}", f"{name}/{file}".encode())


def commit(run: Store, node: str, at: list[str], by: str, fingerprint: str = "f", name: str = "record.json") -> None:
    ref = Origin(uri="file:///x", fingerprint="i", record_sha256="r")
    record = Record(
        schema=1, node=node, stage="ingest", fingerprint=fingerprint, recipe={}, config={}, inputs={"shards": (ref,)},
        output=Report(headline="").facts(), code="c", versions={}, started="now", seconds=1, attempt=by,
        files=tuple(
            File(path=place.partition("/")[2], at=place, bytes=len(place), sha256=sha256(place.encode()).hexdigest())
            for place in at
        ),
    )  # fmt: skip
    run.child(node).write(name, record.model_dump_json(by_alias=True).encode())


def left(run: Store, node: str) -> set[str]:
    return {entry.path for entry in run.child(node).list()}


def test_a_committed_node_keeps_what_its_record_names(run):
    attempt(run, "n", "a1", ["s-0.index", "s-1.index", "old.tmp", "logs/driver.log"])
    attempt(run, "n", "a2", ["s-2.index", "manifest.json", "scrap", "logs/driver.log"])
    attempt(run, "n", "a3", ["s-0.index"])
    commit(run, "n", ["a1/s-0.index", "a1/s-1.index", "a2/s-2.index", "a2/manifest.json"], by="a2")
    run.write("n/progress.json", b"{}")
    run.write("n/by-hand.txt", b"not ours")
    run.write("events/1-1-x.json", b"{}")
    removed = gc(run.uri)
    assert left(run, "n") == {
        "record.json", "progress.json", "by-hand.txt",
        "a1/attempt.json", "a1/s-0.index", "a1/s-1.index",
        "a2/attempt.json", "a2/s-2.index", "a2/manifest.json", "a2/logs/driver.log",
    }  # fmt: skip
    assert set(removed.paths) == {
        "n/a1/old.tmp", "n/a1/logs/driver.log", "n/a2/scrap", "n/a3/attempt.json", "n/a3/s-0.index"
    }  # fmt: skip
    assert run.read("events/1-1-x.json") == b"{}" and run.read("spec.yaml") == b""
    assert gc(run.uri).paths == ()


def test_kept_records_are_records(run):
    attempt(run, "n", "a1", ["x.index"], fingerprint="old")
    attempt(run, "n", "a2", ["x.index"], fingerprint="new")
    commit(run, "n", ["a1/x.index"], by="a1", fingerprint="old", name="record.1.json")
    commit(run, "n", ["a2/x.index"], by="a2", fingerprint="new")
    assert gc(run.uri).paths == ()


def test_what_may_be_resumed_is_spared_until_told_otherwise(run):
    attempt(run, "n", "a1", ["x.index", "half"], fingerprint="wanted")
    attempt(run, "n", "a2", ["x.index"], fingerprint="of another day")
    attempt(run, "n", "a3", [], fingerprint="wanted")
    attempt(run, "n", "a3.1", ["x.index"], fingerprint="wanted")
    attempt(run, "n", "a4", ["error.json"], fingerprint="wanted")
    attempt(run, "m/s-1", "a2", ["error.json"], stage="report")
    attempt(run, "m/s-1", "a3", ["error.json"], stage="report")
    assert set(gc(run.uri).paths) == {"m/s-1/a2/attempt.json", "m/s-1/a2/error.json"}
    gc(run.uri, unfinished=True)
    assert left(run, "n") == left(run, "m") == set()


def test_a_stage_of_another_version_is_spared(run):
    attempt(run, "n", "a1", ["whatever"], stage="of the future")
    attempt(run, "n", "a2", [], stage="of the future")
    assert gc(run.uri).paths == ()


def test_it_takes_the_lease_and_gives_it_back(run):
    attempt(run, "n", "a1", ["x.index"])
    holder = acquire(run, QUICK)
    thread = holder.keep(lambda error: None)
    with pytest.raises(LeaseLost, match="alive"):
        gc(run.uri, unfinished=True, timing=QUICK)
    assert left(run, "n") == {"a1/attempt.json", "a1/x.index"}
    holder.end()
    thread.join(5)
    assert len(gc(run.uri, unfinished=True, timing=QUICK).paths) == 2
    assert json.loads(run.read("lease.json"))["holder"] is None


def test_damage_stops_it_before_anything_is_removed(run):
    attempt(run, "a", "a1", ["scrap"])
    attempt(run, "a", "a2", [])
    run.write("b/record.json", b'{"schema": 1')
    with pytest.raises(IntegrityError, match=r"not as it was: b/record\.json is damaged: \w") as told:
        gc(run.uri, unfinished=True)
    assert str(told.value).count("is damaged") == 1
    assert left(run, "a") == {"a1/attempt.json", "a1/scrap", "a2/attempt.json"}


def everything(run: Store) -> set[str]:
    return {entry.path for entry in run.list() if entry.path != "lease.json"}


def test_one_changed_bit_of_a_place_costs_nothing(run):
    """A record of an earlier version, which carries no seal: `.tar` became `.par`, and the tar was garbage."""
    attempt(run, "n", "a1", ["train-000000.tar", "scrap"])
    commit(run, "n", ["a1/train-000000.tar"], by="a1")
    run.write("n/record.json", run.read("n/record.json").replace(b"a1/train-000000.tar", b"a1/train-000000.par"))
    before = everything(run)
    with pytest.raises(
        IntegrityError, match=r"n/a1/train-000000\.par is missing.*artifacts verify \S+/runs/r n"
    ) as told:
        gc(run.uri, unfinished=True)
    assert everything(run) == before and "--replace" not in str(told.value) and told.value.code == 8


@pytest.mark.parametrize("name", ["record.json", "record.1.json"])
@pytest.mark.parametrize(("content", "says"), [(None, "is missing"), (b"short", "has 5 bytes, the record says 13")])
def test_a_file_that_a_record_names_is_as_it_was_or_nothing_goes(run, name, content, says):
    attempt(run, "n", "a1", ["x.index", "scrap"])
    commit(run, "n", ["a1/x.index"], by="a2", fingerprint="other")
    commit(run, "n", ["a1/y.index123"], by="a1", name=name)
    if content:
        run.write("n/a1/y.index123", content)
    with pytest.raises(IntegrityError, match=f"n/a1/y.index123 {says}"):
        gc(run.uri)
    assert run.size("n/a1/scrap") is not None


def test_a_record_leads_nowhere_outside_of_its_node(run):
    attempt(run, "n", "a1", ["scrap"])
    commit(run, "n", ["../m/a1/x"], by="a1")
    with pytest.raises(IntegrityError, match=r"names \S+ at '\.\./m/a1/x'"):
        gc(run.uri)


def taking(run: Store, node: str, given: str, sha256: str, by: str) -> None:
    """`node`, which took the record of `given` that had this digest, as a run that has moved since."""
    ref = {"uri": f"s3://elsewhere/r/{given}", "fingerprint": "f", "record_sha256": sha256}
    attempt(run, node, by, ["score.json"], fingerprint=node)
    commit(run, node, [f"{by}/score.json"], by=by, fingerprint=node)
    fields = json.loads(run.read(f"{node}/record.json"))
    run.write(f"{node}/record.json", json.dumps({**fields, "inputs": {"data": [ref]}}).encode())


def test_a_record_is_the_one_that_was_taken_or_a_later_one(run):
    attempt(run, "n", "a1", ["x.index"])
    commit(run, "n", ["a1/x.index"], by="a1")
    good = run.read("n/record.json")
    taking(run, "m", "n", sha256(good).hexdigest(), by="a1")
    assert gc(run.uri).paths == ()
    run.write("n/record.json", good.replace(b'"started":"now"', b'"started":"not"'))
    with pytest.raises(IntegrityError, match=r"n/record\.json has SHA-256 \w+, m took one of"):
        gc(run.uri)
    run.delete("n/record.json")
    with pytest.raises(IntegrityError, match=r"n/record\.json is lost: m took one of"):
        gc(run.uri, unfinished=True)
    attempt(run, "n", "a2", ["y.index"], fingerprint="g")  # computed again since: the old one may be kept, or not
    commit(run, "n", ["a2/y.index"], by="a2", fingerprint="g")
    assert gc(run.uri).paths == ()
    run.write("n/record.1.json", good)
    assert gc(run.uri).paths == ()
    run.delete("n/record.json")
    with pytest.raises(IntegrityError, match="the records that it replaced lie beside it"):
        gc(run.uri, unfinished=True)


def test_a_lost_record_is_missed_by_its_mark_until_it_is_made_anew(run):
    attempt(run, "n", "a1", ["score.json", "committed/done"])
    with pytest.raises(IntegrityError, match=r"n/record\.json is lost: a1 committed one"):
        gc(run.uri, unfinished=True)
    attempt(run, "n", "a2", ["score.json", "committed/done"])
    commit(run, "n", ["a2/score.json"], by="a2")
    assert set(gc(run.uri).paths) == {"n/a1/attempt.json", "n/a1/score.json", "n/a1/committed/done"}


def test_a_header_is_not_missed_where_a_record_says_the_same(run):
    attempt(run, "n", "a1", ["x.index", "scrap"])
    run.delete("n/a1/attempt.json")
    with pytest.raises(IntegrityError, match=r"1 finished pieces.* or move .* out of the run"):
        gc(run.uri, unfinished=True)
    commit(run, "n", ["a1/x.index"], by="a1")
    assert gc(run.uri).paths == ("n/a1/scrap",)
    run.write("n/a1/attempt.json", b"{")
    assert gc(run.uri).paths == ()


def test_marks_alone_tell_of_steps_that_were_lost(run):
    attempt(run, "n", "a1", ["committed/step-4"], fingerprint="wanted", stage="pretrain")
    attempt(run, "n", "a2", [], fingerprint="wanted", stage="pretrain")
    assert gc(run.uri).paths == ()


def test_what_would_go_is_told_with_the_reason_and_stays(run):
    attempt(run, "n", "a1", ["x.index", "scrap"])
    commit(run, "n", ["a1/x.index"], by="a1")
    attempt(run, "m", "a1", ["error.json"], fingerprint="wanted", stage="report")
    attempt(run, "m", "a2", ["x.index"], fingerprint="wanted", stage="ingest")
    run.write("m/a1/nothing-begun", b"")
    run.delete("m/a1/attempt.json")
    before = {entry.path for entry in run.list()}
    found = gc(run.uri, dry_run=True)
    assert {(one.path, one.reason) for one in found.garbage} == {
        ("n/a1/scrap", "its node is committed, and no record names it"),
        ("m/a1/error.json", "of an attempt that was never begun"),
        ("m/a1/nothing-begun", "of an attempt that was never begun"),
    }
    assert {one.reason for one in gc(run.uri, unfinished=True, dry_run=True).garbage if "m/a2" in one.path} == {
        "what a resume might have gone on from"
    }
    assert {entry.path for entry in run.list()} == before and found.bytes > 0
    assert gc(run.uri).paths == found.paths


def test_an_unknown_run_is_not_begun(run, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'r'"):
        gc(run.uri + "r")
    assert not (tmp_path / "runs" / "rr").exists()


def test_half_written_files_are_swept(run, tmp_path):
    attempt(run, "n", "a1", ["x.index"])
    temporary = tmp_path / "runs" / "r" / "n" / "a1" / ".vitpipe-tmp-1"
    temporary.write_bytes(b"half")
    os.utime(temporary, (0, 0))
    assert gc(run.uri).unfinished_writes == 1
    assert not temporary.exists()


def test_what_nodes_share_goes_once_nothing_is_left_to_resume(run):
    run.write("_shared/abc/a1/part-0.safetensors", b"features")
    attempt(run, "n", "a1", ["score.json"])
    assert gc(run.uri).paths == () and left(run, "_shared")
    commit(run, "n", ["a1/score.json"], by="a1")
    assert gc(run.uri).paths == ("_shared/abc/a1/part-0.safetensors",) and not left(run, "_shared")


def test_what_nodes_share_goes_with_the_unfinished(run):
    run.write("_shared/abc/a1/part-0.safetensors", b"features")
    attempt(run, "n", "a1", ["score.json"])
    assert "_shared/abc/a1/part-0.safetensors" in gc(run.uri, unfinished=True).paths
