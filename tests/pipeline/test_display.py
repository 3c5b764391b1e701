"""What a person sees: tables that move, and the job of a cluster followed to its end."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_stages import tiny_spec

from infra.errors import Stopped, StorageError
from infra.events import Event
from infra.submit import JobState
from pipeline import live
from pipeline.display import duration, plan_lines, plan_table, short, status_lines, status_table
from pipeline.live import LiveRun
from pipeline.planned import Plan, Planned
from pipeline.status import NodeStatus, RunStatus
from pipeline.submission import watch
from stages.contract import Estimate

PROGRESS = {"images_per_second": 512.3, "loss": 1.2345, "eta_seconds": 185, "unit": "steps"}
STATUS = RunStatus(
    "file:///runs/quickstart",
    "running",
    (
        NodeStatus("glyphs", "committed", "2026-01-01 by a1"),
        NodeStatus("backbone", "running", "steps 30 of 90", 30, 90, (), PROGRESS),
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

    for words in ("30/90", "512", "1.23", "3:05", "needs backbone first"):
        assert words in table
    assert "backbone: running: steps 30 of 90, 512 images/s, loss 1.23" in "\n".join(status_lines(STATUS))


def test_a_plan_shows_what_it_will_cost() -> None:
    table = drawn(plan_table(PLAN, "file:///runs/quickstart"))

    for words in ("resume", "2 finished pieces of a1", "900", "230k", "29.5T", "74MB", "6:00", "40MB"):
        assert words in table
    assert list(plan_lines(PLAN)) == [
        "backbone: resume (2 finished pieces of a1): "
        "steps 900, images 230k, FLOPs 29.5T, memory 74MB, time 6:00, size 40MB"
    ]


@pytest.mark.parametrize(("seconds", "words"), [(3, "3 s"), (65, "1:05"), (3723.9, "1:02:03")])
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
        ways = watched.ways()
        ways.on_cluster("http://127.0.0.1:8265")
        ways.on_note("a: the source was not looked at")
        ways.on_event(Event("2026-01-01T10:00:00.000Z", 1, "a", "started", "make as a1"))

    out = capsys.readouterr().out
    for words in ("http://127.0.0.1:8265", "10:00:00 a started: make as a1", "waiting", "not looked at"):
        assert words in out


def test_a_log_gets_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LiveRun(tiny_spec(tmp_path, {"a": {}})) as watched:
        watched.ways().on_event(Event("2026-01-01T10:00:00.000Z", 1, "", "takeover", "from another"))

    assert capsys.readouterr().out == "10:00:00 run takeover: from another\n"


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
