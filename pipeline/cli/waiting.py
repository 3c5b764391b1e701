"""Wait for a run that was submitted: what the store says of it, and, where no driver has begun, the cluster.

The store alone cannot tell a job that waits from one that died before it began; of Ray `submission.fate` is asked.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.cli.submission import Fate, fate
from vitpipe.pipeline.store.contents import is_run
from vitpipe.pipeline.store.node_status import RunStatus
from vitpipe.pipeline.store.pulse import Pulse
from vitpipe.pipeline.store.status import SUBMITTED_STATE, read_status
from vitpipe.pipeline.store.submitted import Submission

ASK_S = 10.0
"""A cluster is asked about a job at most this often."""


@dataclass
class Awaited:
    """What the cluster said last of the job that a run waits for."""

    ask: Callable[[Submission], Fate] = fate
    _job: str = ""
    _said: Fate = field(default_factory=Fate)
    _asked_at: float = float("-inf")

    def told(self, status: RunStatus) -> RunStatus:
        """Add to a status what became of its job; one whose job is over before it began is no longer `submitted`."""
        waiting = status.submission
        if waiting is None:
            return status
        if waiting.job != self._job or time.monotonic() - self._asked_at >= ASK_S:
            self._job, self._said, self._asked_at = waiting.job, self.ask(waiting), time.monotonic()
        state = "failed" if self._said.over and status.state == SUBMITTED_STATE else status.state
        return replace(status, state=state, note=f"{status.note}: {self._said.words}")


@dataclass
class Lasting:
    """Whether a run that is followed goes on."""

    run: Store
    begun: bool = True
    """Whether it has nodes and logs yet."""
    _note: str = ""

    def __post_init__(self) -> None:
        self._pulse, self._awaited = Pulse(self.run, patient=False), Awaited()

    def look(self, tell: Callable[[str], None], follow: bool) -> bool:
        """Look once, where somebody follows or nothing has begun; whether more will come. `tell` hears why it waits."""
        if not follow and self._known():
            return False
        status = self._awaited.told(read_status(self.run, self._pulse))
        self.begun = self._known()
        if status.submission and status.note != self._note:
            self._note = status.note
            tell(f"{self.run.uri}: {status.note}")
        return follow and status.state in ("running", SUBMITTED_STATE)

    def _known(self) -> bool:
        return is_run(self.run)
