"""Events for people below `{run}/events/`, in order of time: objects of many lines, one a process and driver's time.

Knows no kinds of events: callers name them. Runs of earlier versions have an object for each event; both are read.
"""

import atexit
import logging
import re
import secrets
import threading
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from vitpipe.infra import event_batches
from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import NotFound, StorageError
from vitpipe.infra.event_batches import FOLDER, WINDOW_S, writer_of
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.storage.store import Store

BATCH = ".jsonl"
DAMAGED = "damaged"
"""Kind of what stands in the place of an event that cannot be read."""
_NAME = re.compile(r"(\d{20})-(\d+)-.*")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """One event; `node` is empty when it is about the whole run."""

    time: str
    """UTC, ISO 8601 with milliseconds."""
    fence: int
    node: str
    kind: str
    text: str
    name: str = ""
    """A name that no other has: pass the newest to `read_events` to read on from there."""

    def to_json(self) -> dict[str, Any]:
        """One line of `events --json`."""
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def write(self, run: Store) -> None:
        """Write it into the run's folder, with those before it that the store did not take. StorageError."""
        writer_of(run, self.fence).put(self.name, self.to_json())


@dataclass(frozen=True)
class StoreEvents:
    """Satisfies `stages.contract.Events`. Picklable."""

    run: Store
    """The run's folder."""
    fence: int
    node: str = ""

    def emit(self, kind: str, text: str) -> None:
        """Write one event; when the store refuses it, only the log has it: no work ends because an event was lost.

        Of kinds that repeat, what is too much for people is counted, and told with the next.
        """
        words = writer_of(self.run, self.fence).admit(self.node, kind, text)
        if words is None:
            _tell_later()
            return
        try:
            self.event(kind, words).write(self.run)
        except StorageError as error:
            log.warning("%s: %s (not in the store: %s)", kind, text, error)

    def event(self, kind: str, text: str) -> Event:
        """Make an event of this moment, under a name that no other has; it is not written yet."""
        now_ns = time.time_ns()
        name = f"{now_ns:020d}-{self.fence}-{secrets.token_hex(4)}"
        return Event(_stamp(now_ns), self.fence, self.node, kind, text, name)

    def of(self, node: str) -> "StoreEvents":
        """Return the same door for another node."""
        return replace(self, node=node)


@dataclass
class EventReader:
    """Reads one run's events again and again; an object that was not written to since is not asked for again."""

    run: Store
    _read: dict[str, tuple[str, tuple[Event, ...]]] = field(default_factory=dict)

    def read(
        self, after: str = "", tail: int | None = None, fence: int | None = None, seen: Container[str] = ()
    ) -> Iterator[Event]:
        """Yield events that were not `seen`, oldest first, of one `fence` or of all.

        Only those behind the one named `after`, or the last `tail`.
        """
        listed = [(entry.path.removeprefix(FOLDER), entry.state) for entry in self.run.list(FOLDER)]
        listed = [one for one in listed if one[0].endswith((".json", BATCH))]
        fences = sorted({_order(name)[0] for name, _ in listed}, reverse=True)
        found: list[str | Event] = []
        for one in fences if fence is None else [fence]:
            if tail is not None and len(found) >= tail:
                break
            found += self._of_fence([entry for entry in listed if _order(entry[0])[0] == one])
        found = [one for one in found if _name(one) not in seen and (not after or _by_order(one) > _order(after))]
        found.sort(key=_by_order)
        yield from self._whole(found if tail is None else found[max(0, len(found) - tail) :])

    def _of_fence(self, listed: Sequence[tuple[str, str | None]]) -> list[str | Event]:
        """Read the objects of many events; of the others give the names."""
        batches = [(name, state) for name, state in listed if name.endswith(BATCH)]
        asked = [one for one in batches if one[1] is None or self._read.get(one[0], ("", ()))[0] != one[1]]
        for (name, state), events in zip(asked, answers(lambda one: self._batch(one[0]), asked), strict=True):
            self._read[name] = (state or "", events)
        whole = (event for name, _ in batches for event in self._read[name][1])
        return [*whole, *(name for name, _ in listed if not name.endswith(BATCH))]

    def _whole(self, found: Sequence[str | Event]) -> Iterator[Event]:
        read = answers(lambda one: one if isinstance(one, Event) else _read(self.run, one), found)
        yield from (event for event in read if event is not None)

    def _batch(self, name: str) -> tuple[Event, ...]:
        try:
            lines = self.run.read(FOLDER + name).splitlines()
        except NotFound:
            return ()
        found: list[Event] = []
        for number, line in enumerate(lines, 1):
            event = _parsed(line, "", f"{name}:{number}")
            if event.kind == DAMAGED and found:  # in its place: behind the one before it
                event = replace(event, name=f"{found[-1].name}:{number}", time=found[-1].time)
            found.append(event)
        return tuple(found)


def read_events(run: Store, after: str = "", tail: int | None = None) -> Iterator[Event]:
    """Yield the run's events, oldest first, beginning after the one named `after`.

    With `tail`, only the last so many are read. One that cannot be parsed is yielded as an event of kind `damaged`.
    """
    return EventReader(run).read(after, tail)


def new_events(run: Store, fence: int, seen: Container[str], reader: EventReader | None = None) -> Iterator[Event]:
    """Yield the events of one fence that are not in `seen`, oldest first; `reader` may have read some before.

    Machines' clocks differ, so an event may appear whose name sorts before one that was seen.
    """
    yield from (reader or EventReader(run)).read(fence=fence, seen=seen)


def tell_counted(every: bool = True) -> None:
    """Write how many events of kinds that repeat were left out, of windows that are over or of `every` one."""
    for fence, writer in event_batches.writers():
        for node, kind, words in writer.counted(every):
            events = StoreEvents(writer.run, fence, node)
            try:
                events.event(kind, words).write(writer.run)
            except StorageError as error:
                log.warning("%s: %s (not in the store: %s)", kind, words, error)


_timer: threading.Timer | None = None


def _tell_later() -> None:
    """Have what was counted told once its window is over, by a thread that waits for that."""
    global _timer
    if _timer is None or not _timer.is_alive():
        _timer = threading.Timer(WINDOW_S + 1, tell_counted, [False])
        _timer.daemon = True
        _timer.start()


def _name(one: str | Event) -> str:
    return one if isinstance(one, str) else one.name


def _by_order(one: str | Event) -> tuple[int, str]:
    return _order(_name(one))


def _order(name: str) -> tuple[int, str]:
    """Sort by fence, for drivers follow each other; clocks are compared only within one driver's time."""
    match = _NAME.fullmatch(name)
    return (int(match[2]) if match else 0, name)


def _read(run: Store, name: str) -> Event | None:
    """Read one event; None when it was collected as garbage since it was listed."""
    try:
        return _parsed(run.read(FOLDER + name), name, name)
    except NotFound:
        return None


def _parsed(data: bytes, name: str, where: str) -> Event:
    """Parse an event; its name, where none is given, is in it. What cannot be parsed is an event too."""
    try:
        fields = parse_object(data)
        name = name or fields["name"]
        return _event(fields["time"], fields["fence"], fields["node"], fields["kind"], fields["text"], name)
    except (ValueError, TypeError, KeyError) as error:
        return _damaged(where, repr(error))


def _event(time: Any, fence: Any, node: Any, kind: Any, text: Any, name: Any) -> Event:
    for value, wanted in ((time, str), (fence, int), (node, str), (kind, str), (text, str), (name, str)):
        if not isinstance(value, wanted):
            raise TypeError(f"{value!r:.60} is not {wanted.__name__}")
    return Event(time, fence, node, kind, text, name)


def _damaged(name: str, why: str) -> Event:
    """Keep the time and the fence, where the event's name tells them."""
    match = _NAME.fullmatch(name)
    time, fence = (_stamp(int(match[1])), int(match[2])) if match else ("", 0)
    return Event(time, fence, "", DAMAGED, f"damaged event: {name} ({why})", name)


def _stamp(now_ns: int) -> str:
    return datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


atexit.register(tell_counted)
