"""The test images of other sets that may not appear here: their contents, and how they look. No torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import pyarrow as pa

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.contract import Inputs, Out, StageContext
from vitpipe.stages.images.manifest import ShardEntry, load_index, load_manifest
from vitpipe.stages.ingest.look.likeness import LIKENESS_BYTES, views
from vitpipe.stages.ingest.parts.made import MadePart, Parts, finish, labelled, part_path
from vitpipe.stages.ingest.parts.rows import packed
from vitpipe.stages.ingest.parts.sheets import Sheets, write_sheets
from vitpipe.stages.ingest.reading import ahead, one_by_one


def excluded_contents(inputs: Inputs) -> dict[str, str]:
    """Decoded contents of the test images that may not appear, and where they stand."""
    found: dict[str, str] = {}
    for shards in inputs.many("exclude", ShardSet):
        for entry in load_manifest(shards).of("test"):
            index = load_index(shards, entry)
            for content, key in zip(index.pixels_sha256, index.key, strict=True):
                found[content] = f"{shards.uri}#{key}"
    return found


@dataclass(frozen=True, slots=True)
class Excluded:
    """One view of a test image: whole, or trimmed."""

    name: str
    """`URI#key`."""
    look: bytes


@dataclass(frozen=True)
class ExcludedShardTask:
    """One shard of test images to look at."""

    out: Out
    shards: ShardSet
    entry: ShardEntry

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        known = [self.shards.uri, self.shards.manifest_sha256, self.entry.path, version("pillow")]
        return part_path("excluded", known)


def excluded_looks(inputs: Inputs, ctx: StageContext, parts: Parts) -> list[Sheets]:
    """How the test images that may not appear look, in the order of their sets; a task for each shard."""
    sets = inputs.many("exclude", ShardSet)
    tasks = [ExcludedShardTask(ctx.out, shards, entry) for shards in sets for entry in load_manifest(shards).of("test")]
    return [made.files["looks"] for made in parts.all(leave_looks, tasks, labelled("exclude"))]


def leave_looks(task: ExcludedShardTask) -> MadePart:
    """Name and look of each view, in order."""
    seen = look_at_shard(task)
    columns = {
        "name": pa.array([packed(one.name) for one in seen], pa.binary()),
        "look": pa.array([one.look for one in seen], pa.binary(LIKENESS_BYTES)),
    }
    return finish(task, {}, looks=write_sheets(task.out, f"{task.path}.looks", [pa.table(columns)]))


def look_at_shard(task: ExcludedShardTask) -> Sequence[Excluded]:
    """The looks of one shard's images, each checked against the index. IntegrityError when one is another."""
    shards, entry = task.shards, task.entry
    index = load_index(shards, entry)
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
