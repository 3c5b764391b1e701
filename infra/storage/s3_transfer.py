"""How large objects move to and from S3: up through s3transfer in parallel parts, down in parallel ranges.

Both ways the bytes pass once, in order, so that they are hashed as they go. No answer is trusted for pace or length.
"""

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, TypeAlias, cast

from s3transfer.manager import TransferConfig, TransferManager

from vitpipe.infra.at_once import answers
from vitpipe.infra.retry import RetryPolicy
from vitpipe.infra.storage.s3_errors import Doubtful, code_of, passes, status_of
from vitpipe.infra.storage.store import Digest

Piece: TypeAlias = bytes | memoryview
_READ_BYTES = 256 * 1024
PART_BYTES = 8 << 20
MAX_PARTS = 9_000
"""S3 takes 10,000 parts; a larger file gets larger parts."""
COPY_BYTES = 5 << 30
"""The largest object that S3 copies in one request."""
THREADS = 8


@dataclass(frozen=True)
class ObjectRange:
    """Some bytes of an object, and what the answer says about the whole."""

    data: Piece
    etag: str
    total: int
    proven: bool = False
    """The ETag is an MD5 and agrees with the data (whole objects only)."""


def get_piece(
    s3: Any, at: dict[str, str], start: int, length: int | None, etag: str | None, into: memoryview | None = None
) -> ObjectRange:
    """Get `length` bytes from `start`, fewer only where the object ends. Doubtful when the answer is not that.

    With `into`, which has room for them, they are written there and are the beginning of it.
    """
    whole = start == 0 and length is None
    query: dict[str, Any] = dict(at)
    if not whole:
        query["Range"] = f"bytes={start}-" + (str(start + length - 1) if length is not None else "")
    if etag is not None:
        query["IfMatch"] = etag
    try:
        answer = s3.get_object(**query)
    except s3.exceptions.ClientError as error:
        if status_of(error) == 416 or code_of(error) == "InvalidRange":  # begins at or after the end
            return ObjectRange(b"", "", start)
        raise
    data = _body(answer, RetryPolicy.from_environment(), into)
    if "ETag" not in answer:
        raise Doubtful("the answer to a read has no ETag")
    found_etag = answer["ETag"].strip('"')
    if whole:
        proven = hashlib.md5(data, usedforsecurity=False).hexdigest() == found_etag
        return ObjectRange(data, found_etag, len(data), proven)
    return ObjectRange(data, found_etag, _total(answer, start, length, len(data)))


def _body(answer: Any, patience: RetryPolicy, into: memoryview | None) -> Piece:
    """Read a GetObject's body whole. Doubtful when it is not as long as announced or comes too slowly.

    botocore checks neither the pace nor, read in pieces, the length.
    """
    if "ContentLength" not in answer:
        raise Doubtful("the answer to a read does not say its length")
    announced = int(answer["ContentLength"])
    if into is not None and announced > len(into):
        raise Doubtful(f"{announced} bytes were announced where {len(into)} were asked for")
    chunks, received = list[bytes](), 0
    window_start, window_bytes = time.monotonic(), 0
    with answer["Body"] as stream:
        # read1 gives what has arrived; StreamingBody.read would wait for all of it, byte by byte if need be
        while chunk := stream.read1(_READ_BYTES):
            begin, received = received, received + len(chunk)
            if into is None:
                chunks.append(chunk)
            elif received <= announced:
                into[begin:received] = chunk
            seconds = time.monotonic() - window_start
            if seconds > patience.stall_s:
                pace = (received - window_bytes) / seconds
                if pace < patience.floor_bytes_per_s:
                    raise Doubtful(f"the body came at {pace:.0f} bytes/s")
                window_start, window_bytes = time.monotonic(), received
    if received != announced:
        raise Doubtful(f"the body ended after {received} of {announced} bytes")
    return b"".join(chunks) if into is None else into[:received]


def _total(answer: Any, start: int, length: int | None, received: int) -> int:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.get("ContentRange", ""))
    if not match:
        raise Doubtful("the answer to a ranged read does not say its range")
    first, last, total = map(int, match.groups())
    wanted = total - start if length is None else min(length, total - start)
    if (first, last + 1 - first, received) != (start, wanted, wanted):
        raise Doubtful(f"bytes {first}-{last} came where {wanted} bytes from {start} were asked for")
    return total


def settled(get: Callable[[], ObjectRange]) -> ObjectRange | None:
    """Believe a whole object whose ETag is its MD5; else read until two readings agree, for no bit flip comes twice.

    (The ETag is no MD5 for large uploads, under KMS encryption, or on some servers.) None when none ever agree.
    """
    piece = get()
    for _ in range(4):
        if piece.proven:
            return piece
        before, piece = piece, get()
        if piece == before:
            return piece
    return None


def pieces(get: Callable[[int, int, str | None, memoryview | None], ObjectRange], start: int) -> Iterator[Piece]:
    """Yield the bytes of one object from `start` in order, several ranges in flight at once, all of one version.

    Each piece is overwritten once the next is asked for.
    """
    first = get(start, PART_BYTES, None, None)
    yield first.data
    starts = range(start + PART_BYTES, first.total, PART_BYTES)
    spare = SimpleQueue[mmap]()  # fresh memory for each would cost as much as all else but the hash
    for _ in range(min(THREADS, len(starts))):
        spare.put(mmap(-1, PART_BYTES))

    def ask(at: int) -> tuple[ObjectRange, mmap]:
        buffer = spare.get()
        try:
            return get(at, PART_BYTES, first.etag, memoryview(buffer)), buffer
        except BaseException:
            spare.put(buffer)  # for those behind, which the pool waits for before it lets the error out
            raise

    for piece, buffer in answers(ask, starts, THREADS):
        yield piece.data
        spare.put(buffer)


class _Hashed:
    """A file that is hashed as it is read. It cannot seek, so that s3transfer reads it once, in order."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def read(self, amount: int = -1) -> bytes:
        data = self._file.read(amount)
        self._sha256.update(data)
        self._bytes += len(data)
        return data

    def digest(self) -> Digest:
        return Digest(self._bytes, self._sha256.hexdigest())


def send_copy(s3: Any, source: dict[str, str], target: dict[str, str]) -> None:
    """Copy an object inside the server: in one request as far as S3 allows that, in parts above."""
    size = int(s3.head_object(**source)["ContentLength"])
    part_bytes = max(PART_BYTES, math.ceil(size / MAX_PARTS))
    config = TransferConfig(
        multipart_threshold=COPY_BYTES, multipart_chunksize=part_bytes, max_request_concurrency=THREADS
    )
    with TransferManager(s3, config) as manager:
        manager.copy(source, target["Bucket"], target["Key"]).result()
    arrived(s3, target, size)


def delete_batch(bucket: str, keys: Sequence[str], s3: Any) -> list[str]:
    """Delete up to a thousand objects in one request; those that stay, which is all where the server takes none such.

    A key that is refused, or that S3 was too busy for, is told in an answer that is a success.
    """
    if len(keys) == 1:
        return list(keys)
    asked = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
    try:
        answer = s3.delete_objects(Bucket=bucket, Delete=asked)
    except s3.exceptions.ClientError as error:
        if passes(error):
            raise
        return list(keys)
    stay = {failed.get("Key") for failed in answer.get("Errors", ())}
    return [key for key in keys if key in stay] if stay <= set(keys) else list(keys)


def send_whole(s3: Any, data: bytes, at: dict[str, str]) -> Digest:
    """Upload what is in memory in one request; the answer proves that it arrived, or the object is looked at.

    The ETag is the MD5 of what the server has, except under KMS encryption and on some servers.
    """
    answer = s3.put_object(**at, Body=data)
    if "ETag" not in answer:
        raise Doubtful("the answer to a write has no ETag")
    if str(answer["ETag"]).strip('"') != hashlib.md5(data, usedforsecurity=False).hexdigest():
        arrived(s3, at, len(data))
    return Digest(len(data), hashlib.sha256(data).hexdigest())


def arrived(s3: Any, at: dict[str, str], size: int) -> None:
    """Look at an object that was sent. Doubtful when it has another size."""
    stored = int(s3.head_object(**at)["ContentLength"])
    if stored != size:
        raise Doubtful(f"{stored} of {size} bytes arrived")


def send(s3: Any, local: Path, at: dict[str, str]) -> Digest:
    """Upload a file, in parallel parts when it is large; the digest of the bytes that were sent.

    `s3` is a client that itself tries a part again: one lost part of a thousand must not cost the others.
    """
    part_bytes = max(PART_BYTES, math.ceil(local.stat().st_size / MAX_PARTS))
    config = TransferConfig(
        multipart_threshold=part_bytes, multipart_chunksize=part_bytes, max_request_concurrency=THREADS
    )
    with local.open("rb") as file, TransferManager(s3, config) as manager:
        source = _Hashed(file)
        manager.upload(cast(BinaryIO, source), at["Bucket"], at["Key"]).result()
    return source.digest()
