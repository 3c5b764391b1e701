"""Terminals that cannot do much: ASCII alone, narrow, without a browser, closed; and what a run says at its end."""

import io
import json
import os
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from inprocess import commit, make_context

from vitpipe.infra.events import StoreEvents
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.cli import report_pages, terminal
from vitpipe.pipeline.cli.display import prediction_table, show
from vitpipe.pipeline.drive.runner import Outcome
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.spec.load import load
from vitpipe.pipeline.store.records import read_committed
from vitpipe.pipeline.store.scores import score_rows
from vitpipe.stages.artifacts import Report, Score, ShardSet
from vitpipe.stages.predict.image_files import Prediction
from vitpipe.stages.settings import TaskResources

SPEC = """\
version: 1
name: test
store: file://./store
nodes:
  data: {stage: ingest, config: {source: {kind: digits}, splits: {train: 0.8, test: 0.2}}}
  raw: {stage: evaluate, needs: {data: data}, config: {method: knn, features: raw_pixels, image_px: 8}}
  table: {stage: report, needs: {scores: [raw]}}
"""


ANSWER = [Prediction(Path("犬…/1.jpg"), (("кошка", 0.9), ("犬", 0.1)), None)]


def test_names_that_a_terminal_cannot_write_are_written_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(UnicodeEncodeError):
        show(prediction_table(ANSWER, "softmax"))
    terminal.accept_all_characters()
    show(prediction_table(ANSWER, "softmax"))
    terminal.say("犬 · кот…")
    sys.stdout.flush()
    out = written.getvalue().decode("ascii")
    assert r"\u043a\u043e\u0448\u043a\u0430" in out and "90.0 %" in out and r"\u72ac - \u043a\u043e\u0442~" in out


@pytest.mark.parametrize(
    ("ways", "word"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"\u72ac"),
        ({"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, b"net"),
        ({"LC_ALL": "C"}, "犬".encode()),
    ],
)
def test_events_are_read_in_any_locale(ways: dict[str, str], word: bytes, tmp_path: Path, made: object) -> None:
    StoreEvents(open_store(f"file://{tmp_path}/store/test"), 1, "net").emit("quarantined", "犬/1.jpg is no image")
    command = [sys.executable, "-m", "vitpipe.pipeline", "events", "store/test"]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "PYTHONUTF8", "PYTHONIO"))}
    ran = subprocess.run(command, cwd=tmp_path, env=env | ways, capture_output=True)
    assert (ran.returncode, ran.stderr) == (0, b"") and word in ran.stdout


@pytest.mark.parametrize("args", [("--help",), ("schema",)])
def test_nobody_reads(args: tuple[str, ...], tmp_path: Path) -> None:
    """A pipe that is closed early, and a standard output that was never open."""
    command = [sys.executable, "-m", "vitpipe.pipeline", *args]
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, b"")
    ran = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_long_line_breaks_between_words_for_a_person_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "2026-01-01 net failed: " + "a reason of some length " * 6 + "s3://bucket/" + "x" * 90
    assert terminal.folded(text) == text
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    lines = terminal.folded(text).splitlines()
    assert all(len(line) <= 80 or "s3://" in line for line in lines) and lines[1].startswith("    ")
    assert " ".join(line.strip() for line in lines) == text, "nothing is lost, and an address stays whole"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """A run of three committed nodes; calls what ends `vitpipe run` on it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(SPEC)
    spec, needs = load(Path("my.yaml")), TaskResources()
    shards = ShardSet(manifest_sha256="0" * 64, num_classes=10, splits={"train": 8, "test": 2})
    data = commit(make_context(tmp_path, "data", needs), shards)
    score = Score(benchmark="digits", metric="top1", value=0.8, per_seed=(0.7, 0.9), num_test=2)
    commit(make_context(tmp_path, "raw", needs), score, inputs={"data": [data]})
    table = make_context(tmp_path, "table", needs)
    page = table.out.put(report_pages.PAGE, b"<html>")
    commit(table, Report(headline="none", files=(page,)))
    (tmp_path / "store/test/spec.yaml").write_text(spec.text)
    found = {id: read_committed(open_store(f"{spec.uri}/{id}")) for id in spec.graph.nodes}
    outcome = Outcome(Plan({}), {id: one for id, one in found.items() if one})
    return lambda as_json: cli._say_end(spec, outcome, 1.0, as_json)


def test_a_run_ends_with_its_scores_and_the_path_of_its_page(
    made: Callable[[bool], None], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = f"{tmp_path}/store/test/table/a1/index.html"
    made(False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "raw: digits top1 80.0 % +- 14.1 % over 2 seeds, 2 images, chance 10.0 %"
    assert f"the report: {page}" in lines and Path(page).read_text() == "<html>"
    made(True)
    found = json.loads(capsys.readouterr().out)
    assert found["reports"] == [page]
    (row,) = found["scores"]
    assert (row["node"], row["value"], row["seeds"], row["images"], row["chance"]) == ("raw", 0.8, 2, 2, 0.1)
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    made(False)
    out = capsys.readouterr().out
    assert "spread" in out and "80.0 %" in out and f"the report: {page}" in out


def test_chance_is_left_out_where_it_is_not_known(made: object, tmp_path: Path) -> None:
    """Data that is gone, and another metric: the number is shown all the same."""
    raw = read_committed(open_store(f"file://{tmp_path}/store/test/raw"))
    assert raw is not None
    assert [row.chance for row in score_rows({"raw": raw})] == [0.1], "data of another run is read"
    (tmp_path / "store/test/data/record.json").unlink()
    assert [(row.value, row.chance) for row in score_rows({"raw": raw})] == [(0.8, None)]
    other = replace(raw, record=raw.record.model_copy(update={"output": raw.record.output | {"metric": "real"}}))
    assert [row.chance for row in score_rows({"raw": other})] == [None]


@pytest.mark.parametrize("browser", ["", "/nowhere/browser", "false", "slow"])
def test_a_report_opens_nothing_where_there_is_no_browser(
    browser: str, made: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says where the page lies, ends with 0 and leaves nothing where it was typed."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    if browser == "slow":
        (tmp_path / "slow").write_text("#!/bin/sh\nsleep 3\n")
        (tmp_path / "slow").chmod(0o755)
        browser = str(tmp_path / "slow")
    if browser:
        monkeypatch.setenv("BROWSER", browser)
    monkeypatch.setattr(report_pages, "BROWSER_S", 0.2)
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    monkeypatch.setattr(webbrowser, "_browsers", {})
    before = sorted(path.name for path in tmp_path.iterdir())
    assert cli.invoke(["report", "store/test", "--open"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"{tmp_path}/store/test/table/a1/index.html" and "no browser" in out and err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_report_is_opened_where_there_is_one(
    made: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda url: seen.append(url) or True)
    assert cli.invoke(["report", "store/test", "--open", "--to", "here"]) == 0
    assert seen == [f"file://{tmp_path}/here/test-table/index.html"] and "no browser" not in capsys.readouterr().out


def test_a_changed_page_is_8(made: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store/test/table/a1/index.html").write_text("<htm1>")
    assert cli.invoke(["report", "store/test"]) == 8
    assert "index.html" in capsys.readouterr().err


def test_a_page_of_a_distant_store_comes_into_the_cache(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = SPEC.replace("file://./store", s3_uri)
    (tmp_path / "my.yaml").write_text(text)
    table = make_context(tmp_path, "table", TaskResources(), store_uri=s3_uri)
    commit(table, Report(headline="none", files=(table.out.put(report_pages.PAGE, b"<html>"),)))
    open_store(f"{s3_uri}/test").write("spec.yaml", load(Path("my.yaml")).text.encode())
    before = sorted(path.name for path in tmp_path.iterdir())
    for _ in range(2):
        assert cli.invoke(["report", "my.yaml"]) == 0
        page = Path(capsys.readouterr().out.strip())
        assert page.is_relative_to(tmp_path / "cache/vitpipe/reports") and page.read_text() == "<html>"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "cache"])


@pytest.mark.parametrize("cause", [BrokenPipeError(), None])
def test_only_a_reader_that_left_makes_an_end_a_good_one(
    cause: BrokenPipeError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends the process from within, as Ray may, is no success."""

    def ends(**_: object) -> None:
        end = SystemExit(15)
        end.__context__ = cause
        raise end

    monkeypatch.setattr(cli, "app", ends)
    if cause:
        assert cli.invoke([]) == 0
    else:
        with pytest.raises(SystemExit, match="15"):
            cli.invoke([])
