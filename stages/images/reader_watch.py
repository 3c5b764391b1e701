"""What readers tell while they work: waits for shards, and images that had to be read past the cache. No torch."""

import logging
from dataclasses import dataclass

from vitpipe.stages.contract import Events, Metrics

LONG_S = 10.0
"""A wait for one shard that is an event."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReaderWatch:
    """Counts and tells; without doors to tell it through, the log alone is told. Picklable."""

    metrics: Metrics | None = None
    events: Events | None = None

    def waited(self, what: str, seconds: float) -> None:
        """A reader stood still for a shard."""
        if self.metrics:
            self.metrics.inc("shard_wait_seconds_total", seconds)
        if seconds >= LONG_S:
            self._say(f"a reader waited {seconds:.0f} s for {what}")

    def uncached(self) -> None:
        """One image was read from the store by itself."""
        if self.metrics:
            self.metrics.inc("uncached_samples_total")

    def no_room(self, what: str) -> None:
        """A shard that is not kept."""
        self._say(f"{what}: its images are read from the store one by one")

    def _say(self, text: str) -> None:
        log.warning(text)
        if self.events:
            self.events.emit("note", text)


UNWATCHED = ReaderWatch()
