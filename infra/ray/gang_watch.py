"""Leads the ranks of one start: they meet, are asked how they are, and end; says what ended them.

Knows what a rank answers and what Ray says of one that does not; what follows from it is not decided here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from vitpipe.infra.ray.cluster_life import leaving
from vitpipe.infra.ray.deaths import in_words, out_of_memory
from vitpipe.infra.ray.gang_notes import Beat, Failure, News, RankProcess
from vitpipe.infra.ray.gang_ranks import Ranks
from vitpipe.infra.ray.gang_size import Size, seats
from vitpipe.infra.work import Job

START_S = 600.0
"""A rank whose process does not answer for so long, or that is not ready to meet the others by then, is lost."""
SILENCE_S = 120.0
"""A rank that has answered once and is silent for so long is lost: while it loads libraries nothing else may run there.
Once all have met, it is lost earlier where the gang wants that."""
EVERY_S = 0.5
"""How often a rank is asked."""
HURRY_S = 0.1
"""How often, until all have met and once one has failed."""
A_SECOND = 200
"""Questions at most: each takes almost a millisecond of the driver's time."""
SETTLE_S = 1.0
"""How long others are heard after a first failure, so that its cause is among what is told."""
TICK_S = 5.0
"""A step of our clock is at most this long: silence while this process stood still proves nothing."""

Asked = Literal["place", "begin", "beat"]


@dataclass
class GangWatch:
    """One start of a gang."""

    job: Job
    ranks: Ranks
    size: Size
    restart: int
    hang_timeout_s: int
    look: Callable[[], News]
    """What ranks that have met should hear; asked often. Raises once they cannot go on."""
    since: float = field(default_factory=time.time)
    """Unix time at which its machines were its own."""
    _beats: dict[int, Beat] = field(default_factory=dict)
    _failures: dict[int, Failure] = field(default_factory=dict)
    _open: dict[ObjectRef, tuple[int, Asked, float]] = field(default_factory=dict)
    """Questions without an answer: whom, what and when."""
    _due: dict[int, float] = field(default_factory=dict)
    """When a rank that has answered is asked again."""
    _news: News = field(default_factory=News)
    _now: float = 0.0
    _met: bool = False

    def lead(self) -> dict[int, Failure]:
        """Lead them until all have ended, or one has failed; what failed, by rank.

        Errors: those of `look`, and before they have met of `job.ask_to_stop`: then nothing was begun.
        """
        everyone = range(len(self.ranks.actors))
        for rank in everyone:
            self._ask(rank, "place", self.ranks.actors[rank].place.remote())
        while len(self.ranks.places) < len(everyone) and not self._failures:
            self._hear()
        if not self._failures:
            self._begin()
        while not self._failures and len(self._ended()) < len(everyone):
            self._round()
        until = self._now + SETTLE_S
        while self._failures and self._now < until and len(self._failures.keys() | self._ended()) < len(everyone):
            self._round()
        return self._failures

    def _begin(self) -> None:
        places = [self.ranks.places[rank] for rank in range(len(self.ranks.actors))]
        for seat in seats(places, self.size, self.restart, self.hang_timeout_s, self.since):
            self._ask(seat.rank, "begin", self.ranks.actors[seat.rank].begin.remote(seat, self.ranks.work))
            self._due[seat.rank] = self._now
        self._begun = self._now

    def _round(self) -> None:
        if self._met:
            self._news = News(self._news.address, self.look().notice)
        for rank in [rank for rank, due in self._due.items() if due <= self._now]:
            del self._due[rank]
            self._ask(rank, "beat", self.ranks.actors[rank].beat.remote(self._news))
        self._hear()
        if not self._met and not self._failures:
            self._meet()

    def _meet(self) -> None:
        """Tell all where to meet once all are ready, so that none waits for one that still loads."""
        late = [rank for rank in range(len(self.ranks.actors)) if not self._beat(rank).is_ready]
        if not late:
            self._news = News(self._beat(0).address)
            self._met = True
        elif self._now - self._begun > START_S:
            words = f"it was not ready to meet the others after {START_S:g} s"
            self._failures |= {rank: Failure(words, is_gone=True) for rank in late}

    def _hear(self) -> None:
        """Take answers until the next question is due, and give up whoever is silent for too long."""
        if leaving.is_set():
            raise SystemExit("this process leaves the cluster")
        if not self._met:
            self.job.ask_to_stop()
        before = time.monotonic()
        pause = self._pause()
        ready, _ = ray.wait(list(self._open), num_returns=len(self._open), timeout=pause) if self._open else ([], [])
        for ref in ready:
            self._answer(ref, *self._open.pop(ref)[:2])
        if not self._open:
            time.sleep(max(0.0, min(self._due.values(), default=0.0) - self._now - (time.monotonic() - before)))
        self._now += min(time.monotonic() - before, TICK_S)
        for rank, what, since in self._open.values():
            if self._now - since > self._patience(what):
                self._failures[rank] = Failure(f"it was silent for {self._patience(what):g} s", is_gone=True)

    def _answer(self, ref: ObjectRef, rank: int, what: Asked) -> None:
        try:
            answer: Any = ray.get(ref)
        except RayTaskError as error:
            self._failures[rank] = Failure(in_words(error), trace=str(error))
            return
        except RayError as error:
            self._failures[rank] = Failure(in_words(error), is_gone=True, of_memory=out_of_memory(error))
            return
        if isinstance(answer, RankProcess):
            self.ranks.places[rank] = answer
        elif isinstance(answer, Beat):
            self._beats[rank] = answer
            if answer.failure:
                self._failures[rank] = answer.failure
            self._due[rank] = self._now + self._pause()

    def _ask(self, rank: int, what: Asked, ref: ObjectRef) -> None:
        self._open[ref] = rank, what, self._now

    def _pause(self) -> float:
        wanted = EVERY_S if self._met and not self._failures else HURRY_S
        return max(wanted, len(self.ranks.actors) / A_SECOND)

    def _patience(self, what: Asked) -> float:
        if what == "place":
            return START_S
        return min(SILENCE_S, self.hang_timeout_s) if self._met else SILENCE_S

    def _beat(self, rank: int) -> Beat:
        return self._beats.get(rank, Beat())

    def _ended(self) -> set[int]:
        return {rank for rank, beat in self._beats.items() if beat.has_ended}
