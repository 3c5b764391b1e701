"""A fan-out on simulated machines: tasks in the queue's turn, lost with their machine, run again as often as they may.

Knows neither Ray nor what the tasks do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from vitpipe.infra.ray.one_queue import AnyTicket, OneQueue, Sizes, Ticket
from vitpipe.infra.simulation.agenda import Appointment
from vitpipe.infra.simulation.cluster import SimulatedCluster


@dataclass
class SimulatedTasks:
    """The tasks of one node."""

    cluster: SimulatedCluster
    queue: OneQueue
    seconds: Sequence[float]
    """Of each task."""
    bundle: Sizes
    ended: Callable[[], None]
    """Called once all have ended."""
    node: str = "tasks"
    max_failures: int = 3
    losses: int = 0
    failed: int = 0
    """Tasks that were lost too often; each is begun anew, as a person would."""
    done: list[int] = field(default_factory=list)
    """Numbers of those that have ended, in their order."""
    _running: dict[AnyTicket, Appointment] = field(default_factory=dict)

    def begin(self) -> None:
        """Have all of them wait for their turn."""
        if not self.seconds:
            self.ended()
        self.queue.join([self._ticket(number) for number in range(len(self.seconds))])

    def hit(self, machine: str, what: Literal["crash", "hang"]) -> None:
        """Satisfies `infra.simulation.cluster.Residents`: the first task there is lost."""
        self._lose([one for one in self._running if machine in one.machines][:1])

    def gone(self, machine: str) -> None:
        """Satisfies `infra.simulation.cluster.Residents`."""
        self._lose([one for one in self._running if machine in one.machines])

    def changed(self) -> None:
        """Satisfies `infra.simulation.cluster.Residents`."""

    def _ticket(self, number: int) -> AnyTicket:
        return Ticket(number, self.bundle, self.seconds[number], self._go, node=self.node)

    def _go(self, ticket: AnyTicket) -> None:
        slowed = self.seconds[ticket.item] * self.cluster.speed(set(ticket.machines))
        self._running[ticket] = self.cluster.agenda.after(slowed, partial(self._end, ticket))

    def _end(self, ticket: AnyTicket) -> None:
        del self._running[ticket]
        self.done.append(ticket.item)
        self.queue.leave([ticket], ended=True)
        if len(self.done) == len(self.seconds):
            self.ended()

    def _lose(self, tickets: Sequence[AnyTicket]) -> None:
        for ticket in tickets:
            self._running.pop(ticket).cancel()
            self.losses += 1
            again = ticket
            if not ticket.lose(self.max_failures):
                self.failed += 1
                again = self._ticket(ticket.item)
            self.queue.leave([ticket])
            self.queue.join([again])
