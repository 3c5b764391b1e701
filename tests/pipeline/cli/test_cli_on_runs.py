"""The verbs that look at a run, on real runs of two small stages."""

import json
import logging
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from command_line import Vitpipe
from tiny_stages import HOOKS

from vitpipe.infra.at_once import READERS
from vitpipe.infra.errors import StageError, StorageError
from vitpipe.infra.storage.local import LocalStore
from vitpipe.pipeline.store.log_reading import Logs

SPEC = """\
version: 1
name: tiny
store: file://./runs
nodes:
  a: {stage: make, config: {value: 2}}
  b: {stage: make, config: {value: 3}}
  sum: {stage: add, needs: {shards: [a, b]}}
"""


@pytest.fixture
def vitpipe(vitpipe: Vitpipe) -> Vitpipe:
    """Runs a command where `tiny.yaml` lies."""
    Path("tiny.yaml").write_text(SPEC)
    return vitpipe


def fails(ctx: Any) -> None:
    raise StageError("make it", "it broke", "mend it")


def test_a_run_says_what_it_did_and_then_that_nothing_is_left(vitpipe: Vitpipe) -> None:
    code, out, err = vitpipe("run", "tiny.yaml")
    assert (code, err) == (0, "") and "sum committed: " in out and "3 of 3 nodes run" in out

    code, out, err = vitpipe("run", "tiny.yaml")
    assert (code, err) == (0, "") and "0 of 3 nodes run" in out


def test_what_is_adopted_is_not_said_to_have_run(vitpipe: Vitpipe) -> None:
    vitpipe("run", "tiny.yaml")
    Path("two.yaml").write_text(SPEC.replace("name: tiny", "name: two\nreuse: store").replace("value: 3", "value: 4"))
    code, out, err = vitpipe("run", "two.yaml")
    assert (code, err) == (0, "") and "2 of 3 nodes run, 1 adopted, in " in out
    assert "0 of 3 nodes run, in " in vitpipe("run", "two.yaml")[1]


@pytest.mark.parametrize("damage", [b"\xff", b"[" * 3_000, b"", b"nodes: {a: {}}\n"])
def test_a_damaged_spec_of_a_run_is_named_and_written_anew(damage: bytes, vitpipe: Vitpipe, tmp_path: Path) -> None:
    vitpipe("run", "tiny.yaml")
    kept = tmp_path / "runs/tiny/spec.yaml"
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    for verb in ("status", "logs", "report"):
        code, _, err = vitpipe(verb, "tiny.yaml")
        assert code == 8 and "runs/tiny/spec.yaml: it is damaged" in err and "`vitpipe run YOUR.yaml`" in err

    code, out, err = vitpipe("run", "tiny.yaml")
    assert (code, err) == (0, "") and "0 of 3 nodes run" in out and kept.read_bytes() == whole
    assert vitpipe("status", "tiny.yaml")[0] == 0


@pytest.mark.parametrize("closed", [False, True])
def test_a_run_goes_on_without_a_log_that_takes_no_lines(
    closed: bool, vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with Path("/dev/full").open("w") as full, open(writing, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe if closed else full)
        code, _, err = vitpipe("run", "tiny.yaml")
        why = "standard output does not take them (Broken pipe)" if closed else "/dev/full is full"
        assert code == 0 and re.fullmatch(rf"\d+ terminal lines dropped: {re.escape(why)}\n", err)
        HOOKS["a"] = fails
        again = vitpipe("run", "tiny.yaml", "name=other")
        assert again[0] == 4 and "terminal lines dropped" in again[2] and "it broke" in again[2]

    events = [json.loads(line) for line in vitpipe("events", "tiny.yaml", "--json")[1].splitlines()]
    assert {event["node"] for event in events if event["kind"] == "committed"} == {"a", "b", "sum"}


def test_run_as_json_prints_one_object(vitpipe: Vitpipe) -> None:
    _, out, err = vitpipe("run", "tiny.yaml", "--json")

    found = json.loads(out)
    assert err == "" and [node["action"] for node in found["nodes"]] == ["run"] * 3


def test_a_drift_is_3_and_names_old_and_new(vitpipe: Vitpipe) -> None:
    vitpipe("run", "tiny.yaml")

    code, _, err = vitpipe("run", "tiny.yaml", "nodes.a.config.value=5")
    assert code == 3 and "config.value 2 -> 5" in err and "--replace a" in err

    code, out, _ = vitpipe("plan", "tiny.yaml", "nodes.a.config.value=5", "--json")
    assert code == 0 and [node["action"] for node in json.loads(out)["nodes"]] == ["drifted", "reuse", "blocked"]

    code, out, _ = vitpipe("run", "tiny.yaml", "nodes.a.config.value=5", "--replace", "a")
    assert code == 0 and "2 of 3 nodes run" in out


def test_a_failed_stage_is_4_and_status_says_what_waits_for_it(vitpipe: Vitpipe) -> None:
    HOOKS["a"] = fails
    code, _, err = vitpipe("run", "tiny.yaml")
    assert code == 4 and "it broke" in err

    code, out, _ = vitpipe("status", "tiny.yaml", "--json")
    states = {node["node"]: node["state"] for node in json.loads(out)["nodes"]}
    assert code == 0 and states == {"a": "failed", "b": "committed", "sum": "blocked"}
    assert "a: failed: Cannot make it" in vitpipe("status", "file://./runs/tiny")[1]


@pytest.mark.parametrize("name", ["tiny.yaml", "file://./runs/tiny", "runs/tiny"])
def test_a_run_is_named_by_its_yaml_or_its_place(name: str, vitpipe: Vitpipe) -> None:
    vitpipe("run", "tiny.yaml")

    code, out, _ = vitpipe("status", name, "--json")

    found = json.loads(out)
    assert (code, found["state"]) == (0, "committed")
    assert set(found["nodes"][0]) >= {"node", "state", "why", "step", "total_steps", "ranks"}


def test_events_are_one_object_a_line(vitpipe: Vitpipe) -> None:
    vitpipe("run", "tiny.yaml")

    _, out, _ = vitpipe("events", "tiny.yaml", "--json")

    found = [json.loads(line) for line in out.splitlines()]
    assert set(found[0]) == {"time", "fence", "node", "kind", "text"}
    assert {"started", "committed"} <= {event["kind"] for event in found}
    assert "sum committed: " in vitpipe("events", "tiny.yaml")[1]


def test_the_last_events_and_one_that_is_damaged(vitpipe: Vitpipe, tmp_path: Path) -> None:
    vitpipe("run", "tiny.yaml")
    every = vitpipe("events", "tiny.yaml")[1].splitlines()
    assert vitpipe("events", "tiny.yaml", "--tail", "2") == (0, "\n".join(every[-2:]) + "\n", "")
    assert vitpipe("events", "tiny.yaml", "--tail", "99")[1].splitlines() == every
    assert vitpipe("events", "tiny.yaml", "--tail", "0")[0] == 2

    (damaged,) = (tmp_path / "runs/tiny/events").iterdir()
    written = damaged.read_bytes().splitlines()
    damaged.write_bytes(b"\n".join([*written[:2], written[2][:-9], *written[3:]]))
    code, out, err = vitpipe("events", "tiny.yaml")
    lines = out.splitlines()
    assert (code, err) == (0, "") and f"damaged event: {damaged.name}:3 (" in lines.pop(2)
    assert lines == every[:2] + every[3:]
    found = [json.loads(line) for line in vitpipe("events", "tiny.yaml", "--tail", "4", "--json")[1].splitlines()]
    assert [event["kind"] for event in found].count("damaged") == 1
    assert all(set(event) == {"time", "fence", "node", "kind", "text"} for event in found)


def test_what_many_nodes_left_is_read_at_once(
    vitpipe: Vitpipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read waits for fifteen others to be under way: asked one after the other, none would ever end."""
    names = [f"n{number:02}" for number in range(READERS)]
    nodes = "".join(f"  {name}: {{stage: make, config: {{pieces: 1}}}}\n" for name in names)
    (tmp_path / "many.yaml").write_text(f"version: 1\nname: many\nstore: file://./runs\nnodes:\n{nodes}")
    vitpipe("run", "many.yaml")
    once = {
        ("status", "--json"): ("read", "record.json"),
        ("plan", "--json"): ("read", "record.json"),
        ("artifacts", "ls", "--json"): ("read", "record.json"),
        ("logs", "--json"): ("list", "a"),
    }
    for verb, (method, path) in once.items():
        plain, real, met = vitpipe(*verb, "many.yaml"), getattr(LocalStore, method), threading.Barrier(READERS)

        def meet(store: LocalStore, asked: str, *more: Any, real=real, met=met, path=path, **other: Any) -> Any:
            if asked == path:
                met.wait(timeout=20)
            return real(store, asked, *more, **other)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, method, meet)
            assert vitpipe(*verb, "many.yaml") == plain and plain[0] == 0, verb


def test_logs_of_a_node_and_of_an_unknown_one(vitpipe: Vitpipe) -> None:
    vitpipe("run", "tiny.yaml")

    _, out, _ = vitpipe("logs", "tiny.yaml", "sum")
    assert out.startswith("== sum/a1/logs/driver.log\n") and "sum committed" in out
    assert {json.loads(line)["node"] for line in vitpipe("logs", "tiny.yaml", "--json")[1].splitlines()} == {
        "a",
        "b",
        "sum",
    }

    code, _, err = vitpipe("logs", "tiny.yaml", "summ")
    assert code == 2 and "did you mean 'sum'?" in err


def test_artifacts_are_listed_fetched_and_verified(vitpipe: Vitpipe, tmp_path: Path) -> None:
    vitpipe("run", "tiny.yaml")

    listed = json.loads(vitpipe("artifacts", "ls", "tiny.yaml", "a", "--json")[1])["files"]
    assert vitpipe("artifacts", "get", "tiny.yaml", "a", "here")[0] == 0
    assert {file["path"] for file in listed} == {path.name for path in (tmp_path / "here").iterdir()}
    assert "all as recorded" in vitpipe("artifacts", "verify", "tiny.yaml")[1]

    (tmp_path / "runs/tiny/b/a1/piece-0.json").write_text("9")
    code, _, err = vitpipe("artifacts", "verify", "tiny.yaml")
    assert code == 8 and "piece-0.json" in err


def test_stop_and_gc_of_a_run_that_nobody_runs(vitpipe: Vitpipe) -> None:
    vitpipe("run", "tiny.yaml")

    assert json.loads(vitpipe("stop", "tiny.yaml", "--json")[1])["fence"] is None
    assert json.loads(vitpipe("gc", "tiny.yaml", "--json")[1])["removed"] == []


def test_gc_says_what_it_would_remove_and_why(vitpipe: Vitpipe, tmp_path: Path) -> None:
    vitpipe("run", "tiny.yaml")
    scrap = tmp_path / "runs/tiny/a/a1/scrap"
    scrap.write_text("xyz")

    code, out, _ = vitpipe("gc", "tiny.yaml", "--dry-run")
    would = json.loads(vitpipe("gc", "tiny.yaml", "--dry-run", "--json")[1])

    assert code == 0 and "would remove a/a1/scrap: its node is committed, and no record names it" in out
    assert would["removed"] == [] and would["bytes"] == 3
    (one,) = would["would_remove"]
    assert one == {"path": "a/a1/scrap", "bytes": 3, "reason": "its node is committed, and no record names it"}
    assert scrap.exists()
    assert json.loads(vitpipe("gc", "tiny.yaml", "--json")[1])["removed"] == ["a/a1/scrap"] and not scrap.exists()


def test_gc_of_a_damaged_run_removes_nothing(vitpipe: Vitpipe, tmp_path: Path) -> None:
    vitpipe("run", "tiny.yaml")
    (tmp_path / "runs/tiny/a/a1/scrap").write_text("xyz")
    record = tmp_path / "runs/tiny/b/record.json"
    record.write_bytes(record.read_bytes().replace(b"a1/piece-0.json", b"a1/qiece-0.json"))
    for verb in (("gc", "tiny.yaml"), ("gc", "tiny.yaml", "--dry-run"), ("plan", "tiny.yaml"), ("run", "tiny.yaml")):
        code, _, err = vitpipe(*verb)
        assert code == 8 and "damaged" in err and "artifacts verify" in err and "--replace" not in err
    assert (tmp_path / "runs/tiny/a/a1/scrap").exists()


def test_a_run_without_a_report_has_none_to_show(vitpipe: Vitpipe) -> None:
    vitpipe("run", "tiny.yaml")

    code, _, err = vitpipe("report", "tiny.yaml")

    assert code == 2 and "no node of stage report" in err


def test_a_store_that_does_not_answer_is_7_in_one_paragraph(vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(uri: str) -> LocalStore:
        logging.getLogger("vitpipe.infra.retry").warning("try 1 ended with no answer; trying again")
        raise StorageError(f"look at {uri}", "no answer", "check the network")

    monkeypatch.setattr("vitpipe.pipeline.store.runs.open_store", unreachable)

    code, out, err = vitpipe("status", "s3://bucket/run")

    assert (code, out, err) == (7, "", "Cannot look at s3://bucket/run: no answer. Check the network.\n")


def test_doctor_ends_with_7_when_something_is_wrong(vitpipe: Vitpipe, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")

    code, out, _ = vitpipe("doctor", "--store", "file://./taken/runs", "--json")

    found = json.loads(out)
    assert code == 7 and found["error"]["code"] == 7
    assert any(not check["ok"] and check["do"] for check in found["checks"])


def test_logs_read_on_where_they_stopped(tmp_path: Path) -> None:
    run = LocalStore(tmp_path)
    run.write("net/a1/logs/driver.log", b"old\n")
    run.write("net/a2/logs/driver.log", b"one\ntw")
    run.write("net/a2/step-1/logs", b"no log")
    logs = Logs(run)

    assert [(piece.path, piece.text) for piece in logs.gained(("net",))] == [("a2/logs/driver.log", "one\n")]
    run.write("net/a2/logs/driver.log", b"one\ntwo\n")
    run.write("net/a2.1/logs/driver.log", b"again\n")
    assert [piece.text for piece in logs.gained(("net",))] == ["two\n", "again\n"]
    assert list(logs.gained(("net",))) == []


def test_a_run_beside_its_yaml_is_named_from_another_folder(
    vitpipe: Vitpipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vitpipe("run", "tiny.yaml")[0] == 0
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    here, beside = f"file://{tmp_path}/other/runs/tiny", f"file://{tmp_path}/runs/tiny"
    for verb in ("status", "stop"):
        code, out, err = vitpipe(verb, "../tiny.yaml", "--json")
        assert (code, err) == (0, f"{here} is no run; this is {beside}, beside ../tiny.yaml\n") and json.loads(out)
    assert vitpipe("status", beside)[::2] == (0, "")
    for verb in ("plan", "run"):
        code, _, err = vitpipe(verb, "../tiny.yaml")
        assert code == 0 and err.startswith(f"{here} is no run yet; there is {beside}, beside ../tiny.yaml")
    assert vitpipe("status", "../tiny.yaml")[::2] == (0, ""), "a run here comes first"


def test_a_run_that_is_nowhere_was_looked_for_in_both_places(
    vitpipe: Vitpipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    code, _, err = vitpipe("status", "../tiny.yaml")
    assert code == 2 and f"other/runs/tiny: no run was ever started there, nor at file://{tmp_path}/runs/tiny." in err
    assert vitpipe("plan", "../tiny.yaml")[::2] == (0, "")
