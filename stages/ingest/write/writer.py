"""Writing one shard: a tar with nothing in it that could differ, and its index. One task each.

Any `wds.WebDataset(...).decode("pil").to_tuple("jpg;jpeg;png;webp", "cls;json")` reads the tars.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from vitpipe.infra.errors import StageError
from vitpipe.infra.storage.store import Digest
from vitpipe.stages.images.digests import RunningDigest
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.manifest import index_path
from vitpipe.stages.images.members import label_members
from vitpipe.stages.images.readback import read_back
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.reading import ahead, one_by_one
from vitpipe.stages.ingest.sources.kept_members import Kept
from vitpipe.stages.ingest.write.shard import Shard, ShardTask, shard_entry, shard_index
from vitpipe.stages.ingest.write.ustar import BLOCK, end, header, padding


def write_shard(task: ShardTask) -> Shard:
    """Write the tar here, send it to the store, then its index: the sign that the shard is whole.

    Errors: StageError when an image is no longer what it was at the first look; IntegrityError when webdataset reads
    something else than the index says: nothing of such a shard reaches the store.
    """
    task = replace(task, plan=task.plan.in_hand())
    task.context.scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=task.context.scratch) as made:  # a lost twin may still be writing its own
        local = Path(made, task.plan.path)
        with local.open("xb") as file:
            offsets, kept, digest = _write_tar(task, file)
        index = shard_index(task.plan, digest, offsets, kept)
        if task.is_read_back:
            with local.open("rb", buffering=0) as file:  # it is read once, in pieces of its own size
                read_back(file, index, task.multi_label, task.context.out.node.uri)
        tar = task.context.out.upload(local, task.plan.path, given=digest)
    index_file = task.context.out.put(index_path(task.plan.path), index.encode())
    return Shard(shard_entry(index), tar, index_file)


_Members = tuple[tuple[str, int, str], ...]
"""Extension, bytes and SHA-256 of what an image has besides its label."""


def _write_tar(task: ShardTask, file: IO[bytes]) -> tuple[list[int], list[_Members], Digest]:
    """Write all members; where each image's bytes begin, what it has with it, and the digest of the whole."""
    offsets: list[int] = []
    members_of: list[_Members] = []
    size, sha256 = 0, RunningDigest()
    others = task.keeper.kept([image.item for image in task.plan.images]) if task.keeper else repeat(())
    for key, image, data, kept in zip(task.plan.keys, task.plan.images, _contents(task), others):  # noqa: B905  # endless
        more = (*label_members(image.item.labels, task.multi_label), *kept)
        behind = padding(len(data)) + b"".join(_member(f"{key}.{form}", content) for form, content in more)
        members = b"".join((header(f"{key}.{image.seen.ext}", len(data)), data, behind))
        found = sha256.add(members, BLOCK, len(data))
        if found != image.seen.sha256:
            raise _changed(image, f"its SHA-256 is now {found}, it was {image.seen.sha256}")
        file.write(members)
        offsets.append(size + BLOCK)
        members_of += [_facts(kept)] if task.keeper else []
        size += len(members)
    last = end(size)
    sha256.add(last)
    file.write(last)
    return offsets, members_of, Digest(size + len(last), sha256.hexdigest())


def _member(name: str, content: bytes) -> bytes:
    return header(name, len(content)) + content + padding(len(content))


def _facts(kept: Kept) -> _Members:
    return tuple((form, len(content), hashlib.sha256(content).hexdigest()) for form, content in kept)


def _contents(task: ShardTask) -> Iterator[bytes]:
    """The bytes of each image, in order: by their digest it will be seen whether they are still what was checked."""
    images = task.plan.images
    is_kept = [task.source.costly and task.spool.holds(image.seen.place) for image in images]
    kept = _kept(task, [image for image, here in zip(images, is_kept, strict=True) if here])
    others = task.source.reads([image.item for image, here in zip(images, is_kept, strict=True) if not here])
    for image, here in zip(images, is_kept, strict=True):
        data = next(kept if here else others)
        if isinstance(data, BadImage):
            raise _changed(image, str(data)) from data
        yield data


def _kept(task: ShardTask, images: Sequence[Image]) -> Iterator[bytes | BadImage]:
    """What the spool has, several at once where it is a server's."""
    find = partial(_kept_or_made, task)
    return ahead(find, images) if task.spool.is_remote else one_by_one(find, images)


def _kept_or_made(task: ShardTask, image: Image) -> bytes:
    kept = task.spool.find(image.seen.place, image.seen.size)
    if kept is not None and hashlib.sha256(kept).hexdigest() == image.seen.sha256:
        return kept
    return task.source.read(image.item)


def _changed(image: Image, found: str) -> StageError:
    do = "run again when the source is still"
    return StageError(f"write {image.item.name!r}", f"it changed while it was ingested: {found}", do)
