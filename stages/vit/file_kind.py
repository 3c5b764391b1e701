"""What a file of weights is by its first bytes: each format has a frame, and a guess by one byte takes one for another.

Opens nothing: which kinds may be opened is for who asks. No torch.
"""

from pathlib import Path
from typing import Literal

FileKind = Literal["safetensors", "zip", "pickle", "other"]

MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file, by the format's own library."""

_LENGTH_BYTES = 8
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # a file in it, none, a part of several
_PICKLE = b"\x80"  # the opcode PROTO, with which every pickle since protocol 2 begins; torch's two old formats too
_PROTOCOLS = range(2, 6)


def file_kind(path: Path) -> FileKind:
    """Look at the first bytes of a file. OSError as when it is opened."""
    with path.open("rb") as file:
        return kind_of(file.read(_LENGTH_BYTES + 1))


def kind_of(start: bytes) -> FileKind:
    """The kind of a file with these first bytes; nine of them are enough.

    safetensors first: the length of its header is a number like any other, 0x80 at its end and 0x02 before it too, and
    the brace behind it settles it. A header that claims more than the file has is a safetensors file that was cut, and
    for its reader to refuse. Pickles of protocols 0 and 1 have no frame, so they are "other": damaged, to any reader.
    """
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if start[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length <= MAX_HEADER_BYTES:
        return "safetensors"
    if start.startswith(_ZIP):
        return "zip"
    if start[:1] == _PICKLE and len(start) > 1 and start[1] in _PROTOCOLS and start[2:3] != b"\0":  # 0 is no opcode
        return "pickle"
    return "other"
