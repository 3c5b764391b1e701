"""What tasks and ranks count, on its way to the driver, which alone exports it.

One small actor on the driver's machine holds what came since the driver last asked. The driver adds it up: a counter
never goes back, whichever process dies. Knows no metric.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitpipe.infra.metrics import Numbers, Pending

EVERY_S = 2.0
"""How often workers send what they have, and how often the driver asks."""
ANSWER_S = 10.0

log = logging.getLogger(__name__)


class Counting:
    """The actor. Everything it holds is on its way: when it is lost, so are a few seconds of counting."""

    def __init__(self, run: str) -> None:
        self._run, self._number = run, 0
        self._next, self._sent = Numbers(), Numbers()

    def __repr__(self) -> str:
        return f"what {self._run} counts"

    def add(self, batch: Numbers) -> None:
        """Take in what a worker has counted."""
        self._next.merge(batch)

    def take(self, heard: int) -> tuple[int, Numbers]:
        """Return what came since the batch of number `heard`, with its own number; the same again to who asks again."""
        if heard >= self._number:
            self._number, self._sent, self._next = heard + 1, self._next, Numbers()
        return self._number, self._sent


class Gathering:
    """The driver's end: an actor while it lasts, and a thread that asks it. `actor` goes to workers with their job."""

    def __init__(self, run: str) -> None:
        self._run, self._heard = run, 0
        self.actor: Any = None

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Give this process's sink what tasks and ranks count, until the block ends."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # its calls are no work of the run: among the dashboard's tasks they would be thousands
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here, "enable_task_events": False}
        self.actor = ray.remote(Counting).options(**options).remote(self._run)
        end = threading.Event()
        thread = threading.Thread(target=self._ask, args=(end,), name="vitpipe-gathering", daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
            ray.kill(self.actor)
            self.actor = None

    def _ask(self, end: threading.Event) -> None:
        while not end.wait(EVERY_S):
            self._hear()
        self._hear()

    def _hear(self) -> None:
        try:
            number, batch = ray.get(self.actor.take.remote(self._heard), timeout=ANSWER_S)
        except (RayError, GetTimeoutError) as error:
            log.info("what tasks and ranks count comes later: %s", error)
            return
        if number > self._heard:
            self._heard = number
            batch.pass_on()


class Sending:
    """A worker's end: a thread that sends what this process has counted."""

    def __init__(self, actor: Any) -> None:
        self.pending = Pending()
        self._actor = actor
        threading.Thread(target=self._go_on, name="vitpipe-counting", daemon=True).start()

    def send(self) -> None:
        """Send what there is, and wait for nothing."""
        batch = self.pending.take()
        if batch.gauges or batch.growth:
            self._actor.add.remote(batch)

    def _go_on(self) -> None:
        pause = threading.Event()
        while not pause.wait(EVERY_S):
            try:
                self.send()
            except RayError as error:
                log.debug("what was counted here is lost: %s", error)
