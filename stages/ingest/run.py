"""Real images into shards: list, look at every image, decide, write one task per shard, and say what was left out.

Only orchestrates: images are read in tasks. Knows no torch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from vitpipe.infra.errors import StageError, UsageError
from vitpipe.infra.work import stop_if_asked
from vitpipe.stages.artifacts import COMPARED_IN_PART, File, ShardSet
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.images.manifest import MANIFEST, Manifest, SourceFacts
from vitpipe.stages.ingest.choose.deduplicate import deduplicated
from vitpipe.stages.ingest.choose.exclude import excluded_contents
from vitpipe.stages.ingest.choose.select import Duplicate, ShardPlan, lines, plan_shards
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.listing import FileDamage, ImageReader, Item, Listing
from vitpipe.stages.ingest.look.changes import as_written
from vitpipe.stages.ingest.look.image import Image, ImageTable
from vitpipe.stages.ingest.look.scan import CHUNK_IMAGES, RejectedImage, ScanTask, Spool, scan
from vitpipe.stages.ingest.sources.inventory import INVENTORY, MARKS
from vitpipe.stages.ingest.sources.kept_members import KeepsMembers
from vitpipe.stages.ingest.sources.opened import chunks, list_source
from vitpipe.stages.ingest.table import View
from vitpipe.stages.ingest.write.adopt import find_shards
from vitpipe.stages.ingest.write.shard import Shard, ShardTask, read_back_paths
from vitpipe.stages.ingest.write.tally import Tally
from vitpipe.stages.ingest.write.writer import write_shard
from vitpipe.stages.tasks import gather

QUARANTINE = "quarantine.jsonl"
DUPLICATES = "duplicates.jsonl"
DUPLICATES_SHEET = "duplicates.png"
"""Only where near-duplicates were looked for and found."""
EVENTS_AT_MOST = 50
"""Quarantined images told one by one; the file has them all."""
REASONS_TOLD = 3


def run(config: IngestConfig, inputs: Inputs, ctx: StageContext) -> ShardSet:
    """Ingest the source. The same bytes for the same input, at any number of workers and after any kill.

    Errors: UsageError for a source with nothing to ingest, or that can hardly be meant; StageError over the budget of
    bad images; Stopped.
    """
    excluded = excluded_contents(inputs)  # first: a set without test images is told before the work
    opened = config.source.make_ready(config.splits, ctx)
    listing = config.source.part(list_source(opened, ctx))
    if listing.refusal:
        raise listing.refusal
    if not listing.items:
        raise UsageError("ingest a part of the source", "no image is in it", "raise `limit` or `subset.fraction`")
    files = opened.inventory(listing)
    inventory = replace(files, texts={**files.texts, **config.source.text_digests()})
    ctx.out.put(MARKS, inventory.encode_marks())  # for hints alone: a copy of the source has other times
    more_files = [ctx.out.put(INVENTORY, inventory.encode())]
    source = as_written(opened, config)
    for note in listing.notes:
        ctx.events.emit("note", note)
    _tell_quarantined([*map(_as_bad, listing.findings)], len(listing.findings), ctx)
    tally = Tally(ctx, len(listing.items))
    spool = Spool(ctx.scratch / "spool")
    parts = chunks(opened, listing.items, CHUNK_IMAGES)
    images, bad = _look(source, listing, parts, spool, config, ctx, tally)
    bad = sorted([*bad, *map(_as_bad, listing.findings)], key=lambda one: one[0].name)
    if config.splits == "official":
        _refuse_short_test(bad)
    left = deduplicated(images, source, excluded, config, inputs, ctx)
    if not left.kept:
        raise StageError("ingest a source", f"none of its {len(listing.items)} images is left", _first(bad))
    keeper = opened if isinstance(opened, KeepsMembers) and opened.keep else None
    shards = _write(source, plan_shards(left.kept, config), spool, listing.multi_label, config, ctx, tally, keeper)
    found = _shard_set(config, listing, shards, bad, left.duplicates, ctx, tally)
    more_files += [ctx.out.put(DUPLICATES_SHEET, left.sheet)] if left.sheet else []
    metrics = found.metrics | ({COMPARED_IN_PART: float(left.in_part)} if left.in_part else {})
    return found.model_copy(update={"files": (*found.files, *more_files), "metrics": metrics})


def _look(
    source: ImageReader,
    listing: Listing,
    parts: Sequence[range],
    spool: Spool,
    config: IngestConfig,
    ctx: StageContext,
    tally: Tally,
) -> tuple[View[Image], list[tuple[Item, str]]]:
    """The sound images, and the others with their reasons, both by name. StageError over the budget."""
    near = config.deduplicate.near is not None
    tasks = [
        ScanTask(number, source, listing.items[rows.start : rows.stop], spool, near, config.check == "decode")
        for number, rows in enumerate(parts)
    ]
    allowed = config.bad_images_allowed(len(listing.items)) if config.on_bad_image == "quarantine" else 0
    images = ImageTable(listing.items)
    bad: list[tuple[Item, str]] = []
    for done in ctx.cluster.fan(scan, tasks, resources=ctx.resources, label=lambda task: f"look-{task.number:06d}"):
        images.put(parts[done.item.number], done.value())
        pairs = zip(done.item.items, done.value(), strict=True)
        found = [(item, one.reason) for item, one in pairs if isinstance(one, RejectedImage)]
        bad += found
        _tell_quarantined(found, len(bad), ctx)
        tally.saw(done.value())
        stop_if_asked(ctx.fence, f"ingest into {ctx.out.node.uri}")
    bad.sort(key=lambda one: one[0].name)
    if len(bad) + sum(one.images for one in listing.findings) > allowed:
        raise _over_budget(bad, listing.findings, allowed, len(listing.items))
    return images.sound(range(len(listing.items))), bad


def _write(
    source: ImageReader,
    plans: Sequence[ShardPlan],
    spool: Spool,
    multi_label: bool,
    config: IngestConfig,
    ctx: StageContext,
    tally: Tally,
    keeper: KeepsMembers | None,
) -> list[Shard]:
    """All shards, in the order of the plans; those of earlier attempts are taken over."""
    shards = find_shards(plans, multi_label, ctx, keeper.keep if keeper else ())
    tally.duplicates = tally.total - tally.quarantined - sum(len(plan.images) for plan in plans)
    tally.written = tally.adopted = sum(shard.entry.count for shard in shards.values())
    if shards:
        ctx.events.emit("resumed", f"{len(shards)} of {len(plans)} shards stand from an earlier attempt")
    checked = read_back_paths(plans, config.check == "decode", config.shuffle_seed)
    missing = [plan for plan in plans if plan.path not in shards]
    tasks = [ShardTask(ctx.task, source, spool, plan, multi_label, plan.path in checked, keeper) for plan in missing]
    ended = ctx.cluster.fan(write_shard, tasks, resources=ctx.resources, label=lambda task: task.plan.path)
    for task, shard in gather(ended):
        shards[task.plan.path] = shard
        tally.wrote(task.plan, task.is_read_back)
        stop_if_asked(ctx.fence, f"ingest into {ctx.out.node.uri}")
    return [shards[plan.path] for plan in plans]


def _shard_set(
    config: IngestConfig,
    listing: Listing,
    shards: Sequence[Shard],
    bad: Sequence[tuple[Item, str]],
    duplicates: Sequence[Duplicate],
    ctx: StageContext,
    tally: Tally,
) -> ShardSet:
    facts = SourceFacts(
        kind=config.source.kind,
        listing_sha256=listing.sha256,
        listed=len(listing.items),
        quarantined=len(bad),
        duplicates=len(duplicates),
        restart_intervals=config.restart_intervals,
        reencoded=tally.reencoded,
    )
    entries = tuple(shard.entry for shard in shards)
    data = Manifest(classes=listing.classes, multi_label=listing.multi_label, shards=entries, source=facts).encode()
    files: list[File] = [
        ctx.out.put(MANIFEST, data),
        ctx.out.put(QUARANTINE, lines({"source": item.name, "reason": reason} for item, reason in bad)),
        ctx.out.put(DUPLICATES, lines(one.row() for one in duplicates)),
        *(file for shard in shards for file in (shard.tar, shard.index)),
    ]
    splits: dict[str, int] = dict.fromkeys(config.splits, 0) if isinstance(config.splits, dict) else {}
    for entry in entries:
        splits[entry.split] = splits.get(entry.split, 0) + entry.count
    return ShardSet(
        files=tuple(files),
        metrics={
            "images": float(sum(splits.values())),
            "quarantined": float(len(bad)),
            "duplicates": float(len(duplicates)),
            "reencoded": float(tally.reencoded),
            "structure_checked": float(tally.looked),
            "read_back": float(tally.read_back),
            "decoded": float(tally.looked if config.check == "decode" else 0),
            "images_per_second": tally.images_per_second(tally.total),
        },
        manifest_sha256=hashlib.sha256(data).hexdigest(),
        num_classes=len(listing.classes),
        multi_label=listing.multi_label,
        splits=dict(sorted(splits.items())),
        image_bytes=sum(entry.bytes for entry in entries),
        listing_sha256=listing.sha256,
    )


def _tell_quarantined(found: Sequence[tuple[Item, str]], so_far: int, ctx: StageContext) -> None:
    if found:
        ctx.metrics.inc("quarantined_samples_total", len(found))
    shown = so_far - len(found)
    for item, reason in found[: max(0, EVENTS_AT_MOST - shown)]:
        ctx.events.emit("quarantined", f"{item.name}: {reason}")


def _over_budget(
    bad: Sequence[tuple[Item, str]], findings: Sequence[FileDamage], allowed: int, total: int
) -> StageError:
    found, lost = f"{len(bad)} are bad", sum(one.images for one in findings)
    if findings:
        found += f", and damage in {len(findings)} files may have cost {lost} more"
    found += f": {_first([*map(_as_bad, findings), *bad])}"
    do = "repair them, keep them elsewhere, or raise `bad_image_budget`"
    return StageError(f"ingest {total} images with at most {allowed} bad ones", found, do)


def _refuse_short_test(bad: Sequence[tuple[Item, str]]) -> None:
    """A benchmark's scores compare only on its whole test split."""
    lost = [one for one in bad if one[0].split == "test"]
    if lost:
        found = f"it would be {len(lost)} images smaller than promised: {_first(lost)}"
        raise StageError("ingest a benchmark with its test split", found, "get those official files again")


def _as_bad(finding: FileDamage) -> tuple[Item, str]:
    return Item(finding.name, ()), finding.reason


def _first(bad: Sequence[tuple[Item, str]]) -> str:
    shown = "; ".join(f"{item.name!r}: {reason}" for item, reason in bad[:REASONS_TOLD])
    return f"{shown}; and {len(bad) - REASONS_TOLD} more" if len(bad) > REASONS_TOLD else shown
