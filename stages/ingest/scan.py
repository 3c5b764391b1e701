"""The first look at every image: is it sound, what is its content. One task takes a chunk of the listing. No torch."""

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.images.decode import Pixels, check_header, decode
from stages.images.digests import Content, sha256_each
from stages.images.header import BadImage, Header
from stages.ingest.likeness import views
from stages.ingest.listing import Item, Source
from stages.ingest.reencode import Reencoded
from stages.ingest.structure import check_structure

CHUNK_IMAGES = 512
TOGETHER = 2
"""Images whose digests are taken at once."""
LARGE_BYTES = 32_000_000
"""An image with more bytes of pixels waits for no other."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A sound image."""

    sha256: str
    """Of its bytes."""
    pixels_sha256: str
    """Of its decoded pixels and their shape; of its bytes where it was not decoded."""
    size: int
    ext: str
    width: int
    height: int
    place: tuple[int, int]
    """Chunk, and offset in what the chunk kept."""
    likeness: bytes | None = None
    """How it looks, when that is asked and it looks like anything: whole, then trimmed."""
    reencoded: bool = False
    """Whether its bytes are not the source's."""


@dataclass(frozen=True, slots=True)
class Bad:
    """An image that is set aside."""

    reason: str


@dataclass(frozen=True)
class Spool:
    """Bytes that were costly to make, kept on the local disk between the first look and the writing.

    Only a shortcut: who finds nothing, or something else than the digest says, makes them again.
    """

    folder: Path

    def keep(self, chunk: int, data: bytes) -> None:
        """Store what the chunk's images take, end to end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / secrets.token_hex(8)
        temporary.write_bytes(data)
        os.replace(temporary, self._path(chunk))

    def holds(self, place: tuple[int, int]) -> bool:
        """Whether the chunk was made on this machine."""
        return self._path(place[0]).is_file()

    def find(self, place: tuple[int, int], size: int) -> bytes | None:
        """What stands at (chunk, offset), or None when the chunk was made on another machine."""
        chunk, offset = place
        try:
            with self._path(chunk).open("rb") as file:
                return os.pread(file.fileno(), size, offset)
        except FileNotFoundError:
            return None

    def _path(self, chunk: int) -> Path:
        return self.folder / f"{chunk:06d}.spool"


@dataclass(frozen=True)
class ScanTask:
    """A chunk of the listing."""

    number: int
    source: Source
    items: tuple[Item, ...]
    spool: Spool
    near: bool = False
    """Whether to see how each image looks."""
    decodes: bool = True
    """Whether to decode each image, or only to see that it is whole."""


def scan(task: ScanTask) -> Sequence[Checked | Bad]:
    """Look at each image of the chunk, in order."""
    seen: list[Checked | Bad] = []
    kept = bytearray()
    for one in _digested(_opened_each(task)):
        if isinstance(one, Bad):
            seen.append(one)
            continue
        opened, sha256, pixels_sha256 = one
        seen.append(
            Checked(
                sha256=sha256,
                pixels_sha256=pixels_sha256,
                size=len(opened.data),
                ext=opened.header.ext,
                width=opened.header.width,
                height=opened.header.height,
                place=(task.number, len(kept)),
                likeness=opened.looks,
                reencoded=isinstance(opened.data, Reencoded),
            )
        )
        if task.source.costly:
            kept += opened.data
    if kept:
        task.spool.keep(task.number, bytes(kept))
    return seen


@dataclass(frozen=True, slots=True)
class _Opened:
    """A sound image before its digests are taken."""

    data: bytes
    header: Header
    """Of the upright image."""
    pixels: Pixels | None
    """Where it was decoded."""
    looks: bytes | None


def _opened_each(task: ScanTask) -> Iterator[_Opened | Bad]:
    contents = task.source.reads([item for item in task.items if not item.fault])
    for item in task.items:
        data = BadImage(item.fault) if item.fault else next(contents)
        if isinstance(data, BadImage):
            yield Bad(str(data))
            continue
        try:
            looks = b"".join(views(data)) or None if task.near else None
            yield _decoded(data, looks) if task.decodes else _Opened(data, check_structure(data), None, looks)
        except BadImage as error:
            yield Bad(str(error))


def _decoded(data: bytes, looks: bytes | None) -> _Opened:
    header = check_header(data)
    pixels = decode(data)
    height, width = pixels.shape[:2]
    return _Opened(data, Header(header.ext, width, height), pixels, looks)


def _digested(images: Iterable[_Opened | Bad]) -> Iterator[tuple[_Opened, str, str] | Bad]:
    """Each with the digests of its bytes and of its pixels, in order; those of two images are taken at once."""
    waiting: list[_Opened | Bad] = []
    for image in images:
        waiting.append(image)
        sound = [one for one in waiting if isinstance(one, _Opened)]
        if len(sound) == TOGETHER or sum(one.pixels.nbytes for one in sound if one.pixels is not None) > LARGE_BYTES:
            yield from _with_digests(waiting)
            waiting.clear()
    yield from _with_digests(waiting)


def _with_digests(images: Sequence[_Opened | Bad]) -> Iterator[tuple[_Opened, str, str] | Bad]:
    sound = [image for image in images if isinstance(image, _Opened)]
    pixels: list[tuple[bytes, Content]] = [
        (f"{one.header.height}x{one.header.width}".encode(), one.pixels) for one in sound if one.pixels is not None
    ]
    found = iter(sha256_each([*pixels, *((b"", one.data) for one in sound)]))
    of_pixels = iter([next(found) for _ in pixels])
    for image in images:
        if isinstance(image, Bad):
            yield image
            continue
        of_bytes = next(found)
        yield image, of_bytes, of_bytes if image.pixels is None else next(of_pixels)
