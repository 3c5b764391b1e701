"""The command line through its door: exit codes, one paragraph or one JSON object, nothing written when refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Vitpipe, typed
from small_disk import small_disk
from small_spec import GOOD as SPEC

from vitpipe.infra.errors import IntegrityError, LeaseLost, StageError, Stopped, StorageError, UsageError
from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.drive import runner
from vitpipe.pipeline.store.records import Committed

ROOT = Path(__file__).parents[3]


@pytest.fixture
def vitpipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vitpipe:
    """Runs a command in an empty folder that holds `my.yaml`; its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "my.yaml").write_text(SPEC)

    return typed(capsys)


def test_validate_says_ok(vitpipe: Vitpipe) -> None:
    assert vitpipe("validate", "my.yaml") == (0, "my.yaml: ok, 2 nodes\n", "")


def test_validate_as_json(vitpipe: Vitpipe) -> None:
    code, out, _ = vitpipe("validate", "my.yaml", "name=other", "--json")

    found = json.loads(out)
    assert code == 0 and found["run"].endswith("/runs/other")
    assert [node["node"] for node in found["nodes"]] == ["data", "net"]


BAD = {
    "unknown verb": ("vlidate",),
    "unknown option": ("validate", "my.yaml", "--fast"),
    "missing argument": ("validate",),
    "missing file": ("validate", "nowhere.yaml"),
    "unknown key": ("validate", "my.yaml", "nodes.net.config.sead=1"),
    "indivisible batch": ("plan", "my.yaml", "nodes.net.resources.micro_batch=7"),
    "run of a broken spec": ("run", "my.yaml", "nodes.net.config.total=never"),
    "secret": ("run", "my.yaml", "vars.x=AKIAIOSFODNN7EXAMPLE"),
    "submit of a broken spec": ("submit", "my.yaml", "name=../x", "--address", "http://127.0.0.1:1"),
    "replace of an unknown node": ("run", "my.yaml", "--replace", "nett"),
    "status of an unknown run": ("status", "file://./runs/other"),
    "status of no run": ("status", "gs://bucket/run"),
    "status of a bad name": ("status", "file://./runs/Other!"),
    "events of an unknown run": ("events", "my.yaml"),
    "logs of an unknown run": ("logs", "my.yaml", "net"),
    "stop of an unknown run": ("stop", "my.yaml"),
    "report of an unknown run": ("report", "my.yaml"),
    "gc of an unknown run": ("gc", "my.yaml"),
    "ls of an unknown run": ("artifacts", "ls", "my.yaml"),
    "get of an unknown run": ("artifacts", "get", "my.yaml", "net", "here"),
    "verify of an unknown run": ("artifacts", "verify", "my.yaml"),
    "init over a file": ("init", "my.yaml"),
    "unknown preset": ("init", "new.yaml", "--preset", "nothing"),
}


@pytest.mark.parametrize("args", BAD.values(), ids=BAD.keys())
def test_bad_usage_is_one_paragraph_and_writes_nothing(args: tuple[str, ...], vitpipe: Vitpipe, tmp_path: Path) -> None:
    code, out, err = vitpipe(*args)

    assert (code, out) == (2, "")
    assert len(err.strip()) > 20 and "\n\n" not in err.strip() and "Traceback" not in err
    assert "AKIA" not in err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["my.yaml"]


@pytest.mark.parametrize("args", BAD.values(), ids=BAD.keys())
def test_bad_usage_as_json_is_one_object(args: tuple[str, ...], vitpipe: Vitpipe) -> None:
    code, out, err = vitpipe(*args, "--json")

    error = json.loads(out)["error"]
    assert (code, err) == (2, "")
    assert error["code"] == 2 and error["asked"] and error["found"] and isinstance(error["do"], str)


def test_validate_lists_all_errors_with_their_places(vitpipe: Vitpipe) -> None:
    overrides = ("nodes.net.config.sead=1", "nodes.net.config.total=never", "nodes.data.stage=ingst")

    _, out, _ = vitpipe("validate", "my.yaml", *overrides, "--json")
    _, _, err = vitpipe("validate", "my.yaml", *overrides)

    problems = json.loads(out)["error"]["problems"]
    assert len(problems) == 3 and all(problem["path"] and problem["text"] for problem in problems)
    assert err.startswith("Cannot read my.yaml: 3 problems:\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("a", "b"), 2),
        (StageError("a", "b"), 4),
        (LeaseLost("a", "b"), 5),
        (Stopped("a", "b"), 6),
        (StorageError("a", "b"), 7),
        (OSError(28, "No space left on device", "/data/x"), 7),
        (IntegrityError("a", "b"), 8),
        (ZeroDivisionError("division by zero"), 1),
    ],
)
def test_every_error_has_its_exit_code(
    error: BaseException, code: int, vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(runner, "run", fails)

    assert vitpipe("run", "my.yaml", "--json")[0] == code
    got, out, err = vitpipe("run", "my.yaml")
    assert got == code and not out and "Traceback" not in err and err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_no_bug(number: int, vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run", lambda *_: os.kill(os.getpid(), number))
    before = signal.getsignal(number)

    assert vitpipe("run", "my.yaml")[0] == 6
    assert signal.getsignal(number) == before


def test_a_bug_leaves_its_traceback_in_a_file_without_secrets(
    vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-canary")

    def fails(*_: object) -> None:
        raise ZeroDivisionError("with canary-canary in it")

    monkeypatch.setattr(runner, "run", fails)

    code, _, err = vitpipe("run", "my.yaml")

    (log,) = (tmp_path / "state").rglob("*.log")
    assert code == 1 and str(log) in err
    assert "in fails" in log.read_text() and "canary" not in log.read_text() + err


def test_plan_as_json_and_as_lines(vitpipe: Vitpipe, tmp_path: Path) -> None:
    code, out, _ = vitpipe("plan", "my.yaml", "--json")
    assert code == 0
    (data, net) = json.loads(out)["nodes"]
    assert (data["node"], data["stage"], data["action"]) == ("data", "ingest", "run")
    assert net["reason"] and net["estimate"]["steps"] > 0
    assert vitpipe("plan", "my.yaml")[1].startswith("data: run (")
    assert not (tmp_path / "runs").exists()


def test_a_run_with_nothing_to_do_says_so(vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def nothing(spec: Any, replacing: Any, ways: Any) -> runner.Outcome:
        seen.update(spec=spec, replacing=tuple(replacing))
        return runner.Outcome(runner.Plan({}), dict[str, Committed]())

    monkeypatch.setattr(runner, "run", nothing)

    code, out, _ = vitpipe("run", "my.yaml", "nodes.net.config.seed=4", "--replace", "net", "--replace", "data")

    assert code == 0 and "0 of 0 nodes run" in out
    assert seen["replacing"] == ("net", "data") and seen["spec"].graph.nodes["net"].config.seed == 4


def test_init_writes_what_validate_accepts(vitpipe: Vitpipe) -> None:
    assert vitpipe("init", "new.yaml", "--preset", "compare")[0] == 0
    assert vitpipe("validate", "new.yaml")[0] == 0


def test_schema_is_json_either_way(vitpipe: Vitpipe) -> None:
    assert json.loads(vitpipe("schema")[1]) == json.loads(vitpipe("schema", "--json")[1])


def test_a_text_cannot_steer_the_terminal(vitpipe: Vitpipe) -> None:
    _, _, err = vitpipe("status", "file://./runs/\x1b[2Jx")

    assert "\x1b" not in err


@pytest.mark.parametrize(
    "args", [["--help"], ["run", "--help"], ["validate", "my.yaml"], ["validate", "my.yaml", "nodes=1"], ["schema"]]
)
def test_looking_imports_nothing_heavy(args: list[str], tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(SPEC)
    code = (
        "import sys; from vitpipe.pipeline.cli.main import invoke; invoke(sys.argv[1:]); "
        "sys.exit(len({'torch', 'ray', 'deepspeed', 'webdataset', 'boto3', 'numpy', 'sklearn'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_in_the_repositorys_root_a_module_has_one_name_all_the_same() -> None:
    """Where the folders are importable by their bare names, a second copy of each class would be made."""
    names = ("pipeline", "pipeline.spec.load", "stages.record", "infra.errors")
    code = f"""
import importlib
for name in {names}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"import it as vitpipe.{name.split('.')[0]}" for name in names]
    asked = subprocess.run(
        [sys.executable, "-m", "pipeline", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Usage: vitpipe" in asked.stdout


def main_of(args: tuple[str, ...], cwd: Path, stdout: Any, stderr: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vitpipe", *args]
    env = {**os.environ, "PYTHONPATH": str(Path.cwd()), "XDG_STATE_HOME": str(cwd / "state")}
    return subprocess.run(command, cwd=cwd, env=env, stdout=stdout, stderr=stderr, text=True, check=False)


FULL = {
    "an answer": (("plan", "my.yaml"), True, False, 7, "/dev/full"),
    "an answer as JSON": (("validate", "my.yaml", "--json"), True, False, 7, "/dev/full"),
    "an error as JSON": (("validate", "nope.yaml", "--json"), True, False, 2, "nope.yaml"),
    "an error": (("validate", "nope.yaml"), False, True, 2, ""),
    "an error, nowhere to say it": (("validate", "nope.yaml", "--json"), True, True, 2, ""),
}


@pytest.mark.parametrize(("args", "out", "err", "code", "said"), FULL.values(), ids=FULL.keys())
def test_a_full_disk_under_what_is_said_changes_no_exit_code(
    args: tuple[str, ...], out: bool, err: bool, code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "my.yaml").write_text(SPEC)
    with Path("/dev/full").open("w") as full:
        done = main_of(args, tmp_path, full if out else subprocess.PIPE, full if err else subprocess.PIPE)

    told = done.stderr or ""
    assert done.returncode == code and said in told and "Traceback" not in told and "Exception ignored" not in told
    if said:
        assert told.count("\n") == 1 and str(Path.cwd()) not in told


def test_help_onto_a_full_disk_names_its_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", "1m") as full, (full.path / "help.txt").open("w") as file:
        full.fill()
        done = main_of(("run", "--help"), tmp_path, file, subprocess.PIPE)
    assert done.returncode == 7 and done.stderr.startswith(f"Cannot write to disk: {full.path}/help.txt is full: ")


def test_whoever_reads_no_more_ends_an_answer_without_fault(vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert vitpipe("schema")[0] == 0
        assert vitpipe("validate", "nope.yaml", "--json")[0] == 2


def test_an_error_says_a_path_as_it_is() -> None:
    said = {
        "Table is a node": "Table is a node.",
        "w2/q/native: no room": "w2/q/native: no room.",
        "no.yaml: No such file": "no.yaml: No such file.",
        "file:///tmp/x is gone": "file:///tmp/x is gone.",
        "'cow' is no label": "'cow' is no label.",
        "data: no room": "data: no room.",
        "image_px is small": "image_px is small.",
        "line 3 is blank": "line 3 is blank.",
        "fine-tune it": "fine-tune it.",
        "preempted": "preempted.",
        "its disk, a full one": "its disk, a full one.",
    }
    assert {found: str(UsageError("read it", found)).removeprefix("Cannot read it: ") for found in said} == said


def numeric_options() -> list[tuple[str, str, bool]]:
    """Of every command its options that take a number, and whether it is a whole one."""
    found = []
    todo: list[tuple[str, Any]] = [("", typer.main.get_command(cli.app))]
    while todo:
        path, command = todo.pop()
        todo += [(f"{path} {name}".strip(), one) for name, one in getattr(command, "commands", {}).items()]
        for param in command.params:
            if param.param_type_name == "option" and param.type_descriptor.annotation in (int, float):
                found.append((path, param.opts[0], param.type_descriptor.annotation is int))
    return found


def test_every_number_that_is_mistyped_is_named_with_what_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    options = numeric_options()
    assert len(options) > 25 and {("plan", "--max-hours", False), ("predict", "--top", True)} < set(options)
    for verb, option, is_whole in options:
        wanted = "a whole number" if is_whole else "a number"
        assert cli.invoke([*verb.split(), option, "many"]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert told.startswith(f"Cannot take 'many' for {option}: it should be {wanted}"), told
        assert told.endswith(f"See `vitpipe {verb} --help`."), told


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ("plan", "x", "--max-hours", "nan"),
            "take 'nan' for --max-hours: it should be a number from 0 to 1,000,000,000",
        ),
        (("predict", "x", "y", "--top", "0"), "take '0' for --top: it should be a whole number of at least 1. See"),
        (("artifacts", "ls"), "of `vitpipe artifacts ls`: missing argument 'RUN'. See `vitpipe artifacts ls --help`."),
        (("plan", "x", "--gpus"), "option '--gpus' requires an argument. See `vitpipe plan --help`."),
        (("bogus",), "no such command 'bogus'. Did you mean 'logs'? See `vitpipe --help`."),
    ],
)
def test_what_is_mistyped_names_the_help_of_its_own_command(
    args: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.invoke(list(args)) == 2
    assert words in " ".join(capsys.readouterr().err.split())
