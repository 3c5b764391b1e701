"""What committed nodes took: cores and GPUs times hours, as long as tasks and ranks held them.

Node records say it since they count it; of an earlier one it is what the node had asked for, times its seconds.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.progress import read_progress
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.attempts import Attempt
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


def held_metrics(held: Mapping[str, float], seconds: float, header: bytes = b"{}") -> dict[str, float]:
    """Turn what a cluster counted for a node into a record's metrics; empty where nothing of it was handed out.

    That was in `seconds`; of the attempts that it went on from only theirs are known, by its header (`attempt.json`),
    and they count alike.
    """
    all_of_it = 1.0 + parse_object(header).get("before_s", 0.0) / max(seconds, 1e-3)
    return {metric: round(held.get(name, 0.0) * all_of_it, 3) for name, metric in HELD.items()} if held else {}


def seconds_before(node: Store, going_on_from: Iterable[Attempt]) -> float:
    """Count the seconds of the attempts of a node that a new one goes on from, newest first, until their last sign."""
    last = next((one for one in going_on_from if one.restart == 0), None)
    if last is None:
        return 0.0
    seconds = last.before_s
    with suppress(VitpipeError, ValueError):  # nothing but an account hangs on it
        sign = read_progress(node)
        if sign is not None and sign["attempt"].partition(".")[0] == last.name:
            seconds += max(0.0, float(sign.get("time", 0.0)) - datetime.fromisoformat(last.started).timestamp())
    return round(seconds, 3)


def spent(
    records: Iterable[Record],
    price_per_gpu_hour: float | None = None,
    others: Iterable[tuple[Mapping[str, Any] | None, float]] = (),
) -> Consumption:
    """Add up what the nodes of these records took, and its price where that of a GPU-hour is given.

    `others` are works without a record: what each was given, or None where a record has counted it, and for how many
    seconds. Without a GPU-hour there is no price.
    """
    seconds = cores = gpus = 0.0
    works = [(record.seconds, *_held(record)) for record in records]
    works += [(took, *(_asked(given, took) if given is not None else (0.0, 0.0))) for given, took in others]
    for took, core_seconds, gpu_seconds in works:
        seconds, cores, gpus = seconds + took, cores + core_seconds / 3600, gpus + gpu_seconds / 3600
    return Consumption(seconds, cores, gpus, gpus * price_per_gpu_hour if price_per_gpu_hour and gpus else None)


def counts(record: Record) -> bool:
    """Whether a record says what was held for it, by the attempts that it went on from too."""
    return HELD["CPU"] in record.metrics and record.adopted is None


def _held(record: Record) -> tuple[float, float]:
    """Seconds of cores and of GPUs; of a result that was taken over, those of the taking."""
    if counts(record):
        return record.metrics[HELD["CPU"]], record.metrics[HELD["GPU"]]
    return _asked(record.resources, record.seconds)


def _asked(given: Mapping[str, Any], seconds: float) -> tuple[float, float]:
    workers = given.get("workers") or 1
    least = seconds * (min(workers) if isinstance(workers, (list, tuple)) else workers)
    cores = given.get("cpus_per_worker") or given.get("cpus_per_task") or 1
    gpus = given.get("gpus_per_worker") or given.get("gpus_per_task") or 0
    return least * cores, least * gpus
