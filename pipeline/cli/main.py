"""The command line: one verb, one call into a module below. What happens to its errors is in `main`.

Each verb imports what it calls when it is called, so that `--help` and `validate` need neither Ray, torch nor boto3.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vitpipe.infra import faults
from vitpipe.infra.errors import Stopped, StorageError, UsageError, VitpipeError
from vitpipe.infra.full_disk import full_path, is_full
from vitpipe.pipeline.cli import terminal
from vitpipe.pipeline.cli.artifact_verbs import artifacts
from vitpipe.pipeline.cli.curve_verbs import curves
from vitpipe.pipeline.cli.doctor_verb import doctors
from vitpipe.pipeline.cli.goodput_verb import goodputs
from vitpipe.pipeline.cli.many_verbs import many
from vitpipe.pipeline.cli.plan_verbs import AsJson, Overrides, Spec, VerifySources, looks, mind_run_beside
from vitpipe.pipeline.cli.predict_verb import predictions
from vitpipe.pipeline.cli.run_verbs import runs
from vitpipe.pipeline.cli.submit_verb import submissions

if TYPE_CHECKING:
    from vitpipe.pipeline.drive.runner import Outcome
    from vitpipe.pipeline.spec.load import PipelineSpec

app = typer.Typer(
    name="vitpipe",
    help="From raw images to the ViT paper's transfer table: one YAML, exact resume, every number traceable to bytes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end with its exit code."""
    sys.exit(invoke(list(sys.argv[1:] if args is None else args)))


def invoke(args: list[str]) -> int:
    """Run one command; its exit code. An error is printed as one paragraph, or as JSON with `--json`."""
    terminal.accept_all_characters()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would read every installed package's metadata
    quiet = logging.NullHandler()  # a person sees that a request is tried again; a log gets the outcome alone
    if not sys.stderr.isatty():
        logging.getLogger().addHandler(quiet)
    before = {number: signal.signal(number, _asked_to_end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        faults.refuse()
        code = app(args=args, standalone_mode=False, prog_name="vitpipe")
        if loss := terminal.dropped.take():
            terminal.complain(loss)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (terminal.ReaderGone, SystemExit) as end:  # typer ends so when nobody reads its help any more
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            raise
        return 0
    except Exception as error:
        return _ended_by(error, args)
    finally:
        terminal.let_go()
        logging.getLogger().removeHandler(quiet)
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended_by(error: Exception, args: list[str]) -> int:
    verb = next((arg for arg in args if arg.isalpha()), "vitpipe")
    known = _known(error, verb)
    if known.code in terminal.LOGGED:
        known = terminal.with_traceback(error, known, verb)
    if loss := terminal.dropped.take():
        terminal.complain(loss)
    terminal.show_error(known, "--json" in args)
    return known.code


def _known(error: Exception, verb: str) -> VitpipeError:
    """Turn any error into one of ours; what nobody foresaw is a bug."""
    if isinstance(error, VitpipeError):
        return error
    if isinstance(error, typer.TyperException):
        from vitpipe.pipeline.cli.mistyped import mistyped  # pydantic, which `--help` need not import

        return mistyped(error, verb)
    if isinstance(error, UnicodeEncodeError) and error.encoding not in ("utf-8", "utf8"):
        found = f"this locale's {error.encoding} has no {error.object[error.start : error.end]!a}"
        return UsageError("name a file", found, "set LC_ALL=C.UTF-8 or PYTHONUTF8=1, then run again")
    if is_full(error):
        return StorageError("write to disk", f"{full_path(error)} is full: {error}", "make room there, then run again")
    return VitpipeError(f"finish `{verb}`", f"a bug in vitpipe: {type(error).__name__}: {error}", "please report it")


def _asked_to_end(number: int, frame: FrameType | None) -> None:
    raise Stopped("run the command", f"{signal.Signals(number).name} came", "run it again")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata  # 20 ms that `--help` need not spend

        terminal.say(metadata.version("vitpipe"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From raw images to the ViT paper's transfer table: one YAML, exact resume, every number traceable to bytes."""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    preset: Annotated[str | None, typer.Option(help="folder, small, transfer, compare or benchmarks.")] = None,
    small: Annotated[bool, typer.Option("--small", help="For some hundred images and no GPU: minutes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented starter YAML."""
    from vitpipe.pipeline.cli.starters import DEFAULT, SMALL, write_starter

    if small and preset not in (None, SMALL):
        raise UsageError(f"begin from the preset {preset!r}", "--small is a preset too", "give one of them")
    write_starter(path, chosen := SMALL if small else preset or DEFAULT)
    done = {"path": str(path.resolve()), "preset": chosen}
    terminal.answer(as_json, done, f"{path} is written. Edit it, then: vitpipe validate {path}")


@app.command()
def schema(as_json: AsJson = False) -> None:
    """Print the JSON Schema of the YAML, for editors."""
    import json

    from vitpipe.pipeline.spec.schema import json_schema

    terminal.answer(as_json, json_schema(), json.dumps(json_schema(), indent=1))


@app.command()
def validate(spec: Spec, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check everything that needs no data and no cluster; lists every error."""
    from vitpipe.pipeline.spec.load import load

    found = load(spec, overrides or ())
    nodes = [{"node": node.id, "stage": node.stage.name} for node in found.graph.nodes.values()]
    terminal.answer(as_json, {"run": found.uri, "nodes": nodes}, f"{spec}: ok, {len(nodes)} nodes")


@app.command()
def run(
    spec: Spec,
    overrides: Overrides = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE", help="Allow this drifted node, and what depends on it, to be replaced."),
    ] = None,
    verify_sources: VerifySources = False,
    as_json: AsJson = False,
) -> None:
    """Run or resume, on this machine or on the Ray cluster of RAY_ADDRESS."""
    from vitpipe.infra import logs
    from vitpipe.pipeline.cli.live import LiveRun
    from vitpipe.pipeline.cli.submission import driver_options
    from vitpipe.pipeline.drive import runner
    from vitpipe.pipeline.spec.load import load

    found = load(spec, overrides or ())
    mind_run_beside(spec, found, overrides or ())
    began, handler = time.monotonic(), logs.configure(terminal.log_path(f"run-{found.name}"))
    ways = driver_options(found, spec.name, verify_sources)
    try:
        if as_json:
            outcome = runner.run(found, replace or (), ways)
        else:
            with LiveRun(found) as live:
                outcome = runner.run(found, replace or (), live.options(ways))
    finally:
        if loss := handler.take_dropped():
            terminal.complain(loss)
    _say_end(found, outcome, time.monotonic() - began, as_json)


def _say_end(spec: "PipelineSpec", outcome: "Outcome", seconds: float, as_json: bool) -> None:
    """Print what a run came to: its numbers and where its page is."""
    from vitpipe.pipeline.cli import display
    from vitpipe.pipeline.cli.score_lines import pages, score_lines, score_table
    from vitpipe.pipeline.store.scores import score_rows

    committed = {node: outcome.committed[node] for node in spec.graph.nodes if node in outcome.committed}
    plan, rows, reports = outcome.plan, score_rows(committed), pages(committed)
    if as_json:
        ends = {"scores": [row.to_json() for row in rows], "reports": reports}
        terminal.print_json({"run": spec.uri, **plan.to_json(), **ends})
        return
    if terminal.is_terminal() and rows:
        display.show_beside(score_table(rows))
    else:
        for line in score_lines(rows):
            terminal.tell(line)
    ran = len(plan.having("run", "resume"))
    adopted = f", {len(plan.due) - ran} adopted" if len(plan.due) > ran else ""
    terminal.tell(f"{spec.uri}: done. {ran} of {len(plan.nodes)} nodes run{adopted}, in {seconds:.1f} s")
    for page in reports:
        terminal.tell(f"the report: {page}")
    if reports:
        terminal.tell(f"in a browser: vitpipe report {spec.uri} --open")


for verbs in (looks, goodputs, submissions, runs, doctors, many, curves, predictions):
    app.registered_commands += verbs.registered_commands
app.add_typer(artifacts, name="artifacts")
