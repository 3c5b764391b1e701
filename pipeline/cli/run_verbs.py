"""The verbs that look at a run, or act on it, wherever its driver is: they read the store alone."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vitpipe.pipeline.cli.plan_verbs import AsJson
from vitpipe.pipeline.cli.terminal import answer, complain, folded, is_terminal, print_json, say

runs = typer.Typer()

RunName = Annotated[str, typer.Argument(metavar="RUN", help="STORE/NAME, or the YAML.", show_default=False)]
NodeName = Annotated[str | None, typer.Argument(metavar="[NODE]", help="NODE or NODE/ID.", show_default=False)]
LOOK_S = 2.0
LASTING = ("running", "submitted")
"""States that end by themselves: whoever follows stays."""


@runs.command()
def status(
    run: RunName,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking until nothing runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say of each node its state, how far it is, and why it waits."""
    from vitpipe.pipeline.cli import display
    from vitpipe.pipeline.cli.waiting import Awaited
    from vitpipe.pipeline.store.pulse import Pulse
    from vitpipe.pipeline.store.runs import known_run
    from vitpipe.pipeline.store.status import read_status

    store = known_run(run, "show the status of", complain, begun=False).store
    pulse, awaited = Pulse(store, patient=not watch), Awaited()
    while True:
        found = awaited.told(read_status(store, pulse))
        if as_json:
            print_json(found.to_json())
        elif is_terminal():
            display.show(display.status_table(found))
        else:
            for line in display.status_lines(found):
                say(line)
        if not watch or found.state not in LASTING:
            return
        time.sleep(LOOK_S)


@runs.command()
def events(
    run: RunName,
    tail: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the last N.", show_default=False)] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep reading while the run lasts.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what happened, oldest first."""
    from vitpipe.infra.events import EventReader
    from vitpipe.pipeline.cli.waiting import Lasting
    from vitpipe.pipeline.store.runs import known_run

    store = known_run(run, "list the events of", complain, begun=False).store
    reader, lasting, shown, after = EventReader(store), Lasting(store), set[str](), ""
    while True:
        lasts = lasting.look(complain, follow)
        for event in reader.read(after, None if after else tail, seen=shown):
            line = f"{event.time} {event.node or 'run'} {event.kind}: {event.text}"
            answer(as_json, event.to_json(), folded(line))
            shown.add(event.name)
            after = after or event.name  # clocks of machines differ: one may yet come before another that was shown
        if not lasts:
            return
        time.sleep(LOOK_S)


@runs.command()
def logs(
    run: RunName,
    node: NodeName = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep reading while the run lasts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the logs of the newest attempt of each node, or of one."""
    from vitpipe.pipeline.cli.waiting import Lasting
    from vitpipe.pipeline.store.log_reading import Logs
    from vitpipe.pipeline.store.runs import known_run, nodes_of

    found = known_run(run, "show the logs of", complain, begun=False)
    reader, lasting = Logs(found.store), Lasting(found.store)
    while True:
        lasts = lasting.look(complain, follow)
        for piece in reader.gained(nodes_of(found, node)) if lasting.begun else ():
            read = {"node": piece.node, "path": piece.path, "text": piece.text}
            answer(as_json, read, f"== {piece.node}/{piece.path}\n{piece.text.rstrip()}")
        if not lasts:
            return
        time.sleep(LOOK_S)


@runs.command()
def stop(run: RunName, as_json: AsJson = False) -> None:
    """Ask the driver that holds the run to commit what it can and end, resumable."""
    import getpass
    import socket

    from vitpipe.infra.lease_state import request_stop
    from vitpipe.pipeline.store.runs import find_run

    found = find_run(run, complain)
    fence = request_stop(found.store, f"`vitpipe stop` by {getpass.getuser()}@{socket.gethostname()}")
    ending = f"its driver (fence {fence}) will end at its next look at the store, within seconds"
    said = f"{found.uri}: {'nobody runs it' if fence is None else ending}"
    answer(as_json, {"run": found.uri, "fence": fence}, said)


@runs.command()
def report(
    run: RunName,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Copy it into this folder.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print where the run's one-file HTML page is on this machine; one of a distant store is fetched first."""
    from vitpipe.pipeline.cli.report_pages import fetch_reports, open_page
    from vitpipe.pipeline.store.runs import known_run

    paths = fetch_reports(known_run(run, "show the report of", complain), to)
    answer(as_json, {"paths": [str(path) for path in paths]}, "\n".join(str(path) for path in paths))
    if open_it and not open_page(paths[0]) and not as_json:
        say("there is no browser here: open that file on a machine that has one")


@runs.command()
def gc(
    run: RunName,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also what an unfinished node might have resumed from.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what neither a record nor a possible resume names; nothing where anything is not as it was committed."""
    from vitpipe.pipeline.drive.gc import gc as collect
    from vitpipe.pipeline.store.runs import find_run

    uri = find_run(run, complain).uri
    found = collect(uri, unfinished, dry_run=dry_run)
    if as_json:
        would = {"would_remove": [asdict(one) for one in found.garbage]} if dry_run else {}
        print_json({"run": uri, "removed": [] if dry_run else found.paths, **would, "bytes": found.bytes})
        return
    for one in found.garbage:
        say(f"would remove {one.path}: {one.reason}" if dry_run else f"removed {one.path}")
    would_be = "would be " if dry_run else ""
    say(f"{uri}: {len(found.garbage)} files and {found.bytes:,} bytes {would_be}removed")
