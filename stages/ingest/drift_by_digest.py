"""Read a whole source again and compare every image with the digest that its shard has of it. No torch."""

import hashlib
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vitpipe.infra.at_once import answers
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.manifest import load_index, load_manifest
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.listing import ImageReader, Item, Items, Listing
from vitpipe.stages.ingest.look.changes import as_written
from vitpipe.stages.ingest.reading import UnreadableImage
from vitpipe.stages.ingest.sources.opened import chunks
from vitpipe.stages.sighting import EXAMPLES, Difference

READERS = 8
CHUNK_IMAGES = 256


@dataclass(frozen=True)
class DigestComparison:
    """What the comparison found."""

    images: int
    """Images that the source has now."""
    difference: Difference
    other_classes: bool = False
    """Whether nothing else differs."""
    unknown: int = 0
    """Images of the source that were left out of the shards, whose digests nobody kept."""
    unreadable: int = 0
    """Images whose bytes could not be had: nothing is said of them."""
    unreadable_examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptDigests:
    """What the shards say of the images that were ingested."""

    digests: Mapping[str, str]
    """SHA-256 of each image by its name in the source."""
    left_out: Container[str]
    """Names of those set aside or alike."""


def compared_by_digest(
    config: IngestConfig, listing: Listing, kept: KeptDigests, listing_sha256: str
) -> DigestComparison:
    """Read every image of the listing; `listing_sha256` is that of what was ingested. Errors: StorageError."""
    opened = config.source.open(config.splits)
    source, parts = as_written(opened, config), chunks(opened, listing.items, CHUNK_IMAGES)
    known, left_out = kept.digests, kept.left_out
    added, changed, unreadable = list[str](), list[str](), list[str]()
    unknown = 0
    there: set[str] = set()
    for item, digest in _read(source, listing.items, parts):
        there.add(item.name)
        wanted = known.get(item.name)
        if wanted is None:
            unknown += item.name in left_out
            added += [] if item.name in left_out else [item.name]
        elif digest is None:
            unreadable.append(item.name)
        elif digest != wanted:
            changed.append(item.name)
    gone = sorted(known.keys() - there)
    examples = (*added[:EXAMPLES], *gone[:EXAMPLES], *changed[:EXAMPLES])
    found = Difference(len(added), len(gone), len(changed), examples=examples)
    is_other = listing.sha256 != listing_sha256
    return DigestComparison(len(listing.items), found, is_other, unknown, len(unreadable), tuple(unreadable[:EXAMPLES]))


def kept_digests(shards: ShardSet) -> KeptDigests:
    """Errors: IntegrityError for damaged shards; StorageError."""
    known: dict[str, str] = {}
    for entry in load_manifest(shards).shards:
        index = load_index(shards, entry)
        known.update(zip(index.source, index.sha256s, strict=True))
    left_out = {str(row["source"]) for row in _rows(shards, "quarantine.jsonl")}
    for row in _rows(shards, "duplicates.jsonl"):
        if row["equal"] == "bytes" and row["of"] in known:
            known[row["source"]] = known[row["of"]]
        else:
            left_out.add(row["source"])
    return KeptDigests(known, left_out)


def _rows(shards: ShardSet, path: str) -> Iterator[dict[str, str]]:
    return map(json.loads, shards.read(path).splitlines())


def _read(source: ImageReader, items: Items, parts: Sequence[range]) -> Iterator[tuple[Item, str | None]]:
    """Each image with the digest of its bytes; an empty one for what is no image, None for what cannot be read."""
    asked = [items[rows.start : rows.stop] for rows in parts]

    def hashed(chunk: Sequence[Item]) -> list[str | None]:
        read = source.reads([item for item in chunk if not item.fault])
        return ["" if item.fault else _sha256(next(read)) for item in chunk]

    for chunk, digests in zip(asked, answers(hashed, asked, READERS), strict=True):
        yield from zip(chunk, digests, strict=True)


def _sha256(data: bytes | BadImage) -> str | None:
    if isinstance(data, UnreadableImage):
        return None
    return "" if isinstance(data, BadImage) else hashlib.sha256(data).hexdigest()
