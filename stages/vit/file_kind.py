"""The kind of a file of weights by its first bytes. One byte is not enough: formats share it, so the frame is read.

Which kinds may be opened is up to the caller. No torch.
"""

from pathlib import Path
from typing import Literal

FileKind = Literal["safetensors", "zip", "pickle", "other"]

MAX_HEADER_BYTES = 100_000_000
"""Longest header of a safetensors file, by the format's own library."""

_LENGTH_BYTES = 8
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # with files, empty, one part of several
_PICKLE = b"\x80"  # the opcode PROTO, which opens every pickle since protocol 2, and torch's two old formats
_PROTOCOLS = range(2, 6)


def file_kind(path: Path) -> FileKind:
    """Tell the kind of a file by its first bytes. OSError as `open` raises it."""
    with path.open("rb") as file:
        return kind_of(file.read(_LENGTH_BYTES + 1))


def kind_of(start: bytes) -> FileKind:
    """Tell the kind of a file by its first nine bytes.

    safetensors is tried first: the length of its header may begin with any bytes, those of a pickle too, but the brace
    after it is decisive. A file shorter than its header claims is a truncated safetensors file, which its reader
    refuses. Pickles of protocols 0 and 1 have no frame, so they are "other": damaged, to any reader.
    """
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if start[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length <= MAX_HEADER_BYTES:
        return "safetensors"
    if start.startswith(_ZIP):
        return "zip"
    if start[:1] == _PICKLE and len(start) > 1 and start[1] in _PROTOCOLS and start[2:3] != b"\0":  # 0 is no opcode
        return "pickle"
    return "other"
