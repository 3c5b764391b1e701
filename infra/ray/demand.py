"""Show a Ray that may grow what waits for room: tasks that do nothing, and end as soon as they have a place.

An autoscaler sees the demand in tasks that Ray cannot place. Real ones, handed to it early, would run before a gang
that comes later.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

import ray

from vitpipe.infra.ray.tickets import Shape


class Demand:
    """The tasks that Ray is shown; called with the shapes that wait for room now."""

    def __init__(self) -> None:
        self._shown: dict[Any, Shape] = {}
        self._lock = threading.Lock()

    def __call__(self, shapes: Iterable[Shape]) -> None:
        with self._lock:
            if self._shown:
                placed, _ = ray.wait(list(self._shown), num_returns=len(self._shown), timeout=0)
                for reference in placed:
                    del self._shown[reference]
            missing = Counter[Shape]()
            for shape in shapes:
                missing[shape] += shape.count
            missing.subtract(self._shown.values())
            for reference, shape in list(self._shown.items()):
                if missing[shape] < 0:
                    missing[shape] += 1
                    del self._shown[reference]
                    ray.cancel(reference)
            self._shown |= {_shown(shape): shape for shape in missing.elements()}


def _shown(shape: Shape) -> Any:
    asked = dict(shape.asked)
    cpus, gpus = asked.pop("CPU", 0), asked.pop("GPU", 0)
    options = {"num_cpus": cpus, "num_gpus": gpus, "resources": asked, "max_retries": 0, "name": "wanted"}
    return ray.remote(nothing).options(**options).remote()


def nothing() -> None:
    """Be a task that has a place."""
