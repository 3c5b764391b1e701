"""What every worker process does first and last: set up its log and its metrics, and name its errors.

Runs inside Ray's workers. Knows no stage.
"""

import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
from ray.util.metrics import Counter, Gauge

from vitpipe.infra import logs, metrics
from vitpipe.infra.errors import StageError, StorageError, VitpipeError
from vitpipe.infra.full_disk import full_path, is_full
from vitpipe.infra.lease_state import Holder
from vitpipe.infra.ray.counting import Sending
from vitpipe.infra.ray.deaths import out_of_memory
from vitpipe.infra.work import Job

log = logging.getLogger(__name__)

LAST_WORDS_S = 1.0
END_S = 30.0
LOOK_S = 0.1

_ready = threading.Lock()
_log: list[logs.DroppingHandler] = []
"""The handler of this process, once it is prepared."""
_sending: list[Sending] = []
"""What brings this process's numbers to the driver, where it exports any."""


def prepare(job: Job, **facts: object) -> None:
    """Log to this worker's own file with the node's name on each line; send metrics to the driver and through Ray."""
    with _ready:
        if not _log:
            _log.append(logs.configure())
            metrics.use(WorkerSink())
        if not _sending and job.counting is not None:
            _sending.append(Sending(job.counting))
    metrics.count_storage(job.run, job.node)
    logs.bind(run=job.run, node=job.node, **facts)


def last_words(job: Job) -> None:
    """Send what was counted, and say how many lines of this worker's log its disk has refused since the last time."""
    for one in _sending:
        one.send()
    for dropped in filter(None, (handler.take_dropped() for handler in _log)):
        job.tell("log_dropped", dropped)


class WorkerSink:
    """Satisfies `infra.metrics.Sink`: what is on its way to the driver, and Ray's own metrics, `ray_vitpipe_*` at

    each node's endpoint, where they tell one process from another.
    """

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(metrics.PREFIX + name, metrics.KNOWN[name].help, tag_keys=metrics.LABELS)
        self._gauges[name].set(value, _tags(labels))
        for one in _sending:
            one.pending.set(name, value, labels)

    def inc(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        if name not in self._counters:
            self._counters[name] = Counter(metrics.PREFIX + name, metrics.KNOWN[name].help, tag_keys=metrics.LABELS)
        if amount > 0:  # Ray's counters refuse to grow by nothing
            self._counters[name].inc(amount, _tags(labels))
        for one in _sending:
            one.pending.inc(name, amount, labels)


def answer_with_stacks() -> None:
    """From now on write all stacks at a SIGUSR1, whatever this process is busy with, and at a crash.

    NCCL ends a rank that waited too long by SIGABRT, from a thread of its own: Ray would show that stack alone.
    """
    faulthandler.register(signal.SIGUSR1, file=2)
    faulthandler.enable(file=2, all_threads=True)


_note: list[int] = []
"""The open file that this process notes its step in."""


def reached(step: int) -> None:
    """Note the step that this process is at, in a file that outlives it: a killed process says nothing."""
    with suppress(OSError):  # a full disk stops no training
        if not _note:
            _note.append(os.open(_step_note(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        os.pwrite(_note[0], b"%20d" % step, 0)


def last_reached(pid: int) -> str:
    """Say which step a process of this machine that is gone had noted."""
    try:
        return f"after step {int(_step_note(pid).read_text())}"
    except (OSError, ValueError):
        return "before a first step"


def forget_steps() -> None:
    """Remove the step note of an earlier process with this one's id, or of an earlier gang in this process."""
    while _note:
        os.close(_note.pop())
    _step_note(os.getpid()).unlink(missing_ok=True)


def end_all(ranks: Sequence[Holder]) -> list[str]:
    """Kill processes of this machine, and return once they are gone, with the step that each had noted.

    Those that live write their stacks first, which show where a hang is, the stopped ones too.
    """
    living = [who for who in ranks if not who.provably_dead()]
    for who in living:
        _signal(who, signal.SIGUSR1)
        _signal(who, signal.SIGCONT)
    if living:
        time.sleep(LAST_WORDS_S)
    for who in living:
        end(who)
    return [last_reached(who.pid) for who in ranks]


def end(who: Holder) -> None:
    """Kill a process of this machine, and return once it is gone. StageError when it does not go."""
    for _ in range(int(END_S / LOOK_S)):
        if who.provably_dead():
            return
        _signal(who, signal.SIGKILL)
        time.sleep(LOOK_S)
    raise StageError(f"end {who}", f"it did not go within {END_S:g} s", "end it by hand, then run again")


def _signal(who: Holder, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process = os.pidfd_open(who.pid)
        try:
            if not who.provably_dead():  # else its pid is another's now
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)


@contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Log what `what` fails with; raise exhausted memory and full disks as errors of ours, anything else as it is.

    What has to do with storage, credentials, clocks or disks is said with the machine on which it went wrong.
    """
    try:
        yield
    except Exception as error:
        log.exception("failed: %s", what)
        known = _named(error, what)
        if known is None:
            raise
        raise known from error


def _step_note(pid: int) -> Path:
    """A file in the session folder of this machine's Ray, gone with it."""
    return Path(_session_folder(), f"vitpipe-{pid}.step")


def _session_folder() -> str:
    return str(ray._private.worker._global_node.get_session_dir_path())


def _tags(labels: Mapping[str, str]) -> dict[str, str]:
    return {label: str(labels.get(label, "")) for label in metrics.LABELS}


def _named(error: Exception, what: str) -> VitpipeError | None:
    if isinstance(error, StorageError):
        return error.placed()
    if isinstance(error, VitpipeError):
        return None
    if is_full(error):
        place = full_path(error, _session_folder())
        return StorageError(what, f"the disk is full at {place}: {error}", "free space there, then run again").placed()
    if out_of_memory(error):
        return StageError(what, f"out of memory: {error}", "lower micro_batch, use more workers, or a larger machine")
    return None
