"""A save that runs in a thread of its own, and how it ended. Knows no training."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class WriterThread(Generic[T]):
    """Does its work from now on. A process that ends does not wait for it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self.error: Exception | None = None
        """What it raised, once it has ended."""
        self._thread = threading.Thread(target=self._run, name="vitpipe-checkpoint", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether there is a result or an error."""
        return not self._thread.is_alive()

    def join(self, wait_s: float | None = None) -> None:
        """Wait until it has ended, at most `wait_s`."""
        self._thread.join(wait_s)

    def result(self) -> T:
        """What the work returned, once it has ended; what it raised is raised here."""
        if self.error is not None:
            raise self.error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except Exception as error:  # raised by `result`
            self.error = error
