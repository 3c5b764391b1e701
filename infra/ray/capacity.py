"""What the machines of a Ray cluster could hold if they were idle.

Work that must wait is Ray's business; work that can never fit is ours.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import ray

from vitpipe.infra.errors import StageError
from vitpipe.infra.ray.reasons import lack

Bundle = Mapping[str, float]
"""What one task or rank asks for, as Ray writes it: `{"CPU": 4, "GPU": 1}`."""

_SHOWN = ("CPU", "GPU", "memory")


def alive() -> list[dict[str, float]]:
    """List the resources of each living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def machines() -> dict[str, dict[str, float]]:
    """List what each living node has, by Ray's id of it."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def room(bundle: Bundle) -> int:
    """Count how many of `bundle` would fit on the living nodes if those were idle; none straddles two nodes."""
    asked = {name: amount for name, amount in bundle.items() if amount > 0}
    if not asked:
        return 1_000_000
    slack = 1e-6  # fractions of a GPU: 1 / 0.1 is a hair under 10
    return sum(
        min(math.floor(node.get(name, 0.0) / amount + slack) for name, amount in asked.items()) for node in alive()
    )


def missing(bundle: Bundle, count: int) -> str | None:
    """Say what the cluster lacks to hold `count` of `bundle` at once; None when it lacks nothing."""
    fits = room(bundle)
    if fits >= count:
        return None
    there, asked = machines(), tuple((name, amount) for name, amount in bundle.items() if amount > 0)
    total = {
        name: sum(one.get(name, 0.0) for one in there.values()) for name in _SHOWN if name in bundle or name == "CPU"
    }
    lacks = lack(asked, count, there) or f"room for {fits}"
    return f"{count} x ({_words(bundle)}) asked for, {lacks}: {len(there)} nodes with {_words(total)} in all"


@dataclass
class CapacityWait:
    """Tolerates for `wait_s` that a cluster is too small, and then says what is missing."""

    bundle: Bundle
    count: int
    wait_s: float
    what: str
    """For the message: `run 2 ranks of backbone`."""
    _since: float | None = field(default=None, init=False)

    def check(self) -> None:
        """StageError once the cluster has been too small for `wait_s` without a break."""
        lack = missing(self.bundle, self.count)
        if lack is None:
            self._since = None
            return
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self.wait_s:
            found = f"workers unavailable after {self.wait_s:g} s: {lack}"
            raise StageError(self.what, found, "add machines or ask for less")


def _words(bundle: Bundle) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in bundle.items() if amount > 0) or "nothing"
