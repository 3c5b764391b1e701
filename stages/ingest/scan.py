"""The first look at every image: is it sound, what is its content. One task takes a chunk of the listing. No torch."""

import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.images.decode import check_header, decode
from stages.images.header import BadImage, Header
from stages.ingest.likeness import likeness, views
from stages.ingest.listing import Item, Source
from stages.ingest.reencode import Reencoded
from stages.ingest.structure import check_structure

CHUNK_IMAGES = 512


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
    """How it looks, when that is asked and it looks like anything: whole, and if it is held out then trimmed too."""
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
    contents = task.source.reads([item for item in task.items if not item.fault])
    for item in task.items:
        data = BadImage(item.fault) if item.fault else next(contents)
        if isinstance(data, BadImage):
            seen.append(Bad(str(data)))
            continue
        try:
            checked = look(data, (task.number, len(kept)), task.decodes, _looks(data, item) if task.near else None)
        except BadImage as error:
            seen.append(Bad(str(error)))
            continue
        seen.append(checked)
        if task.source.costly:
            kept += data
    if kept:
        task.spool.keep(task.number, bytes(kept))
    return seen


def look(data: bytes, place: tuple[int, int], decodes: bool = True, looks: bytes | None = None) -> Checked:
    """Check the structure, decode if asked, and take the digests of one image. BadImage with the reason."""
    digest = hashlib.sha256(data).hexdigest()
    header, pixels_sha256 = _decoded(data) if decodes else (check_structure(data), digest)
    return Checked(
        digest, pixels_sha256, len(data), header.ext, header.width, header.height, place, looks,
        isinstance(data, Reencoded),
    )  # fmt: skip


def _looks(data: bytes, item: Item) -> bytes | None:
    return b"".join(views(data)) or None if item.is_held_out else likeness(data)


def _decoded(data: bytes) -> tuple[Header, str]:
    """Format and upright size, and the digest of the pixels with their shape."""
    header = check_header(data)
    pixels = decode(data)
    height, width = pixels.shape[:2]
    content = hashlib.sha256(f"{height}x{width}".encode())
    content.update(pixels.data)
    return Header(header.ext, width, height), content.hexdigest()
