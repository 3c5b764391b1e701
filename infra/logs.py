"""The log: plain lines for machines and people, with every secret struck out.

`logging.getLogger(__name__)` and `structlog.get_logger()` end in the same lines. Redaction works on the finished line,
so that messages, arguments, structured values and tracebacks all pass through it. Knows no run and no stage.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor

from vitpipe.infra.full_disk import is_full

HIDDEN = "[hidden]"

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTHORIZATION", re.I)
_NO_SECRET_NAME = re.compile(r"(_PATH|_FILE|_MODE|_URI|_URL|_ENDPOINT|_EXPIRATION)$", re.I)
_KEY = (
    r"[\w.-]*(?:secret|passw(?:or)?d|passphrase|credential|api[_-]?key|access[_-]?key|private[_-]?key|signature)[\w.-]*"
)
_PROSE = r"(?:credentials?|token): (?:Unable to|Error when|Partial credentials|The config|Authentication failed)\b"
"""What others say after a colon in a sentence of ours: `no usable credentials: Unable to locate credentials`."""
_TOKEN_KEY = r"[\w.-]*token[\w.-]*"
_SCHEME_WORD = r"(?:authenti\w+|authori[sz]ation|credentials?|tokens?)"
"""What follows `Basic` in a sentence: `Basic authentication failed`."""
_HEADER = r"(?:proxy-)?authorization|(?:set-)?cookie"

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), HIDDEN),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]+@", re.I), rf"\1{HIDDEN}@"),
    (re.compile(rf"(\b(?:{_HEADER})\b['\"]?\s*[:=]\s*)(b?['\"])(?:(?!\2).)+", re.I), rf"\1\2{HIDDEN}"),
    (re.compile(rf"(\b(?:{_HEADER})\b['\"]?\s*[:=]\s*)(?!b?['\"])[^\r\n]+", re.I), rf"\1{HIDDEN}"),
    (re.compile(rf"\b(Bearer|Basic)\s+(?!{_SCHEME_WORD}(?![\w+/=.~-]))[\w+/=.~-]{{6,}}", re.I), rf"\1 {HIDDEN}"),
    (re.compile(rf"(\b(?!{_PROSE}){_KEY}['\"]?\s*[:=]\s*b?['\"]?)[^\s'\",;&}}\])]+", re.I), rf"\1{HIDDEN}"),
    # at least eight characters: `tokens=197` is a fact about a Transformer
    (re.compile(rf"(\b(?!{_PROSE}){_TOKEN_KEY}['\"]?\s*[:=]\s*b?['\"]?)[^\s'\",;&}}\])]{{8,}}", re.I), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), HIDDEN),
    (re.compile(r"\b(?:gh[pousr]_|hf_|xox[abp]-|sk-)[\w-]{16,}"), HIDDEN),
)

RAISES = False
"""Whether a faulty log call is reported on standard error, in the middle of a user's terminal; tests set it."""

_hidden: set[str] = set()
_OURS = ("vitpipe",)


def hide(value: str) -> None:
    """Strike out this value wherever it appears from now on: a secret that stands in no environment variable."""
    if len(value) >= 6:
        _hidden.add(value)


def redact(text: str) -> str:
    """Strike out secrets by their shape, and by their value where the environment holds them."""
    for value in sorted({*_hidden, *_secrets_of_environment()}, key=len, reverse=True):
        text = text.replace(value, HIDDEN).replace(quote(value, safe=""), HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def configure(to: Path | TextIO | None = None, level: str = "INFO") -> "DroppingHandler":
    """Send all logging of this process to a file (appending) or a stream, standard error by default.

    Ours from `level` on, others' from WARNING on. A second call replaces the first. Returns the handler, which counts
    the lines that its disk refused. From now on a failure to log prints no traceback between our lines.
    """
    logging.raiseExceptions = RAISES
    handler = LogFile(to) if isinstance(to, Path) else _Stream(to or sys.stderr)
    handler.setFormatter(formatter())
    handler.set_name("vitpipe")
    root = logging.getLogger()
    for old in [one for one in root.handlers if one.get_name() == "vitpipe"]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for package in _OURS:
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_CHAIN, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return handler


def formatter() -> logging.Formatter:
    """Make the formatter of our lines, secrets struck out, for a caller's own handler."""
    return _RedactingFormatter(foreign_pre_chain=_CHAIN, processors=_RENDER)


def bind(**facts: Any) -> None:
    """Put fields (run, node, rank) on every later line of this thread or task."""
    structlog.contextvars.bind_contextvars(**facts)


class DroppingHandler(logging.Handler):
    """A handler that drops the lines that its disk refuses, and counts them."""

    path = "standard error"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.dropped = 0
        self._reason: OSError | None = None

    def take_dropped(self) -> str | None:
        """Say `12 log lines dropped: /path is full`, about those since the last call; None when there are none."""
        dropped, reason = self.dropped, self._reason
        self.dropped, self._reason = 0, None
        if reason is None:
            return None
        state = "is full" if is_full(reason) else f"does not take them ({reason.strerror})"
        return f"{dropped} log line{'s' if dropped > 1 else ''} dropped: {self.path} {state}"

    def _drop(self, reason: OSError) -> None:
        self.dropped, self._reason = self.dropped + 1, reason


class LogFile(DroppingHandler):
    """Append to a file that its first line creates. Nothing is buffered, so no dropped line turns up late."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)
        self._file: int | None = None
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line; one that the disk refuses is counted and dropped."""
        try:
            line = self.format(record) + "\n"
        except Exception:  # a faulty log call: tests raise it, a user's run does without that line
            self.handleError(record)
            return
        try:
            self._append(line.encode(errors="backslashreplace"))
        except OSError as error:
            self._drop(error)

    def close(self) -> None:
        """Close the file; the count of dropped lines stays."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        super().close()

    def _append(self, data: bytes) -> None:
        if self._file is None:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        left = memoryview(b"\n" + data if self._torn else data)
        while left:
            left = left[os.write(self._file, left) :]
            self._torn = bool(left)


class _Stream(DroppingHandler, logging.StreamHandler):  # type: ignore[type-arg]
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._drop(error)
        else:
            super().handleError(record)


class _RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _line(_logger: Any, _method: str, event: EventDict) -> str:
    """`2026-11-23T07:20:01.123456Z info event key=value`, then the traceback on lines of its own."""
    head = (event.pop("timestamp", ""), event.pop("level", ""), str(event.pop("event", "")))
    origin, stack = event.pop("logger", ""), [event.pop(key) for key in ("exception", "stack") if key in event]
    facts = [
        f"{key}={value!r}" if isinstance(value, str) and " " in value else f"{key}={value}"
        for key, value in event.items()
        if not key.startswith("_")
    ]
    line = " ".join(part for part in (*head, *facts, f"[{origin}]" if origin else "") if part)
    return "\n".join((line, *map(str, stack)))


_CHAIN: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
]
_RENDER: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _line]


def _secrets_of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name) and not _NO_SECRET_NAME.search(name):
            yield value
