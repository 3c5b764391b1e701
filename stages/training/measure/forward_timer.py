"""How fast each rank is by itself, in seconds that no other rank can lengthen, measured without making the host wait.

Ranks meet in collectives, so all of them have the same step time; what differs is how long a rank waits for its data
and how long its own forward passes take. Under ZeRO 3 those gather weights: there the wait for data alone tells.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class ForwardTimer:
    """Measures a rank's forward passes, by the device's own clock on a GPU."""

    LATE = 2
    """Steps until a GPU has surely passed a step's marks: the loop reads each step one step late."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = 0.0
        self._marks: deque[list[tuple[torch.Event, torch.Event]]] = deque([[]])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a forward pass."""
        if self._cuda:
            begin, end = (torch.Event(device="cuda", enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._marks[-1].append((begin, end))
        else:
            start = time.monotonic()
            yield
            self._seconds += time.monotonic() - start

    def lap(self) -> float:
        """End a step: its seconds; on a GPU those of the step `LATE` before, of the first steps 0."""
        if not self._cuda:
            seconds, self._seconds = self._seconds, 0.0
            return seconds
        self._marks.append([])
        if len(self._marks) <= self.LATE + 1:
            return 0.0
        return sum(begin.elapsed_time(end) for begin, end in self._marks.popleft()) / 1000
