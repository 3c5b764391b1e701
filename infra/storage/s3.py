"""A store in an S3 bucket, on AWS or whatever speaks its protocol, for `s3://` URIs.

Every call is repeated under a deadline (`infra.retry`); every answer is checked. Knows nothing of runs or records.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from operator import methodcaller
from pathlib import Path
from typing import Any, Self, TypeVar

from vitpipe.infra.errors import AlreadyExists, Changed, NotFound, StorageError
from vitpipe.infra.retry import RetryPolicy, persist
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.landing import Landing
from vitpipe.infra.storage.names import checked, checked_prefix
from vitpipe.infra.storage.s3_client import client, ranged_client
from vitpipe.infra.storage.s3_errors import ERRORS, Doubtful, dated_s, explained, in_brief, passes, status_of
from vitpipe.infra.storage.s3_transfer import (
    PART_BYTES,
    ObjectRange,
    Piece,
    arrived,
    delete_batch,
    get_piece,
    pieces,
    send,
    send_copy,
    send_whole,
    settled,
)
from vitpipe.infra.storage.store import Digest, Entry

T = TypeVar("T")
log = logging.getLogger(__name__)

PAGE_KEYS = 1000
"""Names in one answer to a listing; S3 gives no more."""


@dataclass(frozen=True)
class S3Store:
    """Objects under `s3://bucket/prefix`. See `infra.storage.store.Store` for the meaning of each method."""

    bucket: str
    prefix: str = ""

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def child(self, prefix: str) -> Self:
        return type(self)(self.bucket, self._key(prefix))

    def read(self, path: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        if length == 0:
            return b""
        if start == 0 and length is None and version is None:
            return self.read_version(path)[0]
        return bytes(self._piece(path, start, length, version).data)

    def read_version(self, path: str) -> tuple[bytes, str]:
        piece = settled(lambda: self._piece(path, 0, None))
        if piece is None:
            raise StorageError(f"read {self.uri}/{path}", "no two readings of it agree", "check network and memory")
        return bytes(piece.data), piece.etag

    def size(self, path: str) -> int | None:
        try:
            return int(self._call("look at", path, methodcaller("head_object", **self._at(path)))["ContentLength"])
        except NotFound:
            # a HEAD's 404 has no body to say whether the object or its bucket is missing
            self._call("look for", "", methodcaller("head_bucket", Bucket=self.bucket), bucket_wanted=True)
            return None

    def write(self, path: str, data: bytes) -> Digest:
        self._call("write", path, lambda s3: self._put(s3, path, data))
        return Digest(len(data), sha256(data).hexdigest())

    def create(self, path: str, data: bytes) -> str:
        etag = self._put_if(path, data, IfNoneMatch="*")
        if etag is None:
            raise AlreadyExists(f"create {self.uri}/{path}", "an object of that name is there already")
        return etag

    def swap(self, path: str, data: bytes, version: str) -> str:
        try:
            # radosgw compares the bare string; AWS takes it without its quotes too
            etag = self._put_if(path, data, IfMatch=version.strip('"'))
        except NotFound:
            etag = None
        if etag is None:
            raise Changed(f"replace {self.uri}/{path}", "it was changed or removed since it was read")
        return etag

    def list(self, prefix: str = "", after: str = "") -> Iterator[Entry]:
        behind = {"StartAfter": self._root + after} if after else {}
        for page in self._pages(prefix, Prefix=self._root + checked_prefix(prefix), **behind):
            for item in page.get("Contents", ()):
                if not item["Key"].endswith("/"):  # consoles mark empty folders so
                    etag = item["ETag"].strip('"')
                    yield Entry(item["Key"].removeprefix(self._root), int(item["Size"]), etag, etag)

    def folders(self) -> Iterator[str]:
        for page in self._pages("", Prefix=self._root, Delimiter="/"):
            yield from (item["Prefix"].removeprefix(self._root)[:-1] for item in page.get("CommonPrefixes", ()))

    def copy(self, source: str, target: str) -> None:
        self._call("copy", source, lambda _: send_copy(client(parts=True), self._at(source), self._at(target)))

    def delete(self, path: str) -> None:
        self._call("delete", path, methodcaller("delete_object", **self._at(path)))

    def delete_all(self, paths: Sequence[str], before: Callable[[], object] = bool) -> None:
        for start in range(0, len(paths), PAGE_KEYS):
            keys = [self._key(path) for path in paths[start : start + PAGE_KEYS]]
            before()
            for key in self._call("delete", paths[start], partial(delete_batch, self.bucket, keys)):
                before()
                self.delete(key.removeprefix(self._root))  # alone, it says why it stays, or goes

    def upload(self, local: Path, path: str, given: Digest | None = None) -> Digest:
        at = self._at(path)

        def copy(s3: Any) -> Digest:
            if local.stat().st_size < PART_BYTES:
                return send_whole(s3, local.read_bytes(), at)
            digest = send(client(parts=True), local, at)
            arrived(s3, at, digest.bytes)
            return digest

        try:
            digest = self._call("upload", path, copy)
        except OSError as error:
            raise StorageError(f"upload {local} to {self.uri}/{path}", f"{local}: {error.strerror or error}") from error
        traffic.count("written_bytes", digest.bytes)
        return digest

    def download(self, path: str, local: Path, expect: Digest | None = None) -> Digest:
        def chunks(start: int) -> Iterator[Piece]:
            return pieces(lambda *asked: self._piece(path, *asked), start)

        return Landing(f"{self.uri}/{path}", local, expect).fetch(chunks)

    def _pages(self, prefix: str, **query: Any) -> Iterator[Any]:
        query |= {"Bucket": self.bucket, "MaxKeys": PAGE_KEYS}
        while query:
            page = self._call("list", prefix, methodcaller("list_objects_v2", **query))
            yield page
            query = query | {"ContinuationToken": page["NextContinuationToken"]} if page.get("IsTruncated") else {}

    def sweep(self, older_than_s: float) -> int:
        """Abort uploads in parts that were never completed; how many."""
        query = methodcaller("list_multipart_uploads", Bucket=self.bucket, Prefix=self._root)
        found = self._call("sweep", "", query)
        now = datetime.fromtimestamp(self._server_s(found) + 0.5, UTC)  # the uploads' clock, which tells whole seconds
        old = [part for part in found.get("Uploads", ()) if (now - part["Initiated"]).total_seconds() >= older_than_s]
        for part in old:
            where = {"Bucket": self.bucket, "Key": part["Key"], "UploadId": part["UploadId"]}
            self._call("sweep", part["Key"], methodcaller("abort_multipart_upload", **where))
        return len(old)

    def clock_ahead_s(self) -> float:
        """Seconds by which the server's clock is ahead of this machine's (its answer has whole seconds)."""
        before = time.time()
        answer = self._call("look for", "", methodcaller("head_bucket", Bucket=self.bucket), bucket_wanted=True)
        return self._server_s(answer) - (before + time.time()) / 2

    def _server_s(self, answer: Any) -> float:
        """Return when the server gave that answer, by its own clock, in seconds of the epoch."""
        server_s = dated_s(answer)
        if server_s is None:
            raise StorageError(f"ask {self.uri} for its time", "its answer has no date", "use another server")
        return server_s

    @property
    def _root(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _key(self, path: str) -> str:
        return self._root + checked(path)

    def _at(self, path: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._key(path)}

    def _piece(
        self, path: str, start: int, length: int | None, etag: str | None = None, into: memoryview | None = None
    ) -> ObjectRange:
        at = self._at(path)
        piece = self._call("read", path, lambda s3: get_piece(s3, at, start, length, etag, into), by=ranged_client)
        traffic.count("read_bytes", len(piece.data))
        return piece

    def _put(self, s3: Any, path: str, data: bytes, **condition: str) -> str:
        answer = s3.put_object(**self._at(path), Body=data, **condition)
        if "ETag" not in answer:
            raise Doubtful("the answer to a write has no ETag")
        traffic.count("written_bytes", len(data))
        return str(answer["ETag"]).strip('"')

    def _put_if(self, path: str, data: bytes, **condition: str) -> str | None:
        """Put under a condition; the new ETag, or None when the condition did not hold."""
        tries = 0

        def put(s3: Any) -> str | None:
            nonlocal tries
            tries += 1
            try:
                return self._put(s3, path, data, **condition)
            except ERRORS as error:
                if status_of(error) != 412:
                    raise
            if tries == 1:
                return None
            try:  # an earlier try may have been carried out and only its answer lost
                found, etag = self.read_version(path)
            except NotFound:
                return None
            return etag if found == data else None

        return self._call("write", path, put)

    def _call(
        self, verb: str, path: str, fn: Callable[[Any], T], bucket_wanted: bool = False, by: Callable[[], Any] = client
    ) -> T:
        asked = f"{verb} {self.uri}/{path}".rstrip("/")
        try:
            return persist(
                lambda: fn(by()),
                passes=passes,
                patience=RetryPolicy.from_environment(),
                noticed=lambda error, tries: self._again(asked, error, tries),
            )
        except ERRORS as error:
            raise explained(error, asked, self.bucket, bucket_wanted) from error

    def _again(self, asked: str, error: BaseException, tries: int) -> None:
        traffic.count("retries")
        log.warning("%s: try %d ended with %s; trying again", asked, tries, in_brief(error))
