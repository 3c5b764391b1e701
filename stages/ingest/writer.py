"""Writing one shard: webdataset's tar with nothing in it that could differ, and its index. One task each.

Any `wds.WebDataset(...).decode("pil").to_tuple("jpg;jpeg;png;webp", "cls;json")` reads the tars.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from webdataset import TarWriter

from infra.errors import StageError
from stages.images.header import BadImage
from stages.images.manifest import index_path
from stages.ingest.select import Image
from stages.ingest.shard import Shard, ShardTask, shard_entry, shard_index


def write_shard(task: ShardTask) -> Shard:
    """Write the tar here, send it to the store, then its index: the sign that the shard is whole.

    StageError when an image is no longer what it was at the first look.
    """
    task.context.scratch.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(
        dir=task.context.scratch, suffix=".tar"
    ) as file:  # a lost twin may still be writing its own
        offsets = _write_tar(task, file)
        file.flush()
        tar = task.context.out.upload(Path(file.name), task.plan.path)
    index = shard_index(task.plan, tar, offsets)
    written = task.context.out.put(index_path(task.plan.path), index.encode())
    return Shard(shard_entry(index), tar, written)


def _write_tar(task: ShardTask, file: IO[bytes]) -> list[int]:
    """Write all members; where each image's bytes begin."""
    offsets: list[int] = []
    # bytes as they are, and nothing of this machine or moment: equal plans are equal tars
    with TarWriter(file, encoder=False, mtime=0, user="", group="") as tar:
        for key, image, data in zip(task.plan.keys, task.plan.images, _contents(task), strict=True):
            offsets.append(tar.tarstream.offset + tarfile.BLOCKSIZE)
            tar.write({"__key__": key, image.seen.ext: data})  # apart from its label: within one call names are sorted
            if task.multi_label:
                tar.write({"__key__": key, "json": json.dumps({"labels": image.item.labels}).encode()})
            else:
                tar.write({"__key__": key, "cls": str(image.item.labels[0]).encode()})
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
