"""What committed nodes took: cores and GPUs times hours, as long as tasks and ranks held them.

Node records say it since they count it; of an earlier one it is what the node had asked for, times its seconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vitpipe.pipeline.store.held import HELD
from vitpipe.stages.record import Record

Work = tuple[float, float, float]
"""Seconds by the clock, and seconds of cores and of GPUs."""


@dataclass(frozen=True)
class Consumption:
    """What nodes took: seconds by the driver's clock, and the hours that cores and GPUs were held for them.

    Of a node whose record does not count them, and of an attempt that committed nothing, one task at a time is counted:
    it took at least that.
    """

    seconds: float
    core_hours: float
    gpu_hours: float
    price: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The cost as `ls --json` and `compare --json` print it."""
        return asdict(self)


def spent(
    records: Iterable[Record], price_per_gpu_hour: float | None = None, others: Iterable[Work] = ()
) -> Consumption:
    """Add up what the nodes of these records took, and its price where that of a GPU-hour is given.

    `others` are works without a record. Without a GPU-hour there is no price.
    """
    seconds = cores = gpus = 0.0
    for took, core_seconds, gpu_seconds in [*((record.seconds, *_held(record)) for record in records), *others]:
        seconds, cores, gpus = seconds + took, cores + core_seconds / 3600, gpus + gpu_seconds / 3600
    return Consumption(seconds, cores, gpus, gpus * price_per_gpu_hour if price_per_gpu_hour and gpus else None)


def counts(record: Record) -> bool:
    """Whether a record says what was held for it, by the attempts that it went on from too."""
    return HELD["CPU"] in record.metrics and record.adopted is None


def _held(record: Record) -> tuple[float, float]:
    """Seconds of cores and of GPUs; of a result that was taken over, those of the taking."""
    if counts(record):
        return record.metrics[HELD["CPU"]], record.metrics[HELD["GPU"]]
    return at_least(record.resources, record.seconds)[1:]


def at_least(given: Mapping[str, Any], seconds: float) -> Work:
    """Reckon a work of which nobody counted what it held: its ranks, or one task at a time, with what was asked for."""
    workers = given.get("workers") or 1
    least = seconds * (min(workers) if isinstance(workers, (list, tuple)) else workers)
    cores = given.get("cpus_per_worker") or given.get("cpus_per_task") or 1
    gpus = given.get("gpus_per_worker") or given.get("gpus_per_task") or 0
    return seconds, least * cores, least * gpus
