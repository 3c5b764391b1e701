"""What a person sees: tables that move, and the job of a cluster followed to its end."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_stages import tiny_spec

from vitpipe.infra.errors import Stopped, StorageError
from vitpipe.infra.events import Event, StoreEvents
from vitpipe.infra.ray.jobs import JobState
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.waiting import Waiting
from vitpipe.pipeline.cli import event_lines as following
from vitpipe.pipeline.cli import live
from vitpipe.pipeline.cli.display import duration, plan_lines, plan_table, short, status_lines, status_table
from vitpipe.pipeline.cli.event_lines import AT_ONCE, EventFollower
from vitpipe.pipeline.cli.live import LiveRun
from vitpipe.pipeline.cli.submission import watch
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.store.node_status import NodeStatus, RunStatus
from vitpipe.stages.estimates import Estimate

PROGRESS = {"images_per_second": 512.3, "loss": 1.2345, "eta_seconds": 185, "unit": "steps"}
STATUS = RunStatus(
    "file:///runs/quickstart",
    "running",
    (
        NodeStatus("glyphs", "committed", "2026-01-01 by a1"),
        NodeStatus(
            "probe",
            "committed",
            "2026-01-01 by a1",
            score=0.9071,
            metric="top1",
            std=0.027,
            seconds=75.0,
            started="2026-01-01T00:00:00Z",
            ended="2026-01-01T00:01:15Z",
        ),
        NodeStatus("backbone", "running", "steps 30 of 90", 30, 90, (), PROGRESS, 185),
        NodeStatus("weights", "waiting", "needs backbone first"),
    ),
)
COST = Estimate(steps=900, images=230_400, flops=2.95e13, memory_bytes=74_000_000, hours=0.1, bytes=40_000_000)
PLAN = Plan({"backbone": Planned("backbone", "pretrain", "resume", "2 finished pieces of a1", estimate=COST)})


def drawn(what: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(what)
    return out.getvalue()


def test_a_status_shows_progress_and_why_a_node_waits() -> None:
    table = drawn(status_table(STATUS))

    for words in (
        "30/90",
        "512",
        "1.23",
        "3:05",
        "needs backbone first",
        "90.7 %",
        "2.7 %",
        "1:15",
        "2026-01-01 00:01",
    ):
        assert words in table
    assert "backbone: running: steps 30 of 90, 512 images/s, loss 1.234, 3:05 to go" in "\n".join(status_lines(STATUS))
    assert "probe: committed: top1 90.7 % +- 2.7 %, took 1:15, ended 2026-01-01T00:01:15Z" in "\n".join(
        status_lines(STATUS)
    )


def test_a_plan_shows_what_it_will_cost() -> None:
    table = drawn(plan_table(PLAN, "file:///runs/quickstart"))

    for words in ("resume", "2 finished pieces of a1", "900", "230k", "29.5T", "74MB", "6:00", "40MB"):
        assert words in table
    assert list(plan_lines(PLAN)) == [
        "backbone: resume (2 finished pieces of a1): "
        "steps 900, images 230k, FLOPs 29.5T, memory 74MB, time 6:00, size 40MB"
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "3 s"), (65, "1:05"), (3723.9, "1:02:03"), (3.15e9, "875000:00:00"), (3.2e9, "101 years"),
        (3e11, "9,506 years"), (1e40, "3.17e+32 years"),
    ],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("number", "words"), [(None, ""), (0, "0"), (12, "12"), (4.2e21, "4.2e+21"), (1500, "1.5k")])
def test_short_numbers(number: float | None, words: str) -> None:
    assert short(number) == words


def test_a_watched_run_moves_and_ends_with_its_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "is_terminal", lambda: True)
    with LiveRun(tiny_spec(tmp_path, {"a": {}})) as watched:
        ways = watched.options()
        ways.on_cluster("http://127.0.0.1:8265")
        ways.on_note("a: the source was not looked at")
        ways.on_event(Event("2026-01-01T10:00:00.000Z", 1, "a", "started", "make as a1"))

    out = capsys.readouterr().out
    for words in ("http://127.0.0.1:8265", "10:00:00 a started: make as a1", "waiting", "not looked at"):
        assert words in out


def test_a_log_gets_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LiveRun(tiny_spec(tmp_path, {"a": {}})) as watched:
        watched.options().on_event(Event("2026-01-01T10:00:00.000Z", 1, "", "takeover", "from another"))

    assert capsys.readouterr().out == "10:00:00 run takeover: from another\n"


@pytest.fixture
def at_work(tmp_path: Path) -> PipelineSpec:
    """A run whose earlier driver left an event of each kind that the terminal shows."""
    spec = tiny_spec(tmp_path, {"a": {}})
    for kind in AT_ONCE:
        StoreEvents(open_store(spec.uri), 1, "a").emit(kind, "of an earlier driver")
    return spec


@pytest.mark.parametrize("person", [True, False], ids=["terminal", "log"])
def test_what_ranks_and_tasks_tell_is_shown_once_each(
    person: bool, at_work: PipelineSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever wrote it, while it runs, and in no other driver's name; what the driver told itself not a second time."""
    monkeypatch.setattr(live, "is_terminal", lambda: person)
    monkeypatch.setattr(live, "LOOK_S", 0.05)
    run = open_store(at_work.uri)
    with LiveRun(at_work) as watched:
        ways = watched.options()
        ways.on_lease(2)
        for kind in sorted(AT_ONCE):
            StoreEvents(run, 2, "a").emit(kind, f"{kind} happened")
        StoreEvents(run, 2, "a").emit("checkpoint_committed", "chatter")
        own = StoreEvents(run, 2, "a").event("takeover", "heard already")
        ways.on_event(own)
        own.write(run)
        shown = ""
        for _ in range(1200):
            shown += capsys.readouterr().out
            if all(f"a {kind}: {kind} happened" in shown for kind in AT_ONCE):
                break
            time.sleep(0.05)
    for kind in AT_ONCE:
        assert shown.count(f"a {kind}: {kind} happened") == 1, f"{kind}: while it ran, in\n{shown}"
    everything = shown + capsys.readouterr().out
    assert "chatter" not in everything and "of an earlier driver" not in everything
    if not person:  # the table of a person is drawn again and again
        assert everything.count("heard already") == 1


def test_many_of_a_kind_become_one_line(at_work: PipelineSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first at once, the others together, a single one in full; a damaged one is passed over."""
    run = open_store(at_work.uri)
    follow = EventFollower(run)
    follow.begin(2)
    monkeypatch.setattr(following, "SHARE", 0)
    for step in range(1, 6):
        StoreEvents(run, 2, "a").emit("step_skipped", f"step {step}")
    StoreEvents(run, 2, "b").emit("checkpoint_failed", "step 6")
    StoreEvents(run, 2, "b").emit("checkpoint_failed", "step 7")
    run.write("events/99999999999999999999-2-x.json", b"[")
    assert [text.split(" ", 1)[1] for text in follow.news()] == [
        "a step_skipped: step 1",
        "b checkpoint_failed: step 6",
    ]
    assert list(follow.news()) == []
    monkeypatch.setattr(following, "HOLD_S", 0.0)
    rest = [text.split(" ", 1)[1] for text in follow.news()]
    assert rest == ["a step_skipped: 4 more, last step 5", "b checkpoint_failed: step 7"]
    assert list(follow.rest()) == []


class FakeJobs:
    def __init__(self, state: JobState) -> None:
        self.state = state

    def follow(self, job: str) -> Iterator[str]:
        yield from ("one\n", "two\n")

    def wait(self, job: str) -> JobState:
        return self.state


def watched(state: JobState) -> tuple[int, list[str]]:
    heard: list[str] = []
    jobs: Any = FakeJobs(state)
    return watch(jobs, "job", heard.append), heard


def test_a_watched_job_ends_with_its_own_code() -> None:
    assert watched(JobState("FAILED", 3, "")) == (3, ["one\n", "two\n"])


@pytest.mark.parametrize(("status", "error"), [("STOPPED", Stopped), ("FAILED", StorageError)])
def test_a_job_without_a_code_is_told_apart(status: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        watched(JobState(status, None, "the head is gone"))


def test_a_head_that_vanished_costs_nothing_but_a_second_submission() -> None:
    class Gone(FakeJobs):
        def wait(self, job: str) -> JobState:
            raise StorageError(f"ask for job {job}", "connection refused", "check the address")

    jobs: Any = Gone(JobState("RUNNING", None, ""))
    heard: list[str] = []
    with pytest.raises(StorageError, match=r"no more: connection refused\. Submit the same spec again.*in the store"):
        watch(jobs, "job", heard.append)
    assert heard == ["one\n", "two\n"]


Heard = Callable[[Callable[[str], tuple[NodeStatus, ...]], str, str], list[str]]


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Heard:
    """The lines of a log while a run is looked at twenty times as it first is and twenty as it then is."""
    monkeypatch.setattr(live, "LOOK_S", 0.001)
    monkeypatch.setattr(live, "LINE_S", 0.0)

    def lines(nodes: Callable[[str], tuple[NodeStatus, ...]], first: str, then: str) -> list[str]:
        looks, end = [first] * 20 + [then] * 20, threading.Event()

        def look(self: LiveRun) -> RunStatus:
            now = looks.pop(0) if len(looks) > 1 else (end.set(), looks[0])[1]
            return RunStatus("file:///runs/x", "running", nodes(now))

        monkeypatch.setattr(LiveRun, "_look", look)
        with LiveRun(tiny_spec(tmp_path, {"a": {}})):
            assert end.wait(10)
        return [text.split(" ", 1)[1] for text in capsys.readouterr().out.splitlines()]

    return lines


def test_a_log_hears_of_a_node_only_what_has_changed(heard: Heard) -> None:
    left = iter(range(600, 0, -1))
    lines = heard(
        lambda why: (NodeStatus("tuned", "running", why, eta_seconds=next(left)),), "trial 3 of 9", "trial 4 of 9"
    )
    assert lines == ["tuned: trial 3 of 9, 10:00 to go", "tuned: trial 4 of 9, 9:40 to go"]


def test_a_log_hears_what_a_node_waits_for_and_not_each_second_of_it(heard: Heard) -> None:
    left = iter(range(600, 0, -1))

    def waiting(behind: str) -> tuple[NodeStatus, ...]:
        waits = Waiting("busy", "2 x (1 CPU)", behind=(behind,), seconds=float(next(left)))
        node = NodeStatus("net", "waiting", waits.text, waits=waits.to_json())
        return node, NodeStatus("later", "waiting", "after net")

    assert [text.partition(";")[0] for text in heard(waiting, "a", "b")] == [
        "net: waits: 2 x (1 CPU) asked for, busy with a", "net: waits: 2 x (1 CPU) asked for, busy with b",
    ]  # fmt: skip
