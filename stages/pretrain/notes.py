"""What rank 0 writes down while it trains: files that are committed with every checkpoint.

After a resume they go on from those of the checkpoint, so that each committed step stands in them once.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vitpipe.infra.curves import LiveCurves
from vitpipe.stages.training.checkpoint.committed_steps import EVALUATION, LEDGER, METRICS, TIME
from vitpipe.stages.training.measure import metrics_log
from vitpipe.stages.training.measure.account import Account
from vitpipe.stages.training.measure.metrics_log import LogSnapshot, MetricsLog
from vitpipe.stages.training.measure.step_metrics import StepMetrics

Keys = Callable[[Iterable[int]], list[str]]
"""Names the images at positions of the sample order."""


class Notes:
    """The files of one node, on the local disk of rank 0; what its curve gains goes to `live` too."""

    def __init__(
        self, folder: Path, batch_images: int, keys: Keys, account: Account, live: LiveCurves, *, ledger: bool
    ) -> None:
        self.curve, self.live = MetricsLog(folder / METRICS), live
        self._clock = 0.0
        self.account = account
        self._batch_images, self._keys = batch_images, keys
        self._ledger = MetricsLog(folder / LEDGER) if ledger else None
        self._evaluation = MetricsLog(folder / EVALUATION)
        self._evaluated = 0

    def continue_from(self, extra_files: Mapping[str, bytes], start: float) -> None:
        """Take over the files of the checkpoint that training goes on from at `start`.

        A ledger that was not kept until now is filled in: which images a step has is a function of its number.
        """
        self.curve.continue_from(extra_files[METRICS])
        if TIME in extra_files:
            self.account = Account.resumed(extra_files[TIME], start)
        if EVALUATION in extra_files:
            self._evaluation.continue_from(extra_files[EVALUATION])
            self._evaluated = max(one["step"] for one in metrics_log.read(self._evaluation.now))
        if self._ledger is not None and LEDGER in extra_files:
            self._ledger.continue_from(extra_files[LEDGER])
        elif self._ledger is not None:
            for line in metrics_log.read(self.curve.now):
                self._note_keys(line["step"], "skipped" in line)
        lines, evaluations = (metrics_log.read(log.now) for log in (self.curve, self._evaluation))
        for step, clock, values in metrics_log.points(lines, evaluations):
            self._clock = clock
            self.live.add(step, values, clock, told=False)
        self.live.tell()

    def step(self, metrics: StepMetrics) -> None:
        """Write a finished step down."""
        fields = metrics_log.fields_of(metrics)
        self.curve.add(metrics_log.line(fields))
        self._clock += fields["seconds"]
        self.live.add(metrics.step, metrics_log.stepped(fields), self._clock)
        self.account.step(metrics.seconds, metrics.data_wait_seconds, metrics.skipped is not None)
        self._note_keys(metrics.step, metrics.skipped is not None)

    def evaluated(self, found: Mapping[str, Any]) -> None:
        """Write down what was measured after a step."""
        self._evaluation.add(metrics_log.line(found))
        self._evaluated = found["step"]
        self.live.add(found["step"], dict(metrics_log.measured(found)), self._clock)

    def has_evaluated(self, step: int) -> bool:
        """Whether a measurement after this step, or after a later one, is written down."""
        return self._evaluated >= step

    def extra_files(self, *, stops: bool) -> dict[str, bytes | LogSnapshot]:
        """The files to commit; `stops` when training was asked to end here."""
        files: dict[str, bytes | LogSnapshot] = {
            METRICS: self.curve.now,
            TIME: self.account.encoded(time.time(), stops),
        }
        if self._ledger is not None:
            files[LEDGER] = self._ledger.now
        if self._evaluated:
            files[EVALUATION] = self._evaluation.now
        return files

    @property
    def evaluations(self) -> LogSnapshot:
        """All measurements until now."""
        return self._evaluation.now

    def _note_keys(self, step: int, skipped: bool) -> None:
        if self._ledger is not None:
            positions = range((step - 1) * self._batch_images, step * self._batch_images)
            more = {"skipped": True} if skipped else {}
            self._ledger.add(json.dumps({"step": step, "keys": self._keys(positions)} | more) + "\n")
