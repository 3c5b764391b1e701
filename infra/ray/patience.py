"""How long a cluster may be too small for what is asked. Knows no Ray, and no clock of its own."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vitpipe.infra.errors import StageError


@dataclass
class Patience:
    """Tolerates for `wait_s` that a cluster is too small, and then says what is missing."""

    missing: Callable[[], str | None]
    """Says what the machines that are there lack; None when they lack nothing."""
    wait_s: float
    asked: str
    """For the message: `run 2 ranks of backbone`."""
    clock: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)

    def check(self) -> None:
        """StageError once the cluster has been too small for `wait_s` without a break."""
        lack = self.missing()
        if lack is None:
            self._since = None
            return
        now = self.clock()
        self._since = now if self._since is None else self._since
        if now - self._since >= self.wait_s:
            found = f"workers unavailable after {self.wait_s:g} s: {lack}"
            raise StageError(self.asked, found, "add machines or ask for less")
