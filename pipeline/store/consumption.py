"""What committed nodes took: cores and GPUs times hours, as long as tasks and ranks held them. Knows no store.

Node records say it since they count it; of an earlier one it is what the node had asked for, times its seconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vitpipe.stages.record import Record

HELD = {"CPU": "core_seconds", "GPU": "gpu_seconds"}
"""Metrics of a record, by Ray's names of what was held."""


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


def held_metrics(seconds: Mapping[str, float]) -> dict[str, float]:
    """Turn what a cluster counted for a node into a record's metrics; empty where nothing of it was handed out."""
    return {metric: round(seconds.get(name, 0.0), 3) for name, metric in HELD.items()} if seconds else {}


def spent(
    records: Iterable[Record],
    price_per_gpu_hour: float | None = None,
    others: Iterable[tuple[Mapping[str, Any], float]] = (),
) -> Consumption:
    """Add up what the nodes of these records took, and its price where that of a GPU-hour is given.

    `others` are works without a record: what each was given, and for how many seconds.
    """
    seconds = cores = gpus = 0.0
    works = [(record.seconds, *_held(record)) for record in records]
    works += [(took, *_asked(given, took)) for given, took in others]
    for took, core_seconds, gpu_seconds in works:
        seconds, cores, gpus = seconds + took, cores + core_seconds / 3600, gpus + gpu_seconds / 3600
    return Consumption(seconds, cores, gpus, None if price_per_gpu_hour is None else gpus * price_per_gpu_hour)


def _held(record: Record) -> tuple[float, float]:
    """Seconds of cores and of GPUs; of a result that was taken over, those of the taking."""
    if HELD["CPU"] in record.metrics and record.adopted is None:
        return record.metrics[HELD["CPU"]], record.metrics[HELD["GPU"]]
    return _asked(record.resources, record.seconds)


def _asked(given: Mapping[str, Any], seconds: float) -> tuple[float, float]:
    workers = given.get("workers") or 1
    least = seconds * (min(workers) if isinstance(workers, (list, tuple)) else workers)
    cores = given.get("cpus_per_worker") or given.get("cpus_per_task") or 1
    gpus = given.get("gpus_per_worker") or given.get("gpus_per_task") or 0
    return least * cores, least * gpus
