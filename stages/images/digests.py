"""SHA-256 of several contents at once by our C extension: two in the time of one, or sixteen, as the CPU allows.

Digests equal hashlib's, which is used where the extension is not built. No torch.
"""

import ctypes
import hashlib
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vitpipe.stages.images.extension import Extension, loaded_extension

Bytes = bytes | npt.NDArray[np.uint8]
"""Bytes, or a contiguous array."""

BLOCK = 64
"""Bytes that SHA-256 takes at a time."""
_START = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)


def sha256_each(contents: Sequence[tuple[bytes, Bytes]]) -> list[str]:
    """Digest each head, shorter than a block, followed by its body."""
    extension = sha256_extension()
    if extension is None:
        return [_by_hashlib(head, body) for head, body in contents]
    return sha256_by_extension(extension, contents)


def sha256_by_extension(extension: Extension, contents: Sequence[tuple[bytes, Bytes]]) -> list[str]:
    """As `sha256_each`, on a CPU that has the instructions."""
    messages = (_Message * len(contents))(*(_message(head, body) for head, body in contents))
    extension.sha256(messages)
    return [_hex(message.state) for message in messages]


def has_instructions(extension: Extension) -> bool:
    """Whether this CPU has the instructions that the extension needs for SHA-256."""
    return extension.sha256((_Message * 0)())


def sha256_extension() -> Extension | None:
    """The extension, where it is built and this CPU has the instructions; else None."""
    extension = loaded_extension()
    return extension if extension is not None and has_instructions(extension) else None


class RunningDigest:
    """A digest of blocks as they come, which also digests a part of each `add` at little cost."""

    def __init__(self, extension: Extension | None = None) -> None:
        self._extension = extension or sha256_extension()
        self._by_hashlib = hashlib.sha256()
        self._both = (_Message * 2)(_message(b"", b"", goes_on=1))
        self._running, self._part = self._both
        self._words = (ctypes.c_uint64 * (2 * _MESSAGE_WORDS)).from_buffer(self._both)

    def add(self, blocks: bytes, start: int = 0, size: int = 0) -> str:
        """Take in `blocks`, a multiple of 64 bytes. Returns the digest of `size` bytes of them from `start`.

        Fastest where `size` is a multiple of 64 too. ValueError for other blocks, and for a part outside of them.
        """
        if len(blocks) % BLOCK:
            raise ValueError(f"{len(blocks)} bytes are not a multiple of {BLOCK}")
        if not 0 <= start <= start + size <= len(blocks):
            raise ValueError(f"{size} bytes from {start} are not within {len(blocks)}")
        if self._extension is None:
            self._by_hashlib.update(blocks)
            return hashlib.sha256(memoryview(blocks)[start : start + size]).hexdigest()
        running, part = self._running, self._part
        running.body, running.body_size = blocks, len(blocks)
        self._words[_MESSAGE_WORDS + _BODY_WORD] = self._words[_BODY_WORD] + start
        part.body_size, part.state = size, _START
        self._extension.sha256(self._both)
        running.before += len(blocks)
        return _hex(part.state)

    def hexdigest(self) -> str:
        """The digest of all blocks so far."""
        if self._extension is None:
            return self._by_hashlib.hexdigest()
        last = (_Message * 1)(_message(b"", b"", tuple(self._running.state), self._running.before))
        self._extension.sha256(last)
        return _hex(last[0].state)


class _Message(ctypes.Structure):
    """`struct message` of native/sha256.c."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("head", "body")),
        *((name, ctypes.c_uint64) for name in ("head_size", "body_size", "before", "goes_on")),
        ("state", ctypes.c_uint32 * 8),
    )


_MESSAGE_WORDS, _BODY_WORD = ctypes.sizeof(_Message) // 8, _Message.body.offset // 8
"""Words of 8 bytes in a message, and which of them is the address of its body."""


def _message(head: bytes, body: Bytes, state: tuple[int, ...] = _START, before: int = 0, goes_on: int = 0) -> _Message:
    """Describe a message to the extension; the caller keeps `head` and `body` alive until it is digested."""
    if len(head) >= BLOCK:
        raise ValueError(f"a head of {len(head)} bytes is not shorter than {BLOCK}")
    if isinstance(body, bytes):
        return _Message(head, body, len(head), len(body), before, goes_on, state)
    return _Message(head, body.ctypes.data, len(head), body.nbytes, before, goes_on, state)


def _hex(state: "ctypes.Array[ctypes.c_uint32]") -> str:
    """Write a final state as a hexadecimal digest."""
    return struct.pack(">8I", *state).hex()


def _by_hashlib(head: bytes, body: Bytes) -> str:
    digest = hashlib.sha256(head)
    digest.update(body if isinstance(body, bytes) else body.data)
    return digest.hexdigest()
