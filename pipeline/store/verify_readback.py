"""`artifacts verify --readback`: compare a run's committed shards, as webdataset reads them, with their indexes.

Believes records and indexes, whose digests `verify` has compared before. Opens nothing but the store.
"""

import io

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import IntegrityError
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store import retrieval
from vitpipe.pipeline.store.contents import open_run
from vitpipe.pipeline.store.retrieval import CheckedFile, Progress
from vitpipe.stages.artifacts import File, ShardSet
from vitpipe.stages.images.manifest import ShardEntry, load_index, load_manifest
from vitpipe.stages.images.readback import read_back


def read_shards_back(run_uri: str, node: str | None, progress: Progress) -> list[CheckedFile]:
    """Read every shard of every committed ShardSet, or of one node's; `retrieval.fault` judges the result.

    Errors: UsageError for an unknown run or node; IntegrityError for a damaged record, manifest or index; StorageError.
    """
    run = open_run(run_uri, "verify")
    artifacts = ((id, found.artifact()) for id, found in retrieval.committed_artifacts(run_uri, "verify", node))
    sets = [(id, artifact) for id, artifact in artifacts if isinstance(artifact, ShardSet)]
    work = [(id, shards, entry) for id, shards in sets for entry in load_manifest(shards).shards]
    files = [shards.file(entry.path) for _, shards, entry in work]
    with retrieval.watched(progress, files) as finished:

        def check(one: tuple[str, ShardSet, ShardEntry]) -> CheckedFile:
            id, shards, entry = one
            file = shards.file(entry.path)
            problem = _problem(shards, entry, file, run.child(id))
            finished(file)
            return CheckedFile(id, file.path, file.at, file.bytes, problem)

        return list(answers(check, work, retrieval.FILES_AT_ONCE))


def _problem(shards: ShardSet, entry: ShardEntry, file: File, store: Store) -> str | None:
    index = load_index(shards, entry)
    if (index.tar_bytes, index.sha256) != (file.bytes, file.sha256):
        return "is another tar than its index is of"
    try:
        read_back(_Object(store, file), index, shards.multi_label, shards.uri)
    except IntegrityError as error:
        return f"is to webdataset not what its index says: {error.found}"
    return None


class _Object:
    """A file of the store as a stream, fetched a piece at a time."""

    def __init__(self, store: Store, file: File) -> None:
        self._store, self._file, self._piece, self._next = store, file, io.BytesIO(), 0

    def read(self, size: int) -> bytes:
        data = self._piece.read(size)
        if not data and self._next < self._file.bytes:
            self._piece = io.BytesIO(self._store.read(self._file.at, self._next, retrieval.READ_BYTES))
            self._next += retrieval.READ_BYTES
            data = self._piece.read(size)
        return data
