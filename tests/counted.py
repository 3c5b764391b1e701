"""How often a store was asked: every HTTP request to S3, and every call to a folder store, while a block lasts.

Nothing of either store is replaced: requests are counted where botocore sends them, retries too.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from unittest import mock

from botocore.httpsession import URLLib3Session

from vitpipe.infra.storage.local import LocalStore

CALLS = (
    "read", "read_version", "size", "write", "create", "swap", "list", "folders", "delete", "upload", "download",
    "copy",
)  # fmt: skip


@contextmanager
def asked(below: Path | None = None) -> Iterator[Counter[str]]:
    """Count what is asked of S3, and of folder stores `below`, by `METHOD path` or by the folder store's `verb path`.

    Of other folders nothing is counted: a thread that another test's run has left for a moment asks its own.
    """
    counts: Counter[str] = Counter()
    lock = Lock()

    def count(what: str) -> None:
        with lock:
            counts[what] += 1

    send = URLLib3Session.send

    def sent(self: Any, request: Any) -> Any:
        count(f"{request.method} {request.url.partition('://')[2].partition('/')[2]}")
        return send(self, request)

    def counted(verb: str) -> Callable[..., Any]:
        original = getattr(LocalStore, verb)

        def call(self: LocalStore, *args: Any, **more: Any) -> Any:
            if below and self.root.is_relative_to(below):
                count(f"{verb} {self.root.name}/{args[0] if args else ''}")
            return original(self, *args, **more)

        return call

    with ExitStack() as patched:
        patched.enter_context(mock.patch.object(URLLib3Session, "send", sent))
        for verb in CALLS:
            patched.enter_context(mock.patch.object(LocalStore, verb, counted(verb)))
        yield counts
