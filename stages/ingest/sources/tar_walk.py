"""All members of a tar that anyone wrote, and all damage to it: nothing is left out without being told. No torch.

Goes on behind a damaged header and behind an end marker with more after it. Knows names and places, not samples.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

BLOCK = tarfile.BLOCKSIZE
SEARCH_BYTES = 1_048_576
MAX_NAME_BYTES = 65_536
_ZEROS = bytes(BLOCK)
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PAX, _PAX_ALL = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), tarfile.XGLTYPE
_BARE = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class Member:
    """One file in the tar."""

    name: str
    offset: int
    """Where its bytes begin."""
    size: int
    fault: str = ""
    """Why its bytes are not to be had: a link, a sparse file."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A place where something is missing or unreadable."""

    at: int
    text: str
    cut: bool = False
    """Whether the file ends here: how much is missing, it cannot say."""


class ReadableAt(Protocol):
    """The bytes of a tar; a walk reads at rising places, but for half of what it looks through after damage."""

    @property
    def size(self) -> int:
        """How many there are, or more than any file has where nobody knows."""

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start`; fewer where they end."""


def packed_as(window: ReadableAt) -> str | None:
    """The compression that the first bytes are a sign of: places in such a file cannot be reached."""
    start = window.read(0, 8)
    return next((name for sign, name in _PACKED.items() if start.startswith(sign)), None)


def walk(window: ReadableAt) -> Iterator[Member | Damage]:
    """Members and damage in the order of the file."""
    at, ended, pax = 0, False, _Pax()
    while at < window.size:
        block = window.read(at, BLOCK)
        if block == _ZEROS:
            at, ended = at + BLOCK, True
            continue
        if len(block) < BLOCK:
            if block.strip(b"\0") or not ended:
                yield Damage(at, f"the file ends inside a header, {len(block)} of {BLOCK} bytes in", cut=True)
            return
        header = _header(block)
        if header is None:
            found = _next_header(window, at + BLOCK)
            yield Damage(at, f"no header at byte {at}; {found - at} bytes were passed over to the next or the end")
            at, ended, pax = found, found == window.size, _Pax()
            continue
        ended = False
        size = _stored_bytes(header, pax)
        start, end = at + BLOCK, at + BLOCK + size
        if end > window.size:
            name, there = pax.name or header.name, max(0, window.size - start)
            yield Damage(at, f"the file ends inside {name!r}, {there} of {size} bytes in", cut=True)
            return
        at = start + -(-size // BLOCK) * BLOCK
        if header.type in (*_PAX, _PAX_ALL, _LONG_NAME, _LONG_LINK):
            pax = pax.with_record(header.type, window.read(start, min(size, MAX_NAME_BYTES)))
            continue
        if not header.isdir():
            yield Member(pax.name or header.name, start, size, _fault(header, pax))
        pax = _Pax()
    if not ended:
        text = "the file ends without the two empty blocks that end a tar: it may have been cut"
        yield Damage(window.size, text, cut=True)


@dataclass(frozen=True)
class _Pax:
    """What headers before a member say of it."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False

    def with_record(self, kind: bytes, data: bytes) -> "_Pax":
        if kind == _LONG_NAME:
            return _Pax(_text(data.split(b"\0")[0]), self.size, self.sparse)
        if kind not in _PAX:
            return self
        name, size, sparse = self.name, self.size, self.sparse
        for key, value in _records(data):
            if key == b"path":
                name = _text(value)
            elif key == b"size" and value.isdigit():
                size = int(value)
            sparse = sparse or key.startswith(b"GNU.sparse.")
        return _Pax(name, size, sparse)


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`length key=value` lines of a pax header; what does not look so ends them."""
    at = 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        if not space or not length.isdigit() or int(length) <= len(length) + 1:
            return
        key, _, value = data[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        yield key, value
        at += int(length)


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return header if header.size >= 0 else None


def _stored_bytes(header: tarfile.TarInfo, pax: _Pax) -> int:
    """What follows the header; of links, folders and devices nothing, whatever their size field says."""
    if header.type in _BARE:
        return 0
    return pax.size if pax.size is not None and header.isreg() else header.size


def _next_header(window: ReadableAt, at: int) -> int:
    """Where the next header with a good checksum begins, or the end of the file."""
    while at < window.size:
        data = window.read(at, SEARCH_BYTES)
        for start in range(0, len(data) - BLOCK + 1, BLOCK):
            block = data[start : start + BLOCK]
            if block[257:262] == b"ustar" and _header(block) is not None:
                return at + start
        at += SEARCH_BYTES
    return window.size


def _fault(header: tarfile.TarInfo, pax: _Pax) -> str:
    if header.type in _LINKS:
        return f"it is a link to {header.linkname!r}"
    if header.type == tarfile.GNUTYPE_SPARSE or pax.sparse:
        return "it is stored as a sparse file"
    return "" if header.isreg() else f"it is no file (tar type {header.type!r})"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
