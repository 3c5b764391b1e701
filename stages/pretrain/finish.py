"""The end of a pretraining on rank 0: curves for TensorBoard and the word that the driver builds the artifact from.

A disk without room is waited for here, as for the last step's save.
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vitpipe.infra.errors import Stopped, StorageError
from vitpipe.infra.full_disk import is_full
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import Out
from vitpipe.stages.pretrain.job import FINISHED
from vitpipe.stages.pretrain.recorder import Recorder
from vitpipe.stages.training.checkpoint.checkpoints import AGAIN_S
from vitpipe.stages.training.checkpoint.committed_steps import StepPlace

T = TypeVar("T")


def insist(work: Callable[[], T], wait_s: float, stopping: Callable[[], str | None]) -> T:
    """What `work` returns, tried again for `wait_s` while the store or a full disk refuses it.

    Errors: the last refusal, any other error at once, and Stopped when `stopping` has a reason to end meanwhile.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            return work()
        except (StorageError, OSError) as error:
            waited_for = isinstance(error, StorageError) or is_full(error)
            if not waited_for or time.monotonic() + AGAIN_S > until:
                raise
            if reason := stopping():
                found = f"asked to end: {reason}; meanwhile: {error}"
                raise Stopped("finish a pretraining", found, "run the same command again") from error
        time.sleep(AGAIN_S)


def finish(out: Out, scratch: Path, place: StepPlace | None, recorder: Recorder) -> None:
    """Leave the driver what it builds the artifact from; may be called again after an error."""
    assert place is not None  # a run has at least one step, and its last is a checkpoint
    folder = scratch / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)  # what a disk without room took of an earlier try
    curves: list[File] = [out.upload(path, f"tensorboard/{path.name}") for path in recorder.write_tensorboard(folder)]
    finished = {
        "attempt": place.attempt,
        "step": place.step,
        "files": [file.model_dump() for file in curves],
        "metrics": recorder.totals(),
    }
    out.put(FINISHED, json.dumps(finished, indent=1).encode())
