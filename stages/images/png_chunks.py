"""The chunks of a PNG: where each stands and whether it is whole. Decodes nothing. No torch."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt", b"iCCP"))
"""Chunks of text and of profiles, which decide no pixel here."""
_SIGNATURE_BYTES = 8


class Chunk(NamedTuple):
    """One chunk."""

    kind: bytes
    at: int
    end: int
    """Behind its checksum."""
    is_whole: bool
    """Whether its checksum is right."""


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks up to IEND or to where the file ends inside of one."""
    at = _SIGNATURE_BYTES
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield Chunk(kind, at, end, zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big"))
        if kind == b"IEND":
            return
        at = end


def without_texts(data: bytes) -> bytes:
    """The file without text and profiles; itself where it has none that are whole."""
    cut = [chunk for chunk in chunks(data) if chunk.kind in _TEXTS and chunk.is_whole]
    if not cut:
        return data
    starts, ends = (0, *(chunk.end for chunk in cut)), (*(chunk.at for chunk in cut), len(data))
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True))
