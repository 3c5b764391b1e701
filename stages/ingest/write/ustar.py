"""Members of a plain tar with nothing in them that could differ: the bytes that webdataset's TarWriter gives, sooner.

Knows names and bytes, nothing of images.
"""

import tarfile
from functools import lru_cache

BLOCK = tarfile.BLOCKSIZE
_MODE = 0o444
_SIZE_AT, _SIZE_DIGITS, _SUM_AT = 124, 11, 148
_LONGEST = 100


def header(name: str, size: int) -> bytes:
    """The block before a member's data: readable by all, of nobody, at the beginning of time."""
    head, tail, base = _frame()
    encoded = name.encode("ascii")
    if len(encoded) > _LONGEST or size >= 8**_SIZE_DIGITS:
        raise ValueError(f"a member of {size} bytes named {name!r} does not fit a plain header")
    digits = b"%011o" % size
    total = base + sum(encoded) + sum(digits)
    block = b"".join((encoded, head[len(encoded) : _SIZE_AT], digits, tail))
    return b"%s%06o\0%s" % (block[:_SUM_AT], total, block[_SUM_AT + 7 :])


def padding(size: int) -> bytes:
    """Zeros up to the next block."""
    return bytes(-size % BLOCK)


def end(written: int) -> bytes:
    """What closes a tar of so many bytes: two empty blocks, filled up to a whole record."""
    return bytes(2 * BLOCK + -(written + 2 * BLOCK) % tarfile.RECORDSIZE)


@lru_cache(maxsize=1)
def _frame() -> tuple[bytes, bytes, int]:
    """Python's own header of an empty member without a name, around its size; and the sum of its bytes."""
    info = tarfile.TarInfo("")
    info.mode = _MODE
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[_SIZE_AT : _SIZE_AT + _SIZE_DIGITS] = bytes(_SIZE_DIGITS)
    block[_SUM_AT : _SUM_AT + 8] = b" " * 8
    return bytes(block[:_SIZE_AT]), bytes(block[_SIZE_AT + _SIZE_DIGITS :]), sum(block)
