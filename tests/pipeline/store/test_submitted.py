"""A run that was submitted is known at once, taken for nobody's data, and its job's death is told."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_stages import tiny_spec, tiny_ways

from vitpipe.infra.errors import IntegrityError, StageError, StorageError, UsageError
from vitpipe.infra.lease_state import Timing, read_lease
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli import submission
from vitpipe.pipeline.cli.submission import Fate
from vitpipe.pipeline.cli.waiting import Awaited
from vitpipe.pipeline.drive.gc import gc
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.store.contents import highest_fence, is_run, list_run, open_run
from vitpipe.pipeline.store.many_runs import runs_in
from vitpipe.pipeline.store.node_status import RunStatus
from vitpipe.pipeline.store.retrieval import list_files
from vitpipe.pipeline.store.status import read_status, status_of
from vitpipe.pipeline.store.submitted import SUBMITTED, leave, read_submission

QUICK = Timing(renew_s=0.02, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)
NODES: dict[str, Any] = {"a": {}, "sum": {"stage": "add", "needs": {"shards": ("a",)}}}
BAD = (b"", b"[", b"[]", b"{}", b"\xff", b'{"job": 1}', b"[" * 100_000)


def go(folder: Path, nodes: dict[str, Any] = NODES) -> None:
    run(tiny_spec(folder, nodes), (), tiny_ways(timing=QUICK))


def store(folder: Path) -> LocalStore:
    return LocalStore(folder / "runs" / "tiny")


def status(folder: Path, nodes: dict[str, Any] = NODES) -> RunStatus:
    return status_of(store(folder), tiny_spec(folder, nodes).graph)


def submit(folder: Path, job: str = "tiny-1") -> None:
    leave(store(folder), job, "http://head:8265", "me@here", ("a", "sum"))


def test_it_is_known_before_a_driver_begins_and_is_no_run(tmp_path: Path) -> None:
    submit(tmp_path)
    found = read_status(store(tmp_path))
    assert found.state == "submitted" and [node.state for node in found.nodes] == ["waiting", "waiting"]
    assert "not yet begun" in found.note and "job tiny-1 at http://head:8265" in found.note
    assert found.to_json()["submitted"]["job"] == "tiny-1"
    (listed,) = runs_in(LocalStore(tmp_path / "runs"))
    assert (listed.name, listed.state) == ("tiny", "submitted") and "not yet begun" in listed.why
    uri = store(tmp_path).uri
    for ask in (lambda: gc(uri), lambda: list_files(uri), lambda: open_run(uri, "look at")):
        with pytest.raises(UsageError, match=r"not yet begun. Wait for it: vitpipe status .* --watch"):
            ask()
    assert open_run(uri, "look at", begun=False).uri == uri
    assert not is_run(store(tmp_path)) and highest_fence(store(tmp_path)) == 0 and not list_run(store(tmp_path)).nodes


def test_the_driver_that_begins_ends_the_wait_whatever_clocks_say(tmp_path: Path) -> None:
    submit(tmp_path)
    path = tmp_path / "runs" / "tiny" / SUBMITTED
    path.write_text(json.dumps({**json.loads(path.read_text()), "time": time.time() + 10 * 365 * 86_400}))
    assert read_status(store(tmp_path)).state == "submitted"
    go(tmp_path)
    found = status(tmp_path)
    assert found.state == "committed" and found.submission is None and not found.note
    assert (tmp_path / "runs" / "tiny" / SUBMITTED).is_file()
    gc(store(tmp_path).uri)
    assert (tmp_path / "runs" / "tiny" / SUBMITTED).is_file() and status(tmp_path).state == "committed"


def test_a_run_that_is_resumed_by_a_submission_waits_too(tmp_path: Path) -> None:
    go(tmp_path)
    more = {**NODES, "more": {}}
    submit(tmp_path)
    assert status(tmp_path).state == "committed", "there is nothing to begin for"
    found = status(tmp_path, more)
    assert found.state == "submitted" and found.nodes[0].state == "committed" and "not yet begun" in found.note
    go(tmp_path, more)
    assert status(tmp_path, {**more, "yet": {}}).state == "stopped", "that one began, and another was not submitted"


def test_of_two_submissions_the_later_is_told_until_one_begins(tmp_path: Path) -> None:
    submit(tmp_path, "first")
    submit(tmp_path, "second")
    assert "job second" in read_status(store(tmp_path)).note
    go(tmp_path)
    assert not status(tmp_path, {**NODES, "more": {}}).note
    submit(tmp_path, "third")
    lease = read_lease(store(tmp_path))
    made = read_submission(store(tmp_path))
    assert lease and made and made.after_fence == lease.fence


@pytest.mark.parametrize("content", BAD)
def test_what_cannot_be_read_is_told_and_hides_nothing(tmp_path: Path, content: bytes) -> None:
    store(tmp_path).write(SUBMITTED, content)
    with pytest.raises(IntegrityError, match=r"submitted\.json"):
        read_submission(store(tmp_path))
    for ask in (lambda: read_status(store(tmp_path)), lambda: open_run(store(tmp_path).uri, "look at", begun=False)):
        with pytest.raises(IntegrityError, match=r"submitted\.json"):
            ask()
    (listed,) = runs_in(LocalStore(tmp_path / "runs"))
    assert listed.state == "unreadable" and SUBMITTED in listed.why
    go(tmp_path)
    store(tmp_path).write(SUBMITTED, content)
    assert status(tmp_path).state == "committed"
    found = status(tmp_path, {**NODES, "more": {}})
    assert found.state == "stopped" and SUBMITTED in found.note


@pytest.mark.parametrize("moment", [-1, 1e300, float("nan")])
def test_a_moment_of_no_calendar_is_damage(tmp_path: Path, moment: float) -> None:
    submit(tmp_path)
    path = tmp_path / "runs" / "tiny" / SUBMITTED
    path.write_text(json.dumps({**json.loads(path.read_text()), "time": moment}))
    with pytest.raises(IntegrityError):
        read_submission(store(tmp_path))


def test_a_job_that_died_is_told_and_a_cluster_is_not_asked_all_the_time(tmp_path: Path) -> None:
    submit(tmp_path)
    asked: list[str] = []

    def ask(waiting: Any, said: Fate) -> Fate:
        asked.append(waiting.job)
        return said

    alive = Awaited(ask=lambda waiting: ask(waiting, Fate("its job waits on the cluster")))
    found = [alive.told(read_status(store(tmp_path))) for _ in range(5)]
    assert {one.state for one in found} == {"submitted"} and asked == ["tiny-1"]
    assert found[0].note.endswith("not yet begun: its job waits on the cluster")
    dead = Awaited(ask=lambda waiting: ask(waiting, Fate("its job ended as FAILED with 3 before it began", over=True)))
    found = [dead.told(read_status(store(tmp_path)))]
    assert found[0].state == "failed" and "before it began" in found[0].note
    go(tmp_path)
    told = dead.told(status(tmp_path))
    assert told.state == "committed" and not told.note and len(asked) == 2, "no cluster is asked about what has begun"


class Answering:
    """Stands for the cluster."""

    answer: Any = None

    def __init__(self, address: str) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer

    def state(self, job: str) -> Any:
        return self.answer


def test_what_the_cluster_says_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitpipe.infra.ray.jobs import JobState

    submit(tmp_path)
    waiting = read_submission(store(tmp_path))
    assert waiting
    monkeypatch.setattr(submission, "Jobs", Answering)
    for answer, over, words in (
        (JobState("PENDING", None, ""), False, "waits on the cluster"),
        (JobState("RUNNING", None, ""), False, "has not begun"),
        (
            JobState("FAILED", 3, "Job  entrypoint\nfailed"),
            True,
            "FAILED with 3 before it began, submit it again; Job e",
        ),
        (JobState("STOPPED", None, ""), True, "ended as STOPPED before it began"),
        (StorageError("connect", "nobody answers"), False, "what became of it is not known (nobody answers)"),
    ):
        monkeypatch.setattr(Answering, "answer", answer)
        found = submission.fate(waiting)
        assert found.over is over and words in found.words


def test_word_is_left_without_credentials_and_its_failure_is_only_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, told = tiny_spec(tmp_path, NODES), list[str]()
    leave_word = submission.leave_word
    leave_word(spec, "tiny-9", "http://me:canary@head:8265", told.append)
    text = open_store(spec.uri).read(SUBMITTED).decode()
    assert not told and "canary" not in text and json.loads(text)["address"] == "http://head:8265"
    (tmp_path / "file").write_text("")
    wrong = replace(spec, store=f"file://{tmp_path}/file")
    leave_word(wrong, "tiny-9", "head:8265", told.append)
    assert len(told) == 1 and "will know of it once it begins" in told[0]


def test_a_failed_run_that_is_submitted_again_is_submitted(tmp_path: Path) -> None:
    from tiny_stages import HOOKS

    def fail(ctx: Any) -> None:
        raise StageError("run a", "it is broken")

    HOOKS["a"] = fail
    try:
        with pytest.raises(StageError):
            go(tmp_path)
    finally:
        HOOKS.clear()
    assert status(tmp_path).state == "failed"
    submit(tmp_path)
    assert status(tmp_path).state == "submitted"
