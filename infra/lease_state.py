"""What `lease.json` and `stop.json` say, who a holder is, and the clocks and limits they are judged by.

Takes, renews and obeys no lease.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.infra.json_object import fields_of, parse_object
from vitpipe.infra.storage.store import Store

LEASE = "lease.json"
STOP = "stop.json"


@dataclass(frozen=True)
class Timing:
    """Every time constant of the lease, in seconds. Holder and watcher must agree on them."""

    renew_s: float = 5.0
    """The holder beats this often."""
    commit_s: float = 10.0
    """No commit starts later than this after the last confirmed beat."""
    watch_s: float = 20.0
    """A new driver takes over a lease that has not beaten for this long: twice `commit_s`, for a commit under way."""
    poll_s: float = 2.0
    """Ranks and tasks read `lease.json` and `stop.json` this often."""
    look_s: float = 1.0
    """Whoever waits for a beat reads the lease this often."""
    refused_s: float = 60.0
    """A driver whose beats the store refuses (its key was revoked) ends this long after the first refusal."""
    idle_s: float = 60.0
    """A process that asks nothing for this long stops polling until it asks again."""


TIMING = Timing()


def boottime() -> float:
    """Seconds since boot, suspension and SIGSTOP included: the clock that bounds commits."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Clock:
    """The clocks, so that tests may bring their own. Picklable."""

    boottime: Callable[[], float] = boottime
    monotonic: Callable[[], float] = time.monotonic
    """Does not count suspension: when a laptop slept, the silence of a holder on it proves nothing."""
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


def clock_id() -> str:
    """Name of this machine's boot clock: equal names mean comparable `boottime()` readings."""
    return f"{_boot_id()} {_namespace('time')}"


@dataclass(frozen=True)
class Holder:
    """The process that holds a run, so that another on the same machine can see that it is dead."""

    id: str
    host: str
    boot_id: str
    pid: int
    start_time: int
    """Clock ticks after boot at which the process began; a reused pid has another."""
    pid_ns: str

    @classmethod
    def me(cls) -> Self:
        """Describe this process, under a fresh id for each lease taken."""
        pid = os.getpid()
        start = _start_time(pid)
        return cls(uuid.uuid4().hex, socket.gethostname(), _boot_id(), pid, start or 0, _namespace("pid"))

    def provably_dead(self) -> bool:
        """Whether this is the holder's machine and pid namespace, and no such process lives here any more."""
        here = bool(self.boot_id) and self.boot_id == _boot_id() and self.pid_ns == _namespace("pid")
        return here and _start_time(self.pid) != self.start_time

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class LeaseState:
    """The content of `lease.json`."""

    fence: int
    beat: int
    holder: Holder | None
    clock: str = ""
    """`clock_id()` of the holder."""
    at: float = 0.0
    """The holder's boot time just before it wrote this beat."""
    time: float = 0.0
    """The same moment in seconds of the epoch: for people only."""

    def held_by(self, fence: int, id: str) -> bool:
        """Whether that driver holds it under that fence."""
        return self.fence == fence and self.holder is not None and self.holder.id == id

    def moved(self, before: Self) -> bool:
        """Whether the holder in `before` has written another beat since."""
        return before.holder is not None and self != before and self.held_by(before.fence, before.holder.id)

    def encode(self) -> bytes:
        """The bytes of `lease.json`."""
        renewed = {"clock": self.clock, "at": self.at, "time": self.time}
        holder = asdict(self.holder) if self.holder else None
        fields = {"fence": self.fence, "beat": self.beat, "holder": holder, "renewed": renewed}
        return json.dumps(fields, indent=1).encode()

    @classmethod
    def decode(cls, data: bytes, run: str) -> Self:
        """Parse `lease.json`. IntegrityError for anything that vitpipe did not write."""
        do = "make sure that no driver runs, then delete that file: the next run takes a fence above all attempts"
        with fields_of(f"{run}/{LEASE}", do):
            fields = parse_object(data)
            holder = Holder(**fields["holder"]) if fields["holder"] else None
            return cls(int(fields["fence"]), int(fields["beat"]), holder, **fields["renewed"])


def read_lease(run: Store) -> LeaseState | None:
    """Read the run's lease; None for a run that never began."""
    try:
        return LeaseState.decode(run.read(LEASE), run.uri)
    except NotFound:
        return None


def read_stop(run: Store, fence: int) -> str | None:
    """Read why the driver with that fence is asked to end; None when it is not."""
    with suppress(NotFound), fields_of(f"{run.uri}/{STOP}", "stop the run again"):
        fields = parse_object(run.read(STOP))
        return str(fields.get("reason", "stop")) if fields["fence"] == fence else None
    return None


def request_stop(run: Store, reason: str) -> int | None:
    """Ask the run's driver to end; its fence, or None when nobody holds the run. UsageError for an unknown run."""
    state = read_lease(run)
    if state is None:
        raise UsageError(f"stop {run.uri}", "no run of that name was ever started", "check the store and the name")
    if state.holder is None or state.holder.provably_dead():
        return None
    write_stop(run, state.fence, reason)
    return state.fence


def write_stop(run: Store, fence: int, reason: str) -> None:
    """Ask the driver with that fence, its ranks and tasks to end."""
    run.write(STOP, json.dumps({"fence": fence, "reason": reason, "time": time.time()}).encode())


def _start_time(pid: int) -> int | None:
    """When a living process began, or None for one that is gone, a zombie included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    dead = fields[0] in "XZ" and threads <= 1  # a zombie leader's other threads may still run
    return None if dead else int(fields[19])  # field 22 of proc(5), of which the first two are cut off


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return ""  # nothing can be proved of a machine without a name


def _namespace(kind: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{kind}")
    except FileNotFoundError:
        return ""
