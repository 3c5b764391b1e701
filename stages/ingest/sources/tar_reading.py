"""Reading members of plain tars by their place, local or on S3; of those on a server neighbours together. No torch.

Knows files and bytes: what is a sample, and of which class, say the sources that build on it.
"""

from abc import ABC
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vitpipe.stages.images.decode import MAX_FILE_BYTES
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.listing import FileDamage, Item
from vitpipe.stages.ingest.reading import ahead, one_by_one
from vitpipe.stages.ingest.sources.opened import SourceOfFiles
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.tar_walk import Damage
from vitpipe.stages.ingest.sources.window import store_of

RUN_BYTES = 8_388_608
"""Neighbours in a tar on a server are fetched together up to this."""
GAP_BYTES = 65_536
DAMAGE_TOLD = 3


@dataclass(frozen=True)
class TarMembers(SourceOfFiles, ABC):
    """The reading half of a source of tars. An item's place is (file, byte)."""

    patterns: tuple[str, ...]
    """What named the files, for messages."""

    costly: ClassVar[bool] = False
    """A member is there to be read again."""

    def read(self, item: Item) -> bytes:
        """One member's bytes. BadImage for one that is too long, IntegrityError for a tar that was written again."""
        return self._fetch((item,))

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        """Members on this machine one by one; of those on a server neighbours together."""
        if all(self.files[number].is_local for number in {item.place[0] for item in items}):
            return one_by_one(self.read, items)
        return self._fetched_together(items)

    def _fetched_together(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        runs = list(_runs(items))
        for run, data in zip(runs, ahead(self._fetch, runs), strict=True):
            start = run[0].place[1]
            for item in run:
                at = item.place[1] - start
                yield data if isinstance(data, BadImage) else data[at : at + item.size]

    def _fetch(self, run: Sequence[Item]) -> bytes:
        """The bytes from the first to the last of some neighbours."""
        (number, start), last = run[0].place[:2], run[-1]
        length = last.place[1] + last.size - start
        if run[0].size > MAX_FILE_BYTES:
            raise BadImage(f"a file of {run[0].size} bytes is over the cap of {MAX_FILE_BYTES}")
        return self.read_part(number, start, length)

    def read_part(self, number: int, start: int, length: int) -> bytes:
        """Some bytes of one of the files. BadImage where it became shorter."""
        part = self.files[number]
        data = store_of(part.folder).read(part.path, part.start + start, length, part.version)
        if len(data) != length:
            raise BadImage(f"{part.name} became shorter: {len(data)} of {length} bytes at byte {start}")
        return data


def damage_found(part: SourceFile, damage: Sequence[Damage], whole: int) -> FileDamage:
    """What the damage to one tar is, of which `whole` images can be read."""
    places = "; ".join(one.text for one in damage[:DAMAGE_TOLD])
    more = f"; and {len(damage) - DAMAGE_TOLD} more places" if len(damage) > DAMAGE_TOLD else ""
    reason = f"the tar is damaged: {places}{more}; {whole} images of it are whole"
    return FileDamage(part.name, reason, len(damage), open_end=any(one.cut for one in damage))


def _runs(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    """Neighbours in one tar, in order and together no longer than `RUN_BYTES`."""
    run: list[Item] = []
    for item in items:
        if run:
            (number, start), (_, last) = run[0].place[:2], run[-1].place[:2]
            gap = item.place[1] - (last + run[-1].size)
            near = item.place[0] == number and 0 <= gap <= GAP_BYTES
            if not near or item.place[1] + item.size - start > RUN_BYTES:
                yield tuple(run)
                run = []
        run.append(item)
    if run:
        yield tuple(run)
