"""A clock that stands until somebody sleeps, and lets others act meanwhile."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vitpipe.infra.lease_state import Clock


@dataclass
class FakeClock:
    """One time for everybody; each sleep moves it and then plays the next of `meanwhile`."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)
    meanwhile: Iterator[Callable[[], object]] = field(default_factory=lambda: iter(()))

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        next(self.meanwhile, lambda: None)()

    def read(self) -> float:
        return self.now

    @property
    def clock(self) -> Clock:
        return Clock(boottime=self.read, monotonic=self.read, sleep=self.sleep)
