"""A training in lockstep on simulated machines, led by the run's own decisions.

Theirs are its turn, how many ranks start, what a loss means, when ranks are told to commit, and for how long too few
machines are borne. Knows neither Ray nor any model.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from vitpipe.infra.errors import StageError
from vitpipe.infra.lease_state import Holder
from vitpipe.infra.ray.gang_losses import Losses
from vitpipe.infra.ray.gang_notes import Ending, Failure, RankProcess
from vitpipe.infra.ray.gang_notices import LOOK_S, Notices
from vitpipe.infra.ray.machine import bundles_in
from vitpipe.infra.ray.one_queue import AnyTicket, OneQueue, Ticket
from vitpipe.infra.ray.patience import Patience
from vitpipe.infra.ray.reasons import lack
from vitpipe.infra.simulation.agenda import Appointment
from vitpipe.infra.simulation.cluster import SimulatedCluster
from vitpipe.infra.simulation.steps import Steps
from vitpipe.infra.simulation.training_model import TrainingModel
from vitpipe.infra.work import Job

Phase = Literal["queue", "machines", "start", "steps", "save", "noticing", "person"]
"""Waits for its turn, for machines; processes start; steps; all wait for a save; a loss is not seen yet; nobody is
there to run the command again."""


@dataclass
class SimulatedTraining:
    """One node's training, over all commands that it takes."""

    cluster: SimulatedCluster
    queue: OneQueue
    model: TrainingModel
    ended: Callable[[], None]
    """Called once its last step is committed."""
    node: str = "training"
    phase: Phase = "queue"
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds by phase; those of steps that had to be made again are under `again`."""
    starts: int = 0
    commands: int = 0
    """How often a person ran it."""
    charged: list[int] = field(default_factory=list)
    """Losses that counted, by command."""
    sizes: list[int] = field(default_factory=list)
    """Ranks of each start."""
    _spots: list[str] = field(default_factory=list)
    _due: Appointment | None = None
    _since: float = 0.0
    _leaving: bool = False
    """Whether the ranks have been told to commit and start again."""
    _saves_last: bool = False

    def __post_init__(self) -> None:
        """Have nothing begun yet."""
        self.steps = Steps(self.cluster.agenda, self.model.commit_s)
        self._notices, self._looks = Notices(), False

    def begin(self) -> None:
        """Run the command."""
        model, job = self.model, Job("simulated", self.node)
        self._since = self._since if self.commands else self.cluster.agenda.now
        self.commands += 1
        asked = f"run {model.size} ranks of {self.node}"
        self._losses = Losses(job, asked, model.max_failures)
        self._patience = Patience(self._missing, model.wait_s, asked, lambda: self.cluster.agenda.now)
        left = (model.total_steps - self.steps.committed) * model.step_seconds(model.size.most)
        self._turn(Ticket(None, model.size.bundle, left, self._go, True, model.size.least, self.node))

    def hit(self, machine: str, what: Literal["crash", "hang"]) -> None:
        """Satisfies `infra.simulation.cluster.Residents`."""
        seen = self.model.crash_seen_s if what == "crash" else self.model.hang_timeout_s
        self._fail(machine, what, seen)

    def gone(self, machine: str) -> None:
        """Satisfies `infra.simulation.cluster.Residents`."""
        self._fail(machine, "machine lost", self.model.loss_seen_s)
        self.changed()

    def changed(self) -> None:
        """Satisfies `infra.simulation.cluster.Residents`."""
        if self.phase == "machines":
            self._start()
        elif self.phase == "steps":
            if not self._leaving:
                self._step_on()  # at another speed, perhaps
            self._look_soon()

    def _turn(self, ticket: AnyTicket) -> None:
        self._ticket = ticket
        self._enter("queue")
        self.queue.join([ticket])
        self._check_soon()

    def _go(self, ticket: AnyTicket) -> None:
        self.cluster.agenda.after(0.0, partial(self._start, ticket))

    def _start(self, ticket: AnyTicket | None = None) -> None:
        """Start as many ranks as have room; wait where that is too few."""
        if ticket is not None and (ticket is not self._ticket or self.phase != "queue"):
            return
        model, size = self.model, self.model.size
        room = self._room()
        if sum(room.values()) < size.least:
            self._enter("machines")
            self._check_soon()
            return
        count = size.reachable(sum(room.values()))
        names = sorted(room, key=lambda name: -room[name])
        self._spots = [name for name in names for _ in range(room[name])][:count]
        self.queue.placed(self._ticket, self._spots)
        self._losses.begin(count)
        self.starts, self._leaving, self._notices = self.starts + 1, False, Notices()
        self.sizes.append(count)
        self._enter("start")
        self._after(model.starting_s(self.starts), self._step_on)

    def _step_on(self) -> None:
        """Make steps until the next one that is saved, at the speed of the slowest machine."""
        if self.phase != "steps":
            self._enter("steps")
            self._look_soon()
        self.steps.stop()
        until = self.model.next_save(self.steps.count)
        if self._leaving:  # the step that runs carries the word, and the next is made meanwhile
            until = min(until, self.steps.count + 2)
        seconds = self.model.step_seconds(len(self._spots)) * self.cluster.speed(set(self._spots))
        self._after(self.steps.go_on(until, seconds), self._save)

    def _save(self) -> None:
        self.steps.stop()
        self._enter("save")
        is_last = self.steps.count == self.model.total_steps
        self._saves_last = is_last or self._leaving
        waits = self._saves_last or not self.model.saves_aside
        self._after(self.steps.save(self.model.stall_s, waits), self._saved)

    def _saved(self) -> None:
        if self.steps.count == self.model.total_steps:
            self._enter("queue")
            self.queue.leave([self._ticket], ended=True)
            self.ended()
        elif self._saves_last:
            words = self._notices.news.notice or ""
            self._end({rank: Failure(words, noticed=True) for rank in range(len(self._spots))})
        else:
            self._step_on()

    def _look_soon(self) -> None:
        """Look around at the driver's next look; once is enough where nothing is ahead."""
        if self._looks or not self.model.heeds_notices:
            return
        self._looks = True
        now = self.cluster.agenda.now
        self.cluster.agenda.after(LOOK_S - now % LOOK_S, self._look)

    def _look(self) -> None:
        self._looks = False
        if self.phase not in ("steps", "save") or self._leaving:
            return
        size = self.model.size
        added = size.reachable(sum(self._room().values())) - len(self._spots)
        self._notices.hear(self.cluster.agenda.now, self._spots, self.cluster.draining, max(0, added))
        if self._notices.news.notice:
            self._leaving = True
            if self.phase == "steps":
                self._step_on()
        elif added > 0:
            self._look_soon()

    def _fail(self, machine: str, what: str, seen_s: float) -> None:
        if machine not in self._spots or self.phase not in ("start", "steps", "save"):
            return
        self.steps.lose()
        self._enter("noticing")
        words = f"{what} (in step {self.steps.count + 1})"
        ranks = [rank for rank, name in enumerate(self._spots) if name == machine]
        failures = {rank: Failure(words, is_gone=what != "hang") for rank in ranks}
        self._after(seen_s, partial(self._end, failures))

    def _end(self, failures: dict[int, Failure]) -> None:
        places = {rank: _process(rank, self._spots[rank]) for rank in failures}
        ending = Ending(failures, places, self._notices.reclaimed)
        self.steps.lose()
        try:
            self._losses.check(ending)
            self._losses.count(ending, {})
        except StageError:
            self._give_up()
            return
        self._enter("start")
        self._after(self.model.end_s, self._start)

    def _give_up(self) -> None:
        """End the command; a person runs it again."""
        self.charged.append(self._losses.failures)
        self._spots = []
        self._enter("person")
        self._after(self.model.person_s, self.begin)
        self.queue.leave([self._ticket])

    def _check_soon(self) -> None:
        """Say at once, and when patience may be over, that machines are missing."""
        command = self.commands

        def check() -> None:
            if self.commands != command or self.phase not in ("queue", "machines"):
                return
            try:
                self._patience.check()
            except StageError:
                self._give_up()

        check()
        self.cluster.agenda.after(self.model.wait_s, check)

    def _missing(self) -> str | None:
        asked = self._ticket.shape.asked
        return lack(asked, self.model.size.least, self.cluster.there) or None

    def _room(self) -> dict[str, int]:
        """Count by machine how many ranks have room, those that the gang holds included."""
        asked, there, own = self._ticket.shape.asked, self.queue.there, Counter(self._ticket.machines)
        rooms = {name: bundles_in(asked, there.free(name)) + own[name] for name in self.cluster.living()}
        return {name: room for name, room in rooms.items() if room > 0}

    def _enter(self, phase: Phase) -> None:
        now = self.cluster.agenda.now
        self.spent[self.phase] = self.spent.get(self.phase, 0.0) + now - self._since
        self.phase, self._since = phase, now

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        if self._due:
            self._due.cancel()
        self._due = self.cluster.agenda.after(seconds, call)


def _process(rank: int, machine: str) -> RankProcess:
    return RankProcess(machine, machine, Holder("", machine, "", rank, 0, ""))
