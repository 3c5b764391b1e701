"""A file from its beginning to its end, packed or not, in pieces that are let go again. No torch; knows no tar."""

import hashlib
import sys
import zlib
from collections.abc import Iterator

from vitpipe.infra.at_once import answers
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.tar_contents import broken
from vitpipe.stages.ingest.sources.window import store_of

FETCH_BYTES = 8_388_608
FETCHES = 3
"""Requests under way, or answered and not used yet."""
KEPT_BYTES = 2_097_152
"""How far back one may go: what looks for the next header of a damaged tar reads half of it ahead."""
_GZIP = b"\x1f\x8b"
_GZIP_AND_HEADER = 31


class PackedFile:
    """One file that is read once; its digest is known when it is at its end."""

    def __init__(self, file: SourceFile) -> None:
        self._file, self._sha256 = file, hashlib.sha256()
        self.taken = 0
        """Bytes of the file that were used."""

    @property
    def sha256(self) -> str:
        """Digest of all that was read."""
        return self._sha256.hexdigest()

    def raw(self) -> Iterator[bytes]:
        """Its bytes as they are."""
        file, store = self._file, store_of(self._file.folder)

        def fetch(start: int) -> bytes:
            length = min(FETCH_BYTES, file.size - start)
            return store.read(file.path, file.start + start, length, file.version)

        for data in answers(fetch, range(0, file.size, FETCH_BYTES), at_once=FETCHES):
            self._sha256.update(data)
            self.taken += len(data)
            yield data
        if self.taken < file.size:
            raise broken(file, f"it became shorter: {self.taken} of {file.size} bytes")

    def plain(self) -> Iterator[bytes]:
        """Its bytes, unpacked if they are gzip. IntegrityError where that is damaged or does not end."""
        raw = self.raw()
        first = next(raw, b"")
        if not first.startswith(_GZIP):
            yield first
            yield from raw
            return
        unpacker, ended = zlib.decompressobj(_GZIP_AND_HEADER), False
        data = first
        try:
            while data or (data := next(raw, b"")):
                if ended:  # files of gzip may stand one after another, and zeros behind them
                    data = data.lstrip(b"\0")
                    if not data:
                        continue
                    unpacker, ended = zlib.decompressobj(_GZIP_AND_HEADER), False
                plain = unpacker.decompress(data, FETCH_BYTES)
                data, ended = unpacker.unconsumed_tail or unpacker.unused_data, unpacker.eof
                if plain:
                    yield plain
            if not ended:
                yield unpacker.flush()
                ended = unpacker.eof
        except zlib.error as error:
            raise broken(self._file, f"its compression is damaged near byte {self.taken}: {error}") from error
        if not ended:
            raise broken(self._file, f"its compression does not end within its {self._file.size} bytes")


class ForwardWindow:
    """Reads at rising places of bytes that come once; back only to what is kept. Its size nobody knows before."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.size = sys.maxsize
        self._pieces, self._kept, self._begins = pieces, bytearray(), 0
        self.passed = 0
        """Bytes that came."""

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start`; fewer where they end."""
        if start < self._begins:
            raise ValueError(f"byte {start} was let go, {self._begins} is the first that is kept")
        while self.passed < start + length and (piece := next(self._pieces, None)) is not None:
            self._kept += piece
            self.passed += len(piece)
            gone = min(len(self._kept), max(0, start - KEPT_BYTES - self._begins))
            del self._kept[:gone]
            self._begins += gone
        at = start - self._begins
        return bytes(self._kept[at : at + length])
