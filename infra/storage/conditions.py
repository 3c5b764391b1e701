"""Does a store keep its word on conditional writes? Without them two drivers hold one run, and one record replaces
another in silence; some S3 servers take the headers and do not heed them. Knows the store's protocol, no server.
"""

import secrets
from collections.abc import Callable, Iterator
from functools import partial

from vitpipe.infra.errors import AlreadyExists, Changed, NotFound, StorageError
from vitpipe.infra.storage.store import Store

PROBE = "probe.json"
"""Lies beside a run's lease and stays: a run may not delete there. No record and no listing names it."""
SECOND_CREATE = "its server takes a second `If-None-Match: *` create of one name"
REMEDY = (
    "if the bucket keeps versions, suspend that (in such buckets Ceph 16 heeds no condition), or use another bucket, "
    "server (AWS S3, Ceph, MinIO) or a folder"
)


def require(run: Store) -> None:
    """StorageError unless the bucket of the run in that folder heeds the conditions of a write, tried there.

    Five requests of some bytes, one more the first time; nothing is deleted.
    """
    # what was last written while a bucket kept versions refuses every swap ever after: then another object is asked
    if broken(run, PROBE) and (wrong := broken(run, f"probe-{secrets.token_hex(4)}.json")):
        raise StorageError(f"hold {run.uri}", f"{'; '.join(wrong)}: two drivers could hold one run", REMEDY)


def broken(store: Store, path: str) -> list[str]:
    """What `store` does not keep of its word, tried at `path`, which stays; empty when all is well.

    Several processes may try at one path at once, and it may be left from an earlier look.
    """
    return list(_broken(store, path))


def _broken(store: Store, path: str) -> Iterator[str]:
    def create() -> str:
        return store.create(path, _token())

    if not refused(create, AlreadyExists) and not refused(create, AlreadyExists):
        yield SECOND_CREATE
    try:
        version = _swapped(store, path)
    except NotFound:
        yield "what was created is not there"
        return
    if version is None:
        yield "it refuses a swap (`If-Match`) of the version that is there"
        return
    if store.read_version(path)[1] == version:
        yield "a swap (`If-Match`) that it took changed nothing"
    if not refused(lambda: store.swap(path, _token(), version), Changed):
        yield "it takes a swap (`If-Match`) of a version that is gone"


def refused(ask: Callable[[], object], how: type[StorageError]) -> bool:
    """Whether asking ends with that very refusal."""
    try:
        ask()
    except how:
        return True
    return False


def _swapped(store: Store, path: str) -> str | None:
    """The version that a swap replaced; None when it was refused although no other process had been quicker."""
    version = store.read_version(path)[1]
    while refused(partial(store.swap, path, _token(), version), Changed):
        before, version = version, store.read_version(path)[1]
        if version == before:
            return None
    return version


def _token() -> bytes:
    return b'{"probe": "%s"}' % secrets.token_hex(8).encode()
