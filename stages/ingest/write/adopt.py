"""Finished shards of earlier attempts of the same recipe, taken over when they are, byte for byte, what is wanted now.

An index is written last, so its tar was whole once. Whether both still are, tasks find out: they read them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from vitpipe.infra.errors import IntegrityError, NotFound
from vitpipe.infra.storage.store import Digest, Store
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import StageContext
from vitpipe.stages.images.index import ShardIndex, parse_index
from vitpipe.stages.images.manifest import index_path
from vitpipe.stages.images.members import label_members
from vitpipe.stages.ingest.choose.select import ShardPlan
from vitpipe.stages.ingest.sources.kept_members import kept_places
from vitpipe.stages.ingest.write.shard import Shard, shard_entry, shard_index
from vitpipe.stages.ingest.write.ustar import BLOCK, padding

PIECE_BYTES = 8_000_000
"""Read at a time."""


@dataclass(frozen=True)
class Candidate:
    """A shard of an earlier attempt that has the place of one that is wanted."""

    node: Store
    attempt: str
    plan: ShardPlan
    multi_label: bool
    tar_bytes: int | None
    """As it was listed."""
    keep: tuple[str, ...] = ()
    """Other members that pass through."""


def find_shards(
    plans: Sequence[ShardPlan], multi_label: bool, ctx: StageContext, keep: tuple[str, ...] = ()
) -> dict[str, Shard]:
    """The plans that need not be written again, by path. An event tells which are written anew for damage."""
    out, found = ctx.out, dict[str, Shard]()
    for attempt in (out.attempt, *out.earlier):
        there = {entry.path: entry.bytes for entry in out.node.list(f"{attempt}/")}
        candidates = [
            Candidate(out.node, attempt, plan, multi_label, there.get(f"{attempt}/{plan.path}"), keep)
            for plan in plans
            if plan.path not in found and f"{attempt}/{index_path(plan.path)}" in there
        ]
        label = "check-{0.plan.path}".format
        for done in ctx.cluster.fan(examine, candidates, resources=ctx.resources, label=label):
            shard = done.value()
            if isinstance(shard, Shard):
                found[shard.entry.path] = shard
            elif shard:
                ctx.events.emit("note", f"not taken over, but written anew: {shard}")
    return found


def examine(candidate: Candidate) -> Shard | str:
    """The shard if it is what the plan wants; what is damaged of it, or nothing where it is merely another."""
    node, plan = candidate.node, candidate.plan.in_hand()
    at, tar_at = f"{candidate.attempt}/{index_path(plan.path)}", f"{candidate.attempt}/{plan.path}"
    try:
        data = node.read(at)
        index = parse_index(data, f"{node.uri}/{at}")
        if index.plan_sha256 != plan.sha256:
            return ""
        if problem := _problem(index, data, candidate, plan):
            return f"{at} {problem}"
        tar = _digest(node, tar_at, index.tar_bytes)
    except NotFound:  # removed since it was listed
        return ""
    except IntegrityError as error:
        return f"{at}: {error.found}"
    if tar.sha256 != index.sha256:
        return f"{tar_at} has SHA-256 {tar.sha256}, its index says {index.sha256}"
    index_file = File(path=index_path(plan.path), at=at, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    return Shard(shard_entry(index), File(path=plan.path, at=tar_at, bytes=tar.bytes, sha256=tar.sha256), index_file)


def _problem(index: ShardIndex, data: bytes, candidate: Candidate, plan: ShardPlan) -> str:
    """Everything in an index follows from the plan, but the digest of the tar."""
    if candidate.tar_bytes != index.tar_bytes:
        return f"says {index.tar_bytes} bytes of its shard, which has {candidate.tar_bytes or 'none'}"
    tar = Digest(index.tar_bytes, index.sha256)
    if index.kept and [[(name, size) for name, size, _ in row] for row in index.kept] != _kept(plan, candidate.keep):
        return "has other members than the source"
    if shard_index(plan, tar, _offsets(plan, candidate), index.kept).encode() != data:
        return "is not the index of the images that its digest names"
    return ""


def _kept(plan: ShardPlan, keep: Sequence[str]) -> list[list[tuple[str, int]]]:
    """Extension and length of what each image keeps, as an index has them."""
    return [[(name, size) for name, _, size in kept_places(image.item, keep)] for image in plan.images]


def _offsets(plan: ShardPlan, candidate: Candidate) -> list[int]:
    """Where the writer puts each image's bytes."""
    offsets, written = list[int](), 0
    for image in plan.images:
        offsets.append(written + BLOCK)
        labels = [len(data) for _, data in label_members(image.item.labels, candidate.multi_label)]
        kept = [size for _, _, size in kept_places(image.item, candidate.keep)]
        written += sum(BLOCK + size + len(padding(size)) for size in (image.seen.size, *labels, *kept))
    return offsets


def _digest(node: Store, at: str, size: int) -> Digest:
    digest, read = hashlib.sha256(), 0
    while read < size and (piece := node.read(at, read, PIECE_BYTES)):
        digest.update(piece)
        read += len(piece)
    return Digest(read, digest.hexdigest())
