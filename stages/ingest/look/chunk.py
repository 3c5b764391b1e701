"""The first look at a chunk of a listing that lies in the store: one task each, its findings left there. No torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vitpipe.stages.contract import Out
from vitpipe.stages.images.header import FORMATS
from vitpipe.stages.ingest.listing import ImageReader, Item
from vitpipe.stages.ingest.look.scan import RejectedImage, ScanTask, SoundImage, scan
from vitpipe.stages.ingest.look.seen import seen_rows
from vitpipe.stages.ingest.look.spool import Spool
from vitpipe.stages.ingest.parts.made import MadePart, finish, part_path
from vitpipe.stages.ingest.parts.rows import items_of, rows_between
from vitpipe.stages.ingest.parts.sheets import Sheets, write_sheets

TOLD = 50
"""Images that are set aside, told one by one; quarantine.jsonl has them all."""
FIRST = 3
"""Of those of the test split."""


class Bad(NamedTuple):
    """An image that is set aside."""

    name: str
    reason: str


@dataclass(frozen=True)
class LookTask:
    """A chunk of the listing: about `CHUNK_IMAGES` images, or all of a piece that is read as one."""

    out: Out
    number: int
    source: ImageReader
    rows: Sheets
    """The part of the listing that it is of."""
    chunk: range
    spool: Spool
    near: bool
    decodes: bool
    """As in `scan.ScanTask`."""
    state: str
    """Of the source: another one once a file of it was written again."""

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        part = [self.rows.sha256, self.chunk.start, self.chunk.stop]
        return part_path("seen", [*part, self.number, self.near, self.decodes, self.state])


@dataclass(frozen=True)
class Looked:
    """What a chunk is in numbers."""

    images: int
    sound_bytes: int
    reencoded: int
    bad: int
    first: tuple[Bad, ...]
    """The first `TOLD` of the bad, in the order of names."""
    bad_test: int
    """Bad ones of the split `test`."""
    first_test: tuple[Bad, ...]
    formats: Mapping[str, int] = field(default_factory=dict)
    """Sound images by format; nothing of what earlier versions looked at."""

    @classmethod
    def of(cls, made: MadePart) -> "Looked":
        """From the facts of a part."""
        lists = {name: tuple(Bad(*one) for one in made.facts[name]) for name in ("first", "first_test")}
        return cls(**{**made.facts, **lists})


def look(task: LookTask) -> MadePart:
    """Look at each image of the chunk, and leave what was seen."""
    items = items_of(rows_between(task.rows, task.out.node, task.chunk.start, task.chunk.stop))
    seen = scan(ScanTask(task.number, task.source, items, task.spool, task.near, task.decodes))
    rows = write_sheets(task.out, f"{task.path}.rows", [seen_rows(seen)])
    return finish(task, _told(items, seen), rows=rows)


def _told(items: Sequence[Item], seen: Sequence[SoundImage | RejectedImage]) -> dict[str, object]:
    bad = [
        (item.split, Bad(item.name, one.reason))
        for item, one in zip(items, seen, strict=True)
        if isinstance(one, RejectedImage)
    ]
    sound = [one for one in seen if isinstance(one, SoundImage)]
    of_test = [one for split, one in bad if split == "test"]
    return {
        "images": len(items),
        "sound_bytes": sum(one.size for one in sound),
        "reencoded": sum(one.reencoded for one in sound),
        "bad": len(bad),
        "first": [one for _, one in bad[:TOLD]],
        "bad_test": len(of_test),
        "first_test": of_test[:FIRST],
        "formats": Counter(FORMATS[one.ext].lower() for one in sound),
    }
