"""One copy of what the ranks of a machine read: a folder that they share, and who of them fetches which file.

Which ranks share it is not asked of anybody but seen: each leaves a mark there and looks for those of the others.
"""

import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vitpipe.stages.training import agree


@dataclass(frozen=True)
class SharedFolder:
    """A folder as one rank sees it."""

    folder: Path
    ranks: tuple[int, ...]
    """Those that see it, ascending, this one among them."""
    rank: int

    @property
    def is_first(self) -> bool:
        """Whether this rank does what is done once a machine."""
        return self.rank == self.ranks[0]

    def part(self, wanted: Sequence[Iterable[str]], sizes: Mapping[str, int]) -> list[str]:
        """Choose which of the files that these ranks want this one fetches; `wanted` is of every rank in the world.

        The largest first, each to whoever has least so far: the same on all.
        """
        names = sorted({name for rank in self.ranks for name in wanted[rank]})
        parts: dict[int, list[str]] = {rank: [] for rank in self.ranks}
        loads = dict.fromkeys(self.ranks, 0)
        for name in sorted(names, key=lambda name: (-sizes.get(name, 0), name)):
            least = min(self.ranks, key=lambda rank: (loads[rank], rank))
            parts[least].append(name)
            loads[least] += sizes.get(name, 0)
        return parts[self.rank]


@contextmanager
def shared_folder(parent: Path, rank: int) -> Iterator[SharedFolder]:
    """Make a new folder in `parent`, the same for all ranks that see the same one; it is gone once all have left.

    All ranks enter and leave together.
    """
    name = agree.on_first(lambda: f"load-{secrets.token_hex(8)}", rank)
    folder = parent / name
    agree.each(lambda: _mark(folder / "ranks" / str(rank)))
    seen = agree.each(lambda: tuple(sorted(int(mark.name) for mark in (folder / "ranks").iterdir())))
    mine = seen[rank]
    if any(seen[other] != mine for other in mine):  # a disk over the network that shows each what it likes
        folder, mine = folder / str(rank), (rank,)
    shared = SharedFolder(folder, mine, rank)
    try:
        yield shared
        agree.each(bool)  # nobody reads there any more
    finally:
        if shared.is_first:
            shutil.rmtree(folder, ignore_errors=True)


def _mark(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
