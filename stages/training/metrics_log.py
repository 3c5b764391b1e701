"""The training curve: one JSON line per finished step, kept locally and committed with every checkpoint."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.training.loop import Facts
from stages.training.measured import measured
from stages.training.skipping import Skips


class MetricsLog:
    """A file of JSON lines, such as `metrics.jsonl`, on the local disk of rank 0; it only grows."""

    def __init__(self, path: Path) -> None:
        """Begin an empty file; with `continue_from` it goes on from a checkpoint's."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def continue_from(self, lines: bytes) -> None:
        """Take over the lines of the checkpoint that training resumes from."""
        self.path.write_bytes(lines)

    def add(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)


def line(facts: Facts) -> str:
    """One step as the artifact promises it; `loss_hex` is the loss without rounding.

    JSON has no NaN: a loss or norm that is not finite is null, and a step that updated nothing says why in `skipped`,
    with the positions of the images in the sample order.
    """
    fields: dict[str, Any] = {
        "step": facts.step,
        "samples_seen": facts.samples_seen,
        "loss": _finite(facts.loss),
        "loss_hex": facts.loss.hex(),
        "lr": facts.lr,
        "grad_norm": _finite(facts.grad_norm),
        "seconds": round(facts.seconds, 6),
    }
    if facts.skipped is not None:
        fields |= {"skipped": facts.skipped.reason, "positions": list(facts.skipped.positions)}
    return json.dumps(fields, allow_nan=False) + "\n"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def skips(lines: Iterable[bytes]) -> Skips:
    """How many steps a curve skipped, in a row at its end and in all."""
    counted = Skips()
    for text in lines:
        skipped = "skipped" in json.loads(text)
        counted = Skips(counted.in_a_row + 1 if skipped else 0, counted.in_all + skipped)
    return counted


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a `metrics.jsonl`."""
    with path.open() as file:
        for text in file:
            yield json.loads(text)


def write_tensorboard(metrics: Path, folder: Path, evaluation: Path) -> list[Path]:
    """Write the curves as TensorBoard event files; x is the step, the clock is training time from 0."""
    # tensorboard takes a second to import, and only this needs it
    from torch.utils.tensorboard import SummaryWriter

    clocks, clock = {0: 0.0}, 0.0
    with SummaryWriter(str(folder), max_queue=1000) as writer:
        for fields in read(metrics):
            clock += fields["seconds"]
            clocks[fields["step"]] = clock
            for name, tag in (("loss", "train/loss"), ("lr", "train/learning_rate"), ("grad_norm", "train/grad_norm")):
                if fields[name] is not None:
                    writer.add_scalar(tag, fields[name], fields["step"], walltime=clock)
        for fields in read(evaluation):
            for tag, value in measured(fields).items():
                writer.add_scalar(tag, value, fields["step"], walltime=clocks[fields["step"]])
    return sorted(path for path in folder.iterdir() if path.is_file())
