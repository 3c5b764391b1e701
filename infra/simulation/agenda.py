"""A clock that jumps from one appointment to the next. Knows nothing of what is appointed."""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Appointment:
    """A call that is due."""

    at: float
    call: Callable[[], None] | None

    def cancel(self) -> None:
        """Have it not take place."""
        self.call = None


@dataclass
class Agenda:
    """What is due, in seconds from the beginning; of equals the earlier appointed takes place first."""

    now: float = 0.0
    _due: list[tuple[float, int, Appointment]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def after(self, seconds: float, call: Callable[[], None]) -> Appointment:
        """Have `call` take place after so many seconds; never, where they are infinite."""
        made = Appointment(self.now + seconds, call)
        if not math.isinf(seconds):
            heapq.heappush(self._due, (made.at, next(self._numbers), made))
        return made

    def pass_until(self, is_done: Callable[[], bool], latest: float) -> bool:
        """Let time pass until `is_done`, or until nothing is due any more before `latest`; whether it is."""
        while not is_done() and self._due and self._due[0][0] <= latest:
            self.now, _, made = heapq.heappop(self._due)
            if made.call is not None:
                made.call()
        return is_done()
