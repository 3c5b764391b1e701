"""Show a run while it lasts: a moving table for a person, a line now and then for a log.

Reads the store like any other process; nothing in the run depends on it.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass, field, replace
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.events import Event
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli.display import progress_line, status_table
from vitpipe.pipeline.cli.event_lines import EventFollower, line
from vitpipe.pipeline.cli.outlook import outlook
from vitpipe.pipeline.cli.terminal import dropped, is_terminal, printable, tell
from vitpipe.pipeline.drive.driver import DriverOptions
from vitpipe.pipeline.plan.planned import Plan
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.store.node_status import RunStatus
from vitpipe.pipeline.store.pulse import Pulse
from vitpipe.pipeline.store.status import status_of

LOOK_S = 2.0
WAYS = DriverOptions()
LINE_S = 30.0
"""A log gets a line about a running node this often."""


@dataclass
class LiveRun:
    """Shows one run from a thread of its own, for as long as its block lasts."""

    spec: PipelineSpec
    notes: list[str] = field(default_factory=list)
    """Addresses worth knowing while the run lasts."""
    warnings: list[str] = field(default_factory=list)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=5))
    _above: deque[str] = field(default_factory=deque)
    """Lines that are still to be printed above the table."""
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _pulse: Pulse | None = None
    _follower: EventFollower = field(init=False)

    def __post_init__(self) -> None:
        self._follower = EventFollower(open_store(self.spec.uri))

    def options(self, ways: DriverOptions = WAYS) -> DriverOptions:
        """Make the options by which a runner keeps this display informed."""
        return replace(
            ways,
            on_lease=self._follower.begin,
            on_event=self._heard,
            on_plan=self._begins,
            on_note=lambda text: self._add(self.warnings, text),
            on_cluster=lambda url: self._add(self.notes, f"Ray dashboard {url}"),
            on_metrics=lambda url: self._add(self.notes, f"metrics {url}"),
        )

    def __enter__(self) -> Self:
        target = self._shown if is_terminal() else self._lines
        self._thread = threading.Thread(target=target, name="vitpipe-display", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(timeout=10)  # a store that hangs must not keep the command from ending

    def _heard(self, event: Event) -> None:
        self._follower.heard(event)
        self._add(self.recent, line(event))

    def _begins(self, plan: Plan) -> None:
        for text in outlook(plan):
            self._add(self._above, text)

    def _add(self, to: MutableSequence[str], text: str) -> None:
        to.append(text)
        if not is_terminal():
            tell(text)

    def _look(self) -> RunStatus | None:
        try:
            self._pulse = self._pulse or Pulse(open_store(self.spec.uri), patient=False)
            return status_of(open_store(self.spec.uri), self.spec.graph, self._pulse)
        except VitpipeError:
            return None  # the runner meets the same trouble and says so; a display has nothing to add

    def _shown(self) -> None:
        try:
            self._table()
        except OSError as error:  # a terminal that is closed ends its table, not the run
            dropped.add(sys.stdout, error)

    def _table(self) -> None:
        with Live(refresh_per_second=4, transient=False) as live:
            status, pause_s = self._look(), 0.5
            while not self._end.wait(pause_s):
                began = time.monotonic()
                status = self._look() or status
                live.update(self._frame(status))
                self._show(live, (*self._pending(), *self._follower.news()))
                pause_s = max(LOOK_S, 5 * (time.monotonic() - began))  # a distant store is not read all the time
            live.update(self._frame(self._look() or status))
            self._show(live, (*self._pending(), *self._follower.rest()))

    def _pending(self) -> Iterable[str]:
        while self._above:
            yield self._above.popleft()

    def _show(self, live: Live, lines: Iterable[str]) -> None:
        """Print lines above the table, where they stay."""
        for text in lines:
            live.console.print(Text(printable(text)))

    def _frame(self, status: RunStatus | None) -> RenderableType:
        notes = [Text(" · ".join(self.notes), style="dim")] if self.notes else []
        notes += [Text(warning, style="yellow") for warning in self.warnings]
        events = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in tuple(self.recent)]
        return Group(*([status_table(status)] if status else []), *notes, *events)

    def _lines(self) -> None:
        told: dict[str, tuple[float, str]] = {}
        while not self._end.wait(LOOK_S):
            self._say(self._follower.news())
            status = self._look()
            for node in status.nodes if status else ():
                now = time.monotonic()
                if node.state != "running" and not node.waits:
                    continue
                # the time to go, or to wait, alone is no news
                news = f"{node.waits['for']} {node.waits['behind']}" if node.waits else node.why
                last, before = told.setdefault(node.node, (now, ""))
                if now - last >= LINE_S and news != before:
                    told[node.node] = now, news
                    waits = "waits: " if node.waits else ""
                    tell(f"{time.strftime('%H:%M:%S')} {node.node}: {waits}{progress_line(node)}")
        self._say(self._follower.rest())

    def _say(self, lines: Iterable[str]) -> None:
        for text in lines:
            tell(text)
