"""Try whether a store honours conditional writes. Without them two drivers hold one run, and one record silently
replaces another; some S3 servers accept the headers and ignore them. Knows the store's protocol, no server.
"""

import secrets
from collections.abc import Callable, Iterator
from functools import partial

from vitpipe.infra.errors import AlreadyExists, Changed, NotFound, StorageError
from vitpipe.infra.storage.store import Store

PROBE = "probe.json"
"""An object beside a run's lease. It stays, for a run may not delete there; no record and no listing names it."""
SECOND_CREATE = "its server takes a second `If-None-Match: *` create of one name"
REMEDY = (
    "if the bucket keeps versions, suspend that (in such buckets Ceph 16 heeds no condition), or use another bucket, "
    "server (AWS S3, Ceph, MinIO) or a folder"
)


def require(run: Store) -> None:
    """Raise StorageError unless the run's bucket honours conditional writes, tried in the run's folder.

    Five requests of some bytes, one more the first time; nothing is deleted.
    """
    # an object last written while the bucket kept versions refuses every swap from then on: then another one is tried
    if list(broken(run, PROBE)) and (wrong := list(broken(run, f"probe-{secrets.token_hex(4)}.json"))):
        raise StorageError(f"hold {run.uri}", f"{'; '.join(wrong)}: two drivers could hold one run", REMEDY)


def broken(store: Store, path: str) -> Iterator[str]:
    """Yield the promises that `store` breaks, tried at `path`, which stays; nothing when all is well.

    Several processes may try at one path at once, and the object may be left from an earlier time.
    """

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


def round_trip(store: Store, path: str) -> Iterator[str]:
    """Yield the promises that a store breaks, conditional or not, tried at `path` as a run would; then delete it."""
    try:
        yield from broken(store, path)
        store.write(path, b"first")
        if store.read(path) != b"first" or store.read(path, 1, 3) != b"irs":
            yield "what is written does not read back"
        if [entry.path for entry in store.list(path)] != [path]:
            yield "what is written is not listed"
    finally:
        store.delete(path)


def refused(ask: Callable[[], object], how: type[StorageError]) -> bool:
    """Whether `ask` raises that very error."""
    try:
        ask()
    except how:
        return True
    return False


def _swapped(store: Store, path: str) -> str | None:
    """Return the version that a swap replaced; None when it was refused although no other process was quicker."""
    version = store.read_version(path)[1]
    while refused(partial(store.swap, path, _token(), version), Changed):
        before, version = version, store.read_version(path)[1]
        if version == before:
            return None
    return version


def _token() -> bytes:
    return b'{"probe": "%s"}' % secrets.token_hex(8).encode()
