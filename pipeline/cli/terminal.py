"""What a command prints for a person or a script: lines, JSON, one red paragraph for an error. Knows no verb."""

import codecs
import errno
import io
import json
import os
import shutil
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from vitpipe.infra.errors import StorageError, VitpipeError
from vitpipe.infra.full_disk import is_full

LOGGED = (1, 4, 7, 8)
"""Exit codes whose traceback is worth keeping; the others are answers, not failures of ours."""


class ReaderGone(Exception):
    """Nobody reads standard output any more. No OSError, because at one typer would end this process by itself."""


@dataclass
class Dropped:
    """The lines beside a command's work that their stream refused; counted from any thread."""

    count: int = 0
    _why: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, stream: TextIO, error: OSError) -> None:
        """Note a line that `stream` refused."""
        state = "is full" if is_full(error) else f"does not take them ({error.strerror})"
        with self._lock:
            self.count, self._why = self.count + 1, f"{_file_behind(stream)} {state}"

    def take(self) -> str | None:
        """Say `12 terminal lines dropped: /path is full`, about those since the last call; None when there are none."""
        with self._lock:
            count, self.count = self.count, 0
        return f"{count} terminal line{'s' if count > 1 else ''} dropped: {self._why}" if count else None


dropped = Dropped()


def print_json(value: Any) -> None:
    """Print one value on one line of standard output. StorageError when its disk is full, ReaderGone when unread."""
    _answer(json.dumps(value, default=str) + "\n")


def say(text: str) -> None:
    """Print one plain line that was asked for. StorageError when its disk is full, ReaderGone when nobody reads."""
    _answer(printable(text) + "\n")


def answer(as_json: bool, value: Any, text: str) -> None:
    """Print what was asked for, as JSON or as a plain line. Errors as for these."""
    print_json(value) if as_json else say(text)


def tell(text: str) -> None:
    """Print one plain line beside the work, which goes on without it: dropped and counted where the disk is full."""
    _or_drop(sys.stdout, printable(text) + "\n")


def complain(text: str) -> None:
    """Print one plain line on standard error, out of the way of JSON; dropped and counted as by `tell`."""
    _or_drop(sys.stderr, printable(text) + "\n")


def show_error(error: VitpipeError, as_json: bool) -> None:
    """Print a paragraph on standard error, red where that is a terminal; with `--json` an object on standard output.

    The paragraph comes also where standard output refuses the object. Nothing is raised where neither can be written.
    """
    if as_json and not _refused(sys.stdout, json.dumps({"error": error.to_json()}, default=str) + "\n"):
        return
    text = printable(str(error))
    _refused(sys.stderr, f"\x1b[31m{text}\x1b[0m\n" if _coloured() else f"{text}\n")


def let_go() -> None:
    """Drop what a stream has buffered and cannot write, or Python would try again at its exit and end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _answer(text: str) -> None:
    try:
        _put(sys.stdout, text)
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        asked, found = "write to standard output", f"{_file_behind(sys.stdout)}: {error.strerror}"
        raise StorageError(asked, found, "make room there, then run again") from error


def _or_drop(stream: TextIO, text: str) -> None:
    if error := _refused(stream, text):
        dropped.add(stream, error)


def _refused(stream: TextIO, text: str) -> OSError | None:
    try:
        _put(stream, text)
    except OSError as error:
        return error
    return None


def _put(stream: TextIO, text: str) -> None:
    """Write past the buffer of a real file: what a buffer keeps after an error would fail again, or come late."""
    stream.flush()
    raw = getattr(stream.buffer, "raw", None) if isinstance(stream, io.TextIOWrapper) else None
    if raw is None:
        stream.write(text)
        stream.flush()
        return
    left = memoryview(text.encode(stream.encoding, _REPLACE))
    while left:
        if (written := raw.write(left)) is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left = left[written:]


def _file_behind(stream: TextIO) -> str:
    name = "standard error" if stream is sys.stderr else "standard output"
    try:
        path = os.readlink(f"/proc/self/fd/{stream.fileno()}")
    except (OSError, ValueError):
        return name
    return path if path.startswith("/") else name


def folded(text: str) -> str:
    """Break a line between words where a person's terminal ends, what follows indented; a log's line stays whole."""
    if not is_terminal():
        return text
    width = max(20, shutil.get_terminal_size().columns)
    pad = text[: len(text) - len(text.lstrip())]
    fold = textwrap.TextWrapper(width, pad, f"{pad}    ", break_long_words=False, break_on_hyphens=False)
    return fold.fill(text.strip())


def accept_all_characters() -> None:
    """Let both streams take every character: one that they cannot encode is written as its number, not an error.

    A stream that was closed before we began takes everything, and shows nothing.
    """
    nowhere = open(os.devnull, "w") if None in (sys.stdout, sys.stderr) else None  # noqa: SIM115
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_REPLACE)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Stand in for what a stream cannot encode, as wide as it where it is a sign of ours."""
    assert isinstance(error, UnicodeEncodeError)
    char = error.object[error.start]
    return _PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode(), error.start + 1


_REPLACE = "vitpipe-plain"
_PLAIN = {"…": "~", "·": "-", "�": "?"}
codecs.register_error(_REPLACE, _replaced)


def printable(text: str) -> str:
    """Replace the characters that would control the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def log_path(what: str) -> Path:
    """Choose a new log file for this command; nothing is created yet."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "vitpipe"
    if not _writable(base):
        base = Path(tempfile.gettempdir()) / f"vitpipe-{os.getuid()}" / "log"
    return base / f"{time.strftime('%Y%m%d-%H%M%S')}-{what}-{os.getpid()}.log"


def with_traceback(error: BaseException, known: VitpipeError, what: str) -> VitpipeError:
    """Keep the traceback of `error` in a log file; return what to tell a person. Both have no secrets in them."""
    # imports structlog, which a command that succeeds does not need
    from vitpipe.infra.logs import redact

    path = log_path(what)
    do = known.do
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(redact("".join(traceback.format_exception(error))), encoding="utf-8")
        if known.code == 1:
            do = f"please report it with {path}, which has the traceback"
    except OSError:
        do = known.do  # a full disk is often the very thing to report
    return type(known)(redact(known.asked), redact(known.found), redact(do))


def is_terminal() -> bool:
    """Whether a person watches: tables and bars for them, plain lines for a log."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _coloured() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _writable(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)
