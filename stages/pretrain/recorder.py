"""Everything that a rank does besides training: notes, numbers, measurements, and where the time went.

All ranks make the same calls; rank 0 alone writes and tells. Nothing here changes what is computed.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitpipe.infra.curves import SETTLE_S, LiveCurves
from vitpipe.infra.work import Rank
from vitpipe.stages.pretrain.evaluating import Evaluator
from vitpipe.stages.pretrain.job import PretrainJob
from vitpipe.stages.pretrain.notes import Keys, Notes
from vitpipe.stages.pretrain.reporting import Reporter
from vitpipe.stages.training import agree
from vitpipe.stages.training.checkpoint.checkpoints import Saved
from vitpipe.stages.training.checkpoint.committed_steps import METRICS
from vitpipe.stages.training.checkpoint.restore import Resumed
from vitpipe.stages.training.engine import Engine
from vitpipe.stages.training.measure import metrics_log
from vitpipe.stages.training.measure.account import Account, Cause
from vitpipe.stages.training.measure.metrics_log import LogSnapshot
from vitpipe.stages.training.measure.step_metrics import StepMetrics
from vitpipe.stages.training.skipping import Skips


class Recorder:
    """Records one rank's training, from its start to its end."""

    def __init__(self, job: PretrainJob, rank: Rank, engine: Engine, scratch: Path, keys: Keys) -> None:
        """The clock of this start begins with the driver's, or when the gang was started again, now."""
        self._start, self._since = job.begun if rank.restart == 0 else time.time(), rank.since
        account = Account(job.begun)
        account.spend("restarts", max(0.0, self._start - job.begun))  # two machines' clocks may differ
        self._job, self._first = job, rank.rank == 0
        out, recipe = job.task.out.restarted(rank.restart), job.recipe
        live = LiveCurves(out.node, out.attempt)
        self._notes = Notes(scratch, recipe.config.batch_images, keys, account, live, ledger=recipe.resources.ledger)
        here = {"rank": rank.rank, "host": socket.gethostname(), "pid": os.getpid()}
        self._reporter = Reporter(job, rank, agree.each(lambda: here), keys)
        self._evaluator = Evaluator(job, engine, rank.threads)
        self.skips = Skips()
        """Steps that were skipped before the one that training goes on with."""
        self._rank = rank.rank
        self._missing: tuple[int, int] | None = None

    def resumed(self, resumed: Resumed) -> None:
        """Take over the files of a checkpoint; `ready` makes up for a measurement that it misses."""
        if self._first:
            self._notes.continue_from(resumed.extra_files, self._start)
        step, curve = resumed.manifest.step, resumed.extra_files.get(METRICS, b"").splitlines()
        self.skips = agree.on_first(lambda: metrics_log.skips(curve), self._rank)
        known = agree.on_first(lambda: self._notes.has_evaluated(step), self._rank)
        if self._job.recipe.is_evaluated_after(step) and not known:
            self._missing = (step, resumed.manifest.samples_seen)

    def ready(self) -> None:
        """Training begins now."""
        self._notes.account.begins(self._start, self._since, time.time())
        if self._missing:
            self._measure(*self._missing)

    def step(self, metrics: StepMetrics) -> None:
        """Take a finished step in; measure the model where it is time, unless we are to end before the last step."""
        if self._first:
            self._notes.step(metrics)
            self._reporter.step(metrics, self._notes.account)
        hurried = metrics.stop is not None and metrics.step < self._job.recipe.total_steps
        if metrics.settled and not hurried and self._job.recipe.is_evaluated_after(metrics.step):
            self._measure(metrics.step, metrics.samples_seen)

    def worth_saving(self, metrics: StepMetrics) -> bool:
        """While steps are being skipped the good checkpoints of before are not to be pushed out by more of the same."""
        return metrics.skipped is None or metrics.stop is not None or metrics.step == self._job.recipe.total_steps

    def extra_files(self, metrics: StepMetrics) -> dict[str, bytes | LogSnapshot]:
        """The files to commit with a checkpoint."""
        return self._notes.extra_files(stops=metrics.stop is not None)

    @contextmanager
    def spending(self, cause: Cause) -> Iterator[None]:
        """Around what training stands still for."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._notes.account.spend(cause, time.monotonic() - start)

    def saved(self, saved: Saved) -> None:
        """Report a committed checkpoint."""
        self._reporter.saved(saved)

    def close(self) -> None:
        """Let the last points of the live curve come into the store, which may be what failed: not for long."""
        if self._first:
            self._notes.live.settle(SETTLE_S)

    def totals(self) -> dict[str, float]:
        """Numbers worth a line in the record, over all committed steps."""
        return self._reporter.totals(self._notes.curve.now) | self._notes.account.totals(time.time())

    def write_tensorboard(self, folder: Path) -> list[Path]:
        """Write the curves as TensorBoard event files, and return them."""
        return metrics_log.write_tensorboard(self._notes.curve.now, folder, self._notes.evaluations)

    def _measure(self, step: int, samples_seen: int) -> None:
        with self.spending("evaluation"):
            found = self._evaluator.measure(step, samples_seen)
        if self._first:
            self._notes.evaluated(found)
            self._reporter.evaluated(found)
