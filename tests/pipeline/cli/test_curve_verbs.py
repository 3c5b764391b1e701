"""`tensorboard`, `board` and `track` on real runs of small stages: from the store alone, and read only."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
from command_line import Vitpipe
from tiny_stages import HOOKS

from vitpipe.infra.curves import CURVES, Gathered, LiveCurves, parse
from vitpipe.infra.errors import StageError, StorageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli.board.server import PageServer
from vitpipe.pipeline.cli.event_folders import EventFolders
from vitpipe.pipeline.store.curves import NodeCurves
from vitpipe.pipeline.store.followed import Look

SPEC = """\
version: 1
name: tiny
store: file://./runs
nodes:
  a: {stage: make}
  sum: {stage: add, needs: {shards: [a]}}
"""


@pytest.fixture
def vitpipe(vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Vitpipe:
    """Runs a command where `tiny.yaml` lies and a run of it left a curve."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("tiny.yaml").write_text(SPEC)
    HOOKS["a"] = leaves(3.0, 2.0, 1.0)
    vitpipe("run", "tiny.yaml")
    return vitpipe


def leaves(*losses: float) -> Any:
    def hook(ctx: Any) -> None:
        live = LiveCurves(ctx.out.node, ctx.out.attempt)
        for step, loss in enumerate(losses, 1):
            live.add(step, {"train/loss": loss}, float(step), told=False)
        live.add(2, {"fewshot/<b>digits<b>/5": 0.25}, 2.0)
        live.settle(20)

    return hook


def scalars(folder: Path, tag: str = "train/loss") -> list[tuple[int, float]]:
    # a second to import
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return [(one.step, one.value) for one in events.Scalars(tag)]


def test_event_files_of_a_run_once(vitpipe: Vitpipe, tmp_path: Path) -> None:
    code, out, err = vitpipe("tensorboard", "tiny.yaml", "--to", "tb", "--once")
    assert (code, err) == (0, "") and "tensorboard --logdir" in out and "4 points" in out
    assert scalars(tmp_path / "tb/tiny/a") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    (tmp_path / "tb/tiny/a/mine.txt").write_text("kept")
    code, out, err = vitpipe("tensorboard", "tiny.yaml", "--to", "tb", "--once", "--json")
    said = json.loads(out)
    assert said["runs"][0]["nodes"] == {"a": {"attempt": "a1", "points": 4}} and said["folder"] == str(tmp_path / "tb")
    assert scalars(tmp_path / "tb/tiny/a") == [(1, 3.0), (2, 2.0), (3, 1.0)], "nothing stands there twice"
    assert (tmp_path / "tb/tiny/a/mine.txt").exists()


def test_runs_side_by_side_and_one_named_twice(vitpipe: Vitpipe, tmp_path: Path) -> None:
    Path("two.yaml").write_text(SPEC.replace("name: tiny", "name: two"))
    vitpipe("run", "two.yaml")
    assert vitpipe("tensorboard", "tiny.yaml", "two.yaml", "--to", "tb", "--once")[0] == 0
    assert scalars(tmp_path / "tb/two/a") == scalars(tmp_path / "tb/tiny/a")
    code, _, err = vitpipe("tensorboard", "tiny.yaml", "tiny.yaml", "--once")
    assert code == 2 and "is named more than once" in err


def test_an_attempt_that_begins_anew_replaces_what_was_shown(tmp_path: Path) -> None:
    files = EventFolders(tmp_path)
    files.show(_look("a1", 3.0, 2.0, 1.0))
    files.show(_look("a1", 3.0, 2.0, 1.0, 0.5))
    assert [value for _, value in scalars(tmp_path / "tiny/a")] == [3.0, 2.0, 1.0, 0.5]
    files.show(_look("a2", 3.0, 2.0, 1.5))
    assert scalars(tmp_path / "tiny/a") == [(1, 3.0), (2, 2.0), (3, 1.5)]
    assert len(list((tmp_path / "tiny/a").iterdir())) == 1


def _look(attempt: str, *losses: float) -> Look:
    gathered = Gathered()
    for step, loss in enumerate(losses, 1):
        gathered.add(step, {"train/loss": loss})
    lines = parse(gathered.encode(attempt)).lines
    return Look("tiny", "file:///runs/tiny", "running", curves={"a": NodeCurves(attempt, lines)})


def test_what_cannot_be_asked_is_said(vitpipe: Vitpipe) -> None:
    for verb in ("tensorboard", "board"):
        code, _, err = vitpipe(verb, "runs/other")
        assert code == 2 and "no run was ever started there" in err and "tiny" in err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for verb in ("tensorboard", "board"):
            code, _, err = vitpipe(verb, "tiny.yaml", "--port", taken.getsockname()[1])
            assert code == 7 and "Address already in use" in err and "--port" in err
    Path("file").write_text("")
    code, _, err = vitpipe("tensorboard", "tiny.yaml", "--once", "--to", "file/below")
    assert code == 7 and "--to" in err
    code, _, err = vitpipe("track", "tiny.yaml", "--to", "neptune")
    assert code == 2 and "wandb, mlflow, trackio" in err


@pytest.fixture
def served() -> Iterator[PageServer]:
    server = PageServer(lambda: "<p>the page</p>", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(url: str, jar: CookieJar | None = None, **given: Any) -> tuple[int, str, Any]:
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar if jar is not None else CookieJar()))
    try:
        with opener.open(urllib.request.Request(url, **given), timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def test_the_page_is_given_to_its_token_alone(served: PageServer) -> None:
    base = f"http://127.0.0.1:{served.server_port}/"
    assert served.server_address[0] == "127.0.0.1"
    assert ask(base)[0] == ask(base + "?token=guess")[0] == ask(base, headers={"Cookie": "a=b; c"})[0] == 403
    jar = CookieJar()
    code, page, headers = ask(served.url, jar)
    assert code == 200 and "the page" in page, "the token becomes a cookie and leaves the address"
    assert ask(base, jar)[0] == 200 and [cookie.has_nonstandard_attr("HttpOnly") for cookie in jar] == [True]
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Referrer-Policy"] == "no-referrer"
    assert ask(base + "other", jar)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed_through_it(served: PageServer, method: str) -> None:
    assert ask(served.url, method=method, data=b"")[0] == 405


def test_another_name_for_this_machine_is_refused(served: PageServer) -> None:
    """A page of somebody else's whose name was led here (DNS rebinding) has no token; it gets no answer either."""
    assert ask(served.url, headers={"Host": "evil.example:80"})[0] == 403
    assert ask(served.url, headers={"Host": f"localhost:{served.server_port}"})[0] == 200


def test_a_trouble_of_the_store_is_an_answer() -> None:
    def broken() -> str:
        raise StorageError("read", "503", "wait")

    server = PageServer(broken, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    assert ask(server.url)[:2] == (503, "Cannot read: 503. Wait.")
    server.shutdown()
    thread.join()
    server.server_close()


def page(vitpipe: Vitpipe, *runs: str) -> str:
    code, _, err = vitpipe("board", *runs, "--to", "board.html")
    assert (code, err) == (0, "")
    return Path("board.html").read_text()


def test_the_board_of_a_run_that_is_done(vitpipe: Vitpipe) -> None:
    text = page(vitpipe, "tiny.yaml")
    assert "tiny: committed" in text and "2 committed" in text and '<svg class="graph"' in text
    assert "Training loss" in text and "now 1</small>" in text and "together</p>" in text
    assert "<b>digits" not in text and "&lt;b&gt;digits&lt;" in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "<script" not in text


def test_the_board_of_runs_that_failed_begin_or_cannot_be_read(vitpipe: Vitpipe) -> None:
    def fails(ctx: Any) -> None:
        raise StageError("make <img src=x onerror=alert(1)>", "it broke", "mend it")

    HOOKS["a"] = fails
    Path("bad.yaml").write_text(SPEC.replace("name: tiny", "name: bad"))
    vitpipe("run", "bad.yaml")
    open_store(f"file://{Path.cwd()}/runs/torn").write("spec.yaml", b"\xff")
    open_store(f"file://{Path.cwd()}/runs/fresh").write(
        "lease.json", open_store(f"file://{Path.cwd()}/runs/tiny").read("lease.json")
    )
    text = page(vitpipe, "runs/tiny", "runs/bad", "runs/torn", "runs/fresh")
    assert "bad: failed" in text and "needs a, which failed" in text and "Queue: why each waits" in text
    assert "<img src=x" not in text and "&lt;img src=x onerror" in text, "in the reason and in the event"
    assert "torn: unreadable" in text and "fresh: begun" in text and "tiny: committed" in text


def test_the_board_of_a_run_of_before_curves_were_kept(vitpipe: Vitpipe) -> None:
    for path in Path("runs").rglob(CURVES):
        path.unlink()
    text = page(vitpipe, "tiny.yaml")
    assert "tiny: committed" in text and "Training loss" not in text


def test_a_person_ends_it_with_ctrl_c(vitpipe: Vitpipe, tmp_path: Path) -> None:
    """By a signal to its own process: it ends in a moment, with 0, and TensorBoard with it."""
    for verb, told in (("board", "token="), ("tensorboard", "TensorBoard: http://127.0.0.1:")):
        code = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); import tiny_stages; from vitpipe.pipeline.spec.catalog "
        )
        code += "import CATALOG; CATALOG.update(tiny_stages.STAGES); from vitpipe.pipeline.cli.main import main; main()"
        tests = str(Path(__file__).parents[2])
        run = subprocess.Popen(
            [sys.executable, "-u", "-c", code, tests, verb, "tiny.yaml"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
        )  # fmt: skip
        assert run.stdout
        lines = []
        while not any(told in line for line in lines):
            line = run.stdout.readline()
            assert line, run.communicate()
            lines.append(line)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
        assert (run.returncode, err) == (0, "") and "ended" in out
        assert len(children) == (verb == "tensorboard") and not any(_lives(child) for child in children)


def _lives(pid: str) -> bool:
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return Path(f"/proc/{pid}").exists()
