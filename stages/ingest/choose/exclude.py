"""The test images of other sets that may not appear here: their contents, and how they look. No torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.images.index import parse_index
from vitpipe.stages.images.manifest import ShardEntry, load_manifest
from vitpipe.stages.ingest.choose.near import Excluded
from vitpipe.stages.ingest.look.likeness import views
from vitpipe.stages.ingest.reading import ahead, one_by_one


def excluded_contents(inputs: Inputs) -> dict[str, str]:
    """Decoded contents of the test images that may not appear, and where they stand."""
    found: dict[str, str] = {}
    for shards in inputs.many("exclude", ShardSet):
        for entry in load_manifest(shards).of("test"):
            index = parse_index(shards.read(entry.index), f"{entry.index} of {shards.uri}")
            for content, key in zip(index.pixels_sha256, index.key, strict=True):
                found[content] = f"{shards.uri}#{key}"
    return found


@dataclass(frozen=True)
class ExcludedShardTask:
    """One shard of test images to look at."""

    shards: ShardSet
    entry: ShardEntry


def excluded_looks(inputs: Inputs, ctx: StageContext) -> list[Excluded]:
    """How the test images that may not appear look, in the order of their sets; a task for each shard."""
    sets = inputs.many("exclude", ShardSet)
    tasks = [ExcludedShardTask(shards, entry) for shards in sets for entry in load_manifest(shards).of("test")]
    found: dict[int, Sequence[Excluded]] = {}
    places = {(task.shards.uri, task.entry.path): place for place, task in enumerate(tasks)}
    label = "exclude-{0.entry.path}".format
    for done in ctx.cluster.fan(look_at_shard, tasks, resources=ctx.resources, label=label):
        found[places[done.item.shards.uri, done.item.entry.path]] = done.value()
    return [one for place in sorted(found) for one in found[place]]


def look_at_shard(task: ExcludedShardTask) -> Sequence[Excluded]:
    """The looks of one shard's images, each checked against the index. IntegrityError when one is another."""
    shards, entry = task.shards, task.entry
    index = parse_index(shards.read(entry.index), f"{entry.index} of {shards.uri}")
    store, at = shards.store(), shards.file(entry.path).at

    def read(row: int) -> bytes:
        data = store.read(at, index.offset[row], index.size[row])
        if hashlib.sha256(data).hexdigest() != index.sha256s[row]:
            asked = f"read image {index.key[row]} of {index.path} in {shards.uri}"
            raise IntegrityError(asked, "its bytes are not those the index names", "restore the shard")
        return data

    rows = range(index.count)
    contents = one_by_one(read, rows) if store.uri.startswith("file://") else ahead(read, rows)
    looks = (() if isinstance(data, Exception) else views(data) for data in contents)
    return [Excluded(f"{shards.uri}#{key}", look) for key, many in zip(index.key, looks, strict=True) for look in many]
