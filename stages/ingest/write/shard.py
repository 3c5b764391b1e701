"""What a shard is before and after it is written: the task, the index, its line in the manifest. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from vitpipe.infra.storage.store import Digest
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import TaskContext
from vitpipe.stages.images.index import ShardIndex
from vitpipe.stages.images.manifest import ShardEntry
from vitpipe.stages.ingest.choose.select import ShardPlan
from vitpipe.stages.ingest.draw import unit_hash
from vitpipe.stages.ingest.listing import ImageReader
from vitpipe.stages.ingest.look.spool import Spool
from vitpipe.stages.ingest.sources.kept_members import KeepsMembers

READ_BACK_SHARE = 1 / 8
"""Share of the shards of a set whose images are not decoded: reading all back would take as long as writing them."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to write."""

    context: TaskContext
    source: ImageReader
    spool: Spool
    plan: ShardPlan
    multi_label: bool
    is_read_back: bool = True
    """Whether webdataset has to read what was written before it is committed."""
    keeper: KeepsMembers | None = None
    """Who has the other members that pass through."""


@dataclass(frozen=True)
class Shard:
    """A finished shard: its line in the manifest, and its two files."""

    entry: ShardEntry
    tar: File
    index: File


def read_back_paths(plans: Sequence[ShardPlan], all_of_them: bool, seed: int) -> set[str]:
    """The shards that webdataset has to read: all, or the first and the last of each split and a drawn share.

    Which are drawn depends on the seed and their names alone.
    """
    if all_of_them:
        return {plan.path for plan in plans}
    ends = {plan.split: plan.path for plan in plans}
    begins = {plan.split: plan.path for plan in reversed(plans)}
    drawn = {plan.path for plan in plans if unit_hash("read back", seed, plan.path) < READ_BACK_SHARE}
    return {*begins.values(), *ends.values(), *drawn}


def shard_index(
    plan: ShardPlan, tar: Digest, offsets: list[int], kept: Sequence[Sequence[tuple[str, int, str]]] = ()
) -> ShardIndex:
    """The index of a written plan; `kept` as `ShardIndex` has it."""
    seen = [image.seen for image in plan.images]
    return ShardIndex(
        path=plan.path,
        split=plan.split,
        tar_bytes=tar.bytes,
        sha256=tar.sha256,
        plan_sha256=plan.sha256,
        key=plan.keys,
        source=[image.item.name for image in plan.images],
        offset=offsets,
        size=[one.size for one in seen],
        ext=[one.ext for one in seen],
        labels=[image.item.labels for image in plan.images],
        sha256s=[one.sha256 for one in seen],
        pixels_sha256=[one.pixels_sha256 for one in seen],
        width=[one.width for one in seen],
        height=[one.height for one in seen],
        kept=kept,
    )


def shard_entry(index: ShardIndex) -> ShardEntry:
    """The shard's line in the manifest."""
    return ShardEntry(
        path=index.path,
        split=index.split,
        count=index.count,
        bytes=index.tar_bytes,
        sha256=index.sha256,
        pixels=index.pixels,
    )
