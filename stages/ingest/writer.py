"""Writing one shard: a tar with nothing in it that could differ, and its index. One task each.

Any `wds.WebDataset(...).decode("pil").to_tuple("jpg;jpeg;png;webp", "cls;json")` reads the tars.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from infra.errors import StageError
from infra.storage.store import Digest
from stages.images.header import BadImage
from stages.images.manifest import index_path
from stages.ingest.select import Image
from stages.ingest.shard import Shard, ShardTask, shard_entry, shard_index
from stages.ingest.ustar import BLOCK, end, header, padding


def write_shard(task: ShardTask) -> Shard:
    """Write the tar here, send it to the store, then its index: the sign that the shard is whole.

    StageError when an image is no longer what it was at the first look.
    """
    task.context.scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=task.context.scratch) as made:  # a lost twin may still be writing its own
        local = Path(made, task.plan.path)
        with local.open("xb") as file:
            written = Hashed(file)
            offsets = _write_tar(task, written)
        tar = task.context.out.upload(local, task.plan.path, given=Digest(written.size, written.sha256.hexdigest()))
    index = shard_index(task.plan, tar, offsets)
    beside = task.context.out.put(index_path(task.plan.path), index.encode())
    return Shard(shard_entry(index), tar, beside)


class Hashed:
    """A file whose digest is taken on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size, self.sha256 = file, 0, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)


def _write_tar(task: ShardTask, file: Hashed) -> list[int]:
    """Write all members; where each image's bytes begin."""
    offsets: list[int] = []
    for key, image, data in zip(task.plan.keys, task.plan.images, _contents(task), strict=True):
        offsets.append(file.size + BLOCK)
        labels = image.item.labels
        label = (json.dumps({"labels": labels}) if task.multi_label else str(labels[0])).encode()
        file.write(header(f"{key}.{image.seen.ext}", len(data)))
        file.write(data)
        name = f"{key}.{'json' if task.multi_label else 'cls'}"
        file.write(padding(len(data)) + header(name, len(label)) + label + padding(len(label)))
    file.write(end(file.size))
    return offsets


def _contents(task: ShardTask) -> Iterator[bytes]:
    """The bytes of each image as it was checked, in order."""
    images = task.plan.images
    kept = [task.source.costly and task.spool.holds(image.seen.place) for image in images]
    others = task.source.reads([image.item for image, is_kept in zip(images, kept, strict=True) if not is_kept])
    for image, is_kept in zip(images, kept, strict=True):
        data = _kept_or_made(task, image) if is_kept else next(others)
        if isinstance(data, BadImage):
            raise _changed(image, str(data)) from data
        if _digest(data) != image.seen.sha256:
            raise _changed(image, f"its SHA-256 is now {_digest(data)}, it was {image.seen.sha256}")
        yield data


def _kept_or_made(task: ShardTask, image: Image) -> bytes | BadImage:
    kept = task.spool.find(image.seen.place, image.seen.size)
    if kept is not None and _digest(kept) == image.seen.sha256:
        return kept
    return next(task.source.reads([image.item]))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _changed(image: Image, found: str) -> StageError:
    return StageError(
        f"write {image.item.name!r}", f"it changed while it was ingested: {found}", "run again when the source is still"
    )
