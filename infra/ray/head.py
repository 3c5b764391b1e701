"""Asks Ray's head, and says that it is gone before Ray itself ends this process for it, without a word of ours."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

import ray

from vitpipe.infra.errors import Lost, StorageError
from vitpipe.infra.ray import auth as ray_auth

T = TypeVar("T")

ANSWER_S = 5.0
"""How long an answer is waited for before the head is looked at past Ray."""
MISSES = 2
"""A head that cannot be reached so often in a row is gone: the seconds of one look may be those of a busy machine. Ray
ends whoever was without it for a minute, and we have something to say and to write before."""
_GO_ON = "run the same command again, on a new cluster if this one lost its head: it goes on from the last commit"


def ask_head(asked: str, question: Callable[[], T]) -> T:
    """Return what a question to Ray's head returns. Lost when it does not answer and cannot be reached either.

    A head that is killed while it is asked leaves the question open. It is put in a thread of its own, which may then
    stay behind. A head that is slow but there is waited for.
    """
    answers: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put((question(), None))
        except BaseException as error:
            answers.put((None, error))

    address, misses = ray.get_runtime_context().gcs_address, 0
    threading.Thread(target=ask, daemon=True, name=asked).start()
    while True:
        try:
            answer, error = answers.get(timeout=ANSWER_S)
        except Empty:
            misses = misses + 1 if (found := unreachable(address)) else 0
            if found and misses >= MISSES:
                raise lost_cluster(asked, found) from None
            continue
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]


def unreachable(address: str) -> str | None:
    """Say within seconds why no head answers at `host:port`, or None. Asked past Ray."""
    try:
        ray_auth.require_answer(address)
    except StorageError as error:
        return error.found
    return None


def lost_cluster(asked: str, found: str) -> Lost:
    """Return what work ends with when none can be started any more."""
    return Lost(asked, f"the cluster is gone ({found})", _GO_ON)
