"""Real images into shards: list, look at every image, decide, write one task per shard, and say what was left out.

Only orchestrates: images are read in tasks, and what is known of each lies in the store, in parts that tasks make.
Knows no torch.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

from vitpipe.infra.errors import IntegrityError, NotFound, StageError, StorageError
from vitpipe.infra.work import stop_if_asked
from vitpipe.stages.artifacts import COMPARED_IN_PART, IMAGES, PIXELS, File, ShardSet
from vitpipe.stages.commits import COMMITS, at_commits, told, write_commits
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.images.manifest import MANIFEST, Manifest, SourceFacts
from vitpipe.stages.ingest.choose.chosen import Chosen, choose
from vitpipe.stages.ingest.choose.exclude import excluded_contents
from vitpipe.stages.ingest.choose.select import ShardPlan
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.listing import ImageReader
from vitpipe.stages.ingest.lists.listed import PartedListing, list_source
from vitpipe.stages.ingest.look.bad import BadImages
from vitpipe.stages.ingest.look.changes import as_written
from vitpipe.stages.ingest.look.chunk import Looked, LookTask, look
from vitpipe.stages.ingest.look.spool import Spool
from vitpipe.stages.ingest.parts.lines import line, lines_of, merged, put_lines, put_streamed
from vitpipe.stages.ingest.parts.made import Parts, digest
from vitpipe.stages.ingest.parts.sheets import Sheets
from vitpipe.stages.ingest.sources.inventory import INVENTORY, MARKS
from vitpipe.stages.ingest.sources.kept_members import KeepsMembers
from vitpipe.stages.ingest.sources.opened import piece_of
from vitpipe.stages.ingest.write.adopt import find_shards
from vitpipe.stages.ingest.write.shard import Shard, ShardTask, read_back_paths
from vitpipe.stages.ingest.write.tally import Tally
from vitpipe.stages.ingest.write.writer import write_shard
from vitpipe.stages.tasks import gather

QUARANTINE = "quarantine.jsonl"
DUPLICATES = "duplicates.jsonl"
DUPLICATES_SHEET = "duplicates.png"
"""Only where near-duplicates were looked for and found."""


def run(config: IngestConfig, inputs: Inputs, ctx: StageContext) -> ShardSet:
    """Ingest the source. The same bytes for the same input, at any number of workers and after any kill.

    Errors: UsageError for a source with nothing to ingest, or that can hardly be meant; StageError over the budget of
    bad images; Stopped.
    """
    excluded = excluded_contents(inputs)  # first: a set without test images is told before the work
    config, commits = at_commits(config)
    if commits:
        ctx.out.put(COMMITS, write_commits(commits))
    for note in told(commits):
        ctx.events.emit("note", note)
    parts = Parts(ctx)
    try:
        return _ingest(config, inputs, excluded, ctx, parts).model_copy(update={"commits": commits})
    except (StageError, IntegrityError, NotFound):  # an image that is no longer what was seen, or a damaged part
        parts.refuse()
        raise


def _ingest(
    config: IngestConfig, inputs: Inputs, excluded: dict[str, str], ctx: StageContext, parts: Parts
) -> ShardSet:
    opened = config.source.make_ready(config.splits, ctx)
    listed = list_source(opened, config, ctx, parts)
    texts = {**listed.inventory.texts, **config.source.text_digests()}
    inventory = replace(listed.inventory, texts=texts).streamed()
    marks = put_streamed(ctx, MARKS, inventory.write_marks)  # for hints alone: a copy of the source has other times
    more_files = [put_streamed(ctx, INVENTORY, inventory.write)]
    source = as_written(opened, config)
    for note in listed.facts.notes:
        ctx.events.emit("note", note)
    bad, tally = BadImages(listed.facts.findings, ctx), Tally(ctx, listed.count)
    spool = Spool(ctx.scratch / "spool", ctx.out if piece_of(opened) else None)
    state = digest([marks.sha256, more_files[0].sha256, version("pillow")])
    seen = _look(source, listed, spool, state, bad, config, ctx, parts, tally)
    allowed = config.bad_images_allowed(listed.count) if config.on_bad_image == "quarantine" else 0
    bad.refuse_over(allowed, listed.count)
    if bad.all:
        ctx.events.emit("note", f"{bad.all} of {listed.count} images set aside: {QUARANTINE} says why of each")
    if config.splits == "official":
        bad.refuse_short_test()
    chosen = choose(listed, seen, source, excluded, config, inputs, ctx, parts)
    if not chosen.plans:
        raise bad.none_left(listed.count)
    keeper = opened if isinstance(opened, KeepsMembers) and opened.keep else None
    shards = _write(source, chosen.plans, spool, listed.facts.multi_label, config, ctx, tally, keeper)
    _clear(spool, ctx)
    more_files += [ctx.out.put(DUPLICATES_SHEET, chosen.sheet)] if chosen.sheet else []
    more_files += _lists(listed, chosen, ctx)
    return _shard_set(config, listed, shards, more_files, bad, chosen, ctx, tally)


def _look(
    source: ImageReader,
    listed: PartedListing,
    spool: Spool,
    state: str,
    bad: BadImages,
    config: IngestConfig,
    ctx: StageContext,
    parts: Parts,
    tally: Tally,
) -> list[list[Sheets]]:
    """What was seen of each chunk of each part."""
    near, decodes = config.deduplicate.near is not None, config.check == "decode"
    chunks = [(place, part.rows, chunk) for place, part in enumerate(listed.parts) for chunk in part.chunks]
    tasks = [
        LookTask(ctx.out, number, source, rows, chunk, spool, near, decodes, state)
        for number, (_, rows, chunk) in enumerate(chunks)
    ]
    found: dict[int, Sheets] = {}
    for task, made in parts.make(look, tasks, lambda task: f"look-{task.number:06d}", "looks at chunks of images"):
        found[task.number] = made.files["rows"]
        looked = Looked.of(made)
        bad.take(looked)
        tally.saw(looked, made.is_taken)
    seen: list[list[Sheets]] = [[] for _ in listed.parts]
    for number, (place, _, _) in enumerate(chunks):
        seen[place].append(found[number])
    return seen


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
    tally.written = sum(shard.entry.count for shard in shards.values())
    tally.adopted += tally.written
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


def _clear(spool: Spool, ctx: StageContext) -> None:
    """The shards stand: nobody asks the spool again. Whoever may write and not delete has it until `gc`."""
    try:
        spool.clear()
    except StorageError as error:
        ctx.events.emit("note", f"what was kept for writing the shards stays until `vitpipe gc`: {error.in_brief}")


def _lists(listed: PartedListing, chosen: Chosen, ctx: StageContext) -> list[File]:
    """What is left out, each file put together from those of the parts."""
    damage = [line(one.name, {"source": one.name, "reason": one.reason}) for one in listed.facts.findings]
    dropped = [lines_of(ctx.out.node, [sheets]) for sheets in chosen.dropped]
    return [
        put_lines(ctx, QUARANTINE, merged([lines_of(ctx.out.node, chosen.quarantined), damage])),
        put_lines(ctx, DUPLICATES, merged(dropped)),
    ]


def _shard_set(
    config: IngestConfig,
    listed: PartedListing,
    shards: Sequence[Shard],
    more_files: Sequence[File],
    bad: BadImages,
    chosen: Chosen,
    ctx: StageContext,
    tally: Tally,
) -> ShardSet:
    facts = SourceFacts(
        kind=config.source.kind,
        listing_sha256=listed.sha256,
        listed=listed.count,
        quarantined=bad.all,
        duplicates=chosen.duplicates,
        restart_intervals=config.restart_intervals,
        reencoded=tally.reencoded,
    )
    classes, multi_label = listed.facts.classes, listed.facts.multi_label
    entries = tuple(shard.entry for shard in shards)
    data = Manifest(classes=classes, multi_label=multi_label, shards=entries, source=facts).encode()
    of_shards = [file for shard in shards for file in (shard.tar, shard.index)]
    splits = Counter(dict.fromkeys(config.splits, 0) if isinstance(config.splits, dict) else {})
    for entry in entries:
        splits[entry.split] += entry.count
    return ShardSet(
        files=(ctx.out.put(MANIFEST, data), *of_shards, *more_files),
        metrics={
            "images": float(sum(splits.values())),
            PIXELS: float(sum(entry.pixels for entry in entries)),
            **{IMAGES.format(name): float(count) for name, count in sorted(tally.formats.items())},
            "quarantined": float(bad.all),
            "duplicates": float(chosen.duplicates),
            "reencoded": float(tally.reencoded),
            "structure_checked": float(tally.looked),
            "read_back": float(tally.read_back),
            "decoded": float(tally.looked if config.check == "decode" else 0),
            "images_per_second": tally.images_per_second(tally.total),
            **({COMPARED_IN_PART: float(chosen.in_part)} if chosen.in_part else {}),
        },
        manifest_sha256=hashlib.sha256(data).hexdigest(),
        num_classes=len(classes),
        multi_label=multi_label,
        splits=dict(sorted(splits.items())),
        image_bytes=sum(entry.bytes for entry in entries),
        listing_sha256=listed.sha256,
    )
