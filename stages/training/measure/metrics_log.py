"""The training curve: one JSON line per finished step, kept locally and committed with every checkpoint.

A disk without room ends no training: lines then wait in memory, and are written once there is room again.
"""

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vitpipe.infra.errors import IntegrityError, StorageError
from vitpipe.infra.full_disk import full_path, is_full
from vitpipe.stages.training.measure.step_metrics import StepMetrics
from vitpipe.stages.training.skipping import Skips

WAITING_BYTES = 64 * 2**20
"""Bytes of one file, at most: some hundred thousand steps of a curve, or a thousand of a ledger with large batches."""


@dataclass(frozen=True)
class LogSnapshot:
    """What a growing file held at one moment: its first bytes, and behind them what waited for room."""

    path: Path
    size_bytes: int
    waiting: bytes = b""

    def lines(self) -> Iterator[bytes]:
        """Each line with its end, also one of which only the beginning had room."""
        left = self.size_bytes
        torn = b""
        if left:
            with self.path.open("rb") as file:
                while left and (text := file.readline(left)):
                    left -= len(text)
                    torn = text if not left and not text.endswith(b"\n") else b""
                    if not torn:
                        yield text
        if left:
            raise self._short(left)
        yield from (torn + self.waiting).splitlines(keepends=True)

    def copy(self, target: BinaryIO) -> None:
        """Write it to another file. IntegrityError when its beginning is no longer there."""
        if self.size_bytes:
            with self.path.open("rb") as file:
                data = file.read(self.size_bytes)
            if len(data) != self.size_bytes:
                raise self._short(self.size_bytes - len(data))
            target.write(data)
        target.write(self.waiting)

    def _short(self, missing: int) -> IntegrityError:
        return IntegrityError(f"read {self.path}", f"{missing} of its {self.size_bytes} bytes are gone", "run again")


class MetricsLog:
    """A file of JSON lines, such as `metrics.jsonl`, on the local disk of rank 0; it only grows."""

    def __init__(self, path: Path) -> None:
        """Begin an empty file; with `continue_from` it goes on from a checkpoint's."""
        self.path = path
        self._begin()

    def continue_from(self, lines: bytes) -> None:
        """Take over the lines of the checkpoint that training resumes from."""
        self._begin()
        self._add(lines)

    def add(self, text: str) -> None:
        """Append, now or when there is room. StorageError when more than `WAITING_BYTES` wait."""
        self._add(text.encode())

    @property
    def now(self) -> LogSnapshot:
        """All of it, whether it had room or not."""
        return LogSnapshot(self.path, self._bytes, bytes(self._waiting))

    def _begin(self) -> None:
        self._bytes = 0
        self._waiting = bytearray()
        self.path.unlink(missing_ok=True)

    def _add(self, data: bytes) -> None:
        self._waiting += data
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                while self._waiting:
                    written = file.write(self._waiting)
                    self._bytes += written
                    del self._waiting[:written]
        except OSError as error:
            if not is_full(error) or len(self._waiting) > WAITING_BYTES:
                found = f"{full_path(error, self.path)}: {error}; {len(self._waiting)} bytes wait to be written"
                do = "free space there, then run the same command again: it goes on from the last checkpoint"
                raise StorageError(f"write {self.path}", found, do) from error


def fields_of(metrics: StepMetrics) -> dict[str, Any]:
    """One step as the artifact promises it; `loss_hex` is the loss without rounding.

    JSON has no NaN: a loss or norm that is not finite is None, and a step that updated nothing says why in `skipped`,
    with the positions of the images in the sample order.
    """
    fields: dict[str, Any] = {
        "step": metrics.step,
        "samples_seen": metrics.samples_seen,
        "loss": _finite(metrics.loss),
        "loss_hex": metrics.loss.hex(),
        "lr": metrics.lr,
        "grad_norm": _finite(metrics.grad_norm),
        "seconds": round(metrics.seconds, 6),
    }
    if metrics.skipped is not None:
        fields |= {"skipped": metrics.skipped.reason, "positions": list(metrics.skipped.positions)}
    return fields


def line(fields: Mapping[str, Any]) -> str:
    """One line of a file, a step's or another's."""
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


def read(grown: LogSnapshot) -> Iterator[dict[str, Any]]:
    """The lines of a `metrics.jsonl`."""
    return map(json.loads, grown.lines())


def measured(fields: Mapping[str, Any]) -> dict[str, float]:
    """`validation/loss`, `validation/accuracy`, `watch/imagenet-v2`, `fewshot/cifar10/5`: those that the line has."""
    found = {f"validation/{name}": fields.get(name) for name in ("loss", "accuracy")}
    found |= {f"watch/{name}": accuracy for name, accuracy in fields.get("watch", {}).items()}
    for probe, accuracies in fields.get("fewshot", {}).items():
        found |= {f"fewshot/{probe}/{shots}": accuracy for shots, accuracy in accuracies.items()}
    return {name: value for name, value in found.items() if value is not None}


def stepped(fields: Mapping[str, Any]) -> dict[str, float | None]:
    """`train/loss` and the others of a line of `metrics.jsonl`, always the same names; None for what is not finite."""
    batch_images = fields["samples_seen"] / fields["step"]
    return {
        "train/loss": fields["loss"],
        "train/learning_rate": fields["lr"],
        "train/grad_norm": fields["grad_norm"],
        "train/images_per_second": round(batch_images / max(fields["seconds"], 1e-6), 3),
    }


def points(
    lines: Iterable[Mapping[str, Any]], evaluations: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[int, float, dict[str, float | None]]]:
    """Step, clock and values of a curve, a line of each file after the other by step; the clock is seconds of training.

    A measurement at the step that a training began with has the clock 0.
    """
    measurements = deque(evaluations)
    clock = 0.0
    for fields in lines:
        while measurements and measurements[0]["step"] < fields["step"]:
            yield _measurement(measurements.popleft(), clock)
        clock += fields["seconds"]
        yield fields["step"], clock, stepped(fields)
    for fields in measurements:
        yield _measurement(fields, clock)


def _measurement(fields: Mapping[str, Any], clock: float) -> tuple[int, float, dict[str, float | None]]:
    return fields["step"], clock, dict(measured(fields))


def write_tensorboard(metrics: LogSnapshot, folder: Path, evaluation: LogSnapshot) -> list[Path]:
    """Write the curves as TensorBoard event files; x is the step, the clock is training time from 0."""
    # tensorboard takes half a second to import, and only this needs it
    from vitpipe.stages.training.measure.event_file import EventFile

    with EventFile(folder) as file:
        for step, clock, values in points(read(metrics), read(evaluation)):
            file.add(step, clock, {tag: value for tag, value in values.items() if value is not None})
    return sorted(path for path in folder.iterdir() if path.is_file())
