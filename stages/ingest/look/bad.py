"""The images that are set aside, as the driver knows them: how many, and the first few of them. No torch."""

import heapq
from collections.abc import Sequence

from vitpipe.infra.errors import StageError
from vitpipe.stages.contract import StageContext
from vitpipe.stages.ingest.listing import FileDamage
from vitpipe.stages.ingest.look.chunk import FIRST, TOLD, Bad, Looked


class BadImages:
    """Counts, and the first by name."""

    def __init__(self, findings: Sequence[FileDamage], ctx: StageContext) -> None:
        self._findings, self._ctx = [Bad(one.name, one.reason) for one in findings], ctx
        self._lost = sum(one.images for one in findings)
        self.count, self._of_test = 0, 0
        self._first, self._first_test = list[Bad](), list[Bad]()
        self._tell(self._findings, len(findings), 0)

    @property
    def all(self) -> int:
        """Images, and damage that is of no image."""
        return self.count + len(self._findings)

    def take(self, chunk: Looked) -> None:
        """A chunk was looked at."""
        self._tell(chunk.first, chunk.bad, self.count)
        self.count, self._of_test = self.count + chunk.bad, self._of_test + chunk.bad_test
        self._first = heapq.nsmallest(FIRST, [*self._first, *chunk.first])
        self._first_test = heapq.nsmallest(FIRST, [*self._first_test, *chunk.first_test])

    def refuse_over(self, allowed: int, total: int) -> None:
        """StageError where there are more than `allowed`, each piece of damage counted by what it may have cost."""
        if self.count + self._lost <= allowed:
            return
        found = f"{self.count} are bad"
        if self._findings:
            found += f", and damage in {len(self._findings)} files may have cost {self._lost} more"
        found += f": {_shown([*self._findings, *self._first], self.all)}"
        do = "repair them, keep them elsewhere, or raise `bad_image_budget`"
        raise StageError(f"ingest {total} images with at most {allowed} bad ones", found, do)

    def refuse_short_test(self) -> None:
        """A benchmark's scores compare only on its whole test split."""
        if self._of_test:
            lost = f"it would be {self._of_test} images smaller than promised"
            found = f"{lost}: {_shown(self._first_test, self._of_test)}"
            raise StageError("ingest a benchmark with its test split", found, "get those official files again")

    def none_left(self, total: int) -> StageError:
        """The error of a source of which no image is kept."""
        first = sorted([*self._first, *self._findings])
        return StageError("ingest a source", f"none of its {total} images is left", _shown(first, self.all))

    def _tell(self, first: Sequence[Bad], count: int, before: int) -> None:
        self._ctx.metrics.inc("quarantined_samples_total", count)
        for bad in first[: max(0, TOLD - before)]:
            self._ctx.events.emit("quarantined", f"{bad.name}: {bad.reason}")


def _shown(first: Sequence[Bad], total: int) -> str:
    shown = "; ".join(f"{bad.name!r}: {bad.reason}" for bad in first[:FIRST])
    return f"{shown}; and {total - FIRST} more" if total > FIRST else shown
