"""SIGTERM and Ctrl-C as requests to stop: an exception before the work begins, a message once somebody listens."""

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from vitpipe.infra.errors import Stopped

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE_S = 0.2
"""Signals within this time are one: `timeout` and Apptainer pass on what the whole process group has got already."""


class Signals:
    """Handlers for the main thread, put back at the end of the block."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._listener: Callable[[str], None] | None = None
        self._heard = float("-inf")

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Put our handlers in place, again after a library (Ray does) has set its own."""
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def tell(self, listener: Callable[[str], None]) -> None:
        """Call `listener(name of the signal)` from now on. It runs in the handler: it may only pass the name on."""
        self._listener = listener

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._listener is None:
            raise Stopped("run", f"{name} came before anything was started", "run the same command again")
        before, self._heard = self._heard, time.monotonic()
        if self._heard - before >= ONE_S:
            self._listener(name)


class NoSignals(Signals):
    """For a run in a thread that is not the main one, where Python allows no handlers."""

    def __enter__(self) -> Self:
        return self

    def install(self) -> None:
        """Leave the process's handlers as they are."""
        return None
