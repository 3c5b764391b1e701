"""Finished shards of earlier attempts of the same recipe, taken over when their index says what is wanted now."""

import hashlib
from collections.abc import Sequence

from infra.errors import NotFound
from infra.storage.store import Store
from stages.artifacts import File
from stages.contract import Out
from stages.images.index import parse_index
from stages.images.manifest import index_path
from stages.ingest.select import ShardPlan
from stages.ingest.shard import Shard, shard_entry


def find_shards(plans: Sequence[ShardPlan], out: Out) -> dict[str, Shard]:
    """The plans that need not be written again, by path. An index is written last, so its tar is whole."""
    found: dict[str, Shard] = {}
    for attempt in (out.attempt, *out.earlier):
        there = {entry.path: entry.bytes for entry in out.node.list(f"{attempt}/")}
        for plan in plans:
            if plan.path not in found and f"{attempt}/{index_path(plan.path)}" in there:
                shard = _shard(plan, attempt, out.node, there)
                if shard is not None:
                    found[plan.path] = shard
    return found


def _shard(plan: ShardPlan, attempt: str, node: Store, there: dict[str, int]) -> Shard | None:
    at = f"{attempt}/{index_path(plan.path)}"
    try:
        data = node.read(at)
    except NotFound:  # removed since it was listed
        return None
    index = parse_index(data, f"{node.uri}/{at}")
    if index.plan_sha256 != plan.sha256 or there.get(f"{attempt}/{plan.path}") != index.tar_bytes:
        return None
    tar = File(path=plan.path, at=f"{attempt}/{plan.path}", bytes=index.tar_bytes, sha256=index.sha256)
    digest = hashlib.sha256(data).hexdigest()
    index_file = File(path=index_path(plan.path), at=at, bytes=len(data), sha256=digest)
    return Shard(shard_entry(index), tar, index_file)
