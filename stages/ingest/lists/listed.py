"""The listing of a source in parts in the store: sorted by name, cut into chunks to look at. No torch.

The driver holds where the parts are, and counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.store import Store
from vitpipe.stages.contract import StageContext
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.listing import Listing
from vitpipe.stages.ingest.lists.part_of_source import PartOfSource, last_drawn, subset_of
from vitpipe.stages.ingest.lists.raw import RawListing, list_files, stream, write_listing
from vitpipe.stages.ingest.lists.sort import Piece, SortTask, SpreadTask, borders, groups, sort, spread, text_of
from vitpipe.stages.ingest.look.scan import CHUNK_IMAGES
from vitpipe.stages.ingest.parts.made import MadePart, Parts, labelled
from vitpipe.stages.ingest.parts.rows import names_of
from vitpipe.stages.ingest.parts.sheets import Sheets
from vitpipe.stages.ingest.sources.inventory import FileColumns, Inventory, StreamedInventory
from vitpipe.stages.ingest.sources.opened import Source, SourceOfFiles, StreamedSource, piece_of
from vitpipe.stages.ingest.sources.source_settings import SourceSettings
from vitpipe.stages.ingest.table import Texts

PART_ROWS = 393_216
"""Images of a part: what a task holds at once, four or five copies of some 200 bytes of each, 400 with looks."""
LOOKS_COST = 2
"""How many fewer images a part has where near-duplicates are searched for: the looks of an image are 224 bytes."""
MOST_CHUNKS = 16_384
"""Parts of the work of looking: with more images each has more of them, so that the driver's list does not grow."""


@dataclass(frozen=True)
class ListedPart:
    """A range of names."""

    rows: Sheets
    """Sorted, in tables of `rows.SHEET_ROWS`."""
    texts: Sheets
    stops: tuple[int, ...]
    """Where each chunk ends."""

    @property
    def chunks(self) -> Iterator[range]:
        """Rows that are looked at together."""
        return (range(start, stop) for start, stop in pairwise((0, *self.stops)))


@dataclass(frozen=True)
class PartedListing:
    """All images of a source, or the part of it that is wanted."""

    facts: Listing
    """Without the images."""
    parts: Sequence[ListedPart]
    splits: tuple[str | None, ...]
    """Those that occur."""
    inventory: Inventory | StreamedInventory
    sha256: str
    """As `Listing.sha256`."""

    @property
    def count(self) -> int:
        """How many images."""
        return sum(part.rows.rows for part in self.parts)


def list_source(source: Source, config: IngestConfig, ctx: StageContext, parts: Parts) -> PartedListing:
    """All that the config wants of a source. UsageError for nothing to ingest, or what can hardly be meant."""
    raw, files = _raw(source, config, ctx, parts)
    if raw.listing.refusal:
        raise raw.listing.refusal
    wanted = config.source
    if not isinstance(source, SourceOfFiles | StreamedSource):  # the part of it was taken already
        wanted = wanted.model_copy(update={"subset": None, "limit": None})
    return in_parts(raw, files, wanted, piece_of(source), ctx, parts, part_rows(config))


def part_rows(config: IngestConfig) -> int:
    """Images of a part."""
    return max(1, PART_ROWS // LOOKS_COST) if config.deduplicate.near else PART_ROWS


def in_parts(
    raw: RawListing,
    files: Inventory | None,
    wanted: SourceSettings,
    piece_depth: int,
    ctx: StageContext,
    parts: Parts,
    most: int,
) -> PartedListing:
    """What was listed, sorted, and the part of it that is `wanted`. Without its `files` the images are these."""
    chunk_images = max(CHUNK_IMAGES, -(-sum(file.rows.rows for file in raw.files) // MOST_CHUNKS))
    how = _How(raw.may_repeat, chunk_images, piece_depth, most)
    found = _sorted(raw, subset_of(wanted), how, ctx, parts)
    if wanted.limit is not None and wanted.limit < sum(made.files["rows"].rows for made in found):
        found = _limited(found, wanted, how, ctx, parts)
    node, listed = ctx.out.node, [_part(made) for made in found if made.files["rows"].rows]
    if not listed:
        raise UsageError("ingest a part of the source", "no image is in it", "raise `limit` or `subset.fraction`")
    rows = [part.rows for part in listed]
    inventory = StreamedInventory(lambda: _files(rows, node)) if files is None else files
    splits = dict.fromkeys(split for made in found for split in made.facts["splits"])
    sha256 = raw.listing.sha256_with(text_of(part.texts.read(node, 0)) for part in listed)
    return PartedListing(raw.listing, listed, tuple(splits), inventory, sha256)


def _raw(source: Source, config: IngestConfig, ctx: StageContext, parts: Parts) -> tuple[RawListing, Inventory | None]:
    """What the source lists; its inventory where that is not the listing itself."""
    if isinstance(source, SourceOfFiles):
        raw = list_files(source, ctx, parts)
        return raw, source.inventory(raw.listing)
    if isinstance(source, StreamedSource):
        return stream(source, ctx.out, PART_ROWS), None
    listing = config.source.part(source.listing())
    return write_listing(listing, ctx.out, PART_ROWS), source.inventory(listing)


@dataclass(frozen=True)
class _How:
    """What all tasks that sort are told alike."""

    may_repeat: bool
    chunk_images: int
    piece_depth: int
    part_rows: int


def _sorted(raw: RawListing, part: PartOfSource, how: _How, ctx: StageContext, parts: Parts) -> list[MadePart]:
    """All parts, in the order of names."""
    count = sum(file.rows.rows for file in raw.files)
    rows = how.part_rows
    edges = borders(raw.files, -(-count // rows)) if count > rows else []
    found = _by_ranges(list(groups(raw.files, rows)), edges, part, how, ctx, parts)
    if not any(made.facts["strays"] for made in found):
        return found
    told_apart = [[Piece.whole(made.files["rows"])] for made in found]  # under names that belong into other ranges
    return _by_ranges(told_apart, edges, PartOfSource(), replace(how, may_repeat=False), ctx, parts)


def _by_ranges(
    pieces: Sequence[Sequence[Piece]],
    edges: Sequence[str],
    part: PartOfSource,
    how: _How,
    ctx: StageContext,
    parts: Parts,
) -> list[MadePart]:
    ranges: list[list[Piece]] = [[piece for group in pieces for piece in group]]
    if edges:
        tasks = [SpreadTask(ctx.out, group, tuple(edges)) for group in pieces]
        made = parts.all(spread, tasks, labelled("spread"))
        ranges = [
            [Piece(one.files["rows"], range(number, number + 1)) for one in made] for number in range(len(edges) + 1)
        ]
    sorts = [
        SortTask(ctx.out, number, several, part, how.may_repeat, upper, how.chunk_images, how.piece_depth)
        for number, (several, upper) in enumerate(zip(ranges, (*edges, None), strict=True))
    ]
    return parts.all(sort, sorts, labelled("sort"))


def _limited(
    found: Sequence[MadePart], source: SourceSettings, how: _How, ctx: StageContext, parts: Parts
) -> list[MadePart]:
    """Those that `limit` keeps, of parts that hold more."""
    assert source.limit is not None
    rows = [made.files["rows"] for made in found]
    drawn = replace(subset_of(source), share=1.0)
    last = last_drawn(rows, source.limit, drawn.seed, ctx)
    tasks = [
        SortTask(
            ctx.out,
            number,
            [Piece.whole(one)],
            replace(drawn, last=last),
            False,
            None,
            how.chunk_images,
            how.piece_depth,
        )
        for number, one in enumerate(rows)
    ]
    return parts.all(sort, tasks, labelled("limit"))


def _part(made: MadePart) -> ListedPart:
    return ListedPart(made.files["rows"], made.files["texts"], tuple(made.facts["stops"]))


def _files(parts: Sequence[Sheets], node: Store) -> Iterator[FileColumns]:
    """Names, sizes and marks of all images."""
    for table in (table for rows in parts for table in rows.all(node)):
        names = Texts()
        for name in names_of(table):
            names.append(name)
        sizes, marks = (table.column(name).to_numpy().astype(np.int64) for name in ("size", "mark"))
        yield names, sizes, marks
