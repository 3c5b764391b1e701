"""Runs as the board shows them: looked at when somebody asks, and never more often than every few seconds."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from vitpipe.infra.errors import StorageError
from vitpipe.infra.events import Event, EventReader
from vitpipe.pipeline.cli.board.page import Board, render
from vitpipe.pipeline.store.followed import FollowedRun
from vitpipe.pipeline.store.held import HeldReader

LOOK_S = 5.0
"""However many browsers ask, the store is looked at no more often."""
REFRESH_S = 10
FIRST_EVENTS = 2000
"""Of what happened before, the newest so many are read."""


class Watch:
    """The page of several runs. Thread-safe."""

    def __init__(self, runs: Sequence[FollowedRun], price: float | None) -> None:
        """Look once. StorageError where a store does not answer."""
        self._runs, self._price = runs, price
        self._readers: dict[str, EventReader] = {}
        self._held: dict[str, HeldReader] = {}
        self._boards = [Board(run.look()) for run in runs]
        for run, board in zip(runs, self._boards, strict=True):
            self._hear(run, board, FIRST_EVENTS)
        self._lock = threading.Lock()
        self._page, self._looked = self._rendered(), time.monotonic()

    @property
    def boards(self) -> Sequence[Board]:
        """What was seen last."""
        return self._boards

    def page(self) -> str:
        """The page, at most `LOOK_S` old; where a store does not answer, that of before with a word about it."""
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_S:
                for run, board in zip(self._runs, self._boards, strict=True):
                    self._refresh(run, board)
                self._page, self._looked = self._rendered(), time.monotonic()
            return self._page

    def _rendered(self) -> str:
        lasts = any(board.look.lasts for board in self._boards)
        made = datetime.now(UTC).strftime("%d %B %Y, %H:%M:%S UTC")
        return render(self._boards, made=made, refresh_s=REFRESH_S if lasts else 6 * REFRESH_S, price=self._price)

    def _hear(self, run: FollowedRun, board: Board, tail: int | None = None) -> None:
        reader = self._readers.setdefault(run.run.uri, EventReader(run.run.store))
        known = {event.name for event in board.events}
        board.events = deque(
            sorted([*board.events, *reader.read(tail=tail, seen=known)], key=_when), board.events.maxlen
        )
        held = self._held.setdefault(run.run.uri, HeldReader(run.run.store))
        board.held = held.read({(one.node, one.fence): one.runs for one in board.tries()})

    def _refresh(self, run: FollowedRun, board: Board) -> None:
        try:
            board.look = run.look()
            self._hear(run, board)
            board.trouble = ""
        except StorageError as error:
            board.trouble = f"what is shown may be old: {error}"


def _when(event: Event) -> tuple[int, str]:
    """Drivers follow each other; clocks are compared only within one driver's time."""
    return event.fence, event.time
