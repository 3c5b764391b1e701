"""What the end of a gang's start means: an error of ours, the same failure twice, one loss more, or a preemption.

Knows no Ray: what a process died of is in words here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from vitpipe.infra import metrics
from vitpipe.infra.errors import Lost, StageError, VitpipeError, gravest
from vitpipe.infra.ray.gang_notes import Ending, Failure
from vitpipe.infra.work import Job

_LOOK = "see the traceback in the log; trying again would not help"
_SMALLER = "lower micro_batch, use more workers, or a larger machine; trying again would not help"

NAMED = 8
"""Ranks that an event names; the log has all."""


@dataclass
class Losses:
    """Counts of one gang, over all its starts by this driver."""

    job: Job
    asked: str
    """For messages: `run 2 ranks of backbone`."""
    max_failures: int
    failures: int = 0
    """How many were charged."""
    reasons: frozenset[str] = frozenset()
    """Of the last failure, as far as they would come again."""
    ranks: int = 0
    """How many there were in the last start."""

    def begin(self, ranks: int) -> None:
        """Tell of another number of ranks than before; a gang's first start is none."""
        if self.ranks and self.ranks != ranks:
            text = f"{self.ranks} ranks become {ranks}: they start again from the last committed step"
            self.job.tell("resized", text)
        self.ranks = ranks

    def check(self, ending: Ending) -> None:
        """Raise what a rank raised, if it is one of ours and no answer to a notice."""
        final = [one.error for one in ending.failures.values() if isinstance(one.error, VitpipeError)]
        if final and not ending.noticed:
            worst = gravest(final)
            worst.add_note(ending.traces)
            raise worst

    def count(self, ending: Ending, steps: Mapping[int, str]) -> None:
        """Charge what made the gang end; `steps` says after which step each rank ended, where that is known.

        StageError when the same failure came twice in a row, Lost when there were too many.
        """
        numbers = metrics.NodeMetrics(self.job.run, self.job.node)
        if ending.noticed and not ending.preempted:  # there is room for more ranks
            return
        numbers.inc("preemptions_total" if ending.preempted else "restarts_total")
        if ending.noticed:
            return  # it was told when the notice came
        words = _words(ending)
        if ending.preempted:
            self.job.tell("preempted", f"{words} (a preemption, not charged)")
            return
        self.failures += 1
        self.job.tell("rank_lost", f"{words} (failure {self.failures} of {self.max_failures + 1})")
        self._same_again(ending, steps)
        if self.failures > self.max_failures:
            found = f"lost {self.failures} times, last: {words}"
            raise Lost(self.asked, found, "look at the machines, then run again")

    def _same_again(self, ending: Ending, steps: Mapping[int, str]) -> None:
        gone = any(failure.is_gone for failure in ending.failures.values())
        if gone:
            reasons = _lack_of_memory(ending, steps)
        else:  # the other ranks name another port every time
            reasons = frozenset(failure.words for failure in ending.failures.values())
        again, self.reasons = reasons & self.reasons, reasons
        if again:
            found = f"the same failure twice: {'; '.join(sorted(again))}"
            repeated = StageError(f"run {self.job.node}", found, _SMALLER if gone else _LOOK)
            repeated.add_note(ending.traces)
            raise repeated


def _words(ending: Ending) -> str:
    """Name the ranks that are gone, or if all live, those first whose kind of error is rarest: the others lost them."""
    failures = ending.failures
    gone = [rank for rank, failure in sorted(failures.items()) if failure.is_gone]
    kinds = Counter(_kind(failure) for failure in failures.values())
    ranks = gone or sorted(failures, key=lambda rank: (kinds[_kind(failures[rank])], rank))
    words = [f"rank {rank} ({ending.places.get(rank, 'place unknown')}): {failures[rank].words}" for rank in ranks]
    return "; ".join(words[:NAMED]) + (f"; and {len(ranks) - NAMED} more" if len(ranks) > NAMED else "")


def _kind(failure: Failure) -> str:
    return failure.words.partition(":")[0]


def _lack_of_memory(ending: Ending, steps: Mapping[int, str]) -> frozenset[str]:
    """Describe, with the step, losses by Ray's memory monitor: those that would come again.

    Other losses never count as the same twice. Ray has one text for a crash by SIGSEGV, the kernel's out-of-memory
    killer, SIGKILL and an exit, also on a machine that is shutting down: two at one step may be chance.
    """
    ended = [rank for rank, failure in ending.failures.items() if failure.is_gone and failure.of_memory]
    found = {steps[rank] for rank in ended if rank in steps}
    return frozenset(f"out of memory, ended by Ray before its machine was ({step})" for step in found)
