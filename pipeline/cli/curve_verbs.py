"""The verbs that follow the curves of runs, wherever these run: they read the store and touch no training."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitpipe.infra.errors import Stopped, StorageError, UsageError
from vitpipe.pipeline.cli.many_verbs import Price
from vitpipe.pipeline.cli.plan_verbs import AsJson
from vitpipe.pipeline.cli.terminal import answer, complain, tell

if TYPE_CHECKING:
    from vitpipe.pipeline.cli.track.follow import Open, Tracking
    from vitpipe.pipeline.store.followed import FollowedRun, Look

curves = typer.Typer()

RunNames = Annotated[
    list[str], typer.Argument(metavar="RUN [RUN ...]", help="STORE/NAME, or YAMLs.", show_default=False)
]
Once = Annotated[bool, typer.Option("--once", help="Write what there is now, and end.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="On 127.0.0.1.", show_default=False)]

TRACKERS = ("wandb", "mlflow", "trackio")
LOOK_S = 5.0
"""A run that lasts is looked at this often."""


@curves.command()
def tensorboard(
    runs: RunNames,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the event files go; else a cache.")] = None,
    once: Once = False,
    port: Port = None,
    as_json: AsJson = False,
) -> None:
    """Keep TensorBoard's event files of runs fresh in a local folder, and show them until Ctrl-C."""
    from vitpipe.pipeline.cli.event_folders import DEFAULT_PORT, EventFolders, Server, free_port, shown_command

    watched = _followed(runs, "show the curves of")
    at = 0 if once else free_port(port, DEFAULT_PORT, "TensorBoard")
    files = EventFolders(to or _cache("tensorboard", watched))
    for one in watched:
        files.clear(one.name)
    looks = [one.look() for one in watched]
    for look in looks:
        files.show(look)
    said = {"folder": str(files.folder), "runs": [_facts(look) for look in looks]}
    lines = [f"{look.name}: {_about(look)}" for look in looks]
    if once:
        by_hand = shown_command(files.folder, port or DEFAULT_PORT)
        answer(
            as_json,
            said | {"command": by_hand},
            "\n".join([*lines, f"{files.points} points in {files.folder}", by_hand]),
        )
        return
    server, silent = Server(files.folder, at), set[str]()
    try:
        shown = [*lines, f"TensorBoard: {server.url}", f"event files: {files.folder}", "Ctrl-C ends it; the files stay"]
        answer(as_json, said | {"url": server.url}, "\n".join(shown))
        while True:
            time.sleep(LOOK_S)
            server.check()
            for look in _next(watched, silent):
                files.show(look)
    except Stopped:  # the way in which a person ends it
        if not as_json:
            tell(f"ended; the files stay in {files.folder}")
    finally:
        server.close()


def _opened(tracker: str, project: str, place: str | None) -> "Open":
    """Find the tracker of that name. UsageError for another, or without its library; StorageError of the library."""
    import importlib

    from vitpipe.pipeline.cli.track.follow import told

    if tracker not in TRACKERS:
        raise UsageError(f"track a run with {tracker!r}", f"known are {', '.join(TRACKERS)}", "name one of them")
    with told():
        opener: Open = importlib.import_module(f"vitpipe.pipeline.cli.track.to_{tracker}").opener(project, place)
        return opener


def _followed(names: Sequence[str], asked: str) -> "list[FollowedRun]":
    from vitpipe.pipeline.store.followed import followed
    from vitpipe.pipeline.store.runs import known_run

    return followed([known_run(name, asked, complain, begun=False) for name in names])


def _next(watched: "Sequence[FollowedRun]", silent: set[str]) -> "list[Look]":
    """Look at each run again; one whose store does not answer is left as it is, said once, and kept in `silent`."""
    found = []
    for one in watched:
        try:
            found.append(one.look())
            silent.discard(one.name)
        except StorageError as error:
            if one.name not in silent:
                complain(f"{one.name}: what is shown may be old: {error}")
            silent.add(one.name)
    return found


def _send_on(tracking: "Tracking", look: "Look", refused: set[str]) -> None:
    """Send what a run's curves gained; what the tracker refuses comes with the next try, and is said once."""
    try:
        tracking.show(look)
        refused.discard(look.name)
    except StorageError as error:
        if look.name not in refused:
            complain(f"{look.name}: it is tried again: {error}")
        refused.add(look.name)


def _facts(look: "Look") -> dict[str, object]:
    """Say of one run what a program may want to know of its curves."""
    nodes = {
        node: {
            "attempt": found.attempt,
            "points": sum(len(line) for tags in found.lines.values() for line in tags.values()),
        }
        for node, found in look.curves.items()
        if found.lines
    }
    return {"run": look.uri, "state": look.state, "nodes": nodes}


def _about(look: "Look") -> str:
    """Say of one run in words what there is of it."""
    with_curves = [node for node, found in look.curves.items() if found.lines]
    words = [look.state, f"curves of {', '.join(with_curves)}" if with_curves else "no curves yet"]
    return "; ".join([*words, *([look.why] if look.why else []), *(f.note for f in look.curves.values() if f.note)])


def _cache(kind: str, watched: "Sequence[FollowedRun]") -> Path:
    """Choose the folder in the user's cache that these runs have."""
    import hashlib
    import os

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vitpipe" / kind
    uris = "\n".join(sorted(one.run.uri for one in watched))
    names = "-".join(one.run.name for one in watched)[:80]
    return cache / f"{names}-{hashlib.sha256(uris.encode()).hexdigest()[:8]}"


@curves.command()
def board(
    runs: RunNames,
    port: Port = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page there once, and end.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
    price: Price = None,
    as_json: AsJson = False,
) -> None:
    """Serve one page on this machine: graph, progress, curves, queue, cost and events of runs, until Ctrl-C."""
    from vitpipe.pipeline.cli.board.server import DEFAULT_PORT, PageServer
    from vitpipe.pipeline.cli.board.watch import Watch
    from vitpipe.pipeline.cli.event_folders import free_port
    from vitpipe.pipeline.cli.report_pages import open_url
    from vitpipe.pipeline.cli.run_page import write

    watched = _followed(runs, "show the board of")
    at = 0 if to else free_port(port, DEFAULT_PORT, "the board")
    watch = Watch(watched, price)
    said = {"runs": [_facts(one.look) for one in watch.boards]}
    if to:
        page = write(to, watch.page())
        answer(as_json, said | {"page": str(page)}, f"the page: {page}")
        return
    server = PageServer(watch.page, at)
    try:
        ends = "only this machine can open it; Ctrl-C ends it"
        answer(as_json, said | {"url": server.url}, f"{server.url}\n{ends}")
        if open_it and not open_url(server.url):
            complain("there is no browser here: from a machine that has one, ssh -L to this port and open that address")
        server.serve_forever(poll_interval=0.2)
    except Stopped:  # the way in which a person ends it
        if not as_json:
            tell("ended")
    finally:
        server.server_close()


@curves.command()
def track(
    runs: RunNames,
    to: Annotated[str, typer.Option(metavar="wandb|mlflow|trackio", help="Which tracker.", show_default=False)],
    project: Annotated[str, typer.Option(help="Its project, or experiment.")] = "vitpipe",
    at: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE", help="MLflow's URI; a folder for wandb's or Trackio's files.", show_default=False
        ),
    ] = None,
    once: Once = False,
    as_json: AsJson = False,
) -> None:
    """Hand the curves of runs on to an experiment tracker, each point once, until the runs end."""
    from vitpipe.pipeline.cli.track.follow import Tracking

    tracking = Tracking(_opened(to, project, at))
    watched = _followed(runs, "track")
    looks, silent, refused = [one.look() for one in watched], set[str](), set[str]()
    try:
        for look in looks:
            tracking.show(look)
        while not once and (silent or refused or any(look.lasts for look in looks)):
            time.sleep(LOOK_S)
            looks = _next(watched, silent)
            for look in looks:
                _send_on(tracking, look, refused)
    except Stopped:  # the way in which a person ends it
        pass
    finally:
        tracking.close()
    said = {"to": to, "project": project, "sent": tracking.sent, "runs": [_facts(look) for look in looks]}
    answer(as_json, said, f"{tracking.sent} new values in {to}'s {project}")
