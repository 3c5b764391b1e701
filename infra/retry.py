"""How long to keep trying when something outside fails for a moment: jittered, growing pauses under one deadline.

Knows nothing of what is called; the caller says which errors pass by themselves.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How much trouble to bear before giving up."""

    deadline_s: float = 60.0
    """Seconds from the first try within which the last one must begin."""
    pause_s: float = 0.2
    """Scale of the first pause; the n-th is drawn evenly from 0 to `pause_s` x 2^n."""
    longest_pause_s: float = 10.0
    """No pause is longer."""
    stall_s: float = 15.0
    """Seconds without an answer, or over which a body's rate is judged."""
    floor_bytes_per_s: float = 16 * 1024
    """A body that comes slower over `stall_s` is cut off and asked for again."""

    @classmethod
    def from_environment(cls) -> Self:
        """The defaults, or what the operator says in VITPIPE_STORAGE_DEADLINE_S and VITPIPE_STORAGE_STALL_S."""
        deadline_s = float(os.environ.get("VITPIPE_STORAGE_DEADLINE_S", cls.deadline_s))
        stall_s = float(os.environ.get("VITPIPE_STORAGE_STALL_S", cls.stall_s))
        return cls(deadline_s=deadline_s, stall_s=stall_s)


def persist(
    call: Callable[[], T],
    *,
    passes: Callable[[BaseException], bool],
    patience: RetryPolicy,
    noticed: Callable[[BaseException, int], None],
) -> T:
    """Call `call` until it succeeds; raise the last error, as it is, once the deadline is over.

    `passes` says whether an error may pass by itself; `noticed` is called with each error that another try follows,
    and with the number of tries so far.
    """

    begun = time.monotonic()
    try:
        return call()  # most succeed at once, which tenacity would make a tenth dearer for a small range of an object
    except BaseException as error:
        if not passes(error):
            raise
        failed: BaseException | None = error

    def again() -> T:
        nonlocal failed
        first, failed = failed, None
        if first is not None:
            raise first
        return call()

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            noticed(error, state.attempt_number)

    return Retrying(
        stop=stop_before_delay(patience.deadline_s - (time.monotonic() - begun)),
        wait=wait_random_exponential(multiplier=patience.pause_s, max=patience.longest_pause_s),
        retry=retry_if_exception(passes),
        before_sleep=before_sleep,
        reraise=True,
    )(again)
