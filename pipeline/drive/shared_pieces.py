"""What several nodes of a run need, computed by whichever comes first: `{run}/_shared/{digest}/`.

No node has such a name. Pieces lie in attempts there as in a node's folder. One driver runs all nodes of a run, so its
locks make them take turns; the fence keeps a driver that lost the run from committing pieces.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vitpipe.infra.storage.store import Store
from vitpipe.infra.work import stop_if_asked
from vitpipe.pipeline.store.contents import SHARED
from vitpipe.stages.contract import Fence, Out

LOOK_S = 0.5
"""How often a waiting node looks whether someone wants it to stop."""
_ATTEMPT = re.compile(r"(a(\d+))/")


@dataclass
class Turns:
    """One lock for each thing that is shared, for all nodes of one driver."""

    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _alone: threading.Lock = field(default_factory=threading.Lock)

    def lock(self, name: str) -> threading.Lock:
        """Return the lock of the piece of that name."""
        with self._alone:
            return self._locks.setdefault(name, threading.Lock())


@dataclass(frozen=True)
class SharedPieces:
    """Satisfies `stages.contract.Shared` for one node."""

    run: Store
    attempt: str
    fence: Fence
    turns: Turns

    @contextmanager
    def alone(self, what: Mapping[str, Any]) -> Iterator[Out]:
        """Hold the folder of what `what` describes, for this node alone. Stopped while waiting for it."""
        header = json.dumps(what, indent=1, sort_keys=True).encode()
        name = hashlib.sha256(header).hexdigest()[:20]
        lock = self.turns.lock(name)
        while not lock.acquire(timeout=LOOK_S):
            stop_if_asked(self.fence, f"wait for what another node computes in {SHARED}/{name}")
        try:
            store = self.run.child(f"{SHARED}/{name}")
            earlier = {int(match[2]): match[1] for entry in store.list("a") if (match := _ATTEMPT.match(entry.path))}
            fences = sorted(earlier, reverse=True)
            others = tuple(earlier[fence] for fence in fences if earlier[fence] != self.attempt)
            out = Out(store, self.attempt, self.fence, header, others)
            out.begin()
            yield out
        finally:
            lock.release()
