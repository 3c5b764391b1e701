"""The first look at every image: is it sound, what is its content. One task takes a chunk of the listing. No torch."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import IO, NamedTuple

from vitpipe.stages.images.digests import sha256_each
from vitpipe.stages.images.header import BadImage, tried
from vitpipe.stages.images.image_digests import ImageDigests, digest_images
from vitpipe.stages.ingest.listing import ImageReader, Item
from vitpipe.stages.ingest.look.changes import Reencoded
from vitpipe.stages.ingest.look.likeness import views
from vitpipe.stages.ingest.look.spool import Place, Spool
from vitpipe.stages.ingest.look.structure import check_structure

CHUNK_IMAGES = 512
TOGETHER_IMAGES, TOGETHER_BYTES = 64, 32_000_000
"""Files that are looked at together, at most, or until they are so long."""


class SoundImage(NamedTuple):
    """A sound image."""

    sha256: str
    """Digest of its bytes."""
    pixels_sha256: str
    """Digest of its decoded pixels and their shape; of its bytes where it was not decoded."""
    size: int
    ext: str
    width: int
    height: int
    place: Place
    likeness: bytes | None = None
    """How it looks, when that is asked and it looks like anything: whole, then trimmed."""
    reencoded: bool = False
    """Whether its bytes are not the source's."""


@dataclass(frozen=True, slots=True)
class RejectedImage:
    """An image that is set aside."""

    reason: str


@dataclass(frozen=True)
class ScanTask:
    """A chunk of the listing: about `CHUNK_IMAGES` images, or all of a piece that is read as one."""

    number: int
    source: ImageReader
    items: Sequence[Item]
    spool: Spool
    near: bool = False
    """Whether to see how each image looks."""
    decodes: bool = True
    """Whether to decode each image, or only to see that it is whole."""


def scan(task: ScanTask) -> Sequence[SoundImage | RejectedImage]:
    """Look at each image of the chunk, in order. Holds `TOGETHER_IMAGES` at a time, and what its source's reads do."""
    with task.spool.keeping(task.number) if task.source.costly else nullcontext() as kept:
        return _looked_at(task, kept)


def _looked_at(task: ScanTask, kept: IO[bytes] | None) -> list[SoundImage | RejectedImage]:
    seen: list[SoundImage | RejectedImage] = []
    offset = 0
    for files in _together(task):
        for file, content in zip(files, _contents(files, task.decodes), strict=True):
            if isinstance(content, BadImage):
                seen.append(RejectedImage(str(content)))
                continue
            header, size, place = content.header, len(file.data), (task.number, offset)
            shape, changed = (header.width, header.height), isinstance(file.data, Reencoded)
            digests = (content.sha256, content.pixels_sha256)
            seen.append(SoundImage(*digests, size, header.ext, *shape, place, file.looks, changed))
            if kept is not None:
                kept.write(file.data)
                offset += size
    return seen


class _File(NamedTuple):
    """An image's bytes, and how it looks where that is asked; or why it is set aside."""

    data: bytes
    looks: bytes | None = None
    bad: BadImage | None = None


def _together(task: ScanTask) -> Iterator[list[_File]]:
    """The chunk's files, in order, some at a time."""
    read = task.source.reads([item for item in task.items if not item.fault])
    files: list[_File] = []
    size = 0
    for item in task.items:
        data = BadImage(item.fault) if item.fault else next(read)
        files.append(_File(b"", bad=data) if isinstance(data, BadImage) else _file(data, task.near))
        size += len(files[-1].data)
        if len(files) == TOGETHER_IMAGES or size > TOGETHER_BYTES:
            yield files
            files, size = [], 0
    yield files


def _file(data: bytes, near: bool) -> _File:
    try:
        return _File(data, (b"".join(views(data)) or None) if near else None)
    except BadImage as error:
        return _File(data, bad=error)


def _contents(files: Sequence[_File], decodes: bool) -> Iterator[ImageDigests | BadImage]:
    sound = [file.data for file in files if file.bad is None]
    found = iter(digest_images(sound) if decodes else _undecoded(sound))
    return (next(found) if file.bad is None else file.bad for file in files)


def _undecoded(files: Sequence[bytes]) -> Iterator[ImageDigests | BadImage]:
    """With the digest of the bytes in the place of the pixels'."""
    for data, sha256 in zip(files, sha256_each([(b"", data) for data in files]), strict=True):
        header = tried(check_structure, data)
        yield header if isinstance(header, BadImage) else ImageDigests(header, sha256, sha256)
