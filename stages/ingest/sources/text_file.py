"""Small text files that say what images are, labels and names: by their byte-order mark, packed or not. No torch."""

import codecs
import gzip
import zlib
from pathlib import Path

from vitpipe.infra.errors import NotFound, StorageError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.stages.images.header import POINTERS

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
"""Encodings by the first bytes; UTF-32's begin as UTF-16's do."""


def read_text(where: str) -> str:
    """A small text file, local or on S3, its gzip unpacked. UsageError when it is not there or no text.

    StorageError when it cannot be read. Line ends of a local file are line feeds.
    """
    try:
        if "://" in where:
            folder, _, name = where.rpartition("/")
            return decoded(_unpacked(open_store(folder).read(name)))
        return decoded(_unpacked(Path(where).read_bytes())).replace("\r\n", "\n").replace("\r", "\n")
    except NotFound as error:
        raise UsageError(f"read {where}", "no object of that name", "put it back, or correct its name") from error
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UsageError(f"read {where}", str(error.strerror), "put it back, or correct its name") from error
    except OSError as error:
        raise StorageError(f"read {where}", error.strerror or str(error), "let it be read, then run again") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"read {where}", f"it is not {error.encoding.upper()}: {error}", "save it as UTF-8") from error
    except ValueError as error:
        raise UsageError(f"read {where}", f"it is {error}", "save it as text in UTF-8") from error


def decoded(data: bytes) -> str:
    """Text by its byte-order mark, which is no part of it; without one it is UTF-8. UnicodeDecodeError for other bytes.

    ValueError in words for bytes of 0, which no text has.
    """
    if pointer := next((words for begins, words in POINTERS.items() if data.startswith(begins)), ""):
        raise ValueError(pointer)
    if data.startswith(_ZIP):
        raise ValueError("no text but a zip file, as a spreadsheet's own are")
    text = data.decode(next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8"))
    if "\0" in text:
        raise ValueError("no text, or UTF-16 without a byte-order mark: it has bytes of 0")
    return text


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"a damaged gzip file: {error}") from error
