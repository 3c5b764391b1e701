"""What a person or a script sees of a command: lines, JSON, one red paragraph for an error. Knows no verb."""

import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from infra.errors import VitpipeError

LOGGED = (1, 4, 7, 8)
"""Exit codes whose traceback is worth keeping; the others are answers, not failures of ours."""


def print_json(value: Any) -> None:
    """One value on one line of standard output."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """One plain line for a person or a log."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One plain line on standard error, where it is in no JSON's way."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def show_error(error: VitpipeError, as_json: bool) -> None:
    """A paragraph on standard error, red where that is a terminal; with `--json` an object on standard output."""
    if as_json:
        print_json({"error": error.to_json()})
        return
    text = printable(str(error))
    sys.stderr.write(f"\x1b[31m{text}\x1b[0m\n" if _coloured() else f"{text}\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    """The text without characters that would steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def log_path(what: str) -> Path:
    """A new log file for this command; nothing is created yet."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "vitpipe"
    if not _writable(base):
        base = Path(tempfile.gettempdir()) / f"vitpipe-{os.getuid()}" / "log"
    return base / f"{time.strftime('%Y%m%d-%H%M%S')}-{what}-{os.getpid()}.log"


def with_traceback(error: BaseException, known: VitpipeError, what: str) -> VitpipeError:
    """Keep the traceback of `error` in a log file; what to tell a person, both without secrets."""
    # structlog, which the redaction stands beside, is not needed to say that all is well
    from infra.logs import redact

    path = log_path(what)
    do = known.do
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(redact("".join(traceback.format_exception(error))), encoding="utf-8")
        if known.code == 1:
            do = f"please report it with {path}, which has the traceback"
    except OSError:
        do = known.do  # a full disk is often the very thing to be told
    told = type(known)(redact(known.asked), redact(known.found), redact(do))
    return told


def is_terminal() -> bool:
    """Whether a person watches: tables and bars for them, plain lines for a log."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _coloured() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _writable(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)
