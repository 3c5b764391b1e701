"""A process that dies at its i-th call to the store: before the call, or after it and before its answer.

`FaultyStore` wraps one store; `dying` makes every folder store of this process mortal, whoever opens it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.store import Digest, Entry, OneByOne, Store

VERBS = (
    "read", "read_version", "size", "write", "create", "swap", "list", "delete", "upload", "download", "sweep",
    "clock_ahead_s", "copy",
)  # fmt: skip


class Crash(SystemExit):
    """The process is gone. No `except Exception` sees it, and threads end of it without a word."""


@dataclass
class Fate:
    """Counts calls and dies at call `at` (from 1; None: never). Once dead, every call of every thread dies too."""

    at: int | None = None
    after: bool = False
    """Die when the call has been carried out, before its answer is seen."""
    calls: list[str] = field(default_factory=list)
    """`verb path` of each call so far."""
    dead: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _depth: threading.local = field(default_factory=threading.local)

    def meet(self, verb: str, args: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        """Carry out one call of the outside, unless it is the fatal one; a store's calls to itself do not count."""
        if getattr(self._depth, "inside", False):
            return call()
        with self._lock:
            if self.dead:
                raise Crash(f"{verb} after the end")
            self.calls.append(f"{verb} {args[0] if args else ''}".strip())
            fatal = len(self.calls) == self.at
            self.dead = fatal
        if fatal and not self.after:
            raise Crash(f"before call {self.at}: {self.calls[-1]}")
        self._depth.inside = True
        try:
            answer = call()
            if verb == "list":  # a generator: carried out here, not when it is read
                answer = iter(list(answer))
        finally:
            self._depth.inside = False
        if fatal:
            raise Crash(f"after call {self.at}: {self.calls[-1]}")
        return answer


@dataclass(frozen=True)
class FaultyStore(OneByOne):
    """A store whose every call meets `fate`; its children share it."""

    inner: Store
    fate: Fate

    @property
    def uri(self) -> str:
        return self.inner.uri

    def child(self, prefix: str) -> "FaultyStore":
        return FaultyStore(self.inner.child(prefix), self.fate)

    def _do(self, verb: str, *args: Any) -> Any:
        return self.fate.meet(verb, args, lambda: getattr(self.inner, verb)(*args))

    def read(self, path: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        return self._do("read", path, start, length, version)

    def read_version(self, path: str) -> tuple[bytes, str]:
        return self._do("read_version", path)

    def size(self, path: str) -> int | None:
        return self._do("size", path)

    def write(self, path: str, data: bytes) -> Digest:
        return self._do("write", path, data)

    def create(self, path: str, data: bytes) -> str:
        return self._do("create", path, data)

    def swap(self, path: str, data: bytes, version: str) -> str:
        return self._do("swap", path, data, version)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Entry]:
        return self._do("list", prefix, after)

    def folders(self) -> Iterator[str]:
        return self._do("folders")

    def delete(self, path: str) -> None:
        return self._do("delete", path)

    def copy(self, source: str, target: str) -> None:
        self._do("copy", source, target)

    def upload(self, local: Path, path: str, given: Digest | None = None) -> Digest:
        return self.fate.meet("upload", (path,), lambda: self.inner.upload(local, path, given))

    def download(self, path: str, local: Path, expect: Digest | None = None) -> Digest:
        return self._do("download", path, local, expect)

    def sweep(self, older_than_s: float) -> int:
        return self._do("sweep", older_than_s)

    def clock_ahead_s(self) -> float:
        return self._do("clock_ahead_s")


@contextmanager
def dying(fate: Fate) -> Iterator[Fate]:
    """Let every call to any `file://` store of this process meet `fate`, however the store was opened.

    with pytest.raises(Crash), dying(Fate(at=7, after=True)): run(...)
    """

    def mortal(verb: str) -> Callable[..., Any]:
        original = getattr(LocalStore, verb)

        def call(self: LocalStore, *args: Any, **kwargs: Any) -> Any:
            named = args[1:] if verb == "upload" else args
            return fate.meet(verb, named, lambda: original(self, *args, **kwargs))

        return call

    with ExitStack() as patched:
        for verb in VERBS:  # one by one: `mock.patch.multiple` takes a `create` of its own
            patched.enter_context(mock.patch.object(LocalStore, verb, mortal(verb)))
        yield fate
