"""The report of a run as a file on this machine, and in a browser where there is one."""

import hashlib
import os
import sys
import threading
import webbrowser
from pathlib import Path

from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.pipeline.cli.terminal import is_terminal
from vitpipe.pipeline.store.runs import Run, graph_of
from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.record import load_artifact

PAGE = "index.html"
BROWSER_S = 10.0
"""A browser that was begun where nobody watches has so long to answer."""


def fetch_reports(run: Run, folder: Path | None = None) -> list[Path]:
    """Verify every committed report's page; where they are on this machine.

    With `folder` each is copied to `{folder}/{run}-{node}/index.html`. Without, a page that lies on this machine stays
    where it is, and one of a distant store comes into the user's cache. UsageError when the run has no report, or none
    is committed yet.
    """
    asked = f"show the report of {run.uri}"
    nodes = [node.id for node in graph_of(run, "show the report of").nodes.values() if node.stage.output == "Report"]
    if not nodes:
        raise UsageError(asked, "it has no node of stage report", "add one to the YAML")
    found = []
    for node in nodes:
        try:
            artifact = load_artifact(f"{run.uri}/{node}")
        except NotFound:
            continue
        name = f"{run.name}-{node.replace('/', '-')}"
        found.append(artifact.fetch(PAGE, folder.absolute() / name) if folder else _at_hand(artifact, name))
    if not found:
        raise UsageError(asked, f"{', '.join(nodes)} is not committed yet", "see vitpipe status")
    return found


def open_page(page: Path) -> bool:
    """Show a page in a browser; whether there is one."""
    return open_url(page.as_uri())


def open_url(url: str) -> bool:
    """Do the same for an address. Waits for a browser without windows only where a person sees it."""
    windows = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not windows and not os.environ.get("BROWSER"):
        return False  # what is left are browsers of the terminal, which would take it over or wait for nobody
    answers: list[bool] = []
    opening = threading.Thread(target=lambda: answers.append(webbrowser.open(url)), daemon=True)
    opening.start()
    opening.join(None if is_terminal() else BROWSER_S)
    return answers == [True]


def _at_hand(report: Artifact, name: str) -> Path:
    if report.uri.startswith("file://"):
        report.read(PAGE)  # verified
        return Path(report.uri.removeprefix("file://")) / report.file(PAGE).at
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vitpipe" / "reports"
    return report.fetch(PAGE, cache / f"{name}-{hashlib.sha256(report.uri.encode()).hexdigest()[:12]}")
