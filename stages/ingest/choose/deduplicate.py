"""Leaving out what is the same as, or looks like, an image that is kept or may not appear; and saying so. No torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.ingest.choose import near
from vitpipe.stages.ingest.choose.contact_sheet import near_sheet
from vitpipe.stages.ingest.choose.exclude import excluded_looks
from vitpipe.stages.ingest.choose.select import Duplicate, without_duplicates
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.listing import ImageReader
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.table import View


class Deduplicated(NamedTuple):
    """What became of the images."""

    kept: View[Image]
    duplicates: list[Duplicate]
    """By name."""
    sheet: bytes
    """A picture of the near ones, if there are any."""
    in_part: int
    """Images that were not compared with all that they may look like."""


def deduplicated(
    images: View[Image],
    source: ImageReader,
    excluded: Mapping[str, str],
    config: IngestConfig,
    inputs: Inputs,
    ctx: StageContext,
) -> Deduplicated:
    """Exact copies first, then near ones where they are asked for."""
    duplicates: list[Duplicate] = []
    sheet, alike = b"", near.NearDuplicates([], 0)
    if config.deduplicate.exact or excluded:
        images, duplicates = without_duplicates(images, excluded)
    if config.deduplicate.near is not None:
        alike = near.near_duplicates(images, excluded_looks(inputs, ctx), config.deduplicate.near.hamming)
        duplicates = sorted([*duplicates, *alike.dropped], key=lambda one: one.source)
        sheet = near_sheet(alike.dropped, images, source, inputs, ctx) if alike.dropped else b""
        images = images.named({one.source for one in alike.dropped}, are=False)
    if duplicates:
        ctx.events.emit("note", _told(duplicates))
    if alike.in_part:
        ctx.events.emit("note", _told_in_part(alike.in_part))
    return Deduplicated(images, duplicates, sheet, alike.in_part)


def _told(duplicates: Sequence[Duplicate]) -> str:
    kinds = Counter(one.equal for one in duplicates)
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("bytes", "pixels", "near") if kinds[kind])
    held_out = sum("://" in one.of for one in duplicates)
    of_others = f"; {held_out} of them are test images of the excluded sets" if held_out else ""
    others = sum(not one.same_labels for one in duplicates)
    contradict = f"; {others} of them bear other classes than the image that stays" if others else ""
    return f"{len(duplicates)} duplicates were left out, by what is equal: {counts}{of_others}{contradict}"


def _told_in_part(images: int) -> str:
    many = f"{images} images may look like very many that are kept"
    return f"{many} and were compared with the first {near.MOST_KEPT:,} of these alone: copies may be left"
