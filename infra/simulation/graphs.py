"""The time of a whole graph on given machines: the very queue of the run, on a simulated clock.

Nodes are fan-outs of tasks or gangs of ranks whose seconds are told. Knows no Ray, no stage and no store; nothing fails
here (`infra.simulation.gangs` has what does).

    nodes = {"images": SimulatedNode((30.0,) * 40), "net": SimulatedNode((600.0,), {"GPU": 1.0}, 8, ("images",))}
    timeline = run_graph(nodes, {f"m{n}": {"CPU": 16.0, "GPU": 4.0} for n in range(2)})
    timeline.seconds, timeline.spans["net"].began
"""

import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vitpipe.infra.chains import longest_chains
from vitpipe.infra.errors import UsageError
from vitpipe.infra.ray.one_queue import AnyTicket, OneQueue, Shape, Sizes, Ticket
from vitpipe.infra.ray.reasons import lack

UNKNOWN_S = 60.0
"""Seconds of a node that nobody estimates, as long as the queue's order is concerned."""

MakeQueue = Callable[[Callable[[], Mapping[str, Sizes]], Callable[[], float]], OneQueue]
"""Makes a queue of the machines that there are, and a clock."""


@dataclass(frozen=True)
class SimulatedNode:
    """What a node has the machines do."""

    tasks: tuple[float, ...]
    """Seconds that each of its tasks takes; a gang is one."""
    bundle: Sizes = field(default_factory=lambda: {"CPU": 1.0})
    """What a task, or each rank of a gang, asks of one machine, as Ray names it."""
    ranks: int = 0
    """Above 0 it is a gang of so many ranks."""
    needs: tuple[str, ...] = ()
    """Nodes that have ended before it begins."""
    estimates: tuple[float | None, ...] | None = None
    """Seconds that the queue is told of each task, None for an unknown length; the true ones by default."""

    @property
    def told(self) -> tuple[float | None, ...]:
        """What the queue is told of each task."""
        return self.tasks if self.estimates is None else self.estimates

    @property
    def shape(self) -> Shape:
        """What it asks for at once."""
        return self._ticket(0.0, None, lambda ticket: None, "").shape

    def tickets(self, node: str, go: Callable[[AnyTicket], None]) -> list[AnyTicket]:
        """Make a ticket for each task; its item is the seconds that it will take."""
        return [self._ticket(seconds, told, go, node) for seconds, told in zip(self.tasks, self.told, strict=True)]

    def _ticket(self, seconds: float, told: float | None, go: Callable[[AnyTicket], None], node: str) -> AnyTicket:
        return Ticket(seconds, self.bundle, told, go, self.ranks > 0, max(1, self.ranks), node)


@dataclass(frozen=True)
class Turn:
    """A task, or a gang, that ran."""

    node: str
    began: float
    ended: float
    machines: tuple[str, ...]
    """Of each bundle."""


@dataclass(frozen=True)
class Span:
    """When a node was ready, when the first of its tasks began, and when the last ended."""

    came: float
    began: float
    ended: float


@dataclass(frozen=True)
class Timeline:
    """What became of a graph, in seconds from its beginning."""

    spans: Mapping[str, Span]
    """By node."""
    turns: Sequence[Turn]
    """In the order of their beginning."""

    @property
    def seconds(self) -> float:
        """When the last node ended."""
        return max((span.ended for span in self.spans.values()), default=0.0)


def run_graph(
    nodes: Mapping[str, SimulatedNode], machines: Mapping[str, Sizes], make_queue: MakeQueue = OneQueue
) -> Timeline:
    """Run a graph as a driver does: a node's tickets join once all that it needs have ended.

    `nodes` has each one behind all that it needs. Costs about 0.1 ms a task. UsageError for a node that these machines
    could never hold, whatever else runs.
    """
    for name, node in nodes.items():
        if missing := lack(node.shape.asked, node.shape.count, machines):
            found = f"{name} asks for {node.shape}, {missing}"
            raise UsageError("simulate the graph on these machines", found, "add machines or ask for less")
    return _GraphRun(nodes, machines, make_queue).lead()


class _GraphRun:
    """One run of a graph, event by event."""

    def __init__(
        self, nodes: Mapping[str, SimulatedNode], machines: Mapping[str, Sizes], make_queue: MakeQueue
    ) -> None:
        self._nodes, self._now = nodes, 0.0
        self._queue = make_queue(lambda: machines, lambda: self._now)
        self._queue.rank(longest_chains(_seconds(nodes, machines), {name: one.needs for name, one in nodes.items()}))
        self._missing = {name: set(node.needs) for name, node in nodes.items()}
        self._needing: dict[str, list[str]] = {name: [] for name in nodes}
        for name, node in nodes.items():
            for need in dict.fromkeys(node.needs):
                self._needing[need].append(name)
        self._left = {name: len(node.tasks) for name, node in nodes.items()}
        self._came: dict[str, float] = {}
        self._numbers = itertools.count()
        self._running: list[tuple[float, int, AnyTicket]] = []
        self._called: list[AnyTicket] = []
        self._turns: list[Turn] = []

    def lead(self) -> Timeline:
        """Run it to its end."""
        self._come([name for name, missing in self._missing.items() if not missing])
        while self._running:
            self._now, _, ticket = heapq.heappop(self._running)
            self._left[ticket.node] -= 1
            self._queue.leave([ticket], ended=True)
            self._begin()
            if not self._left[ticket.node]:
                self._end(ticket.node)
        return Timeline(self._spans(), self._turns)

    def _come(self, names: Sequence[str]) -> None:
        for name in names:
            self._came[name] = self._now
            if self._left[name]:
                self._queue.join(self._nodes[name].tickets(name, self._called.append))
                self._begin()
            else:
                self._end(name)

    def _begin(self) -> None:
        for ticket in self._called:
            ended = self._now + ticket.item
            self._turns.append(Turn(ticket.node, self._now, ended, ticket.machines))
            heapq.heappush(self._running, (ended, next(self._numbers), ticket))
        self._called.clear()

    def _end(self, node: str) -> None:
        due = []
        for name in self._needing[node]:
            self._missing[name].discard(node)
            due += [] if self._missing[name] else [name]
        self._come(due)

    def _spans(self) -> dict[str, Span]:
        spans = {name: Span(came, came, came) for name, came in self._came.items()}
        first: set[str] = set()
        for turn in self._turns:
            span = spans[turn.node]
            began = span.began if turn.node in first else turn.began
            first.add(turn.node)
            spans[turn.node] = Span(span.came, began, max(span.ended, turn.ended))
        return spans


def _seconds(nodes: Mapping[str, SimulatedNode], machines: Mapping[str, Sizes]) -> dict[str, float]:
    """Estimate each node alone on all machines: its longest task, or all of them side by side."""
    found = {}
    for name, node in nodes.items():
        known = [seconds for seconds in node.told if seconds is not None]
        asked = dict(node.shape.asked)
        room = min(
            (sum(sizes.get(one, 0.0) for sizes in machines.values()) / amount for one, amount in asked.items()),
            default=math.inf,
        )
        found[name] = max(max(known), sum(known) / room) if known else UNKNOWN_S * bool(node.tasks)
    return found
