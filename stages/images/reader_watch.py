"""Metrics and events of readers: waits for shards, and images that had to be read without the cache. No torch."""

import logging
from dataclasses import dataclass

from vitpipe.stages.contract import Events, Metrics

LONG_S = 10.0
"""A wait for one shard from which on it is an event."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReaderWatch:
    """Counts waits and uncached reads, and reports trouble; without metrics and events to the log alone. Picklable."""

    metrics: Metrics | None = None
    events: Events | None = None

    def __post_init__(self) -> None:
        for name in ("shard_wait_seconds_total", "uncached_samples_total"):
            if self.metrics:
                self.metrics.inc(name, 0.0)

    def waited(self, what: str, seconds: float) -> None:
        """Count the time that a reader waited for a shard; a long wait is reported."""
        if self.metrics:
            self.metrics.inc("shard_wait_seconds_total", seconds)
        if seconds >= LONG_S:
            self._report(f"a reader waited {seconds:.0f} s for {what}")

    def uncached(self) -> None:
        """Count one image that was read from the store by itself."""
        if self.metrics:
            self.metrics.inc("uncached_samples_total")

    def no_room(self, what: str) -> None:
        """Report a shard that the cache could not keep."""
        self._report(f"{what}: its images are read from the store one by one")

    def _report(self, text: str) -> None:
        log.warning(text)
        if self.events:
            self.events.emit("note", text)


UNWATCHED = ReaderWatch()
