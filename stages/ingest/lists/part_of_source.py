"""Which images of a source `subset` and `limit` keep, where no memory holds all of them. No torch.

As `SourceSettings.part`, which has them all at hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitpipe.infra.storage.store import Store
from vitpipe.stages.contract import StageContext
from vitpipe.stages.ingest.draw import unit_hash
from vitpipe.stages.ingest.parts.rows import names_of
from vitpipe.stages.ingest.parts.sheets import Sheets
from vitpipe.stages.ingest.sources.source_settings import SourceSettings
from vitpipe.stages.tasks import gather

BINS = 4096
"""Parts of the range of a hash, in one of which the last image of a limit is looked for."""
Drawn = tuple[float, str]
"""The hash by which a limit draws an image, and its name."""


@dataclass(frozen=True)
class PartOfSource:
    """A draw by hashes of names. Picklable; `repr` tells all of it."""

    share: float = 1.0
    seed: int = 0
    last: Drawn | None = None
    """The image up to which a limit draws."""

    def keeps(self, name: str) -> bool:
        """Whether an image of this name is kept."""
        if self.share < 1 and unit_hash("subset", self.seed, name) >= self.share:
            return False
        return self.last is None or self.drawn(name) <= self.last

    def drawn(self, name: str) -> Drawn:
        """By what a limit draws."""
        return unit_hash("limit", self.seed, name), name


def subset_of(source: SourceSettings) -> PartOfSource:
    """What `subset` keeps; `limit` is drawn from that, with the same seed."""
    return PartOfSource(source.subset.fraction, source.subset.seed) if source.subset else PartOfSource()


@dataclass(frozen=True)
class LimitTask:
    """The hashes of one part of a listing."""

    node: Store
    rows: Sheets
    seed: int
    within: int | None = None
    """The bin whose images are wanted one by one; else all bins are counted."""

    def drawn(self) -> list[Drawn]:
        """Name and hash of each row."""
        part = PartOfSource(seed=self.seed)
        return [part.drawn(name) for table in self.rows.all(self.node) for name in names_of(table)]


def counted(task: LimitTask) -> npt.NDArray[np.int64]:
    """How many images of a part fall into each bin."""
    return np.bincount([_bin(hashed) for hashed, _ in task.drawn()], minlength=BINS)


def listed(task: LimitTask) -> Sequence[Drawn]:
    """The images of a part that fall into the bin."""
    return [one for one in task.drawn() if _bin(one[0]) == task.within]


def last_drawn(parts: Sequence[Sheets], limit: int, seed: int, ctx: StageContext) -> Drawn:
    """The last of the first `limit` images in the order of their draw; there are more of them."""
    node = ctx.out.node
    tasks = [LimitTask(node, rows, seed) for rows in parts]
    found = gather(ctx.cluster.fan(counted, tasks, resources=ctx.resources, label=_label))
    ends = np.cumsum(sum((counts for _, counts in found), np.zeros(BINS, dtype=np.int64)))
    within = int(np.searchsorted(ends, limit, side="left"))
    before = int(ends[within - 1]) if within else 0
    tasks = [LimitTask(node, rows, seed, within) for rows in parts]
    some = gather(ctx.cluster.fan(listed, tasks, resources=ctx.resources, label=_label))
    return sorted(one for _, drawn in some for one in drawn)[limit - before - 1]


def _label(task: LimitTask) -> str:
    return f"draw-{task.rows.sha256[:8]}"


def _bin(hashed: float) -> int:
    return min(int(hashed * BINS), BINS - 1)
