"""Steps of a simulated training: made, saved, committed in the background, lost. Knows no ranks."""

import math
from dataclasses import dataclass, field

from vitpipe.infra.simulation.agenda import Agenda, Appointment


@dataclass
class Steps:
    """How far a training is, and how much of it is safe."""

    agenda: Agenda
    commit_s: float
    """Seconds from a copied state to its commit."""
    count: int = 0
    """Steps that the ranks have made."""
    part: float = 0.0
    """Of the next one."""
    committed: int = 0
    made: int = 0
    """Steps in all, those included that were lost and made again."""
    lost: int = 0
    seconds: float = 0.0
    """Spent on steps that were not lost."""
    again_s: float = 0.0
    """Spent on steps that were."""
    commits: list[int] = field(default_factory=list)
    losses: list[tuple[int, int, int]] = field(default_factory=list)
    """At each loss with something to lose: steps made, the last that was saved, and the last committed."""
    saved: int = 0
    """The last step whose state was copied."""
    _pace: float = 0.0
    _begun: float = 0.0
    _until: int = 0
    _is_going: bool = False
    _safe_s: float = 0.0
    """`seconds` at the last commit."""
    _pending: list[Appointment] = field(default_factory=list)
    """Commits to come."""

    def go_on(self, until: int, seconds: float) -> float:
        """Make steps of so many seconds up to step `until`; how long that takes."""
        self.stop()
        self._is_going, self._begun, self._pace, self._until = True, self.agenda.now, seconds, until
        return (until - self.count - self.part) * seconds

    def stop(self) -> None:
        """Count what was made since `go_on`."""
        if not self._is_going:
            return
        self._is_going = False
        elapsed = self.agenda.now - self._begun
        self.seconds += elapsed
        reached = min(self.count + self.part + elapsed / self._pace, float(self._until))
        whole = math.floor(reached + 1e-6)
        self.made += whole - self.count
        self.part, self.count = max(0.0, reached - whole), whole

    def save(self, stall_s: float, waits: bool) -> float:
        """Save the state as it is; for how long the ranks stand, until the commit where `waits`.

        A save before it that is not committed yet is waited for.
        """
        now = self.agenda.now
        before = max([0.0, *(one.at - now for one in self._pending)])
        step, safe_s = self.count, self.seconds
        self.saved = step

        def commit() -> None:
            self.committed, self._safe_s = step, safe_s
            self.commits.append(step)
            self._pending.remove(made)

        made = self.agenda.after(before + stall_s + self.commit_s, commit)
        self._pending.append(made)
        return before + stall_s + (self.commit_s if waits else 0.0)

    def lose(self) -> None:
        """Go back to the last committed step."""
        self.stop()
        while self._pending:
            self._pending.pop().cancel()
        if self.count != self.committed or self.part:
            self.losses.append((self.count, self.saved, self.committed))
        self.lost += self.count - self.committed
        self.again_s += self.seconds - self._safe_s
        self.count, self.part, self.seconds, self.saved = self.committed, 0.0, self._safe_s, self.committed
