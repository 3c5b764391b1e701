"""A driver that dies at each of its calls to the store, one after another, and is started again: one committed result.

The real runner over tiny stages; each call is fatal once before it takes effect and once after.
"""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_clock import FakeClock
from faulty_store import Crash, Fate, dying
from tiny_stages import tiny_spec, tiny_ways

from vitpipe.infra.lease_state import Timing
from vitpipe.infra.storage.local import LocalStore
from vitpipe.pipeline.drive.runner import Outcome, run
from vitpipe.pipeline.plan.survey import survey

# the threads of a dead process end without a word, whatever they were doing
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

NODES: dict[str, Any] = {"a": {"value": 2}, "sum": {"stage": "add", "needs": {"shards": ("a",)}}}
CHANGED: dict[str, Any] = {**NODES, "a": {"value": 5}}

CALM = Timing(renew_s=3600, poll_s=0.3)
"""Beats would make the number of calls depend on the time of day."""


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes die here, not machines: what was written stays written without waiting for the disk."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def drive(folder: Path, nodes: dict[str, Any] = NODES, replacing: tuple[str, ...] = ()) -> Outcome:
    """One driver; its successor's watch over the silent lease takes no real time."""
    return run(tiny_spec(folder, nodes), replacing, tiny_ways(CALM, FakeClock().clock))


def die(folder: Path, fate: Fate, *args: Any) -> bool:
    """Whether the driver died of it, rather than end before its call came."""
    with dying(fate):
        try:
            drive(folder, *args)
        except (Crash, Exception):
            assert fate.dead
        for thread in threading.enumerate():
            if thread.name.startswith("node-"):
                thread.join()  # it meets its fate at its next call
    return fate.dead


def results(folder: Path) -> dict[str, Any]:
    """What the records say was computed, without who did it and when; every file is checked."""
    found = {}
    store = LocalStore(folder / "runs" / "tiny")
    facts = survey(store, tiny_spec(folder, NODES).graph)
    for node, committed in facts.records.items():
        artifact = committed.artifact()
        files = {file.path: json.loads(artifact.read(file.path)) for file in artifact.files}
        found[node] = (committed.record.fingerprint, artifact.facts(), files)
    return found


def calls_of_a_calm_run(folder: Path, *args: Any) -> int:
    fate = Fate()
    with dying(fate):
        drive(folder, *args)
    return len(fate.calls)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_every_call_of_a_run(tmp_path: Path, after: bool) -> None:
    calls = calls_of_a_calm_run(tmp_path / "calm")
    assert calls > 30
    died = 0
    for at in range(1, calls + 1):
        folder = tmp_path / str(at)
        died += die(folder, Fate(at, after))
        drive(folder)
        assert results(folder) == results(tmp_path / "calm"), f"dead at call {at} of {calls}"
        kept = [entry.path for entry in LocalStore(folder / "runs").list() if "/record." in entry.path]
        assert kept == ["tiny/a/record.json", "tiny/sum/record.json"]
    assert died > 30  # of a slow calm run some calls were the polls of a thread


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_every_call_of_a_replacement(tmp_path: Path, after: bool) -> None:
    """The same for `--replace`: the old records are kept, once, and the new ones swapped in, once."""
    drive(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "calm")
    calls = calls_of_a_calm_run(tmp_path / "calm", CHANGED, ("a",))
    for at in range(1, calls + 1):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "first", folder)
        store = LocalStore(folder / "runs" / "tiny")
        before = {node: store.read(f"{node}/record.json") for node in NODES}
        die(folder, Fate(at, after), CHANGED, ("a",))
        drive(folder, CHANGED, ("a",))
        assert results(folder) == results(tmp_path / "calm"), f"dead at call {at} of {calls}"
        assert {node: store.read(f"{node}/record.1.json") for node in NODES} == before
        kept = [entry.path for entry in store.list() if "/record." in entry.path]
        assert len(kept) == 2 * len(NODES)


def test_the_harness_notices_a_result_that_is_not_the_one(tmp_path: Path) -> None:
    drive(tmp_path / "one")
    drive(tmp_path / "other", CHANGED)
    assert results(tmp_path / "one") != results(tmp_path / "other")
