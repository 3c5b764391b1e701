"""The commit of a node: `record.json`, written last, created conditionally. Its presence means done.

Knows what makes two records the same result; plans nothing.
"""

import hashlib
import json
from dataclasses import dataclass

from vitpipe.infra.errors import AlreadyExists, Changed, DriftError, IntegrityError, NotFound, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.attempts import Refs, digests
from vitpipe.stages.artifacts import Artifact
from vitpipe.stages.contract import Fence
from vitpipe.stages.record import InputRef, Record, parse_record
from vitpipe.stages.seal import sealed

RECORD = "record.json"


@dataclass(frozen=True)
class Committed:
    """A record as it lies in the store."""

    uri: str
    """The node's folder."""
    record: Record
    data: bytes
    version: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def ref(self) -> InputRef:
        """What a node that takes this artifact remembers of it."""
        return InputRef(uri=self.uri, fingerprint=self.record.fingerprint, record_sha256=self.sha256)

    def artifact(self) -> Artifact:
        return self.record.artifact(self.uri, self.sha256)

    def answers(self, fingerprint: str, inputs: Refs) -> bool:
        """Whether it is the result that is wanted: same fingerprint, same digests of all inputs."""
        return self.record.fingerprint == fingerprint and digests(self.record.inputs) == digests(inputs)


def read_committed(node: Store, id: str = "", name: str = RECORD) -> Committed | None:
    """The record in the folder of the node `id`, or None. UsageError for a newer schema, IntegrityError for damage."""
    try:
        data, version = node.read_version(name)
    except NotFound:
        return None
    return Committed(node.uri, parse_record(data, node.uri, id, name), data, version)


def read_external(uri: str) -> Committed:
    """The record of another run's artifact. UsageError when there is none."""
    found = read_committed(open_store(uri))
    if found is None:
        raise UsageError(
            f"use {uri}", "there is no record.json: nothing is committed there", "check the URI, or run that run first"
        )
    return found


def commit(node: Store, record: Record, fence: Fence, replace: bool = False, anew: bool = False) -> Committed:
    """Make the record true, once; what the store then holds, ours or an equal one that was quicker.

    With `replace` another result's record is kept as `record.{its fence}.json` and ours swapped in; with `anew` also
    one of the same recipe, which was made of other data.
    Errors: LeaseLost; DriftError when another result stands there and may not be replaced.
    """
    data = encode(record)
    fence.check()
    old = read_committed(node, record.node)
    try:
        if old is None:
            return Committed(node.uri, record, data, node.create(RECORD, data))
        if not replace or (old.answers(record.fingerprint, record.inputs) and not anew):
            return _accept(node, record)
        _keep(node, old)
        fence.check()
        return Committed(node.uri, record, data, node.swap(RECORD, data, old.version))
    except (AlreadyExists, Changed):
        return _accept(node, record)


def encode(record: Record) -> bytes:
    """The bytes to commit, with their seal."""
    fields = record.model_dump(mode="json", by_alias=True)
    return sealed(fields) if record.is_sealed else json.dumps(fields, indent=1).encode()


def _accept(node: Store, record: Record) -> Committed:
    """Adopt what stands there: our own, whose answer was lost, or another's with the same result."""
    found = read_committed(node, record.node)
    if found is None:
        raise DriftError(f"commit {node.uri}/{RECORD}", "it was removed meanwhile", "run the same command again")
    if found.answers(record.fingerprint, record.inputs):
        return found
    raise DriftError(
        f"commit {node.uri}/{RECORD}",
        f"that of another recipe stands there, from {found.record.attempt}",
        f"choose another `name`, or run again with --replace {record.node}",
    )


def _keep(node: Store, old: Committed) -> None:
    name = f"record.{old.record.attempt.removeprefix('a').partition('.')[0]}.json"
    try:
        node.create(name, old.data)
    except AlreadyExists:
        if node.read(name) != old.data:  # the same is our own copy, made before we were killed
            raise IntegrityError(
                f"keep the old record as {node.uri}/{name}",
                "another record stands there",
                "leave both where they are, `gc` spares what they name, and run under another `name`",
            ) from None
