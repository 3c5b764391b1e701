"""What a source lists before a byte is read, and which part of it is wanted. No torch.

Knows nothing of where images come from: sources fill it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from stages.images.header import BadImage
from stages.ingest.files_config import Subset

MAX_NAMED = 5
"""Examples an error message gives."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image of the source."""

    name: str
    """Unique in the source; decides the order and stands in the index. Never used as a path in the shards."""
    labels: tuple[int, ...]
    """Classes, ascending."""
    split: str | None = None
    """Given by the tree, or left to the content."""
    size: int = 0
    """Bytes, where the source knows before reading."""
    place: tuple[int, ...] = ()
    """Where the source finds it, where a file holds many: the number of the file, then its own way."""
    fault: str = ""
    """Why it is set aside without a look."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Damage that is not of one image: it stands whichever part of the source is wanted."""

    name: str
    reason: str
    images: int = 1
    """How many images it may have cost, at least 1: what the budget of bad images counts."""
    open_end: bool = False
    """Whether what is missing may be more than can be seen."""


@dataclass(frozen=True)
class Listing:
    """All images of a source, sorted by name."""

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    multi_label: bool = False
    notes: tuple[str, ...] = ()
    """What was seen and left aside, for people."""
    findings: tuple[Finding, ...] = ()
    """Sorted by name."""

    @property
    def sha256(self) -> str:
        """Digest of names, sizes, labels and classes."""
        digest = hashlib.sha256(json.dumps([self.classes, self.multi_label]).encode())
        for item in self.items:
            digest.update(json.dumps([item.name, item.labels, item.split, item.size]).encode())
            if item.fault:
                digest.update(json.dumps([item.fault]).encode())
        if self.findings:
            digest.update(json.dumps([[one.name, one.reason, one.images] for one in self.findings]).encode())
        return digest.hexdigest()

    def part(self, limit: int | None, subset: Subset | None) -> "Listing":
        """Keep a random share, then at most `limit` images, both by hash of the name: nested and stable."""
        kept = self.items
        if subset is not None:
            kept = tuple(item for item in kept if unit_hash("subset", subset.seed, item.name) < subset.fraction)
        if limit is not None:
            seed = subset.seed if subset else 0
            kept = tuple(sorted(kept, key=lambda item: (unit_hash("limit", seed, item.name), item.name))[:limit])
        in_order = tuple(sorted(kept, key=lambda item: item.name))
        return replace(self, items=in_order)


class Source(Protocol):
    """Where images come from. Picklable: tasks read through it on any machine."""

    @property
    def costly(self) -> bool:
        """Whether making the bytes twice is worse than keeping them a while."""

    def listing(self) -> Listing:
        """All images. UsageError when there is nothing to ingest, saying what was found."""

    def read(self, item: Item) -> bytes:
        """The bytes of one image. BadImage with the reason when this one cannot be had."""

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        """What `read` gives for each, in order: the bytes, or the BadImage that it raises; several at once if it pays.

        Holds a bounded number of images at a time.
        """


def unit_hash(*parts: str | int) -> float:
    """A number in [0, 1) that depends on `parts` alone; names may hold undecodable bytes."""
    text = "\0".join(str(part) for part in parts)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def some(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    listed = list(names)
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(map(repr, listed[:MAX_NAMED])) + more
