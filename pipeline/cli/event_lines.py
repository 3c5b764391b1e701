"""The events of a run while it lasts, as lines for the terminal, each once.

Ranks, tasks and the processes that lead them write events to the store, which is read here now and then; the driver's
own are passed in as they are written.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.events import Event, EventReader, new_events
from vitpipe.infra.storage.store import Store

AT_ONCE = (
    "takeover", "refused", "checkpoint_refused", "checkpoint_failed", "deletion_failed", "step_skipped", "log_dropped",
    "uncompiled", "note",
    "rank_lost", "preempted", "resized", "resumed", "adopted", "adoption_refused",
)  # fmt: skip
"""Kinds worth a line at once; the rest is for `vitpipe events`."""
HOLD_S = 60.0
"""After a line, further events of its kind and node share one line, at most this much later."""
SHARE = 20
"""Reading takes at most one part in so many of the time: a distant store with many events is not read all the time."""


@dataclass
class _Held:
    """Events of one kind and node since the last line about them."""

    said_at: float
    events: list[Event] = field(default_factory=list)


class EventFollower:
    """Events of one run as lines, from the moment at which this driver holds it."""

    def __init__(self, run: Store) -> None:
        self._run, self._reader = run, EventReader(run)
        self._fence: int | None = None
        self._seen: set[str] = set()
        self._held: dict[tuple[str, str], _Held] = {}
        self._next_look = float("-inf")

    def begin(self, fence: int) -> None:
        """Follow the events under this fence; those of earlier drivers are not shown again."""
        self._fence = fence

    def heard(self, event: Event) -> None:
        """Leave out an event that was shown in another way."""
        self._seen.add(event.name)

    def news(self) -> Iterator[str]:
        """Yield lines about what happened since the last call."""
        now = time.monotonic()
        if now >= self._next_look:
            yield from self._look(now)
            self._next_look = now + SHARE * (time.monotonic() - now)
        for held in self._held.values():
            if now - held.said_at >= HOLD_S:
                yield from _together(held)
                held.said_at = now

    def rest(self) -> Iterator[str]:
        """Yield the last lines, when the run has ended."""
        yield from self._look(time.monotonic())
        for held in self._held.values():
            yield from _together(held)

    def _look(self, now: float) -> Iterator[str]:
        if self._fence is None:
            return
        try:
            found = list(new_events(self._run, self._fence, self._seen, self._reader))
        except VitpipeError:
            return  # the runner meets the same trouble and says so
        for event in found:
            self._seen.add(event.name)
            if event.kind not in AT_ONCE:
                continue
            place = event.node, event.kind
            if place in self._held and now - self._held[place].said_at < HOLD_S:
                self._held[place].events.append(event)
            else:
                self._held.setdefault(place, _Held(now)).said_at = now
                yield line(event)


def line(event: Event) -> str:
    """Write one event as a line for a person."""
    return f"{event.time[11:19]} {event.node or 'run'} {event.kind}: {event.text}"


def _together(held: _Held) -> Iterator[str]:
    events, held.events = held.events, []
    if len(events) > 1:
        first = events[0]
        yield f"{events[-1].time[11:19]} {first.node or 'run'} {first.kind}: {len(events)} more, last {events[-1].text}"
    else:
        yield from map(line, events)
